"""The local routes of anyipd's, read without a program such as `ip`: tests look thousands of times."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from anyipd.model import Prefix
from tests.lab.namespace import Namespace

# linux/netlink.h, linux/rtnetlink.h
HEADER, ROUTE, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=8BI"), struct.Struct("=HH")
SOL_NETLINK, NETLINK_GET_STRICT_CHK = 270, 12
RTM_NEWROUTE, RTM_GETROUTE, NLMSG_DONE = 24, 26, 3
NLM_F_REQUEST, NLM_F_DUMP_INTR, NLM_F_DUMP = 1, 0x10, 0x300
RT_TABLE_LOCAL, RTN_LOCAL, RTA_DST, PROTOCOL = 255, 2, 1, 150
BUFFER = 1 << 18

REQUEST = HEADER.pack(HEADER.size + ROUTE.size, RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + ROUTE.pack(
    socket.AF_INET6, 0, 0, 0, RT_TABLE_LOCAL, PROTOCOL, 0, RTN_LOCAL, 0
)


def local_routes(namespace: Namespace) -> list[Prefix]:
    """Give the destinations of what `ip -6 route show table local type local proto 150` shows, in order."""
    with namespace.entered():
        routing = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    with routing:
        routing.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)  # the kernel filters
        while (found := _dump(routing)) is None:
            pass
        return found


def _dump(routing: socket.socket) -> list[Prefix] | None:
    """Give the destinations; None where the table changed meanwhile."""
    found = list[Prefix]()
    whole = True
    routing.send(REQUEST)
    while True:
        for kind, flags, _, message in messages(routing.recv(BUFFER)):
            whole &= not flags & NLM_F_DUMP_INTR
            if kind == NLMSG_DONE:
                return found if whole else None
            assert kind == RTM_NEWROUTE, message
            found.append(_destination(message[HEADER.size :]))


def messages(packet: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, port of who asked, and octets of each netlink message."""
    while packet:
        length, kind, flags, _, port = HEADER.unpack_from(packet)
        yield kind, flags, port, packet[:length]
        packet = packet[length + 3 & ~3 :]


def _destination(route: bytes) -> Prefix:
    _, length, *_ = ROUTE.unpack_from(route)
    attributes = route[ROUTE.size :]
    while attributes:
        size, kind = ATTRIBUTE.unpack_from(attributes)
        if kind == RTA_DST:
            return Prefix(int.from_bytes(attributes[ATTRIBUTE.size : size]), length)
        attributes = attributes[size + 3 & ~3 :]
    return Prefix(0, length)
