"""The single values of the configuration: what each is in YAML, and what is told of a wrong one."""

from __future__ import annotations

import re
from typing import Annotated, LiteralString, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

from anyipd.model import Prefix, address_text

PROTOCOLS = {
    "redirect": 1,
    "kernel": 2,
    "boot": 3,
    "static": 4,
    "gated": 8,
    "ra": 9,
    "mrt": 10,
    "zebra": 11,
    "bird": 12,
    "dnrouted": 13,
    "xorp": 14,
    "ntk": 15,
    "dhcp": 16,
    "keepalived": 18,
    "babel": 42,
    "openr": 99,
    "bgp": 186,
    "isis": 187,
    "ospf": 188,
    "rip": 189,
    "eigrp": 192,
}
"""Route protocols by name, as in iproute2's etc/iproute2/rt_protos."""

LONGEST_LABEL = 63
"""Characters of a DNS label (RFC 1035, 2.3.4)."""

_MAX_NAME = 15  # IFNAMSIZ - 1, in linux/if.h

_OWN_PROTOCOL = 150
_SHORTEST_STATIC = 8  # a typing error, not a rented prefix, is shorter

_NOBODYS = {
    Prefix.parse("127.0.0.0/8"): "loopback",
    Prefix.parse("169.254.0.0/16"): "link-local",
    Prefix.parse("224.0.0.0/4"): "multicast",
    Prefix.parse("::1/128"): "loopback",
    Prefix.parse("fe80::/10"): "link-local",
    Prefix.parse("ff00::/8"): "multicast",
}
"""What no host has to itself."""

_T = TypeVar("_T")


def right(text: LiteralString) -> WrapValidator:
    """Answer whatever pydantic finds wrong with a value by what would be right."""

    def check(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("right", text) from None

    return WrapValidator(check)


def _read_prefix(value: object) -> object:
    if isinstance(value, list):  # of three numbers it is one to pydantic, where it reads JSON
        raise PydanticKnownError("is_instance_of", {"class": Prefix.__name__})
    return Prefix.parse(value) if isinstance(value, str) else value


def _delegable(prefix: Prefix) -> Prefix:
    if prefix.width != 128:  # noqa: PLR2004  the width of IPv6
        raise ValueError(f"found {prefix}; delegated prefixes are IPv6, such as 2001:db8::/32")
    return prefix


def _below_subnet(prefix: Prefix) -> Prefix:
    if prefix.width != 128:  # noqa: PLR2004  the width of IPv6
        raise ValueError(f"found {prefix}; the bits below the subnet, such as ::5/128")
    return prefix


def _rentable(prefix: Prefix) -> Prefix:
    if prefix.length < _SHORTEST_STATIC:
        raise ValueError(f"found {prefix}; a prefix length from {_SHORTEST_STATIC}")
    for place, scope in _NOBODYS.items():
        if prefix.overlaps(place):
            raise ValueError(f"found {prefix}, which is {scope}; one routed to this host")
    return prefix


def _some(entries: tuple[_T, ...]) -> tuple[_T, ...]:
    if not entries:
        raise ValueError("found an empty list; a list of at least one")
    return entries


def _read_interface(name: str) -> str:
    """Refuse what the kernel does (net/core/dev.c, dev_valid_name), and globs."""
    if not 1 <= len(name.encode()) <= _MAX_NAME or name in {".", ".."} or re.search(r"[\s/:*?\[\]]", name):
        raise ValueError(name)
    return name


def _leave_out_parent(value: object) -> object:
    """Refuse `NAME@PARENT`, as `ip link` prints the name of a link that lies on another."""
    name, at, parent = value.partition("@") if isinstance(value, str) else ("", "", "")
    if at and len(name + parent) <= 2 * _MAX_NAME:
        wanted = repr(name) if name else "the name of an interface"
        raise ValueError(
            f"expected {wanted}, found {value!r}: leave out {at + parent!r}, which `ip link` adds"
        )
    return value


def _read_host_bits(value: object) -> int:
    """Read the part of an address that is below a subnet; the address all of zeros is the routers'."""
    address = Prefix.parse(value) if isinstance(value, str) and "/" not in value else Prefix(0, 0)
    if address.width != 128 or not address.address:  # noqa: PLR2004  the width of IPv6
        raise ValueError(value)
    return address.address


def _read_protocol(value: object) -> object:
    return PROTOCOLS.get(value, value) if isinstance(value, str) else value


def _foreign(number: int) -> int:
    if number == _OWN_PROTOCOL:
        raise ValueError(number)
    return number


IPPrefix = Annotated[InstanceOf[Prefix], BeforeValidator(_read_prefix), PlainSerializer(str)]

DelegablePrefix = Annotated[IPPrefix, AfterValidator(_delegable)]

HoleBits = Annotated[IPPrefix, AfterValidator(_below_subnet)]

StaticPrefix = Annotated[IPPrefix, AfterValidator(_rentable)]

AtLeastOne = AfterValidator(_some)
"""Unlike pydantic's min_length it does not count a wrong entry as a missing one."""

HostBits = Annotated[
    int,
    BeforeValidator(_read_host_bits),
    PlainSerializer(address_text),
    right("the bits of an address below its subnet, such as ::1, and not all of them zero"),
]

Label = Annotated[
    str,
    Field(max_length=LONGEST_LABEL, pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"),
    right("a DNS label: 1 to 63 of a-z, 0-9 and -, the first and last no -; quoted where it looks a number"),
]

Interface = Annotated[
    str,
    AfterValidator(_read_interface),
    right("the name of one interface: 1 to 15 bytes, no space, no /, no : and no glob"),
    BeforeValidator(_leave_out_parent),
]

Glob = Annotated[
    str,
    Field(min_length=1),
    right("a glob of interface names, such as eth* or *"),
    BeforeValidator(_leave_out_parent),
]

RouteProtocol = Annotated[
    int,
    Field(strict=True, ge=1, le=255),
    AfterValidator(_foreign),
    BeforeValidator(_read_protocol),
    right("a route protocol: dhcp or another name of rt_protos, or a number from 1 to 255 but our own 150"),
]
