"""What is in use inside static prefixes: by routes, by neighbours, and by the routers of this host.

A static prefix is bound whatever is in it, since somebody said so. But the host must not take the place of
its own gateway, and whoever is cut off should be named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from anyipd.kernel import wire
from anyipd.kernel.gateways import Mentions, gateways
from anyipd.kernel.routes import Routes
from anyipd.kernel.wire import Route
from anyipd.model import Assigned, InUse, Prefix
from anyipd.observe.onlink import link_name

_KERNEL = 2  # RTPROT_KERNEL


class StaticUse:
    """What looks found. All routes are read at each: few hosts have many, and a static prefix as well."""

    def __init__(self) -> None:
        self.found = InUse()
        self._neighbours: frozenset[Assigned] = frozenset()
        self._known: Sequence[Prefix] = ()
        self._mentions = Mentions(())

    async def look(self, routes: Routes, static: Sequence[Prefix]) -> None:
        """Read it, part by part. Raises OSError and MalformedError as `Routes` does.

        Neighbours are read once for the same prefixes, the first time: once these are bound the kernel hears
        of none in there.
        """
        if static != self._known:
            self._known, self._mentions = static, Mentions(static)
            self._neighbours = frozenset(
                Assigned(address, f"a neighbour at {link_name(interface)}")
                for interface, address in (routes.neighbours() if static else ())
                if any(each.covers(address) for each in static)
            )
        next_hops, assigned = set[Prefix](), set(self._neighbours)
        has_default = self.found.has_default  # whoever had one told us the gateway
        mentions = self._mentions
        for family in wire.WIDTHS if static else ():
            for chunk in filter(mentions, routes.dump(wire.EVERY_TABLE, family=family, kind=wire.UNICAST)):
                for start, _, end in wire.messages(chunk):
                    route = wire.route(chunk, start, end)
                    if route.table == wire.TABLE_LOCAL or route.protocol == wire.PROTOCOL:
                        continue
                    has_default |= not route.prefix.length and route.prefix.width != 128  # noqa: PLR2004  the width of IPv6
                    by = gateways(chunk, start, end)
                    next_hops |= {hop for hop in by if any(each.covers(hop) for each in static)}
                    if is_used(route, static):
                        assigned.add(_assigned(route))
                await asyncio.sleep(0)  # the kernel works for us in each part, and there may be thousands
        self.found = InUse(frozenset(next_hops), frozenset(assigned), has_default)


def is_used(route: Route, static: Sequence[Prefix]) -> bool:
    """Whether a route leads what is in static prefixes to a link, one where all of that is included.

    Of IPv6 the host's own addresses have one each.
    """
    if route.interface == wire.LOOPBACK_INDEX or not route.prefix.length:
        return False
    if route.protocol == _KERNEL and route.prefix.length == 128:  # noqa: PLR2004  the length of an IPv6 address
        return False
    return any(
        each.covers(route.prefix) or (route.prefix.covers(each) and not route.gateway) for each in static
    )


def _assigned(route: Route) -> Assigned:
    holder = "routed to" if route.gateway or route.protocol != _KERNEL else "on-link at"
    table = None if route.table == wire.TABLE_MAIN else route.table
    return Assigned(route.prefix, f"{holder} {link_name(route.interface)}", table)
