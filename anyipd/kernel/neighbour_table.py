"""The neighbour table as bytes: whom the kernel knows on its links. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from anyipd.kernel import wire
from anyipd.model import Prefix

_RTM_GETNEIGH = 30
_NDA_DST = 1
_NDMSG = struct.Struct("=B3xiHBB")  # family, interface, state, flags, type
_ANSWERED = 0x02 | 0x04 | 0x08 | 0x10 | 0x80  # NUD_REACHABLE, _STALE, _DELAY, _PROBE, _PERMANENT

REQUEST = wire.dump_request(_RTM_GETNEIGH, _NDMSG.pack(0, 0, 0, 0, 0))


def neighbours(buffer: bytes) -> Iterator[tuple[int, Prefix]]:
    """Read a part of a dump: link and address of each neighbour that answered once."""
    for start, _, end in wire.messages(buffer):
        body = start + wire.HEADER.size
        wire.need(body + _NDMSG.size, end)
        family, interface, state, _, _ = _NDMSG.unpack_from(buffer, body)
        width = wire.WIDTHS.get(family)
        for kind, value, size in wire.attributes(buffer, body + _NDMSG.size, end):
            if kind == _NDA_DST and width and size == width // 8 and state & _ANSWERED:
                yield interface, Prefix(int.from_bytes(buffer[value : value + size]), width, width)
