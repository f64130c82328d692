"""The uplink that packets from outside would come in by, and the router at its other end."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from anyipd.probe.here import family
from anyipd.probe.reply import OUTSIDE

_SCOPE_GLOBAL, _SCOPE_LINK = 0, 253  # linux/rtnetlink.h
_NOT_IN_USE = 0x20 | 0x40  # deprecated, tentative: linux/if_addr.h

UNTIL_RESOLVED = 2.0
"""Seconds that the router has to say its link-layer address."""


class NoUplinkError(Exception):
    """There is nobody to ask; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """`router` is its address, link-local for IPv6, None on a link without routers' addresses, such as PPP.

    `mac` is the router's link-layer address, empty where the link has none, or where it `is_silent`: then it
    does not say it, and nothing leaves by it. `own` and `own_mac` are this host's, the first link-local and
    empty for IPv4; `address` is a global one of its there, if it has one.
    """

    name: str
    index: int
    router: str | None
    mac: bytes
    is_silent: bool
    own: str
    own_mac: str
    address: str | None


def find(name: str | None, source: str) -> Uplink:
    """Find the way out through the interface `name`, or the one that a reply from `source` takes.

    Raises NoUplinkError.
    """
    kind = family(source)
    with IPRoute() as kernel:
        by = {"oif": _index(name)} if name else {"src": source}
        route = _way_out(kernel, kind, by, name)
        index = int(route.get("oif"))
        link, found = kernel.link("get", index=index)[0], socket.if_indextoname(index)
        own = _address(kernel, kind, index, _SCOPE_LINK)
        if own is None and kind == socket.AF_INET6:
            raise NoUplinkError(f"{found} has no link-local address; is it up?")
        router = route.get("gateway")
        has_mac = bool(router and link.get("address"))
        mac = _link_layer_address(kernel, index, router) if has_mac else b""
        return Uplink(
            name=found,
            index=index,
            router=router,
            mac=mac,
            is_silent=has_mac and not mac,
            own=own or "",
            own_mac=link.get("address") or "",
            address=_address(kernel, kind, index, _SCOPE_GLOBAL),
        )


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise NoUplinkError(f"there is no interface {name}, by which the prefix was delegated") from None


def _address(kernel: IPRoute, kind: socket.AddressFamily, index: int, scope: int) -> str | None:
    for address in kernel.get_addr(family=kind, index=index, scope=scope):
        if not address["flags"] & _NOT_IN_USE:
            return str(address.get("address"))
    return None


def _way_out(kernel: IPRoute, kind: socket.AddressFamily, by: dict[str, Any], name: str | None) -> Any:  # noqa: ANN401  pyroute2 has no types
    try:
        return kernel.route("get", family=kind, dst=OUTSIDE[kind], **by)[0]
    except NetlinkError:
        where = f" by {name}" if name else ""
        raise NoUplinkError(f"there is no default route{where}") from None


def _link_layer_address(kernel: IPRoute, index: int, router: str) -> bytes:
    """Ask the kernel, which asks the router first if it must; empty where that does not answer."""
    kind = family(router)
    with socket.socket(kind, socket.SOCK_DGRAM) as nudge:
        discard = 9
        nudge.sendto(b"", (router, discard, 0, index) if kind == socket.AF_INET6 else (router, discard))
    deadline = time.monotonic() + UNTIL_RESOLVED
    while time.monotonic() < deadline:
        for neighbour in kernel.get_neighbours(family=kind, ifindex=index, dst=router):
            if address := neighbour.get("lladdr"):
                return bytes.fromhex(address.replace(":", ""))
        time.sleep(0.02)
    return b""
