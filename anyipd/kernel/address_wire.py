"""Messages of addresses as bytes. Pure; layouts as in include/uapi/linux/if_addr.h."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from anyipd.kernel import wire
from anyipd.model import Prefix

IFA_ADDRESS, IFA_LOCAL, IFA_CACHEINFO, IFA_FLAGS, IFA_PROTO = 1, 2, 6, 8, 11
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200
FOREVER = 0xFFFFFFFF  # INFINITY_LIFE_TIME

_SIZES = {IFA_ADDRESS: 16, IFA_LOCAL: 16, IFA_CACHEINFO: 16, IFA_PROTO: 1}
"""Bytes that the values of these attributes of an IPv6 address have."""

_CACHEINFO = struct.Struct("=IIII")  # ifa_cacheinfo: preferred, valid, created, updated
_NO_END = _CACHEINFO.pack(FOREVER, FOREVER, 0, 0)


class Address(NamedTuple):
    """An IPv6 address of a link, `prefix` with its host bits set.

    `protocol` is IFA_PROTO, 0 where nothing is said. `preferred` and `valid` are seconds left, or FOREVER.
    """

    interface: int
    prefix: Prefix
    protocol: int = 0
    preferred: int = FOREVER
    valid: int = FOREVER


def addresses_request() -> bytes:
    """Ask for the IPv6 addresses of all links."""
    return wire.dump_request(wire.RTM_GETADDR, wire.IFADDRMSG.pack(wire.AF_INET6, 0, 0, 0, 0))


def address_request(message: int, flags: int, address: Address) -> bytes:
    """Ask for a change of an address: no duplicate address detection, no route to its prefix."""
    body = (
        wire.IFADDRMSG.pack(wire.AF_INET6, address.prefix.length, 0, 0, address.interface)
        + (wire.ATTRIBUTE.pack(20, IFA_LOCAL) + address.prefix.address.to_bytes(16))
        + (wire.ATTRIBUTE.pack(20, IFA_CACHEINFO) + _CACHEINFO.pack(address.preferred, address.valid, 0, 0))
        + wire.U32.pack(8, IFA_FLAGS, IFA_F_NODAD | IFA_F_NOPREFIXROUTE)
        + (wire.ATTRIBUTE.pack(5, IFA_PROTO) + bytes((address.protocol, 0, 0, 0)))
    )
    return wire.request(message, flags, body)


def addresses(buffer: bytes) -> Iterator[Address]:
    """Read a part of a dump of addresses; of a peer address both ends.

    With a peer, IFA_LOCAL is the address that has the length, and IFA_ADDRESS the one at the other end
    (inet6_fill_ifaddr in net/ipv6/addrconf.c).
    """
    for start, _, end in wire.messages(buffer):
        body = start + wire.HEADER.size + wire.IFADDRMSG.size
        wire.need(body, end)
        _, length, _, _, index = wire.IFADDRMSG.unpack_from(buffer, start + wire.HEADER.size)
        found = {
            kind: buffer[value : value + size]
            for kind, value, size in wire.attributes(buffer, body, end)
            if size == _SIZES.get(kind)
        }
        if IFA_ADDRESS not in found:
            raise wire.MalformedError("an address message without an address")
        if IFA_LOCAL in found:
            yield Address(index, Prefix(int.from_bytes(found[IFA_ADDRESS]), 128))
        address = int.from_bytes(found.get(IFA_LOCAL, found[IFA_ADDRESS]))
        [protocol] = found.get(IFA_PROTO, bytes(1))
        preferred, valid, _, _ = _CACHEINFO.unpack(found.get(IFA_CACHEINFO, _NO_END))
        yield Address(index, wire.prefix_of(address, length), protocol, preferred, valid)
