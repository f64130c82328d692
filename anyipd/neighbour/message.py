"""Neighbor Solicitations and Advertisements as bytes, Ethernet header included.

Pure: no socket here. Layouts and checks are those of RFC 4861, 4.3, 4.4 and 7.1.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

SOLICITATION, ADVERTISEMENT = b"\x87\0", b"\x88\0"
"""Types 135 and 136, with the code that both have."""

ALL_NODES = (0xFF02 << 112) + 1
UNSPECIFIED = 0

ICMPV6_UNFORWARDED = b"\x3a\xff"
"""Next header, and the hop limit that no router can have lowered: who sent it is on this link."""

_SOLICITED, _OVERRIDE = b"\x40\0\0\0", b"\x20\0\0\0"
"""Flags of an advertisement. The router flag is never set: nobody's default router is an AnyIP address."""

_KINDS = frozenset({SOLICITATION, ADVERTISEMENT})
_ETHERTYPE = b"\x86\xdd"
_SOURCE_LINK_LAYER, _TARGET_LINK_LAYER = 1, 2
_SOLICITED_NODE = 0xFF02_0000_0000_0000_0000_0001_FF00_0000
_MULTICAST = 0xFF  # the first byte of an address; of one on Ethernet the lowest bit says it

_FRAME = struct.Struct(
    "!6x6s2s"  # Ethernet: destination, source, type
    "B3xH2s16s16s"  # IPv6: version and more, payload length, next header and hop limit, source, destination
    "2s6x16s"  # ICMPv6: type and code, checksum, flags, target
)
_ADDRESSES, _PAYLOAD = 22, 54  # where the source starts, and ICMPv6 behind the destination
_SHORTEST = 24  # bytes of a message without options
_UNIT = 8  # bytes that the lengths of options count in; a link-layer address option of Ethernet is one
_ICMPV6 = 58


class Message(NamedTuple):
    """A valid solicitation or advertisement. Addresses are integers, link-layer addresses bytes.

    `reply_to` is where a solicitation wants its answer sent to: the address of its option, or else of its
    frame.
    """

    kind: bytes
    frame_source: bytes
    source: int
    target: int
    reply_to: bytes


def parse(frame: bytes) -> Message | None:
    """Read a frame; None is for what RFC 4861, 7.1.1 and 7.1.2 want discarded in silence."""
    if len(frame) < _FRAME.size:
        return None
    frame_source, ethertype, version, length, header, source, destination, kind, target = _FRAME.unpack_from(
        frame
    )
    # Addresses and payload lie side by side: with two numbers more they are what the checksum is over.
    summed = frame[_ADDRESSES : _PAYLOAD + length]
    if (
        header != ICMPV6_UNFORWARDED
        or kind not in _KINDS
        or ethertype != _ETHERTYPE
        or version >> 4 != 6  # noqa: PLR2004  IPv6
        or length % _UNIT
        or not _SHORTEST <= length == len(summed) - (_PAYLOAD - _ADDRESSES)
        or target[0] == _MULTICAST
        or source[0] == _MULTICAST
        or (int.from_bytes(summed) + length + _ICMPV6) % 0xFFFF
    ):
        return None
    reply_to = frame_source
    if length > _SHORTEST:
        option = _SOURCE_LINK_LAYER if kind == SOLICITATION else _TARGET_LINK_LAYER
        try:
            link_layer = _link_layer(frame[_PAYLOAD + _SHORTEST : _PAYLOAD + length], option)
        except ValueError:
            return None
        if link_layer and kind == SOLICITATION:
            if not any(source):
                return None
            reply_to = link_layer
    asked_by, asked_for = int.from_bytes(source), int.from_bytes(target)
    if (
        kind == SOLICITATION
        and asked_by == UNSPECIFIED
        and int.from_bytes(destination) != solicited_node(asked_for)
    ):
        return None
    return Message(kind, frame_source, asked_by, asked_for, reply_to)


class _Form(NamedTuple):
    """What tells one sort of message from another: type and code, flags, type and length of the option."""

    kind: bytes
    flags: bytes
    option: bytes


_ANSWER = _Form(ADVERTISEMENT, _SOLICITED, bytes((_TARGET_LINK_LAYER, 1)))
_ANNOUNCEMENT = _ANSWER._replace(flags=_OVERRIDE)
_QUESTION = _Form(SOLICITATION, bytes(4), bytes((_SOURCE_LINK_LAYER, 1)))


class Advertiser:
    """Writes one node's messages. It is `link_layer` on Ethernet, and speaks from the address `source`."""

    def __init__(self, link_layer: bytes, source: int) -> None:
        self._link_layer = link_layer
        length = _SHORTEST + _UNIT
        header = struct.pack("!2sB3xH2s", _ETHERTYPE, 0x60, length, ICMPV6_UNFORWARDED)
        self._head = link_layer + header + source.to_bytes(16)
        # What is in the checksum of every message.
        self._always = source + length + _ICMPV6 + int.from_bytes(link_layer)

    def answer(self, to: bytes, destination: int, target: int) -> bytes:
        """Advertise `target` to who asked for it, at `to` on Ethernet (RFC 4861, 7.2.4).

        Without the override flag: the answer of a node that really has it prevails.
        """
        return self._message(_ANSWER, to, destination, target)

    def announce(self, target: int) -> bytes:
        """Tell all nodes unasked that `target` is here now, whatever they remember (RFC 4861, 7.2.6)."""
        return self._message(_ANNOUNCEMENT, _on_ethernet(ALL_NODES), ALL_NODES, target)

    def solicit(self, target: int) -> bytes:
        """Ask all nodes for `target`."""
        group = solicited_node(target)
        return self._message(_QUESTION, _on_ethernet(group), group, target)

    def _message(self, form: _Form, to: bytes, destination: int, target: int) -> bytes:
        kind, flags, option = form
        # 65536 is 1 modulo 65535, so a ones' complement sum is what is left of all the bytes as one number.
        total = self._always + int.from_bytes(kind + flags + option) + destination + target
        return b"".join(
            (
                *(to, self._head, destination.to_bytes(16)),
                *(kind, (0xFFFF - total % 0xFFFF).to_bytes(2), flags, target.to_bytes(16)),
                *(option, self._link_layer),
            )
        )


def solicited_node(target: int) -> int:
    """The multicast address that a target is asked for at (RFC 4291, 2.7.1)."""
    return _SOLICITED_NODE | (target & 0xFFFFFF)


def _on_ethernet(group: int) -> bytes:
    """Where a multicast address is sent to (RFC 2464, 7)."""
    return b"\x33\x33" + (group & 0xFFFFFFFF).to_bytes(4)


def _link_layer(options: bytes, wanted: int) -> bytes | None:
    """Find the address in the first option of this type. Raises ValueError where options are malformed."""
    found = None
    position = 0
    while position < len(options):
        kind, size = options[position], _UNIT * options[position + 1]
        if not size or position + size > len(options):
            raise ValueError
        if kind == wanted and found is None:
            found = options[position + 2 : position + size]
            if size != _UNIT or found[0] & 1:  # not of Ethernet, or many nodes'
                raise ValueError
        position += size
    return found
