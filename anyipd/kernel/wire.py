"""Messages of rtnetlink, and those of routes, as bytes: what goes to the kernel and what comes back.

Pure: no socket here. Layouts are those of include/uapi/linux/netlink.h and rtnetlink.h, in the
byte order of the machine. An IPv6 route as the kernel dumps it (rt6_fill_node in
net/ipv6/route.c) starts with RTA_TABLE and RTA_DST.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from anyipd.model import Prefix

PROTOCOL = 150
"""What marks a route as ours."""

DHCP = 16  # RTPROT_DHCP

LOOPBACK_INDEX = 1  # LOOPBACK_IFINDEX, the same in every network namespace

NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE = 1, 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_DUMP = 0x01, 0x02, 0x04, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400

EVERY_TABLE, TABLE_HOOKS, TABLE_MAIN, TABLE_LOCAL = 0, 150, 254, 255
"""Our hooks leave messages in the second one; no rule looks it up."""
UNICAST, LOCAL, THROW = 1, 2, 9
DISCARDS = {"blackhole": 6, "unreachable": 7, "prohibit": 8}
"""The types of a discard route, by their names in iproute2."""

RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY = 1, 2, 4, 5, 6
RTA_MULTIPATH, RTA_CACHEINFO, RTA_TABLE, RTA_VIA, RTA_PREF, RTA_EXPIRES = 9, 12, 15, 18, 20, 23

_LEAST = {RTA_OIF: 4, RTA_PRIORITY: 4, RTA_TABLE: 4, RTA_PREF: 1, RTA_CACHEINFO: 12}
"""Bytes that the values of these attributes have at least."""

_SEQUENCE = 1  # of every request: one is under way at a time, and refusals tell what they refuse
HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags
IFADDRMSG = struct.Struct("=BBBBI")  # family, prefixlen, flags, scope, index
_END = struct.Struct("=IHHIIi")  # NLMSG_DONE or the beginning of NLMSG_ERROR: header, error
ATTRIBUTE = struct.Struct("=HH")
U32 = struct.Struct("=HHI")
_RTNEXTHOP = struct.Struct("=HBxI")  # length, flags, index
_FIXED = HEADER.size + _RTMSG.size

ROUTE_SIZE = _FIXED
"""Bytes of a route's message before its attributes."""

TABLE_OFFSET = _FIXED + ATTRIBUTE.size
"""Where the message of an IPv6 route has its table: RTA_TABLE is its first attribute."""

AF_INET, AF_INET6 = 2, 10
_RTNH_F_ONLINK = 4
_PREFERENCES = {1: 1, 3: -1}  # ICMPV6_ROUTER_PREF_HIGH and _LOW; all else is medium (RFC 4191, 2.2)


_RT_SCOPE_HOST = 254
_MAX_ERRNO = 4095  # include/linux/err.h
_ADDRESS = {AF_INET: 4, AF_INET6: 16}
"""Bytes of an address."""

WIDTHS = {AF_INET6: 128, AF_INET: 32}
"""The families that have routes of ours, and the width of their addresses, as in `Prefix`."""


class MalformedError(ValueError):
    """Bytes that are no netlink message of the kernel's."""


class Hop(NamedTuple):
    """A next hop: an interface index, and the address of a router there, 0 where there is none."""

    interface: int
    router: int = 0
    onlink: bool = False


class Route(NamedTuple):
    """A route of ours, or one that stands in somebody's name: as much as identifies it, and `ticks`.

    It is of IPv4 or IPv6, as its prefix is. `ticks` is rta_expires, see `decide/plan.py`. `interface` is
    an index, 0 where the route has several next hops or none; `gateway` says whether there is a next
    hop address. Of a default route all `hops` are told, and the `preference` of its router.
    """

    prefix: Prefix
    table: int
    protocol: int
    type: int
    metric: int
    interface: int
    gateway: bool
    ticks: int
    source: Prefix = Prefix(0, 0)  # of a source-specific route
    hops: tuple[Hop, ...] = ()
    preference: int = 0


_GLANCE = struct.Struct(
    "=I13xB"  # length of the message; dst_len
    "22x16s"  # the rest of rtmsg, RTA_TABLE, the header of RTA_DST; destination, if dst_len is not 0
)
"""The beginning of an IPv6 route."""


def routes_request(table: int, protocol: int, family: int, kind: int = 0) -> bytes:
    """Ask for the routes of a table or of every one, of one protocol and of one type unless these are 0.

    The kernel filters if the socket has NETLINK_GET_STRICT_CHK (ip_valid_fib_dump_req in
    net/ipv4/fib_frontend.c, which IPv6 shares).
    """
    return dump_request(
        RTM_GETROUTE, _RTMSG.pack(family, 0, 0, 0, 0, protocol, 0, kind, 0) + U32.pack(8, RTA_TABLE, table)
    )


def dump_request(kind: int, body: bytes) -> bytes:
    """Ask for a dump; `body` says of what."""
    return request(kind, NLM_F_DUMP, body)


def request(message: int, flags: int, body: bytes) -> bytes:
    """Ask for something, a change maybe."""
    return HEADER.pack(HEADER.size + len(body), message, NLM_F_REQUEST | flags, _SEQUENCE, 0) + body


BARRIER = HEADER.pack(HEADER.size, NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, _SEQUENCE, 0)
"""What the kernel answers when it worked on all messages before it, whose errors come back unasked."""


def change_request(message: int, flags: int, route: Route, expires: int | None = None) -> bytes:
    """Ask for a change of a route.

    `expires` is the lifetime in seconds that the kernel is to keep, None for ever. Everything that
    identifies a route is sent, so that a delete can never hit a stranger's (fib6_del_route takes
    the first that matches what was said).
    """
    [request] = change_requests([route.prefix], message, flags, route[1:], expires)
    return request


def change_requests(
    prefixes: Iterable[Prefix], message: int, flags: int, rest: tuple[Any, ...], expires: int | None
) -> Iterator[bytes]:
    """Ask likewise for a change of the route to each prefix; `rest` is all else of a `Route`."""
    alike, head, tail = None, b"", b""
    for address, length, width in prefixes:  # thousands, maybe, that differ in their addresses alone
        if alike != (length, width):
            alike = length, width
            head, tail = _around_address(message, flags, length, width, rest, expires)
        yield b"%b%b%b" % (head, address.to_bytes(width // 8), tail)


@lru_cache
def _around_address(  # noqa: PLR0913, PLR0917  all that requests for thousands of routes have in common
    message: int, flags: int, length: int, width: int, rest: tuple[Any, ...], expires: int | None
) -> tuple[bytes, bytes]:
    route = Route(Prefix(0, length, width), *rest)
    tail = U32.pack(8, RTA_OIF, route.interface) if route.interface else b""
    tail += U32.pack(8, RTA_PRIORITY, route.metric)
    if route.source.length:
        tail += ATTRIBUTE.pack(20, RTA_SRC) + route.source.address.to_bytes(16)
    [hop] = route.hops if len(route.hops) == 1 else [Hop(route.interface)]
    if hop.router:
        tail += ATTRIBUTE.pack(4 + width // 8, RTA_GATEWAY) + hop.router.to_bytes(width // 8)
    if expires is not None:
        tail += U32.pack(8, RTA_EXPIRES, expires)
    family, scope = (AF_INET6, 0) if width == 128 else (AF_INET, _RT_SCOPE_HOST)  # noqa: PLR2004  the width of IPv6
    size = _ADDRESS[family]
    body = _RTMSG.pack(
        *(family, length, route.source.length, 0),
        *(route.table, route.protocol, scope, route.type, _RTNH_F_ONLINK if hop.onlink else 0),
    ) + ATTRIBUTE.pack(ATTRIBUTE.size + size, RTA_DST)
    total = HEADER.size + len(body) + size + len(tail)
    return HEADER.pack(total, message, NLM_F_REQUEST | flags, _SEQUENCE, 0) + body, tail


class Refusal(NamedTuple):
    """A request that the kernel refused: `error` is an errno, `prefix` what it was about."""

    prefix: Prefix
    error: int


def answers(buffer: bytes) -> Iterator[tuple[Refusal | None, bool]]:
    """Read what came back for a batch: a refusal or None, and whether it answers the barrier.

    Raises MalformedError, as all that reads here does.
    """
    for start, kind, end in messages(buffer):
        if kind != NLMSG_ERROR:
            continue
        request = start + HEADER.size + 4
        need(request + HEADER.size, end)
        error = _errno(struct.unpack_from("=i", buffer, start + HEADER.size)[0])
        _, about, flags, _, _ = HEADER.unpack_from(buffer, request)
        refusal = None
        if error:
            family, length = _family_and_length(buffer, request + HEADER.size)
            body = IFADDRMSG if about in {RTM_NEWADDR, RTM_DELADDR} else _RTMSG
            first = request + HEADER.size + body.size + ATTRIBUTE.size
            last = first + _ADDRESS[family]
            need(last, end)
            refusal = Refusal(prefix_of(int.from_bytes(buffer[first:last]), length, family), error)
        yield refusal, bool(flags & NLM_F_ACK)


def messages(buffer: bytes) -> Iterator[tuple[int, int, int]]:
    """Split what one recv gave: start, type and end of each message."""
    start = 0
    while start < len(buffer):
        need(start + HEADER.size, len(buffer))
        length, kind, _, _, _ = HEADER.unpack_from(buffer, start)
        need(HEADER.size, length)
        need(start + length, len(buffer))
        yield start, kind, start + length
        start += (length + 3) & ~3


def split_end(chunk: bytes) -> tuple[bytes, bool]:
    """Part what one recv of a dump brought: the routes, and whether the dump is over with them.

    The end comes alone or behind routes (netlink_dump_done in net/netlink/af_netlink.c), so it is
    looked for where it must be: walking over all messages would cost as much as reading them.
    Raises OSError if the kernel refused the dump.
    """
    need(_END.size, len(chunk))
    last = len(chunk) - _END.size
    if HEADER.unpack_from(chunk)[1] == NLMSG_ERROR:
        last = 0
    else:
        size, kind, flags, sequence, _ = HEADER.unpack_from(chunk, last)
        if (size, kind, flags & NLM_F_MULTI, sequence) != (_END.size, NLMSG_DONE, NLM_F_MULTI, _SEQUENCE):
            return chunk, False
    error = _errno(_END.unpack_from(chunk, last)[-1])
    if error:
        raise OSError(error, os.strerror(error))
    return chunk[:last], True


class Overlap:
    """Finds the IPv6 routes that share addresses with some prefixes, default routes included.

    A table may hold a million others, and each of them costs one step.
    """

    def __init__(self, prefixes: Sequence[Prefix]) -> None:
        self._starts, self._ends = list[int](), list[int]()
        for prefix in sorted(prefixes):  # what is inside another comes behind it
            if not self._ends or prefix.address >= self._ends[-1]:
                self._starts.append(prefix.address)
                self._ends.append(prefix.end)
        lowest = self._starts[0]
        self._lowest, self._highest = lowest.to_bytes(16), (self._ends[-1] - 1).to_bytes(16)
        # What starts before all of them and covers one covers the lowest.
        zeros = (lowest & -lowest).bit_length() - 1
        self._covering = {
            (128 - host_bits, (lowest >> host_bits << host_bits).to_bytes(16))
            for host_bits in range(zeros + 1, 128)
        }

    def find(self, buffer: bytes) -> Iterator[tuple[int, int]]:
        """Start and end of the message of each such route."""
        lowest, highest, covering = self._lowest, self._highest, self._covering
        start = 0
        while start < len(buffer):
            try:
                size, length, address = _GLANCE.unpack_from(buffer, start)
            except struct.error:
                raise MalformedError("a route message is cut short") from None
            if size < _GLANCE.size:
                raise MalformedError(f"a route message of {size} bytes")
            if lowest <= address <= highest:
                if not length or self._overlaps(int.from_bytes(address), length):
                    yield start, start + size
            elif not length or (length, address) in covering:
                yield start, start + size
            start += (size + 3) & ~3

    def _overlaps(self, address: int, length: int) -> bool:
        before = bisect_left(self._starts, prefix_of(address, length).end)
        return before > 0 and self._ends[before - 1] > address


def route(buffer: bytes, start: int, end: int) -> Route:
    """Read the route message at `start`."""
    need(start + _FIXED, end)
    family, _ = _family_and_length(buffer, start + HEADER.size)
    _, length, source_length, _, table, protocol, _, route_type, flags = _RTMSG.unpack_from(
        buffer, start + HEADER.size
    )
    address = source = metric = interface = ticks = 0
    gateway = False
    for kind, value, size in attributes(buffer, start + _FIXED, end):
        need(_LEAST.get(kind, 0), size)
        if kind == RTA_DST:
            need(_ADDRESS[family], size)
            address = int.from_bytes(buffer[value : value + _ADDRESS[family]])
        elif kind == RTA_SRC:
            need(_ADDRESS[family], size)
            source = int.from_bytes(buffer[value : value + _ADDRESS[family]])
        elif kind == RTA_TABLE:
            table = _unsigned(buffer, value)
        elif kind == RTA_PRIORITY:
            metric = _unsigned(buffer, value)
        elif kind == RTA_OIF:
            interface = _unsigned(buffer, value)
        elif kind in {RTA_GATEWAY, RTA_MULTIPATH, RTA_VIA}:
            gateway = True
        elif kind == RTA_CACHEINFO:
            ticks = struct.unpack_from("=i", buffer, value + 8)[0]
    hops, preference = ((), 0) if length else _routers(buffer, start + _FIXED, end, interface, flags)
    return Route(
        prefix=prefix_of(address, length, family),
        table=table,
        protocol=protocol,
        type=route_type,
        metric=metric,
        interface=interface,
        gateway=gateway,
        ticks=ticks,
        source=prefix_of(source, source_length, AF_INET6),
        hops=hops,
        preference=preference,
    )


def next_hops(buffer: bytes, start: int, end: int) -> set[int]:
    """Return the interfaces of all next hops of the route at `start`."""
    found = set[int]()
    for kind, value, size in attributes(buffer, start + _FIXED, end):
        if kind == RTA_OIF:
            need(_LEAST[RTA_OIF], size)
            found.add(_unsigned(buffer, value))
        elif kind == RTA_MULTIPATH:
            found |= {hop.interface for hop in _hops(buffer, value, value + size)}
    return found


def _routers(buffer: bytes, start: int, end: int, interface: int, flags: int) -> tuple[tuple[Hop, ...], int]:
    """Read the next hops of a default route from its attributes, and the preference of its router."""
    router = preference = 0
    for kind, value, size in attributes(buffer, start, end):
        if kind == RTA_MULTIPATH:
            return tuple(_hops(buffer, value, value + size)), 0
        if kind == RTA_GATEWAY:
            router = int.from_bytes(buffer[value : value + size])
        elif kind == RTA_PREF:
            preference = _PREFERENCES.get(buffer[value], 0)
    return (_hop(interface, router, flags),), preference


def _hops(buffer: bytes, start: int, end: int) -> Iterator[Hop]:
    """Read the next hops of a multipath route (rt6_fill_node_nexthop in net/ipv6/route.c)."""
    while start < end:
        need(start + _RTNEXTHOP.size, end)
        size, flags, interface = _RTNEXTHOP.unpack_from(buffer, start)
        need(_RTNEXTHOP.size, size)
        need(start + size, end)
        router = 0
        for kind, value, length in attributes(buffer, start + _RTNEXTHOP.size, start + size):
            if kind == RTA_GATEWAY:
                router = int.from_bytes(buffer[value : value + length])
        yield _hop(interface, router, flags)
        start += (size + 3) & ~3


def _hop(interface: int, router: int, flags: int) -> Hop:
    return Hop(interface, router, onlink=bool(flags & _RTNH_F_ONLINK))


def first_table(buffer: bytes) -> int:
    """Say which table the first of some IPv6 routes is in."""
    need(TABLE_OFFSET + 4, len(buffer))
    return _unsigned(buffer, TABLE_OFFSET)


def replaces(buffer: bytes, start: int) -> bool:
    """Whether the route message at `start` is of one that took the place of another."""
    need(start + HEADER.size, len(buffer))
    return bool(HEADER.unpack_from(buffer, start)[2] & NLM_F_REPLACE)


def is_ipv4(buffer: bytes, start: int) -> bool:
    """Whether the message at `start` is about IPv4: nearly all of rtnetlink's begin with a family."""
    need(start + HEADER.size + 1, len(buffer))
    return buffer[start + HEADER.size] == AF_INET


def attributes(buffer: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type of each attribute, and position and size of its value."""
    while position < end:
        need(position + ATTRIBUTE.size, end)
        size, kind = ATTRIBUTE.unpack_from(buffer, position)
        need(ATTRIBUTE.size, size)
        need(position + size, end)
        yield kind, position + ATTRIBUTE.size, size - ATTRIBUTE.size
        position += (size + 3) & ~3


def _family_and_length(buffer: bytes, rtmsg: int) -> tuple[int, int]:
    need(rtmsg + 2, len(buffer))
    family, length = buffer[rtmsg], buffer[rtmsg + 1]
    if family not in _ADDRESS:
        raise MalformedError(f"a route of address family {family}")
    return family, length


def prefix_of(address: int, length: int, family: int = AF_INET6) -> Prefix:
    """Return an address with so many bits of prefix, as a message has it; or raise MalformedError."""
    width = 8 * _ADDRESS[family]
    if length > width:
        raise MalformedError(f"a prefix of {length} bits")
    return Prefix(address, length, width)


def _unsigned(buffer: bytes, position: int) -> int:
    return int(struct.unpack_from("=I", buffer, position)[0])


def _errno(negative: int) -> int:
    if not -_MAX_ERRNO <= negative <= 0:
        raise MalformedError(f"{negative} where 0 or a negative error number belongs")
    return -negative


def need(wanted: int, there: int) -> None:
    """Raise MalformedError where a message ends too early: `wanted` bytes, and fewer `there`."""
    if wanted > there:
        raise MalformedError(f"{wanted} bytes wanted where there are {there}")
