"""Wake-ups: what changed in the kernel, as hints where to look again.

A subscription to rtnetlink with a filter of its own, so that floods of other people's routes stay
in the kernel. A hint says which observation may be out of date; losing events (ENOBUFS) makes all of
them so. Of single routes it says what became of them: to look for one takes the kernel a walk over all of its
table, and there may be a million.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import NamedTuple

from anyipd.kernel import bpf, link_wire, wire
from anyipd.kernel.event_filter import event_filter, widest_filter
from anyipd.kernel.gateways import gateways
from anyipd.kernel.routes import enlarge, is_local_route, is_throw_route
from anyipd.kernel.wire import MalformedError, Route
from anyipd.model import Prefix

LINKS = 0x1 | 0x100  # RTMGRP_LINK, RTMGRP_IPV6_IFADDR
EVERYTHING = LINKS | 0x10 | 0x40 | 0x400  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE
_SIOCGIFFLAGS = 0x8913
_IFREQ = struct.Struct("=16sH22x")  # name and flags: netdevice(7)
_RECEIVE = 1 << 16
_RECEIVE_BUFFER = 4 << 20  # what 5,000 events take, many times what passes the filter in a pass

MOST_LOST = 64
"""Routes that are put back one by one; beyond that a look at all of them costs less."""

MOST_NEWS = 1024
"""Routes that are heard of one by one; beyond that all are looked at."""


class Stale(Flag):
    """Observations that must be made anew."""

    NOTHING = 0
    LEASES = auto()  # lease files
    LINKS = auto()  # their names, and whether they have a carrier
    DISCARDS = auto()  # discard routes of clients
    ADDRESSES = auto()  # on links
    ROUTES = auto()  # other people's
    PRESENT = auto()  # routes of ours, and who else stands in their place
    STATIC = auto()  # what is in use inside static prefixes
    ALL = LEASES | LINKS | DISCARDS | ADDRESSES | ROUTES | PRESENT | STATIC


class News(NamedTuple):
    """A client's discard route, a hook's message, or somebody's route inside our prefixes came or went.

    So did a default route. Of one that came `replaced` says that another one went for it. `gateways` are told
    of IPv4 alone, of which nothing matters but what is about static prefixes.
    """

    route: Route
    came: bool
    replaced: bool = False
    gateways: tuple[Prefix, ...] = ()


class LinkDown(NamedTuple):
    """A link went down or away, and its routes with it: skip_notify_on_dev_down silences their events."""

    interface: int


@dataclass(slots=True)
class Hint:
    """Where to look again: at whole observations, and for single routes of ours that were lost.

    `lost` are local routes, `lost_throws` throw routes.
    `news` are in the order of their events, and older than every look that follows. `lo_fell` says
    that lo is down or was meanwhile, and loses all its routes by that; `lo_up` how it was left.
    `malformed` are messages that could not be read.
    """

    stale: Stale = Stale.NOTHING
    lost: set[Prefix] = field(default_factory=set)
    news: list[News | LinkDown] = field(default_factory=list)
    lo_fell: bool = False
    lo_up: bool | None = None
    malformed: list[str] = field(default_factory=list)
    lost_throws: set[Prefix] = field(default_factory=set)

    def of_discards(self, besides: Container[int]) -> bool:
        """Whether a client may have left a discard route or taken it back, `besides` some metrics."""
        return Stale.DISCARDS in self.stale or any(
            isinstance(each, News)
            and each.route.type in wire.DISCARDS.values()
            and each.route.metric not in besides
            for each in self.news
        )

    def add(self, other: Hint) -> None:
        """Look also where another, later hint says. Where there is much, all is looked at."""
        self.stale |= other.stale
        self.lost |= other.lost
        self.lost_throws |= other.lost_throws
        self.news += other.news
        self.lo_fell |= other.lo_fell
        self.lo_up = self.lo_up if other.lo_up is None else other.lo_up
        self.malformed += other.malformed
        if len(self.lost) + len(self.lost_throws) > MOST_LOST:
            self.stale |= Stale.PRESENT
        if Stale.PRESENT in self.stale:
            self.lost.clear()
            self.lost_throws.clear()
        if len(self.news) > MOST_NEWS:
            self.stale |= Stale.DISCARDS | Stale.ROUTES
            self.news.clear()


class Monitor:
    """The event socket, readable when there is a hint."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0
        )
        enlarge(self._socket, _RECEIVE_BUFFER)
        self._lo_is_down = False
        self._filter = b""

    def subscribe(self, groups: int = EVERYTHING) -> None:
        """Start to listen; what happens from here on is not lost."""
        self._socket.bind((0, groups))

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def watch(
        self,
        own_port: int,
        protocols: Iterable[int],
        prefixes: Sequence[Prefix],
        shortest: int = 32,
        places: Iterable[Prefix] = (),
    ) -> None:
        """Filter by what matters now, see `event_filter`. To be called before looking, not after."""
        self._attach(event_filter(own_port, protocols, prefixes, shortest, places))

    def watch_all(self, own_port: int) -> None:
        """Filter by nothing but whose change it is: that is compiled in a third of the time."""
        self._attach(widest_filter(own_port))

    def _attach(self, wanted: bytes) -> None:
        if wanted != self._filter:
            bpf.attach(self._socket, wanted)
            self._filter = wanted

    def read(self) -> Hint:
        """Take in all events that are there."""
        seen, overrun = Hint(), False
        while True:
            try:
                chunk = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in {errno.ENOBUFS, errno.ENOMEM}:
                    raise
                seen.add(Hint(Stale.ALL))
                overrun = True
                continue
            seen.add(hint(chunk))
        # Events of routes that go with lo come behind its own.
        seen.lo_fell |= self._lo_is_down
        if overrun:  # the routes that go with lo may be what drowned the event that it came back
            self._lo_is_down = not self._lo_is_up()
        elif seen.lo_up is not None:
            self._lo_is_down = not seen.lo_up
        return seen

    def _lo_is_up(self) -> bool:
        request = _IFREQ.pack(b"lo", 0)
        _, flags = _IFREQ.unpack(fcntl.ioctl(self._socket, _SIOCGIFFLAGS, request))
        return bool(flags & link_wire.IFF_UP)


def hint(chunk: bytes) -> Hint:
    """Say what the events that came with one recv are a reason for."""
    result = Hint()
    try:
        for start, kind, end in wire.messages(chunk):
            result.add(_hint(chunk, start, kind, end))
    except MalformedError as error:
        result.add(Hint(Stale.ALL, malformed=[f"{error}: {chunk[:64].hex()}"]))
    return result


def _hint(chunk: bytes, start: int, kind: int, end: int) -> Hint:
    if kind in {wire.RTM_NEWLINK, wire.RTM_DELLINK}:
        index, up = link_wire.link(chunk, start, end)
        return _of_link(index, up=up and kind == wire.RTM_NEWLINK)
    if kind in {wire.RTM_NEWADDR, wire.RTM_DELADDR}:
        # With its last IPv4 address lo loses our IPv4 routes, and nothing tells (fib_disable_ip).
        return Hint(Stale.PRESENT if wire.is_ipv4(chunk, start) else Stale.ADDRESSES)
    if kind in {wire.RTM_NEWROUTE, wire.RTM_DELROUTE}:
        came = kind == wire.RTM_NEWROUTE
        route = wire.route(chunk, start, end)
        ipv4 = route.prefix.width != 128  # noqa: PLR2004  the width of IPv6
        hops = tuple(gateways(chunk, start, end)) if ipv4 else ()
        return _of_route(News(route, came, came and wire.replaces(chunk, start), hops))
    return Hint()


def _of_link(index: int, *, up: bool) -> Hint:
    if index == wire.LOOPBACK_INDEX:
        return Hint(Stale.ALL, lo_fell=not up, lo_up=up)
    # What comes with a link that is up has events of its own.
    return Hint(Stale.LINKS) if up else Hint(Stale.LINKS | Stale.ADDRESSES, news=[LinkDown(index)])


def _of_route(news: News) -> Hint:
    route, came = news.route, news.came
    if route.protocol == wire.PROTOCOL and route.table in {wire.TABLE_MAIN, wire.TABLE_LOCAL}:
        if is_local_route(route) and not came:
            return Hint(lost={route.prefix})
        if is_throw_route(route) and not came:
            return Hint(lost_throws={route.prefix})
        # By somebody else's hand, since our own are filtered out: in table main it may have replaced the
        # discard route of a client, of which no other event tells.
        took_a_place = came and route.table == wire.TABLE_MAIN
        return Hint(Stale.PRESENT | Stale.DISCARDS if took_a_place else Stale.PRESENT)
    if route.table == wire.TABLE_LOCAL:
        return Hint(Stale.PRESENT)
    return Hint(news=[news])
