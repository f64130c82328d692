"""Messages of links as bytes. Pure; layouts as in include/uapi/linux/rtnetlink.h and if_link.h."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator

from anyipd.kernel import wire
from anyipd.model import Link, LinkKind

IFLA_IFNAME, IFLA_LINKINFO, IFLA_CARRIER_CHANGES = 3, 18, 35
IFLA_INFO_KIND, IFLA_INFO_SLAVE_KIND = 1, 4
IFF_UP, IFF_LOWER_UP = 1, 0x10000

_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change

_ARPHRD_NONE = 65534  # linux/if_arp.h
_TUNNEL_TYPES = {768, 769, 776, 778, 823}  # ARPHRD_TUNNEL, TUNNEL6, SIT, IPGRE, IP6GRE
_MODEM = "wwan"  # the kind of a modem's link, ARPHRD_NONE like tun's and WireGuard's; older ones' have none


def links_request() -> bytes:
    """Ask for all links."""
    return wire.dump_request(wire.RTM_GETLINK, _IFINFOMSG.pack(0, 0, 0, 0, 0))


def link(buffer: bytes, start: int, end: int) -> tuple[int, bool]:
    """Read the link message at `start`: interface index, and whether the link is up."""
    wire.need(start + wire.HEADER.size + _IFINFOMSG.size, end)
    _, _, index, flags, _ = _IFINFOMSG.unpack_from(buffer, start + wire.HEADER.size)
    return index, bool(flags & IFF_UP)


def links(buffer: bytes) -> Iterator[tuple[str, Link]]:
    """Read a part of a dump of links: each with its name."""
    for start, _, end in wire.messages(buffer):
        body = start + wire.HEADER.size + _IFINFOMSG.size
        wire.need(body, end)
        _, hardware, index, flags, _ = _IFINFOMSG.unpack_from(buffer, start + wire.HEADER.size)
        found = {
            kind: buffer[value : value + size]
            for kind, value, size in wire.attributes(buffer, body, end)
            if kind in {IFLA_IFNAME, IFLA_CARRIER_CHANGES, IFLA_LINKINFO}
        }
        if IFLA_IFNAME in found:
            changes = int.from_bytes(found.get(IFLA_CARRIER_CHANGES, b""), sys.byteorder)
            kind = _link_kind(hardware, found.get(IFLA_LINKINFO, b""))
            yield _text(found[IFLA_IFNAME]), Link(index, changes if flags & IFF_LOWER_UP else None, kind)


def _link_kind(hardware: int, info: bytes) -> LinkKind:
    """Say what a link is, by its ARPHRD_ type and its IFLA_LINKINFO.

    PPP is none of the tunnels: most of it leads to a provider.
    """
    found = {
        kind: _text(info[value : value + size]) for kind, value, size in wire.attributes(info, 0, len(info))
    }
    if found.get(IFLA_INFO_SLAVE_KIND) == "vrf":
        return LinkKind.IN_VRF
    bare_ip = hardware == _ARPHRD_NONE and found.get(IFLA_INFO_KIND, _MODEM) != _MODEM
    return LinkKind.TUNNEL if bare_ip or hardware in _TUNNEL_TYPES else LinkKind.PLAIN


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="surrogateescape")
