"""Source routes in table main: told from the routes of others, and changed. Nothing else writes them."""

from __future__ import annotations

from collections.abc import Iterable

from anyipd.kernel import wire
from anyipd.kernel.routes import Routes
from anyipd.kernel.wire import Hop, Route
from anyipd.model import Prefix, SourceRoute

_EVERYWHERE = Prefix(0, 0)

Refused = dict[SourceRoute, int]
"""Those that the kernel refused, and the error numbers. EINVAL: it may know none (CONFIG_IPV6_SUBTREES)."""


def add(routes: Routes, wanted: Iterable[SourceRoute]) -> Refused:
    """Add source routes. EEXIST among the refusals: somebody else has one for this source."""
    return _change(routes, wire.NLM_F_CREATE | wire.NLM_F_EXCL, wanted)


def replace(routes: Routes, wanted: Iterable[SourceRoute]) -> Refused:
    """Change source routes of ours that were just seen. ENOENT: it is not there any more."""
    return _change(routes, wire.NLM_F_REPLACE, wanted)


def _change(routes: Routes, flags: int, wanted: Iterable[SourceRoute]) -> Refused:
    # One by one: a refusal names the destination, and that is the same of all.
    return {
        each: refusal.error
        for each in wanted
        for refusal in routes.change(
            iter([wire.change_request(wire.RTM_NEWROUTE, flags, source_route(each))])
        )
    }


def source_route(wanted: SourceRoute) -> Route:
    """Return the route that a source route is."""
    interface = wanted.interface or wire.LOOPBACK_INDEX
    return Route(
        prefix=_EVERYWHERE,
        table=wire.TABLE_MAIN,
        protocol=wire.PROTOCOL,
        type=wire.UNICAST if wanted.interface else wire.DISCARDS["unreachable"],
        metric=wanted.metric,
        interface=interface,
        gateway=wanted.router != 0,
        ticks=0,
        source=wanted.source,
        hops=(Hop(interface, wanted.router, wanted.onlink),),
    )


def as_source_route(route: Route) -> SourceRoute | None:
    """Return the source route of ours that a route is, if it is one."""
    if not route.source.length or len(route.hops) != 1:
        return None
    [(interface, router, onlink)] = route.hops
    found = SourceRoute(
        route.source, route.metric, interface if route.type == wire.UNICAST else 0, router, onlink
    )
    return found if source_route(found) == route._replace(ticks=0) else None
