"""The uplink that packets from outside would come in by, and the router at its other end."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute, NetlinkError

SOMEWHERE = "2001:4860:4860::8888"
"""An address far from here: the route to it is the way out. Nothing is sent to it."""

_SCOPE_GLOBAL, _SCOPE_LINK = 0, 253  # linux/rtnetlink.h
_NOT_IN_USE = 0x20 | 0x40  # deprecated, tentative: linux/if_addr.h

UNTIL_RESOLVED = 2.0
"""Seconds that the router has to say its link-layer address."""


class NoUplinkError(Exception):
    """There is nobody to ask; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """`router` is its link-local address, None on a link without routers' addresses, such as PPP.

    `mac` is the router's link-layer address, empty where the link has none; `own` and `own_mac` are
    this host's, the first link-local; `address` is a global one of its there, if it has one.
    """

    name: str
    index: int
    router: str | None
    mac: bytes
    own: str
    own_mac: str
    address: str | None


def find(name: str | None) -> Uplink:
    """Find the way out through the interface `name`, or where the default route leads.

    Raises NoUplinkError.
    """
    with IPRoute() as kernel:
        index = _index(name) if name else None
        route = _way_out(kernel, index, name)
        index = int(route.get("oif"))
        link, found = kernel.link("get", index=index)[0], socket.if_indextoname(index)
        own = _address(kernel, index, _SCOPE_LINK)
        if own is None:
            raise NoUplinkError(f"{found} has no link-local address; is it up?")
        router = route.get("gateway")
        mac = _link_layer_address(kernel, index, router) if router and link.get("address") else b""
        return Uplink(
            name=found,
            index=index,
            router=router,
            mac=mac,
            own=own,
            own_mac=link.get("address") or "",
            address=_address(kernel, index, _SCOPE_GLOBAL),
        )


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise NoUplinkError(f"there is no interface {name}, by which the prefix was delegated") from None


def _address(kernel: IPRoute, index: int, scope: int) -> str | None:
    for address in kernel.get_addr(family=socket.AF_INET6, index=index, scope=scope):
        if not address["flags"] & _NOT_IN_USE:
            return str(address.get("address"))
    return None


def _way_out(kernel: IPRoute, index: int | None, name: str | None) -> Any:  # noqa: ANN401  pyroute2 has no types
    try:
        return kernel.route("get", dst=SOMEWHERE, **({"oif": index} if index else {}))[0]
    except NetlinkError:
        where = f" by {name}" if name else ""
        raise NoUplinkError(f"there is no default route{where}") from None


def _link_layer_address(kernel: IPRoute, index: int, router: str) -> bytes:
    """Ask the kernel, which asks the router first if it must."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as nudge:
        nudge.sendto(b"", (router, 9, 0, index))  # discard
    deadline = time.monotonic() + UNTIL_RESOLVED
    while time.monotonic() < deadline:
        for neighbour in kernel.get_neighbours(family=socket.AF_INET6, ifindex=index, dst=router):
            if address := neighbour.get("lladdr"):
                return bytes.fromhex(address.replace(":", ""))
        time.sleep(0.02)
    raise NoUplinkError(f"the router {router} does not answer on the link")
