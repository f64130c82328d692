"""Prefixes in use for something else: on the machine's links, or routed on to somebody.

The local table is looked up before all others, so binding a subnet over a link's prefix would turn
the neighbours there into local addresses. lo is no link: an address of a bound subnet on it is what
makes that address a source address (`ip route ... src`).
"""

from __future__ import annotations

import socket
from collections.abc import Generator, Sequence

from anyipd.kernel import wire
from anyipd.kernel.routes import Routes
from anyipd.kernel.wire import Route
from anyipd.model import Assigned, Covering, Prefix
from anyipd.printable import printable

_ON_LINK_PROTOCOLS = {2: "kernel", 9: "ra"}

_REDIRECT = 1
"""A router that has a subnet on-link sends an ICMPv6 Redirect for each of our addresses that we send to by
way of it. systemd-networkd 257 makes a route of that in table main; those of the kernel are in no table."""


def addressed(routes: Routes, delegated: Sequence[Prefix]) -> list[Assigned]:
    """Read which addresses on links have a prefix that overlaps a delegated one.

    Raises OSError as `Routes` does.
    """
    return [
        Assigned(prefix, f"on-link at {_name(index)}")
        for index, prefix in routes.addresses()
        if index != wire.LOOPBACK_INDEX and any(prefix.overlaps(each) for each in delegated)
    ]


class Routed:
    """Other people's routes in table main that use up delegated prefixes.

    A route that leads away counts where it lies inside a delegated prefix: one that covers more than
    that, such as the default route, assigns nothing. An on-link prefix counts wherever it overlaps.
    A route around a delegated prefix is `covering` it: to a VPN it may be.
    """

    def __init__(self) -> None:
        self._delegated: Sequence[Prefix] = ()
        self._found: dict[tuple[Prefix, int], tuple[Route, Assigned | Covering]] = {}

    @property
    def assigned(self) -> set[Assigned]:
        """What they assign."""
        return {means for _, means in self._found.values() if isinstance(means, Assigned)}

    @property
    def covering(self) -> set[Covering]:
        """Those around delegated prefixes."""
        return {means for _, means in self._found.values() if isinstance(means, Covering)}

    def look(self, routes: Routes, delegated: Sequence[Prefix]) -> Generator[None]:
        """Read all of them, part by part. Raises OSError and MalformedError as `Routes` does."""
        self._delegated = delegated
        self._found = {}
        if not delegated:
            return
        overlap = wire.Overlap(delegated)
        for chunk in routes.dump(wire.TABLE_MAIN):
            for start, end in overlap.find(chunk):
                self._note(wire.route(chunk, start, end))
            yield

    def hear(self, route: Route, *, came: bool) -> bool:
        """Take note of a route that came or went; say whether that says all.

        Of a route with several next hops one may go, and only the table knows what is left.
        """
        if came:
            self._note(route)
            return True
        place = route.prefix, route.metric
        known = self._found.get(place)
        if known is None:
            return True
        if known[0] != route._replace(ticks=0):
            return False
        del self._found[place]
        return True

    def lose_link(self, index: int) -> bool:
        """Take note that a link went down, and its routes with it; say whether that says all."""
        on_it = [place for place, (route, _) in self._found.items() if route.interface == index]
        for place in on_it:
            del self._found[place]
        return all(route.interface for route, _ in self._found.values())

    def _note(self, route: Route) -> None:
        # Destination and metric are what makes a route one: who comes to a place replaces who was there.
        place = route.prefix, route.metric
        self._found.pop(place, None)
        means = _meaning(route, self._delegated)
        if means:
            self._found[place] = route._replace(ticks=0), means


def _meaning(route: Route, delegated: Sequence[Prefix]) -> Assigned | Covering | None:
    if route.type != wire.UNICAST or route.interface == wire.LOOPBACK_INDEX or not route.prefix.length:
        return None
    if route.protocol == _REDIRECT:
        return None
    on_link = not route.gateway and route.protocol in _ON_LINK_PROTOCOLS
    if on_link and any(route.prefix.overlaps(each) for each in delegated):
        return Assigned(route.prefix, f"on-link at {_name(route.interface)}")
    if not on_link and any(each.covers(route.prefix) for each in delegated):
        return Assigned(route.prefix, f"routed to {_name(route.interface)}")
    if any(route.prefix.covers(each) for each in delegated):
        return Covering(route.prefix, _name(route.interface))
    return None


def _name(index: int) -> str:
    try:
        return printable(socket.if_indextoname(index))
    except OSError:
        return "several links" if index == 0 else f"link {index}"
