"""systemd-networkd: what it says itself of the prefixes that are delegated to it.

In: `Describe`, JSON over D-Bus, the public interface of networkd that is kept from systemd 252 to 257
and behind `networkctl --json`. Out: leases. From 255 on it tells of every delegated prefix, and of each link
whether it has a DHCPv6 client there; before, of the valid lifetime of its discard routes, and nothing of a
delegated /64, for which it has none.

That it does not tell of a prefix any more means nothing: the link lost its carrier, or networkd was started
anew. But where it had a client, and the same networkd has none now on the same link, with its carrier all the
time, the client was stopped, and took everything back.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from anyipd.kernel import wire
from anyipd.model import INFINITE, Lease, Prefix
from anyipd.observe import dbus

RESTLESS, RESTFUL = 0.5, 10.0
"""Seconds until it is asked again, at least and at most: neither a renewal nor a /64 brings an event."""

MAX_LEASES = 1000
"""Leases of a link that are kept in mind: a server may delegate thousands of prefixes."""

_NAME, _PATH = "org.freedesktop.network1", "/org/freedesktop/network1"
_MANAGER = "org.freedesktop.network1.Manager"
_DISCARDS = set(wire.DISCARDS.values())
_MANAGED = {"configuring", "configured"}
_CARRIER = {"carrier", "degraded-carrier"}


class Link(NamedTuple):
    """A link as networkd describes it.

    `number` is its interface index, `managed` whether networkd configures it, `client` that of DHCPv6.
    """

    number: int
    name: str
    managed: bool
    carrier: bool
    client: bool


class Said(NamedTuple):
    """What networkd said at a time, in CLOCK_BOOTTIME; `by` is another one after every start of it."""

    by: str
    at: float
    leases: list[Lease]
    links: list[Link]


class Networkd:
    """What networkd said last, and what its clients took back: leases with a lifetime of 0."""

    def __init__(self) -> None:
        self.leases: list[Lease] = []
        self._known: dict[tuple[Prefix, str | None], Lease] = {}  # also what it does not say now
        self._clients: dict[int, str] = {}  # by interface index: the networkd that had one there
        self.understood = True
        self.found = False  # so far

    def is_silent(self) -> None:
        """Take note that it did not answer in time: it exists, and all that it said holds as before."""
        self.found = True

    def take(self, said: Said | None) -> bool:
        """Take note of what it said, None where it was not there; say whether that changed anything."""
        if said is None:
            return False
        self.found = True
        before, stopped = self.leases, self._stopped(said)
        # The discard route of what a link's client was delegated outlives the client by a moment.
        told = {prefix for prefix, uplink in self._known if uplink}
        leases = [lease for lease in said.leases if lease.uplink or lease.prefix not in told]
        # Of too many those stay that were there before.
        leases = _limited(sorted(leases, key=lambda lease: _key(lease) not in self._known))
        said_now = [_as_known(lease, self._known.pop(_key(lease), None)) for lease in leases]
        not_said = [
            _taken_back(lease, said.at) if lease.uplink in stopped else lease
            for lease in sorted(self._known.values(), key=attrgetter("written"), reverse=True)
            if lease.lifetime == 0 or lease.valid_until > said.at
        ]
        self._known = {_key(lease): lease for lease in _limited([*said_now, *not_said])}
        self.leases = said_now + [lease for lease in self._known.values() if lease.lifetime == 0]
        return self.leases != before

    def _stopped(self, said: Said) -> set[str | None]:
        """Return the links whose client was stopped, and keep in mind those that have one."""
        stopped: set[str | None] = set()
        for link in said.links:
            if not link.carrier:
                self._clients.pop(link.number, None)
            elif link.client:
                self._clients[link.number] = said.by
            # While it configures a link anew it does not manage it for a moment.
            elif link.managed and self._clients.pop(link.number, None) == said.by:
                stopped.add(link.name)
        return stopped

    def ask_again_after(self, now: float) -> float:
        """Seconds until it should be asked again: in time for every renewal to be seen.

        INFINITE where it never was there: it does not come without an address of a link coming or going.
        """
        if not self.found and self.understood:
            return INFINITE
        left = [end - now for end in (lease.valid_until for lease in self.leases) if end > now]
        return min(max(min(left, default=INFINITE) / 8, RESTLESS), RESTFUL)


def _key(lease: Lease) -> tuple[Prefix, str | None]:
    return lease.prefix, lease.uplink


def _limited(leases: Iterable[Lease]) -> list[Lease]:
    """Return the first MAX_LEASES of each link."""
    count = Counter[str | None]()
    limited = []
    for lease in leases:
        count[lease.uplink] += 1
        if count[lease.uplink] <= MAX_LEASES:
            limited.append(lease)
    return limited


def _as_known(lease: Lease, known: Lease | None) -> Lease:
    """Return the known one, where this is the same but for the time at which we asked."""
    same = known and known == replace(lease, written=known.written, reply=known.reply)
    return known if known and same else lease


def _taken_back(lease: Lease, now: float) -> Lease:
    if lease.lifetime == 0:
        return lease
    end = min(lease.valid_until, now)
    return replace(lease, written=now, lifetime=0, preferred_until=end, valid_until=end)


def ask(now: float) -> Said | None:
    """Ask networkd at `now`, in CLOCK_BOOTTIME; None where there is none in this network namespace.

    It waits for the answer, a second a step at most. Raises TimeoutError where none comes, from a networkd
    that is busy or hangs, and ValueError, with the reason, for one that is not understood.
    """
    try:
        with dbus.Bus() as bus:
            where = bus.call(_NAME, _PATH, "org.freedesktop.DBus.Properties", "Get", _MANAGER, "NamespaceId")
            if dbus.number(where.body) != Path("/proc/self/ns/net").stat().st_ino:
                return None
            answer = bus.call(_NAME, _PATH, _MANAGER, "Describe")
    except TimeoutError:
        raise TimeoutError("networkd does not answer") from None
    except (OSError, dbus.CallError):
        return None
    return parse(dbus.text(answer.body), now, answer.sender)


def parse(description: str, now: float, by: str) -> Said:
    """Find the delegated prefixes and the links in what `Describe` gave at `now`, in CLOCK_BOOTTIME.

    Raises ValueError where it is not as expected.
    """
    try:
        described = json.loads(description)
        links = [_link(each) for each in described["Interfaces"]]
        leases = [lease for each in described["Interfaces"] for lease in _of_client(each)]
        told = {lease.prefix for lease in leases}
        routes = [_of_route(each, now) for each in described.get("Routes", []) if _is_discard(each)]
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"networkd describes itself in a way not known: {error!r}") from None
    return Said(by, now, leases + [lease for lease in routes if lease.prefix not in told], links)


def _link(interface: dict[str, Any]) -> Link:
    number, name = interface["Index"], interface["Name"]
    if not isinstance(number, int) or not isinstance(name, str):
        raise TypeError(f"{number!r:.60} and {name!r:.60} are no link")
    return Link(
        number=number,
        name=name,
        managed=interface.get("AdministrativeState") in _MANAGED,
        carrier=interface.get("CarrierState") in _CARRIER,
        client="DHCPv6Client" in interface,
    )


def _of_client(interface: dict[str, Any]) -> Iterator[Lease]:
    client = interface.get("DHCPv6Client") or {}
    for each in client.get("Prefixes", []):
        told_at, valid_until = _time(client["Lease"], "LeaseTimestampUSec"), _time(each, "ValidLifetimeUSec")
        yield Lease(
            prefix=_prefix(each["Prefix"], each["PrefixLength"]),
            client="networkd",
            uplink=interface["Name"],
            iaid=None,
            written=told_at,
            lifetime=valid_until if valid_until == INFINITE else round(valid_until - told_at),
            preferred_until=_time(each, "PreferredLifetimeUSec"),
            valid_until=valid_until,
            reply=told_at,
        )


def _is_discard(route: dict[str, Any]) -> bool:
    return route["Type"] in _DISCARDS and route["ConfigSource"] == "DHCPv6"


def _of_route(route: dict[str, Any], now: float) -> Lease:
    return Lease(
        prefix=_prefix(route["Destination"], route["DestinationPrefixLength"]),
        client="networkd",
        uplink=None,
        iaid=None,
        written=now,
        lifetime=None,
        preferred_until=None,
        valid_until=_time(route, "LifetimeUSec"),
        reply=now,
    )


def _prefix(address: list[int], length: int) -> Prefix:
    # Any number is bytes to Python, of that many zeros.
    if not isinstance(address, list) or len(address) != 16 or not 0 <= length <= 128:  # noqa: PLR2004  IPv6
        raise ValueError(f"{address!r:.60}/{length!r:.60} is no prefix")
    return Prefix(int.from_bytes(bytes(address)), length).masked()


def _time(described: dict[str, Any], name: str) -> float:
    """Microseconds of CLOCK_BOOTTIME; what lives forever is left out."""
    if name not in described:
        return INFINITE
    time = described[name]
    if not isinstance(time, int) or not 0 <= time < 1 << 64:
        raise ValueError(f"{name} is {time!r:.60}")
    return time / 1e6
