"""Neighbor Solicitations and Advertisements as bytes, Ethernet header included.

Pure: no socket here. Layouts and checks are those of RFC 4861, 4.3, 4.4 and 7.1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

SOLICITATION, ADVERTISEMENT = 135 << 8, 136 << 8
"""Types, and the code that both have."""

ALL_NODES = (0xFF02 << 112) + 1
UNSPECIFIED = 0

ICMPV6_UNFORWARDED = 58 << 8 | 255
"""Next header, and the hop limit that no router can have lowered: who sent it is on this link."""

_SOLICITED, _OVERRIDE = 0x4000_0000, 0x2000_0000
"""Flags of an advertisement. The router flag is never set: nobody's default router is an AnyIP address."""

_ETHERTYPE = 0x86DD
_IPV6 = _ETHERTYPE << 4 | 6  # Ethernet's type, and the version that comes next
_SOURCE_LINK_LAYER, _TARGET_LINK_LAYER = 1, 2
_SOLICITED_NODE = 0xFF02_0000_0000_0000_0000_0001_FF00_0000
_MULTICAST = b"\xff"  # where those addresses begin; of one on Ethernet the lowest bit says it

_READ = struct.Struct(
    "!6x6s"  # Ethernet: destination, source
    "L2xHH16s16s"  # its type, IPv6: version and more, payload length, next header and hop limit, addresses
    "H6x16s"  # ICMPv6: type and code, checksum, flags, target
)
_WRITTEN = struct.Struct("!6s16s16s16sHHL16s8s")  # the same with all fields; one ends before the source
_LENGTH, _DESTINATION, _PAYLOAD, _FLAGS = 18, 38, 54, 58
"""Where the payload length, the destination, the ICMPv6 message and its flags start."""

_SHORTEST = 24  # bytes of a message without options
_UNIT = 8  # bytes that the lengths of options count in; a link-layer address option of Ethernet is one
_ICMPV6 = 58
_VALID = ICMPV6_UNFORWARDED - _ICMPV6
"""What all from the payload length on leaves modulo 65535, where the checksum is right: that is over the next
header without the hop limit (RFC 8200, 8.1), and they stand side by side."""

Message = tuple[int, bytes, int, int, bytes]
"""A valid solicitation or advertisement: which of both, who sent it on Ethernet, source, target, and the
address of its option or else of its frame: there a solicitation wants its answer sent to.

It is no named tuple: to make one takes a third of the time that all the rest of reading a frame does.
"""


def parse(frame: bytes) -> Message | None:
    """Read a frame; None is for what RFC 4861, 7.1.1 and 7.1.2 want discarded in silence."""
    try:
        sender, protocol, length, header, source, destination, kind, target = _READ.unpack_from(frame)
    except struct.error:  # too short
        return None
    end = _PAYLOAD + length
    if (
        header != ICMPV6_UNFORWARDED
        or (kind != SOLICITATION and kind != ADVERTISEMENT)  # noqa: PLR1714  sooner than a set
        or protocol >> 12 != _IPV6
        or length % _UNIT
        or length < _SHORTEST
        or end > len(frame)
        or target >= _MULTICAST
        or source >= _MULTICAST
        or int.from_bytes(frame[_LENGTH:end]) % 0xFFFF != _VALID
    ):
        return None
    asked_by, asked_for = int.from_bytes(source), int.from_bytes(target)
    try:
        link_layer = _link_layer(
            frame, end, _SOURCE_LINK_LAYER if kind == SOLICITATION else _TARGET_LINK_LAYER
        )
    except ValueError:
        return None
    if (
        kind == SOLICITATION
        and asked_by == UNSPECIFIED
        and (link_layer or int.from_bytes(destination) != solicited_node(asked_for))
    ):
        return None
    return kind, sender, asked_by, asked_for, link_layer or sender


def is_answer_to(source: int, frame: bytes) -> bool:
    """Say whether a valid advertisement answers a solicitation from this address (RFC 4861, 7.2.4)."""
    return bool(frame[_FLAGS] & _SOLICITED >> 24) and frame[_DESTINATION:_PAYLOAD] == source.to_bytes(16)


@dataclass(frozen=True, slots=True)
class _Form:
    """What tells one sort of a node's messages from another; `total` sums up all that is the same in each."""

    kind: int
    flags: int
    option: bytes
    total: int


class Advertiser:
    """Writes one node's messages. It is `link_layer` on Ethernet, and solicits from the address `source`.

    An advertisement comes from its target, as the kernel's do (ndisc_send_na in net/ipv6/ndisc.c): some
    routers drop what comes from link-local addresses, and no receiver looks at the source (RFC 4861, 7.1.2).
    """

    def __init__(self, link_layer: bytes, source: int) -> None:
        length = _SHORTEST + _UNIT
        header = struct.pack("!HB3xHH", _ETHERTYPE, 0x60, length, ICMPV6_UNFORWARDED)
        self._source, self._head = source, link_layer + header

        def form(kind: int, flags: int, option_type: int) -> _Form:
            option = bytes((option_type, 1)) + link_layer
            total = length + _ICMPV6 + kind + flags + int.from_bytes(option)
            return _Form(kind, flags, option, total)

        self._answer = form(ADVERTISEMENT, _SOLICITED, _TARGET_LINK_LAYER)
        self._announcement = form(ADVERTISEMENT, _OVERRIDE, _TARGET_LINK_LAYER)
        self._question = form(SOLICITATION, 0, _SOURCE_LINK_LAYER)

    def answer(self, to: bytes, destination: int, target: int) -> bytes:
        """Advertise `target` to who asked for it, at `to` on Ethernet (RFC 4861, 7.2.4).

        Without the override flag: the answer of a node that really has it prevails.
        """
        return self._write(self._answer, to, target, destination, target)

    def announce(self, target: int) -> bytes:
        """Tell all nodes unasked that `target` is here now, whatever they remember (RFC 4861, 7.2.6)."""
        return self._write(self._announcement, _on_ethernet(ALL_NODES), target, ALL_NODES, target)

    def solicit(self, target: int) -> bytes:
        """Ask all nodes for `target`."""
        group = solicited_node(target)
        return self._write(self._question, _on_ethernet(group), self._source, group, target)

    def _write(self, form: _Form, to: bytes, source: int, destination: int, target: int) -> bytes:
        # 65536 is 1 modulo 65535, so a ones' complement sum is what is left of all the bytes as one number.
        checksum = -(form.total + source + destination + target) % 0xFFFF
        return _WRITTEN.pack(
            to,
            self._head,
            source.to_bytes(16),
            destination.to_bytes(16),
            form.kind,
            checksum,
            form.flags,
            target.to_bytes(16),
            form.option,
        )


def solicited_node(target: int) -> int:
    """The multicast address that a target is asked for at (RFC 4291, 2.7.1)."""
    return _SOLICITED_NODE | (target & 0xFFFFFF)


def _on_ethernet(group: int) -> bytes:
    """Where a multicast address is sent to (RFC 2464, 7)."""
    return b"\x33\x33" + (group & 0xFFFFFFFF).to_bytes(4)


def _link_layer(frame: bytes, end: int, wanted: int) -> bytes | None:
    """Find the address in the first option of this type. Raises ValueError where options are malformed."""
    found = None
    position = _PAYLOAD + _SHORTEST
    while position < end:
        size = _UNIT * frame[position + 1]
        behind = position + size
        if not size or behind > end:
            raise ValueError
        if frame[position] == wanted and found is None:
            found = frame[position + 2 : behind]
            if size != _UNIT or found[0] & 1:  # not of Ethernet, or many nodes'
                raise ValueError
        position = behind
    return found
