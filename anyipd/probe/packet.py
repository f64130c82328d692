"""What scapy gives us: its layers, without the whole routing table that importing them would read.

With 65,536 routes of ours that takes half a minute and 1.6 GB.
"""

# ruff: noqa: E402  the setting comes before the layers
from scapy.config import conf

conf.route_autoload = conf.route6_autoload = False

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

__all__ = [
    "ICMPv6DestUnreach",
    "ICMPv6EchoRequest",
    "ICMPv6NDOptDstLLAddr",
    "ICMPv6NDOptSrcLLAddr",
    "ICMPv6ND_NA",
    "ICMPv6ND_NS",
    "ICMPv6TimeExceeded",
    "IPerror6",
    "IPv6",
    "in6_getnsma",
    "in6_getnsmac",
]
