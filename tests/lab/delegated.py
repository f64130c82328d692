"""What a DHCPv6 client leaves on the host, and what anyipd made of it: without a client, for faults."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from anyipd import here
from anyipd.model import Prefix
from tests.lab.namespace import Namespace

PREFIX = "2001:db8:100::/60"


def delegate(host: Namespace, prefix: str = PREFIX) -> None:
    """Do what systemd-networkd does with a delegated prefix."""
    host.ip(f"-6 route add unreachable {prefix} dev lo proto dhcp metric 1024")


def bound(host: Namespace) -> set[str]:
    """Give the destinations of all local routes of anyipd's."""
    return {route["dst"] for route in host.ip_json("-6 route show table local proto 150")}


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
