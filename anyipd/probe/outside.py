"""Whether packets to our addresses arrive from outside: sent to the router, which must hand them back.

An Echo Request leaves by the uplink, from another address of this host, past the kernel, which would
keep it here. A router that routes the prefix to this host returns it. One that has the prefix
on-link asks for the address by Neighbor Solicitation (RFC 4861), and one that knows nothing of it says
so (RFC 4443). scapy builds and reads the packets.
"""

from __future__ import annotations

import secrets
import select
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6TimeExceeded,
    IPerror6,
    IPv6,
)
from scapy.utils6 import in6_getnsma, in6_getnsmac

from anyipd.kernel import bpf
from anyipd.probe.uplink import Uplink

PATIENCE = 2.0
"""Seconds that a router has for all of it. It repeats a solicitation after one."""

HOP_LIMIT = 64
PACE = 0.002
"""Seconds between two packets: a burst is not what is measured, and routers limit what they say of errors."""

PROGRESS = 0.2
"""Seconds between two words of how far it is."""

_ETH_P_ALL, _ETH_P_IPV6 = 3, 0x86DD
_NEXT_HEADER, _ICMPV6 = 6, 58

_UNREACHABLE = {
    0: "no route to it",
    1: "it is forbidden",
    2: "beyond the scope of the source",
    3: "the address is unreachable",
    5: "a source address from here is forbidden",
    6: "the route rejects it",
}


@dataclass
class Outside:
    """What came of it, by address.

    `arrived` are seconds; `solicited` are addresses that a router asked for on the link, and `advertised`
    those for which this host answered it, by the address that the answer came from; `owners` are link-layer
    addresses of other nodes that say an address is theirs; `errors` what routers said, and which.
    """

    arrived: dict[str, float] = field(default_factory=dict)
    solicited: set[str] = field(default_factory=set)
    advertised: dict[str, str] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def ask(uplink: Uplink, pairs: Mapping[str, str], progress: Callable[[int], None]) -> Outside:
    """Send to each address from the source it is mapped to; take in what comes, for PATIENCE at most.

    `progress` is told how many have arrived. Raises PermissionError without CAP_NET_RAW.
    """
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_PACKET, kind) as sock:
        bpf.attach(sock, _filter())
        sock.bind((uplink.name, _ETH_P_ALL))
        asking = _Asking(sock, uplink)
        for address, source in pairs.items():
            asking.send(address, source)
            asking.take(PACE)
        deadline = time.monotonic() + PATIENCE
        while len(asking.found.arrived) < len(pairs) and (left := deadline - time.monotonic()) > 0:
            progress(len(asking.found.arrived))
            asking.take(min(left, PROGRESS))
    return asking.found


class _Asking:
    """What is under way: `sent` is when an address was asked, `token` what tells our packets."""

    def __init__(self, sock: socket.socket, uplink: Uplink) -> None:
        self._sock, self._uplink = sock, uplink
        self._token = secrets.token_bytes(16)
        self._sent: dict[str, float] = {}
        self.found = Outside()

    def send(self, address: str, source: str) -> None:
        """Ask the router for the address by an Echo Request, and the link by a solicitation."""
        request = IPv6(src=source, dst=address, hlim=HOP_LIMIT) / ICMPv6EchoRequest(data=self._token)
        self._sent[address] = time.monotonic()
        self._put(bytes(request), self._uplink.mac)
        if self._uplink.mac:
            group = in6_getnsma(socket.inet_pton(socket.AF_INET6, address))
            # A node that answers us would answer the router, too.
            asked = ICMPv6ND_NS(tgt=address) / ICMPv6NDOptSrcLLAddr(lladdr=self._uplink.own_mac)
            whole = IPv6(src=self._uplink.own, dst=socket.inet_ntop(socket.AF_INET6, group), hlim=255) / asked
            self._put(bytes(whole), bytes.fromhex(in6_getnsmac(group).replace(":", "")))

    def _put(self, packet: bytes, mac: bytes) -> None:
        self._sock.sendto(packet, (self._uplink.name, _ETH_P_IPV6, 0, 0, mac))

    def take(self, seconds: float) -> None:
        """Take in what comes within so many seconds, or until all have arrived."""
        deadline = time.monotonic() + seconds
        while len(self.found.arrived) < len(self._sent) and (left := deadline - time.monotonic()) > 0:
            if select.select([self._sock], [], [], left)[0]:
                packet, (_, _, direction, _, link_layer) = self._sock.recvfrom(1 << 16)
                if direction == socket.PACKET_OUTGOING:
                    self._sort_outgoing(IPv6(packet))
                else:
                    self._sort(IPv6(packet), link_layer.hex(":"))

    def _sort_outgoing(self, packet: IPv6) -> None:
        if ICMPv6ND_NA in packet and packet[ICMPv6ND_NA].tgt in self._sent:
            self.found.advertised[packet[ICMPv6ND_NA].tgt] = packet.src

    def _sort(self, packet: IPv6, link_layer: str) -> None:
        if ICMPv6ND_NS in packet:
            self.found.solicited |= {packet[ICMPv6ND_NS].tgt} & self._sent.keys()
        elif ICMPv6ND_NA in packet and packet[ICMPv6ND_NA].tgt in self._sent:
            option = packet.getlayer(ICMPv6NDOptDstLLAddr)
            self.found.owners[packet[ICMPv6ND_NA].tgt] = option.lladdr if option else link_layer
        elif IPerror6 in packet and packet[IPerror6].dst in self._sent:
            self.found.errors[packet[IPerror6].dst] = f"{_error(packet)}, says {packet.src}"
        elif ICMPv6EchoRequest in packet and packet.dst in self._sent:
            if packet[ICMPv6EchoRequest].data != self._token:
                return
            self.found.arrived.setdefault(packet.dst, time.monotonic() - self._sent[packet.dst])


def _filter() -> bytes:
    return bpf.assemble(
        [
            (bpf.LD_WORD, 0, 0, bpf.PROTOCOL),
            *bpf.drop_unless(_ETH_P_IPV6),
            (bpf.LD_BYTE, 0, 0, _NEXT_HEADER),
            *bpf.drop_unless(_ICMPV6),
            bpf.ACCEPT,
        ]
    )


def _error(parsed: IPv6) -> str:
    if ICMPv6DestUnreach in parsed:
        return _UNREACHABLE.get(parsed[ICMPv6DestUnreach].code, "unreachable")
    if ICMPv6TimeExceeded in parsed:
        return "it went round in circles"
    return "an ICMPv6 error"
