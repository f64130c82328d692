"""The packets that carry DHCPv6 between this host and its uplink: which they are, and what is in them.

Pure. Packets begin with their IPv6 header. Seen are those without extension headers in one piece,
as every client and server sends them.
"""

from __future__ import annotations

import struct
from socket import PACKET_HOST, PACKET_OUTGOING

from anyipd.kernel import bpf
from anyipd.observe.dhcpv6 import ASKING, GIVING_BACK, Kind, MalformedError

_CLIENT_PORT, _SERVER_PORT = 546, 547  # RFC 9915, 7.2
_IPV6, _UDP = 0x86DD, 17
_LINK_LOCAL, _LINK_LOCAL_MASK = 0xFE80, 0xFFC0

_VLAN_ID_MASK = 0xFFF

_NEXT_HEADER, _SOURCE, _DESTINATION = 6, 8, 24
_SOURCE_PORT, _DESTINATION_PORT, _LENGTH, _PAYLOAD = 40, 42, 44, 48


def packet_filter() -> bytes:
    """Pass requests that this host sends and Replies to it: struct sock_filter[].

    Link-local addresses show that it is this host, not one that it routes or bridges for. A client
    sends from its own port, which takes a privilege, so no ordinary user can ask in its name. What
    bears a VLAN tag is for another interface.
    """
    requests = sorted({Kind.SOLICIT} | ASKING | GIVING_BACK)
    incoming = [
        *bpf.drop_unless(PACKET_HOST),
        (bpf.LD_HALF, 0, 0, _DESTINATION_PORT),
        *bpf.drop_unless(_CLIENT_PORT),
        *_drop_unless_link_local(_DESTINATION),
        (bpf.LD_BYTE, 0, 0, _PAYLOAD),
        *bpf.accept_if(Kind.REPLY),
        bpf.DROP,
    ]
    program = [
        (bpf.LD_WORD, 0, 0, bpf.PROTOCOL),
        *bpf.drop_unless(_IPV6),
        (bpf.LD_WORD, 0, 0, bpf.VLAN_TAG),
        (bpf.AND, 0, 0, _VLAN_ID_MASK),
        *bpf.drop_unless(0),
        (bpf.LD_BYTE, 0, 0, _NEXT_HEADER),
        *bpf.drop_unless(_UDP),
        (bpf.LD_WORD, 0, 0, bpf.PACKET_TYPE),
        *bpf.unless([PACKET_OUTGOING], incoming),
        (bpf.LD_HALF, 0, 0, _SOURCE_PORT),
        *bpf.drop_unless(_CLIENT_PORT),
        (bpf.LD_HALF, 0, 0, _DESTINATION_PORT),
        *bpf.drop_unless(_SERVER_PORT),
        *_drop_unless_link_local(_SOURCE),
        (bpf.LD_BYTE, 0, 0, _PAYLOAD),
        *(step for kind in requests for step in bpf.accept_if(kind)),
        bpf.DROP,
    ]
    return bpf.assemble(program)


def _drop_unless_link_local(address: int) -> list[bpf.Instruction]:
    return [
        (bpf.LD_HALF, 0, 0, address),
        (bpf.AND, 0, 0, _LINK_LOCAL_MASK),
        *bpf.drop_unless(_LINK_LOCAL),
    ]


def payload(packet: bytes) -> bytes:
    """Give what the UDP datagram of a packet holds. Raises MalformedError."""
    return _datagram(packet)[_PAYLOAD - _SOURCE_PORT :]


def is_intact(packet: bytes) -> bool:
    """Whether the UDP checksum is right (RFC 8200, 8.1). Raises MalformedError."""
    datagram = _datagram(packet)
    pseudo_header = packet[_SOURCE:_SOURCE_PORT] + struct.pack("!II", len(datagram), _UDP)
    words = pseudo_header + datagram + bytes(len(datagram) % 2)
    # The sum in one's complement: 0xFFFF is its zero.
    total: int = sum(struct.unpack(f"!{len(words) // 2}H", words))
    return total % 0xFFFF == 0


def _datagram(packet: bytes) -> bytes:
    length = int.from_bytes(packet[_LENGTH : _LENGTH + 2])
    datagram = packet[_SOURCE_PORT : _SOURCE_PORT + length]
    if not _PAYLOAD - _SOURCE_PORT <= len(datagram) == length:
        raise MalformedError("a datagram is longer or shorter than it says")
    return datagram
