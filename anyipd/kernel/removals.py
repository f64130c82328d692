"""Whether a dump of routes can be believed: how many went meanwhile, of which table.

A dump comes in parts. Where a route came in between, the kernel goes over the table again and skips as many
nodes as it had seen (fib6_dump_table in net/ipv6/ip6_fib.c): for each that had gone before that place it
passes over one that is there, and no NLM_F_DUMP_INTR says so.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections import Counter

from anyipd.kernel import bpf, wire
from anyipd.kernel.routes import enlarge

_RTMGRP_IPV6_ROUTE = 0x400
_RECEIVE_BUFFER = 1 << 20  # what 1,250 events take
_TYPE, _TABLE = 4, 20  # offsets into nlmsghdr and rtmsg
_READ = wire.TABLE_OFFSET + 4  # bytes of each event

# It accepts whole events: all listeners share one message, and what a filter cuts off the kernel cuts off for
# those behind it, whosever they are (do_one_broadcast in net/netlink/af_netlink.c).
_REMOVED = bpf.assemble(
    [
        (bpf.LD_HALF, 0, 0, _TYPE),
        *bpf.drop_unless(int.from_bytes(wire.RTM_DELROUTE.to_bytes(2, sys.byteorder))),
        (bpf.LD_BYTE, 0, 0, _TABLE),
        *bpf.drop_if(wire.TABLE_LOCAL),
        bpf.ACCEPT,
    ]
)


class Removals:
    """Counts the IPv6 routes that leave tables from now on; cannot where no descriptor is left.

    Table local is left out: nothing that may be missed is in there.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0
            )
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            return
        enlarge(self._socket, _RECEIVE_BUFFER)
        bpf.attach(self._socket, _REMOVED)
        self._socket.bind((0, _RTMGRP_IPV6_ROUTE))

    def close(self) -> None:
        """Give the socket back."""
        if self._socket:
            self._socket.close()

    def count(self) -> Counter[int] | None:
        """Say how many there were since the last call, of each table, None where that was not heard."""
        count, overrun = Counter[int](), False
        while self._socket:
            try:
                event = self._socket.recv(_READ)
            except BlockingIOError:
                return None if overrun else count
            except OSError as error:
                if error.errno not in {errno.ENOBUFS, errno.ENOMEM}:
                    raise
                overrun = True
            else:
                count[wire.first_table(event)] += 1
        return None
