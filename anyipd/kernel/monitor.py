"""Wake-ups: what changed in the kernel, as hints where to look again.

A subscription to rtnetlink with a filter of its own, so that floods of other people's routes stay
in the kernel. A hint says no more than which observation may be out of date; losing events
(ENOBUFS) makes all of them so.
"""

from __future__ import annotations

import array
import errno
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Flag, auto

from anyipd.kernel import wire
from anyipd.kernel.bpf import event_filter
from anyipd.kernel.routes import enlarge, is_bound_subnet
from anyipd.model import Prefix

_GROUPS = 0x1 | 0x100 | 0x400  # RTMGRP_LINK, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE
_SO_ATTACH_FILTER = 26
_RECEIVE = 1 << 16
_RECEIVE_BUFFER = 4 << 20  # what 5,000 events take, many times what passes the filter in a pass
_IFINFOMSG = struct.Struct("=iI")  # index and flags, 4 bytes behind nlmsghdr
_IFF_UP = 1


MOST_LOST = 64
"""Routes that are put back one by one; beyond that a look at all of them costs less."""


class Stale(Flag):
    """Observations that must be made anew."""

    NOTHING = 0
    DELEGATIONS = auto()  # discard routes and lease files
    ADDRESSES = auto()  # on links
    ROUTES = auto()  # other people's
    PRESENT = auto()  # routes of ours, and who else stands in their place
    ALL = DELEGATIONS | ADDRESSES | ROUTES | PRESENT


@dataclass(slots=True)
class Hint:
    """Where to look again: at whole observations, and for single bound subnets that were lost.

    `lo_fell` says that lo was down meanwhile, and has lost all its routes by that.
    """

    stale: Stale = Stale.NOTHING
    lost: set[Prefix] = field(default_factory=set)
    lo_fell: bool = False

    def add(self, other: Hint) -> None:
        """Look also where another hint says. Where many were lost, all are looked at."""
        self.stale |= other.stale
        self.lost |= other.lost
        self.lo_fell |= other.lo_fell
        if len(self.lost) > MOST_LOST:
            self.stale |= Stale.PRESENT
        if Stale.PRESENT in self.stale:
            self.lost.clear()


class Monitor:
    """The event socket, readable when there is a hint."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0
        )
        enlarge(self._socket, _RECEIVE_BUFFER)

    def subscribe(self) -> None:
        """Start to listen; what happens from here on is not lost."""
        self._socket.bind((0, _GROUPS))

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def watch(self, own_port: int, protocols: Iterable[int], prefixes: Sequence[Prefix]) -> None:
        """Filter by what matters now, see `event_filter`. To be called before looking, not after."""
        program = event_filter(own_port, protocols, prefixes)
        buffer = array.array("B", program)
        address, size = buffer.buffer_info()
        # struct sock_fprog: number of instructions, pointer
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", size // 8, address))

    def read(self) -> Hint:
        """Take in all events that are there."""
        hint = Hint()
        while True:
            try:
                chunk = self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return hint
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                hint.add(Hint(Stale.ALL))
                continue
            for start, kind, end in wire.messages(chunk):
                hint.add(_hint(chunk, start, kind, end))


def _hint(chunk: bytes, start: int, kind: int, end: int) -> Hint:
    if kind in {wire.RTM_NEWLINK, wire.RTM_DELLINK}:
        # A link that goes takes its routes along, and with skip_notify_on_dev_down nothing else tells.
        # What comes with one that is up has events of its own.
        index, flags = _IFINFOMSG.unpack_from(chunk, start + 20)
        up = kind == wire.RTM_NEWLINK and flags & _IFF_UP
        if index == wire.LOOPBACK_INDEX:
            return Hint(Stale.ALL, lo_fell=not up)
        return Hint(Stale.NOTHING if up else Stale.ADDRESSES | Stale.ROUTES)
    if kind in {wire.RTM_NEWADDR, wire.RTM_DELADDR}:
        return Hint(Stale.ADDRESSES)
    table, protocol, route_type = wire.kind_of_route(chunk, start)
    if protocol == wire.PROTOCOL and kind == wire.RTM_DELROUTE:
        route = wire.route(chunk, start, end)
        return Hint(lost={route.prefix}) if is_bound_subnet(route) else Hint(Stale.PRESENT)
    if protocol == wire.PROTOCOL or table == wire.TABLE_LOCAL:
        return Hint(Stale.PRESENT)
    return Hint(Stale.DELEGATIONS if route_type in wire.DISCARDS.values() else Stale.ROUTES)
