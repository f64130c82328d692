"""Prefixes in use for something else: on the machine's links, or routed on to somebody.

The local table is looked up before all others, so binding a subnet over a link's prefix would turn
the neighbours there into local addresses. lo is no link: an address of a bound subnet on it is what
makes that address a source address (`ip route ... src`).
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing

from anyipd.kernel import wire
from anyipd.kernel.address_wire import Address
from anyipd.kernel.addresses import is_own, lifetimes
from anyipd.kernel.removals import Removals
from anyipd.kernel.routes import Routes
from anyipd.kernel.wire import Hop, Route
from anyipd.model import Assigned, Covering, DefaultRoute, HostAddresses, Prefix
from anyipd.observe.routers import default_routes
from anyipd.printable import printable

_ON_LINK_PROTOCOLS = {2: "kernel", 9: "ra"}

_REDIRECT = 1
"""A router that has a subnet on-link sends an ICMPv6 Redirect for each of our addresses that we send to by
way of it. systemd-networkd 257 makes a route of that in table main; those of the kernel are in no table."""

DUMPS_TO_FORGET = 2
"""Credible dumps in a row that lack a known route until it is taken for gone."""

PARTS_A_REMOVAL = 4
"""Parts of a dump, each of 200 routes or more, for one removal meanwhile, at least, in each table by itself:
else what it lacks proves nothing. A dump that is credible misses one of a thousand routes at most, two in a
row one of a million."""

MAX_DUMPS = 4
"""Dumps that a look inside a new prefix takes at most, while routes go faster than they can be believed."""


def addressed(addresses: Iterable[Address], delegated: Sequence[Prefix]) -> list[Assigned]:
    """Return which prefixes of addresses on links overlap a delegated one."""
    return [
        Assigned(prefix, f"on-link at {link_name(each.interface)}")
        for each in addresses
        for prefix in [each.prefix.masked()]
        if each.interface != wire.LOOPBACK_INDEX and any(prefix.overlaps(other) for other in delegated)
    ]


def host_addresses(addresses: Sequence[Address], delegated: Sequence[Prefix], now: float) -> HostAddresses:
    """Tell addresses of ours, read `now`, from those of others that are inside delegated prefixes."""
    inside = (
        each
        for each in addresses
        if not is_own(each) and any(other.covers(each.prefix._replace(length=128)) for other in delegated)
    )
    return HostAddresses(
        own={each.prefix: lifetimes(each, now) for each in addresses if is_own(each)},
        others={each.prefix.address: link_name(each.interface) for each in inside},
        # The kernel's own ::1 is, as soon as lo is up.
        are_marked=any(each.protocol for each in addresses)
        or all(each.interface != wire.LOOPBACK_INDEX for each in addresses),
    )


class Routed:
    """Other people's routes that use up delegated prefixes, in every table but local.

    Whether a rule looks a table up does not matter: one may come later, and whatever packets it is for, table
    local takes them before. A route that leads away counts where it lies inside a delegated prefix: one that
    covers more than that, such as the default route, assigns nothing. An on-link prefix counts wherever it
    overlaps. A route around a delegated prefix is `covering` it: to a VPN it may be. The default routes of
    table main are found beside them.

    A dump may miss routes (see `kernel.removals`). So a first look takes the union of two, and what is known
    is forgotten by its event, or when two credible dumps in a row lack it. There may be many: a change of one
    costs the same however many there are.
    """

    def __init__(self) -> None:
        self._delegated: Sequence[Prefix] = ()
        self._looked_inside: Sequence[Prefix] = ()
        self._found: dict[_Place, tuple[Route, Sequence[_Meaning]]] = {}
        self._lacked: dict[_Place, int] = {}  # by how many credible dumps in a row, the last one included
        self._matters: Callable[[Prefix], bool] = lambda _: True
        self._mattering: dict[_Place, Sequence[_Meaning]] = {}

    @property
    def assigned(self) -> set[Assigned]:
        """What they assign."""
        return {each for _, means in self._found.values() for each in means if isinstance(each, Assigned)}

    @property
    def mattering(self) -> set[Assigned]:
        """What they assign where that matters: see `attend`."""
        return {each for means in self._mattering.values() for each in means if isinstance(each, Assigned)}

    @property
    def covering(self) -> set[Covering]:
        """Those around delegated prefixes."""
        return {each for means in self._mattering.values() for each in means if isinstance(each, Covering)}

    @property
    def defaults(self) -> set[DefaultRoute]:
        """The default routes of table main."""
        return {
            each for means in self._mattering.values() for each in means if isinstance(each, DefaultRoute)
        }

    @property
    def in_doubt(self) -> bool:
        """Whether the last look lacked a route that nobody said was gone: another should follow soon."""
        return bool(self._lacked)

    def attend(self, matters: Callable[[Prefix], bool]) -> None:
        """Have `mattering` be what `matters` is true of, from now on."""
        self._matters = matters
        self._mattering = {}
        for place, (_, means) in self._found.items():
            self._note_mattering(place, means)

    async def look(self, routes: Routes, delegated: Sequence[Prefix]) -> None:
        """Read all of them, part by part. Raises OSError and MalformedError as `Routes` does."""
        anew = not set(delegated) <= set(self._looked_inside)
        if delegated != self._delegated:
            self._delegated = delegated
            for route, _ in list(self._found.values()):
                self._note(route)
        if delegated:
            overlap, seen = wire.Overlap(delegated), set[_Place]()
            with closing(Removals()) as removals:
                credible = await self._dump(routes, overlap, removals, seen)
                for _ in range(MAX_DUMPS - 1 if anew else 0):
                    credible = await self._dump(routes, overlap, removals, seen)
                    if credible:
                        break
            self._forget_lacking(seen, credible=credible)
        self._looked_inside = delegated

    async def _dump(
        self, routes: Routes, overlap: wire.Overlap, removals: Removals, seen: set[_Place]
    ) -> bool:
        """Take note of what a dump has; say whether what it lacks is most likely not there."""
        parts = Counter[int]()
        removals.count()
        for chunk in filter(None, routes.dump(wire.EVERY_TABLE, kind=wire.UNICAST)):
            parts[wire.first_table(chunk)] += 1
            for start, end in overlap.find(chunk):
                route = wire.route(chunk, start, end)
                seen.add(_place(route))
                self._note(route)
            await asyncio.sleep(0)  # the kernel works for us in each part, and there may be thousands
        gone = removals.count()
        return gone is not None and all(
            count * PARTS_A_REMOVAL <= parts[table] for table, count in gone.items()
        )

    def _forget_lacking(self, seen: AbstractSet[_Place], *, credible: bool) -> None:
        lacked = {place: self._lacked.get(place, 0) + credible for place in self._found.keys() - seen}
        for place, dumps in lacked.items():
            if dumps >= DUMPS_TO_FORGET:
                self._forget(place)
        self._lacked = {place: dumps for place, dumps in lacked.items() if place in self._found}

    def hear(self, route: Route, *, came: bool, replaced: bool = False) -> bool:
        """Take note of a route that came or went; say whether that says all.

        Of a route with several next hops one may go, and only the table knows what is left.
        """
        if not route.prefix.length:
            return self._hear_default(route, came=came, replaced=replaced)
        if came:
            self._note(route)
            return True
        place = _place(route)
        known = self._found.get(place)
        if known is None:
            return True
        if known[0] != route._replace(ticks=0):
            self._lacked[place] = DUMPS_TO_FORGET - 1
            return False
        self._forget(place)
        return True

    def _hear_default(self, route: Route, *, came: bool, replaced: bool) -> bool:
        """Take note likewise of a default route, of which there may be several of one metric."""
        place = _place(route)
        known = place in self._found
        if came:
            self._note(route)
        else:
            self._forget(place)
        if len(route.hops) == 1 and not replaced and (came or known):
            return True
        # One of the others may have gone, whole or in part.
        others = [each for each in self._mattering if each[:3] == place[:3] and each != place]
        self._lacked |= dict.fromkeys(others, DUMPS_TO_FORGET - 1)
        return not others

    def lose_link(self, index: int) -> bool:
        """Take note that a link went down, and its routes with it; say whether that says all."""
        for place in [place for place, (route, _) in self._found.items() if route.interface == index]:
            self._forget(place)
        open_ends = [place for place, (route, _) in self._found.items() if not route.interface]
        self._lacked |= dict.fromkeys(open_ends, DUMPS_TO_FORGET - 1)
        return not open_ends

    def _note(self, route: Route) -> None:
        # Who comes to a place replaces who was there.
        place = _place(route)
        self._forget(place)
        means = list(_meanings(route, self._delegated))
        if means:
            self._found[place] = route._replace(ticks=0), means
            self._note_mattering(place, means)

    def _note_mattering(self, place: _Place, means: Sequence[_Meaning]) -> None:
        if any(not isinstance(each, Assigned) or self._matters(each.prefix) for each in means):
            self._mattering[place] = means

    def _forget(self, place: _Place) -> None:
        for known in (self._found, self._mattering, self._lacked):
            known.pop(place, None)


_Place = tuple[int, Prefix, int, tuple[Hop, ...]]
_Meaning = Assigned | Covering | DefaultRoute


def _place(route: Route) -> _Place:
    """Return what makes a route one: table, destination and metric, and of default routes the next hops.

    There is one by each router that advertises itself.
    """
    return route.table, route.prefix, route.metric, route.hops


def _meanings(route: Route, delegated: Sequence[Prefix]) -> Iterator[_Meaning]:
    """Yield what a route is to delegated prefixes: in one, or just that one, it may be around another."""
    if not route.prefix.length:
        yield from default_routes(route)
        return
    if route.type != wire.UNICAST or route.interface == wire.LOOPBACK_INDEX:
        return
    if route.protocol == _REDIRECT or route.table == wire.TABLE_LOCAL:
        return
    table, prefix = None if route.table == wire.TABLE_MAIN else route.table, route.prefix
    if not route.gateway and route.protocol in _ON_LINK_PROTOCOLS:
        if any(prefix.overlaps(each) for each in delegated):
            yield Assigned(prefix, f"on-link at {link_name(route.interface)}", table)
        return
    if any(each.covers(prefix) for each in delegated):
        where = f" in table {table}" if table else ""
        yield Assigned(prefix, f"routed to {link_name(route.interface)}{where}", table)
    if any(prefix.covers(each) and prefix != each for each in delegated):
        yield Covering(prefix, link_name(route.interface), table)


def link_name(index: int) -> str:
    """Name a link, as it may be shown."""
    try:
        return printable(socket.if_indextoname(index))
    except OSError:
        return "several links" if index == 0 else f"link {index}"
