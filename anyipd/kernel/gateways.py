"""Gateways: the addresses of routers in route messages, and which parts of a dump are worth reading. Pure."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator

from anyipd.kernel import wire
from anyipd.model import Prefix

_RTNEXTHOP = 8  # bytes of it: its length, flags, hops, interface
_VIA = struct.Struct("=H")  # rtvia: family, then the address

_ATTRIBUTE = struct.Struct("=HH")
_BYTES = {width: width // 8 for width in wire.WIDTHS.values()}


def gateways(buffer: bytes, start: int, end: int) -> Iterator[Prefix]:
    """Yield the gateways of the route message at `start`: one, those of several next hops, or none.

    A route of IPv4 may have one of IPv6 (RFC 5549).
    """
    yield from _gateways(buffer, start + wire.ROUTE_SIZE, end)


def _gateways(buffer: bytes, start: int, end: int) -> Iterator[Prefix]:
    for kind, value, size in wire.attributes(buffer, start, end):
        if kind == wire.RTA_MULTIPATH:
            yield from _of_hops(buffer, value, value + size)
        elif kind in {wire.RTA_GATEWAY, wire.RTA_VIA}:
            address = buffer[value + (_VIA.size if kind == wire.RTA_VIA else 0) : value + size]
            if len(address) in _BYTES.values():
                yield Prefix(int.from_bytes(address), 8 * len(address), 8 * len(address))


def _of_hops(buffer: bytes, start: int, end: int) -> Iterator[Prefix]:
    while start + _RTNEXTHOP <= end:
        [size] = struct.unpack_from("=H", buffer, start)
        if not _RTNEXTHOP <= size <= end - start:
            raise wire.MalformedError(f"a next hop of {size} bytes")
        yield from _gateways(buffer, start + _RTNEXTHOP, start + size)
        start += (size + 3) & ~3


class Mentions:
    """Finds the parts of a dump that may hold a route to, around or by way of some prefixes.

    A table may have a million routes, and searching their bytes costs a hundredth of reading them.
    """

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        # A default route of IPv4: the type of its message, and further on its family and length.
        sought = {struct.pack("=H", wire.RTM_NEWROUTE) + b"." * 10 + bytes([wire.AF_INET, 0])}
        for prefix in prefixes:
            size = _BYTES[prefix.width]
            begin = prefix.address.to_bytes(size)[: prefix.length // 8]
            to = _ATTRIBUTE.pack(_ATTRIBUTE.size + size, wire.RTA_DST)
            sought |= {
                re.escape(attribute + begin)
                for attribute in (
                    to,
                    _ATTRIBUTE.pack(_ATTRIBUTE.size + size, wire.RTA_GATEWAY),
                    _ATTRIBUTE.pack(_ATTRIBUTE.size + _VIA.size + size, wire.RTA_VIA)
                    + _VIA.pack(wire.AF_INET6 if size == _BYTES[128] else wire.AF_INET),
                )
            }
            around = (prefix._replace(length=length).masked() for length in range(1, prefix.length))
            sought |= {re.escape(to + each.address.to_bytes(size)) for each in around}
        self._sought = re.compile(b"|".join(sorted(sought)), re.DOTALL)

    def __call__(self, buffer: bytes) -> bool:
        """Whether a part of a dump has what is sought, or bytes like it."""
        return bool(self._sought.search(buffer))
