"""Which way the kernel sends a packet that comes in by a link: asked for one address at a time.

By its rules and tables as they are now, so there is nothing to remember and nothing to follow. The kernel
answers within send(2), without rtnetlink's lock (RTNL_FLAG_DOIT_UNLOCKED in net/ipv6/route.c): whoever
changes routes meanwhile, it takes microseconds.
"""

from __future__ import annotations

import errno
import socket
import struct
from itertools import count

from anyipd.kernel import wire

_ANYCAST = 4  # RTN_ANYCAST
_TO_SOMEBODY = {wire.UNICAST, wire.LOCAL, _ANYCAST}

_WAY_OUT = 16
"""Routes shorter than this, such as a VPN's ::/1, are a way out, and lead to nobody behind this host."""

_REQUEST = struct.Struct(
    "=IHHI4x"  # nlmsghdr: length, type, flags, sequence
    "BB6xI"  # rtmsg: family, dst_len, flags
    "HHI"  # RTA_IIF
    "HH16s"  # RTA_DST
)
_REPLY = struct.Struct("=4xH2xI")  # type, sequence
_RTMSG = struct.Struct("=16xxB5xB")  # dst_len, type
_RTM_F_FIB_MATCH = 0x2000  # answer with the route that matched
_RTA_IIF = 3
_RECEIVE = 1 << 14


class Lookup:
    """Asks for the routes of what comes in by one link, given by its index."""

    def __init__(self, interface: int) -> None:
        self._interface = interface
        self._sequences = count(1)
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0
        )

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def leads_elsewhere(self, address: int) -> bool:
        """Say whether packets to an address go on by another link than they came in by, or end here.

        Not so where the route is a way out or discards, where there is none, and where memory is short.
        """
        reply = self._ask(address)
        if reply is None:
            return False
        length, kind = _RTMSG.unpack_from(reply)
        if kind not in _TO_SOMEBODY or length < _WAY_OUT:
            return False
        links = wire.next_hops(reply, 0, len(reply))
        return bool(links) and self._interface not in links

    def _ask(self, address: int) -> bytes | None:
        """Return the message of the route, None where there is none."""
        sequence = next(self._sequences) & 0xFFFFFFFF
        request = _REQUEST.pack(
            *(_REQUEST.size, wire.RTM_GETROUTE, wire.NLM_F_REQUEST, sequence),
            *(wire.AF_INET6, 128, _RTM_F_FIB_MATCH),
            *(8, _RTA_IIF, self._interface),
            *(20, wire.RTA_DST, address.to_bytes(16)),
        )
        try:
            self._socket.send(request)
            while True:
                reply = self._socket.recv(_RECEIVE)
                kind, found = _REPLY.unpack_from(reply)
                if found == sequence:  # else the answer to an earlier request, for which memory was short
                    return reply if kind == wire.RTM_NEWROUTE else None
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}:
                raise
            return None
