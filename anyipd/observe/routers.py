"""Default routes of table main: by which links, and by which routers there, packets may leave this host.

A route of ours is none: neither a source route nor what somebody else made in our name.
"""

from __future__ import annotations

from collections.abc import Iterator

from anyipd.kernel import wire
from anyipd.kernel.wire import Route
from anyipd.model import DefaultRoute


def default_routes(route: Route) -> Iterator[DefaultRoute]:
    """Yield a default route for each of the next hops of a route, if it is one for whatever source."""
    if route.prefix.length or route.source.length or route.prefix.width != 128:  # noqa: PLR2004  the width of IPv6
        return
    if route.table == wire.TABLE_MAIN and route.type == wire.UNICAST and route.protocol != wire.PROTOCOL:
        for hop in route.hops:
            if hop.interface not in {0, wire.LOOPBACK_INDEX}:
                yield DefaultRoute(hop.interface, hop.router, route.metric, route.preference, hop.onlink)
