"""Discard routes: the kernel's word that a prefix is delegated to this host.

In: tables, read whole, or events of single routes. Out: every unreachable, blackhole or prohibit route of
table main whose protocol the policy accepts, and the messages that our hooks leave in a table of their own.
Neither names uplink or lifetime: what they mean stands in the ledger.
"""

from __future__ import annotations

from collections.abc import Collection

from anyipd.decide.ledger import HOOK_METRICS
from anyipd.kernel import wire
from anyipd.kernel.routes import Routes
from anyipd.kernel.wire import Route
from anyipd.model import Discard, Prefix

_DISCARDS = set(wire.DISCARDS.values())


class Discards:
    """The discard routes that stand. `leftover` are those in table main that the hooks of 0.1.0 made."""

    def __init__(self) -> None:
        # Each by itself: a set of thousands takes four times the memory, and a look keeps what it knows.
        self.standing: dict[Discard, Discard] = {}
        self.leftover: set[Discard] = set()

    def look(self, routes: Routes, protocols: Collection[int]) -> None:
        """Read those that stand. Raises OSError and MalformedError as `Routes` does."""
        known, self.standing, self.leftover = self.standing, {}, set()
        tables = [(wire.TABLE_MAIN, protocol) for protocol in {*protocols, wire.DHCP}]
        for table, protocol in [*tables, (wire.TABLE_HOOKS, wire.DHCP)]:
            for chunk in routes.dump(table, protocol):
                for start, _, end in wire.messages(chunk):
                    found = wire.route(chunk, start, end)
                    place = Discard(found.prefix, found.metric)
                    if is_evidence(found, protocols):
                        same = known.get(place, place)
                        self.standing[same] = same
                    elif _is_leftover(found):
                        self.leftover.add(place)

    def hear(self, route: Route, protocols: Collection[int], *, came: bool) -> Discard | None:
        """Take note of a route that came or went; return its place where it was evidence, or replaced one."""
        place = Discard(route.prefix, route.metric)
        if _is_leftover(route):
            (self.leftover.add if came else self.leftover.discard)(place)
        evidence = is_evidence(route, protocols)
        if evidence and came:
            self.standing[place] = place
            return place
        # Who comes to a place replaces who was there, and nothing else tells.
        replaces = came and place in self.standing and route.table == wire.TABLE_MAIN
        if evidence or replaces:
            self.standing.pop(place, None)
            return place
        return None

    def places(self, at_most: int) -> set[Prefix]:
        """Return where clients' discard routes stand, which somebody may take; nothing if there are more."""
        if len(self.standing) > at_most:
            return set()
        return {each.prefix for each in self.standing if each.metric not in HOOK_METRICS}


def is_evidence(route: Route, protocols: Collection[int]) -> bool:
    """Whether a route is a client's discard route, or a hook's message."""
    if route.type not in _DISCARDS:
        return False
    if route.table == wire.TABLE_HOOKS:
        return route.protocol == wire.DHCP and route.metric in HOOK_METRICS
    return route.table == wire.TABLE_MAIN and route.protocol in protocols and route.metric not in HOOK_METRICS


def _is_leftover(route: Route) -> bool:
    return (
        route.type == wire.DISCARDS["unreachable"]
        and route.table == wire.TABLE_MAIN
        and route.protocol == wire.DHCP
        and route.metric in HOOK_METRICS
        and route.interface == wire.LOOPBACK_INDEX
    )
