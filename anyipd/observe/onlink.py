"""Prefixes in use for something else: on the machine's links, or routed on to somebody.

The local table is looked up before all others, so binding a subnet over a link's prefix would turn
the neighbours there into local addresses. lo is no link: an address of a bound subnet on it is what
makes that address a source address (`ip route ... src`).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from anyipd.kernel import wire
from anyipd.kernel.routes import Routes
from anyipd.model import Assigned, Prefix

_ON_LINK_PROTOCOLS = {2: "kernel", 9: "ra"}


def addressed(routes: Routes, delegated: Sequence[Prefix]) -> list[Assigned]:
    """Read which addresses on links have a prefix that overlaps a delegated one.

    Raises OSError as `Routes` does.
    """
    return [
        Assigned(prefix, f"on-link at {_name(index)}")
        for index, prefix in routes.addresses()
        if index != wire.LOOPBACK_INDEX and any(prefix.overlaps(each) for each in delegated)
    ]


def routed(routes: Routes, delegated: Sequence[Prefix]) -> Iterator[list[Assigned]]:
    """Read which routes of table main use up delegated prefixes, part by part.

    A route that leads away counts where it lies inside a delegated prefix: one that covers more than
    that, such as the default route, assigns nothing. An on-link prefix counts wherever it overlaps.
    Raises OSError as `Routes` does.
    """
    for chunk in routes.dump(wire.TABLE_MAIN):
        yield list(_routes(chunk, delegated))


def _routes(chunk: bytes, delegated: Sequence[Prefix]) -> Iterator[Assigned]:
    for start, _, end in wire.messages(chunk):
        _, protocol, route_type = wire.kind_of_route(chunk, start)
        if route_type != wire.UNICAST:
            continue
        prefix = wire.destination(chunk, start)
        if not any(prefix.overlaps(each) for each in delegated):
            continue
        route = wire.route(chunk, start, end)
        if route.interface == wire.LOOPBACK_INDEX:
            continue
        on_link = not route.gateway and protocol in _ON_LINK_PROTOCOLS
        if on_link:
            yield Assigned(prefix, f"on-link at {_name(route.interface)}")
        elif any(each.covers(prefix) for each in delegated):
            yield Assigned(prefix, f"routed to {_name(route.interface)}")


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return "several links" if index == 0 else f"link {index}"
