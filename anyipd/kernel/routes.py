"""The routes of this network namespace: read by dumps, changed by batches. Nothing else writes.

rtnetlink does its work inside send(2) and recv(2), blocking or not.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from itertools import chain, groupby, islice
from operator import itemgetter

from anyipd.decide.covers import Wanted
from anyipd.kernel import address_wire, link_wire, neighbour_table, wire
from anyipd.kernel.address_wire import Address
from anyipd.kernel.wire import Refusal, Route
from anyipd.model import INFINITE, Discard, Link, Prefix

BATCH = 256
"""Messages in one send: about a millisecond of the kernel's time."""

LOCAL_METRIC = 1024
DISCARD_METRIC = 2048

_SOL_NETLINK = 270
_NETLINK_GET_STRICT_CHK = 12
_SO_RCVBUFFORCE = 33
_RECEIVE = 1 << 16  # a dump fills what it is given, up to 32 KiB
_RECEIVE_BUFFER = 1 << 20  # a batch of which every message is refused needs a quarter of it
_PATIENCE = struct.pack("ll", 10, 0)  # struct timeval

BOUND_SUBNET = Route(
    prefix=Prefix(0, 64),
    table=wire.TABLE_LOCAL,
    protocol=wire.PROTOCOL,
    type=wire.LOCAL,
    metric=LOCAL_METRIC,
    interface=wire.LOOPBACK_INDEX,
    gateway=False,
    ticks=0,
)
"""What every route that binds subnets is, but for its destination and lifetime."""
_ALIKE = BOUND_SUBNET[1:]

_HOLE = BOUND_SUBNET._replace(type=wire.THROW)


class Routes:
    """A request socket. `port` is its netlink address, which notifications of our changes carry.

    Every method raises OSError when the kernel refuses a request whole or leaves it unanswered.
    After that the socket may hold answers to the past: open another.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
        enlarge(self._socket, _RECEIVE_BUFFER)
        self._socket.bind((0, 0))
        self.port: int = self._socket.getsockname()[0]

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def may_change(self) -> bool:
        """Whether the kernel lets us change routes here (CAP_NET_ADMIN in the owning user namespace)."""
        # rtnetlink asks for the right before it looks for the route, and ours never bind ::/128.
        nothing = BOUND_SUBNET._replace(prefix=Prefix(0, 128))
        return all(each.error != errno.EPERM for each in self.remove([nothing]))

    def dump(
        self, table: int, protocol: int = 0, family: int = wire.AF_INET6, kind: int = 0
    ) -> Iterator[bytes]:
        """Read the routes of a table, of one protocol or type if given: the messages of each recv."""
        # A table comes with its first route; until then it cannot be dumped (inet_dump_fib in
        # net/ipv4/fib_frontend.c).
        with contextlib.suppress(FileNotFoundError):
            yield from self._dump(wire.routes_request(table, protocol, family, kind))

    def addresses(self) -> Iterator[Address]:
        """Read the IPv6 addresses of all links."""
        return chain.from_iterable(map(address_wire.addresses, self._dump(address_wire.addresses_request())))

    def neighbours(self) -> Iterator[tuple[int, Prefix]]:
        """Read whom the kernel knows on its links: interface index and address."""
        dump = self._dump(neighbour_table.REQUEST)
        return chain.from_iterable(map(neighbour_table.neighbours, dump))

    def links(self) -> dict[str, Link]:
        """Read which links there are, by name."""
        return dict(chain.from_iterable(map(link_wire.links, self._dump(link_wire.links_request()))))

    def add_local(self, routes: Wanted, now: float) -> list[Refusal]:
        """Bind subnets. EEXIST among the refusals is news that somebody else holds that place."""
        return self._change_local(wire.NLM_F_CREATE | wire.NLM_F_EXCL, routes, now)

    def renew_local(self, routes: Wanted, now: float) -> list[Refusal]:
        """Give routes of ours that are there another lifetime. ENOENT: it is not there any more."""
        return self._change_local(wire.NLM_F_REPLACE, routes, now)

    def add_throws(self, prefixes: Iterable[Prefix]) -> list[Refusal]:
        """Leave holes in bound subnets to table main."""
        flags = wire.NLM_F_CREATE | wire.NLM_F_EXCL
        return self.change(
            wire.change_request(wire.RTM_NEWROUTE, flags, throw_route(prefix)) for prefix in prefixes
        )

    def add_discard(self, kind: int, prefixes: Iterable[Prefix]) -> list[Refusal]:
        """Discard what is unassigned of delegated prefixes; `kind` is one of `wire.DISCARDS`."""
        flags = wire.NLM_F_CREATE | wire.NLM_F_EXCL
        return self.change(
            wire.change_request(wire.RTM_NEWROUTE, flags, discard_route(kind, prefix)) for prefix in prefixes
        )

    def remove(self, routes: Iterable[Route]) -> list[Refusal]:
        """Remove routes of protocol 150, or of our hooks. ESRCH: it is not there any more.

        Of one with several next hops each by itself: to the kernel a stranger's that joined ours is one of
        them, and keeps its protocol, but a removal that names none hits all (ip6_route_del in
        net/ipv6/route.c).
        """
        return self.change(
            wire.change_request(wire.RTM_DELROUTE, 0, each) for route in routes for each in _by_hops(route)
        )

    def _change_local(self, flags: int, routes: Wanted, now: float) -> list[Refusal]:
        return self.change(
            chain.from_iterable(
                wire.change_requests(
                    map(itemgetter(0), group), wire.RTM_NEWROUTE, flags, _ALIKE, _lifetime(until, now)
                )
                for until, group in groupby(routes.items(), key=itemgetter(1))
            )
        )

    def change(self, requests: Iterator[bytes]) -> list[Refusal]:
        """Ask for changes, all of which are done or refused when this returns."""
        refusals: list[Refusal] = []
        while batch := list(islice(requests, BATCH)):
            self._socket.send(b"".join((*batch, wire.BARRIER)))
            refusals += self._refusals()
        return refusals

    def _dump(self, request: bytes) -> Iterator[bytes]:
        self._socket.send(request)
        done = False
        while not done:
            chunk, done = wire.split_end(self._socket.recv(_RECEIVE))
            yield chunk

    def _refusals(self) -> list[Refusal]:
        refusals = []
        while True:
            for refusal, last in wire.answers(self._socket.recv(_RECEIVE)):
                if refusal:
                    refusals.append(refusal)
                if last:
                    return refusals


def _by_hops(route: Route) -> Iterator[Route]:
    """Yield a route for each next hop where there are several."""
    if len(route.hops) > 1:
        yield from (route._replace(interface=hop.interface, hops=(hop,)) for hop in route.hops)
    else:
        yield route


def discard_route(kind: int, prefix: Prefix) -> Route:
    """Our own discard route over a delegated prefix, or over a hole.

    The kernel takes one of IPv4 without a link alone (fib_create_info in net/ipv4/fib_semantics.c).
    """
    return Route(
        prefix=prefix,
        table=wire.TABLE_MAIN,
        protocol=wire.PROTOCOL,
        type=kind,
        metric=DISCARD_METRIC,
        interface=wire.LOOPBACK_INDEX if prefix.width == 128 else 0,  # noqa: PLR2004  the width of IPv6
        gateway=False,
        ticks=0,
    )


def hook_message(discard: Discard) -> Route:
    """The message that a hook of ours leaves: see dhclient-hooks/anyipd."""
    return discard_route(wire.DISCARDS["unreachable"], discard.prefix)._replace(
        table=wire.TABLE_HOOKS, protocol=wire.DHCP, metric=discard.metric
    )


def hooks_discard_route(discard: Discard) -> Route:
    """Return the discard route that a hook of 0.1.0 left."""
    return hook_message(discard)._replace(table=wire.TABLE_MAIN)


def local_route(prefix: Prefix) -> Route:
    """Return the route that binds the subnets in a prefix."""
    return Route(prefix, *_ALIKE)


def throw_route(prefix: Prefix) -> Route:
    """Return the route that leaves a hole of a bound subnet to table main."""
    return _HOLE._replace(prefix=prefix)


def is_throw_route(route: Route) -> bool:
    """Whether a route is one of those."""
    return route == throw_route(route.prefix) and route.prefix.width == 128  # noqa: PLR2004  the width of IPv6


def is_local_route(route: Route) -> bool:
    """Whether a route is one of those that bind subnets, whatever its destination and lifetime."""
    return route._replace(prefix=BOUND_SUBNET.prefix, ticks=0) == BOUND_SUBNET


def ours_and_others(chunks: Iterable[bytes]) -> tuple[dict[Prefix, int], list[Route]]:
    """Sort a dump of table local: what binds subnets, with the ticks that each has left, and all else."""
    ours, others = dict[Prefix, int](), list[Route]()
    for chunk in chunks:
        for start, kind, end in wire.messages(chunk):
            if kind == wire.RTM_NEWROUTE:
                route = wire.route(chunk, start, end)
                if is_local_route(route):
                    ours[route.prefix] = route.ticks
                else:
                    others.append(route)
    return ours, others


def enlarge(receiver: socket.socket, size: int) -> None:
    """Ask for a receive buffer of so many bytes, beyond net.core.rmem_max where we may."""
    try:
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def _lifetime(until: float | None, now: float) -> int | None:
    """Whole seconds, rounded up, so that the kernel never lets go before the delegation ends.

    At least one, if that end was just missed; and never what means "for ever" to the kernel
    (addrconf_timeout_fixup in include/net/addrconf.h).
    """
    if until is None or until == INFINITE:
        return None
    return min(max(int(until - now) + 1, 1), 0xFFFFFFFE)
