"""Router Advertisements, one by one, as a test wants them."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from scapy.layers.inet6 import ICMPv6ND_RA, ICMPv6NDOptSrcLLAddr, IPv6

from tests.lab.namespace import wait_until
from tests.lab.network import ISP_LINK_LOCAL, Uplink

ALL_NODES, ALL_NODES_MAC = "ff02::1", bytes.fromhex("333300000001")
ETH_P_IPV6 = 0x86DD


def advertise(uplink: Uplink, routers: Iterable[str] = (ISP_LINK_LOCAL,), lifetime: int = 1800) -> None:
    """Have routers say that they are there for half an hour; with a lifetime of 0, no longer."""
    mac = uplink.isp.ip_json(f"link show {uplink.customer}")[0]["address"]
    said = ICMPv6ND_RA(routerlifetime=lifetime) / ICMPv6NDOptSrcLLAddr(lladdr=mac)
    with uplink.isp.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sock:
        for each in routers:
            packet = bytes(IPv6(src=each, dst=ALL_NODES, hlim=255) / said)
            sock.sendto(packet, (uplink.customer, ETH_P_IPV6, 0, 0, ALL_NODES_MAC))


def take_router(uplink: Uplink, router: str = ISP_LINK_LOCAL) -> None:
    """Have the host take a router by its advertisement."""
    advertise(uplink, [router])
    wait_until(lambda: is_router(uplink, router))


def leave_router(uplink: Uplink, router: str = ISP_LINK_LOCAL) -> None:
    """Have the host leave it again."""
    advertise(uplink, [router], lifetime=0)
    wait_until(lambda: not is_router(uplink, router))


def is_router(uplink: Uplink, router: str) -> bool:
    """Whether the host has a default route by a router, for whatever source."""
    found = uplink.host.ip_json(f"-6 route show default dev {uplink.interface} proto ra")
    return any(route["gateway"] == router for route in found)
