"""Discard routes: the word of DHCPv6 clients that a prefix is delegated to this host.

In: table main, read whole or heard of route by route. Out: every unreachable, blackhole or prohibit
route of the protocols that the policy accepts. Such a route names neither uplink nor lifetime.
"""

from __future__ import annotations

from collections.abc import Collection

from anyipd.kernel import wire
from anyipd.kernel.routes import Routes
from anyipd.kernel.wire import Route
from anyipd.model import Discard


class Discards:
    """The clients' discard routes: those that stand, and those that fell with lo.

    That lo goes down is not their clients' word: what fell so counts until its client says it again.
    """

    def __init__(self) -> None:
        self.standing: set[Discard] = set()
        self._fallen: set[Discard] = set()

    @property
    def told(self) -> set[Discard]:
        """What the clients say."""
        return self.standing | self._fallen

    def look(self, routes: Routes, protocols: Collection[int]) -> None:
        """Read those that stand. Raises OSError and MalformedError as `Routes` does."""
        self.standing = {
            Discard(found.prefix, found.metric)
            for protocol in protocols
            for chunk in routes.dump(wire.TABLE_MAIN, protocol)
            for start, _, end in wire.messages(chunk)
            for found in [wire.route(chunk, start, end)]
            if found.type in wire.DISCARDS.values()
        }
        self._forget_what_stands()

    def hear(self, route: Route, protocols: Collection[int], *, came: bool) -> bool:
        """Take note of a route that came or went; say whether it was a client's word."""
        place = Discard(route.prefix, route.metric)
        by_client = route.type in wire.DISCARDS.values() and route.protocol in protocols
        if by_client and came:
            self.standing.add(place)
            self._forget_what_stands()
        elif by_client or came:  # who comes to a place replaces who was there, and nothing else tells
            self.standing.discard(place)
        return by_client

    def lo_fell(self) -> None:
        """Take note that what goes now, or is gone, may have gone with lo."""
        self._fallen |= self.standing

    def forget_fallen(self, places: Collection[Discard]) -> None:
        """Take note that a client says these in another way by now."""
        self._fallen = self._fallen.difference(places)

    def _forget_what_stands(self) -> None:
        told = {each.prefix for each in self.standing}
        self._fallen = {each for each in self._fallen if each.prefix not in told}
