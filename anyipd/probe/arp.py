"""Whether the router asks for IPv4 addresses of ours by ARP on a link where this host answers none.

Where a prefix is routed to this host nobody asks, and then `arp_ignore` does no harm. So the router is
sent an Echo Request for each address, past the kernel, as in `outside`.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path

from scapy.layers.inet import ICMP, IP

from anyipd.probe.uplink import Uplink

ARP_TIMEOUT = 1.0
"""Seconds that the router has to ask."""

_ETH_P_IP, _ETH_P_ARP = 0x0800, 0x0806
_REQUEST = 1
_ARP = struct.Struct("!HHBBH6s4s6s4s")  # RFC 826, of IPv4 on Ethernet

_RESERVED = range(4, 8)
"""Values of arp_ignore that mean 0 (arp_ignore() in net/ipv4/arp.c)."""


def ignore(link: str) -> int:
    """Give the arp_ignore that is in force on a link: every one but 0 silences what is on no link."""
    found = max(int(Path(f"/proc/sys/net/ipv4/conf/{each}/arp_ignore").read_text()) for each in ("all", link))
    return 0 if found in _RESERVED else found


def asked_for(uplink: Uplink, addresses: Iterable[str]) -> set[str]:
    """Send to each address by the router; give those that it asks for. Raises PermissionError.

    None are where this host has no address to send from, or the link no ARP.
    """
    wanted, asked = set(addresses), set[str]()
    if not (uplink.mac and uplink.address):
        return asked
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_PACKET, kind) as sock:
        sock.bind((uplink.name, _ETH_P_ARP))
        for address in wanted:
            request = IP(src=uplink.address, dst=address) / ICMP()
            sock.sendto(bytes(request), (uplink.name, _ETH_P_IP, 0, 0, uplink.mac))
        deadline = time.monotonic() + ARP_TIMEOUT
        while asked != wanted and (left := deadline - time.monotonic()) > 0:
            if select.select([sock], [], [], left)[0]:
                packet = sock.recv(1 << 16)
                if len(packet) >= _ARP.size:
                    operation, *_, target = _ARP.unpack_from(packet)[4:]
                    if operation == _REQUEST:
                        asked |= {socket.inet_ntop(socket.AF_INET, target)} & wanted
    return asked
