"""What a DHCPv6 client leaves on the host, and what anyipd made of it: without a client, for faults."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from anyipd import here
from anyipd.model import Prefix
from tests.lab.local_routes import local_routes
from tests.lab.namespace import Namespace

PREFIX = "2001:db8:100::/60"


OURS = "-6 route show table local type local proto 150"
"""The words for `ip` that show the local routes of anyipd's."""


def delegate(host: Namespace, prefix: str = PREFIX) -> None:
    """Do what systemd-networkd does with a delegated prefix."""
    host.ip(f"-6 route add unreachable {prefix} dev lo proto dhcp metric 1024")


def bound(host: Namespace, length: int = 64) -> set[str]:
    """Give every prefix of a length that local routes of anyipd's hold; a route that is longer is itself.

    Which routes these are is anyipd's own business.
    """
    return set(map(str, covered(local_routes(host), length)))


def destinations(host: Namespace) -> list[str]:
    """Give those of anyipd's local routes, in order."""
    return list(map(str, local_routes(host)))


def covered(routes: Iterable[Prefix], length: int = 64) -> Iterator[Prefix]:
    """Give the same of the destinations of routes, in their order."""
    for prefix in routes:
        step = 1 << prefix.width - max(length, prefix.length)
        for address in range(prefix.address, prefix.end, step):
            yield Prefix(address, max(length, prefix.length), prefix.width)


def touched(before: Iterable[str], changes: Iterable[str]) -> set[str]:
    """Give the prefixes that were bound at one time and not at another.

    `before` are the destinations of anyipd's local routes then, `changes` as `ip monitor` tells them. A
    subnet is bound all the time where another route holds it before one goes.
    """
    table, found = set(map(Prefix.parse, before)), set[Prefix]()
    for change in changes:
        gone, kind, destination = change.startswith("Deleted "), *change.removeprefix("Deleted ").split()[:2]
        if kind == "local" and "table local proto 150" in change:
            prefix = Prefix.parse(destination)
            if gone or prefix not in table:
                found |= set(lacking(prefix, table - {prefix}))
            table = table - {prefix} if gone else table | {prefix}
    return set(map(str, found))


def lacking(prefix: Prefix, table: Collection[Prefix]) -> Iterator[Prefix]:
    """Give the parts of a prefix that no route of a table holds."""
    inside = [each for each in table if prefix.covers(each)]
    if any(each.covers(prefix) for each in table):
        return
    if inside:
        low = prefix._replace(length=prefix.length + 1)
        for half in (low, low._replace(address=low.end)):
            yield from lacking(half, inside)
    else:
        yield prefix


def holder(host: Namespace, subnet: str | Prefix) -> str:
    """Give the destination of the route that a subnet is bound by, maybe with others."""
    [route] = host.ip_json(f"{OURS} match {subnet}")
    return str(route["dst"])


def take_away(host: Namespace, subnet: str | Prefix) -> None:
    """Remove the route that a subnet is bound by."""
    host.ip(f"-6 route delete local {holder(host, subnet)} dev lo table local proto 150")


def subnets(delegated: str, count: int) -> set[str]:
    """Give the first /64s of a prefix."""
    first = Prefix.parse(delegated).address
    return {str(Prefix(first + (number << 64), 64)) for number in range(count)}


_last_second = 0


def next_second() -> int:
    """Give the second in which the next Reply comes: two in one would be the same to anyipd."""
    global _last_second  # noqa: PLW0603  a clock
    _last_second = max(int(time.time()), _last_second + 1)
    return _last_second


def take_back(runtime: Path, name: str = "one", **changed: Any) -> None:  # noqa: ANN401  as write_lease
    """Write what the hook does when the client or the server takes a prefix back."""
    write_lease(runtime, name, preferred_lifetime=0, valid_lifetime=0, reason="RELEASE6", **changed)


def write_lease(runtime: Path, name: str = "one", modified: float | None = None, **changed: object) -> Path:
    """Write a lease file as the hook does, whole and renamed into place, without its message.

    `modified` is its time stamp, seconds of a wall clock, where that is not the time now. Of another network
    namespace than the caller's nothing is known here, so it says none.
    """
    fields = {
        "client": "dhclient",
        "prefix": PREFIX,
        "uplink": "uplink",
        "iaid": "00:00:00:01",
        "life_starts": next_second(),
        "preferred_lifetime": 1000,
        "valid_lifetime": 2000,
        "uptime": f"{time.clock_gettime(time.CLOCK_BOOTTIME):.2f}",
        "reason": "RENEW6",
        "pid": 4711,
        "netns": "",
        "boot": here.boot(),
    } | changed
    leases = runtime / "leases"
    leases.mkdir(exist_ok=True)
    (leases / f".{name}").write_text("".join(f"{key}={value}\n" for key, value in fields.items()))
    if modified is not None:
        os.utime(leases / f".{name}", (modified, modified))
    return (leases / f".{name}").rename(leases / name)
