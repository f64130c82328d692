"""Which way a reply from an address would leave: the kernel is asked, by its rules and tables."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterable

from pyroute2 import IPRoute, NetlinkError

from anyipd.probe.here import family
from anyipd.probe.verdict import Reply

OUTSIDE = {socket.AF_INET6: "2001:4860:4860::8888", socket.AF_INET: "8.8.8.8"}
"""An address far from here, whose route is the way out. Nothing is sent to it."""

_WITHOUT_OUTSIDE = [
    ipaddress.ip_network(each)
    for each in ("fc00::/7", "10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")
]

_RTM_F_FIB_MATCH = 0x2000  # linux/rtnetlink.h: answer with the route that matched


def replies(addresses: Iterable[str]) -> dict[str, Reply]:
    """Ask for the route to OUTSIDE from each address that can be spoken to from there: no private one."""
    with IPRoute() as kernel:
        return {each: _reply(kernel, each) for each in addresses if not _is_private(each)}


def _is_private(address: str) -> bool:
    return any(ipaddress.ip_address(address) in each for each in _WITHOUT_OUTSIDE)


def _reply(kernel: IPRoute, address: str) -> Reply:
    kind = family(address)
    try:
        [route] = kernel.route("get", family=kind, dst=OUTSIDE[kind], src=address, flags=_RTM_F_FIB_MATCH)
    except NetlinkError as error:
        if error.code == errno.ENETUNREACH:
            return Reply(error="there is no default route")
        return Reply(error=f"a route rejects it ({os.strerror(error.code)})")
    hops = {each["oif"] for each in route.get("multipath") or ()} or {route.get("oif")}
    return Reply(
        links=tuple(sorted(map(socket.if_indextoname, hops))),
        table=route.get("table"),
        default=not route["dst_len"],
    )
