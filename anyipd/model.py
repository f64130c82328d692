"""The values that flow from observation to decision to kernel.

Nothing here reads a clock, opens a file or talks to the kernel. Addresses are
integers, because a /48 carved whole is 65,536 subnets and an object for each
would cost more than the kernel does.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

INFINITE = float("inf")
"""The deadline of an infinite lifetime (RFC 9915, 7.7: 0xFFFFFFFF seconds)."""


MAX_WITH_HOLES = 256
"""Subnets of an entry that has holes, at most: each of them takes routes of its own."""


class Prefix(NamedTuple):
    """An IP prefix: `address` with its host bits zero, `length` leading bits.

    `width` is 128 for IPv6 and 32 for IPv4.
    """

    address: int
    length: int
    width: int = 128

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Read `2001:db8::/32` or `192.0.2.0/24`; a bare address is a prefix of its full width.

        Raises ValueError, with what is wrong, for anything else, host bits included.
        """
        prefix = cls.parse_with_host(text)
        if prefix != prefix.masked():
            raise ValueError(f"{text!r} has host bits set; its network is {prefix.masked()}")
        return prefix

    @classmethod
    def parse_with_host(cls, text: str) -> Prefix:
        """Read the same, with host bits where they are set. Raises ValueError likewise."""
        host, slash, digits = text.partition("/")
        family, width = (socket.AF_INET6, 128) if ":" in host else (socket.AF_INET, 32)
        try:
            address = int.from_bytes(socket.inet_pton(family, host))
        except (OSError, ValueError):
            raise ValueError(f"{text!r} is not an IP prefix") from None
        length = width
        if slash:
            if not (digits.isascii() and digits.isdigit() and len(digits) <= 3 and int(digits) <= width):  # noqa: PLR2004  no address has more than 128 bits
                raise ValueError(f"{text!r} has no length from 0 to {width}")
            length = int(digits)
        return cls(address, length, width)

    def masked(self) -> Prefix:
        """The same with its host bits zero."""
        return self._replace(address=self.address - self.address % self.size)

    @property
    def size(self) -> int:
        """The number of addresses inside."""
        return 1 << (self.width - self.length)

    @property
    def end(self) -> int:
        """The first address behind the prefix."""
        return self.address + self.size

    def overlaps(self, other: Prefix) -> bool:
        """Whether any address is in both."""
        return self.width == other.width and self.address < other.end and other.address < self.end

    def covers(self, other: Prefix) -> bool:
        """Whether every address of `other` is in this prefix."""
        return self.width == other.width and self.address <= other.address and other.end <= self.end

    def __str__(self) -> str:
        return f"{address_text(self.address, self.width)}/{self.length}"


def address_text(address: int, width: int = 128) -> str:
    """Write an address as RFC 5952 wants it."""
    family = socket.AF_INET6 if width == 128 else socket.AF_INET  # noqa: PLR2004  the width of IPv6
    return socket.inet_ntop(family, address.to_bytes(width // 8))


class LinkKind(Enum):
    """What a link is to routing."""

    PLAIN = "plain"
    TUNNEL = "tunnel"  # to where somebody wants packets to go whichever uplink takes them there
    IN_VRF = "in a VRF"  # its routes are in a table of the VRF's


class Link(NamedTuple):
    """A link: its interface index, and how often its carrier came or went so far, None while it has none."""

    interface: int
    carrier_changes: int | None
    kind: LinkKind = LinkKind.PLAIN


class DefaultRoute(NamedTuple):
    """A default route of table main for whatever source: by a router on a link, or 0 where the link is all.

    `preference` is that of the router: 1 high, 0 medium, -1 low (RFC 4191). `onlink` says that the router's
    address needs no route of its own.
    """

    interface: int
    router: int
    metric: int
    preference: int = 0
    onlink: bool = False


class SourceRoute(NamedTuple):
    """A default route for what is sent from `source`; without an `interface` that is unreachable."""

    source: Prefix
    metric: int
    interface: int = 0
    router: int = 0
    onlink: bool = False


@dataclass(frozen=True, slots=True)
class Discard:
    """A discard route over a delegated prefix: a DHCPv6 client's own, or the message of a hook of ours."""

    prefix: Prefix
    metric: int


@dataclass(frozen=True, slots=True)
class Lease:
    """What a DHCPv6 client reports of one prefix: that it is delegated, or, by a `lifetime` of 0, taken back.

    `written` is when it was reported. `reply` is the same in all reports of one Reply, and larger in those of
    a later one; where the client counts it on the wall clock, `clock` says what that was ahead of
    CLOCK_BOOTTIME. `lifetime` is the valid lifetime as granted, None where it is not known. `instance` is the
    client's process, `duid` is another one for another client (its digest), where that is known. `anew` says
    that the client had no lease before this one. Times and deadlines are as in `Delegation`.
    """

    prefix: Prefix
    client: str
    uplink: str | None
    iaid: str | None
    written: float
    lifetime: float | None
    preferred_until: float | None
    valid_until: float
    exclude: Prefix | None = None
    reply: float = 0.0
    clock: float = 0.0
    instance: str | None = None
    anew: bool = False
    duid: str | None = None


@dataclass(frozen=True, slots=True)
class Assigned:
    """A prefix that is in use on this host for something else; `holder` says for what.

    `table` is that of the route which says so, where that is not main.
    """

    prefix: Prefix
    holder: str
    table: int | None = None


@dataclass(frozen=True, slots=True)
class InUse:
    """What is in use inside static prefixes, or on a link around them.

    `next_hops` are routers of this host, as prefixes of an address; `has_default` says whether it has a
    default route of IPv4, or had one since the first look.
    """

    next_hops: frozenset[Prefix] = frozenset()
    assigned: frozenset[Assigned] = frozenset()
    has_default: bool = False


@dataclass(frozen=True, slots=True)
class Covering:
    """A route by `link` around a delegated prefix; `table` where that is not main."""

    prefix: Prefix
    link: str
    table: int | None = None


class Lifetimes(NamedTuple):
    """Until when an address of this host's own is preferred and valid: CLOCK_BOOTTIME, or INFINITE.

    `preferred_until` is 0 where new connections should not use it any more.
    """

    preferred_until: float
    valid_until: float


@dataclass(frozen=True, slots=True)
class HostAddresses:
    """The addresses that were found on links: ours on lo, and those of `others`, with their links' names.

    `are_marked` says that the kernel tells who assigned an address.
    """

    own: Mapping[Prefix, Lifetimes] = field(default_factory=dict)
    others: Mapping[int, str] = field(default_factory=dict)
    are_marked: bool = True


class DelegationState(Enum):
    """What may be done with a delegated prefix now, in the words of the log and of `status`."""

    GRANTED = "granted"
    DEPRECATED = "deprecated"  # preferred lifetime over: still bound
    SUPERSEDED = "superseded"  # another prefix was granted in its place: still bound
    REFUSED = "refused"  # the policy does not accept it, or another delegation holds the same addresses


@dataclass(frozen=True, slots=True)
class Delegation:
    """A delegated prefix as all evidence together has it.

    `source` is the DHCPv6 client that reported it first, on `uplink`, or `kernel` where only a discard route
    tells of it; `uplinks` are all that it was reported on. `began` is when the series of grants began. Times
    are seconds of CLOCK_BOOTTIME, deadlines may be INFINITE, and None is what is not known. `exclude` is the
    part that the delegating router keeps for the uplink (RFC 6603). `left_out` says that a later Reply left
    it out so far, and may still grant it.
    """

    prefix: Prefix
    source: str
    state: DelegationState
    uplink: str | None = None
    iaid: str | None = None
    preferred_until: float | None = None
    valid_until: float | None = None
    began: float = 0.0
    uplinks: frozenset[str | None] = frozenset({None})
    exclude: Prefix | None = None
    reason: str | None = None
    left_out: bool = False

    @property
    def yields(self) -> bool:
        """Whether it loses to others what they hold of its addresses, and keeps the rest."""
        return self.left_out or self.state is DelegationState.SUPERSEDED

    @property
    def is_usable(self) -> bool:
        """Whether subnets may be carved out of it now."""
        return self.state is not DelegationState.REFUSED

    @property
    def deprecated(self) -> bool:
        """Whether existing connections may use it, and new ones should not."""
        return self.state is DelegationState.DEPRECATED or self.state is DelegationState.SUPERSEDED


class SubnetState(Enum):
    """What the policy and the network make of a subnet."""

    WANTED = "wanted"  # what carving says of a subnet that is to be bound
    BOUND = "bound"  # wanted, and in the kernel's table
    MISSING = "missing"  # wanted, and not (yet) in the kernel's table
    CONFLICT = "conflict"  # somebody else uses these addresses
    WITHOUT_ROOM = "without room"  # the delegated prefix is too small
    RESERVED = "reserved"  # `bind: false`


@dataclass(slots=True)  # nobody changes one; frozen, each of thousands would take three times as long to make
class Subnets:
    """A run of `count` adjacent subnets with one fate, the smallest unit of a decision.

    The run's i-th subnet starts at `first.address + i * first.size` and is named `name`, or
    `name-(number + i)` where the policy asked for a count. WITHOUT_ROOM has no `first`. `uplink` is that of
    the delegation; `deprecated` says that new connections should use another subnet of the name, if there is
    one (RFC 4862, section 5.5.4; RFC 9096). `address` is this host's own in the subnet, where the policy asks
    for one and the subnet is to be bound; `address_reason` says why lo does not have it. `holes` are parts of
    each that are left to other routes, in order, as the bits below it; `gateways` are this host's routers
    in there.
    """

    name: str
    delegation: Prefix | None  # None: static
    state: SubnetState
    first: Prefix | None
    count: int = 1
    number: int | None = None
    valid_until: float | None = None
    reason: str | None = None
    uplink: str | None = None
    deprecated: bool = False
    address: int | None = None
    address_reason: str | None = None
    holes: tuple[Prefix, ...] = ()
    gateways: tuple[Prefix, ...] = ()

    @property
    def own_address(self) -> Prefix | None:
        """This host's own address in the subnet, if lo is to have it."""
        wanted = self.address is not None and self.address_reason is None
        return Prefix(self.address or 0, 128) if wanted else None

    def parts(self, below: Collection[Prefix]) -> Iterator[Prefix]:
        """Yield parts of each subnet of the run, in order; `below` is what they are in one."""
        if self.first and below:
            size = self.first.size
            for start in range(self.first.address, self.first.address + self.count * size, size):
                for each in below:
                    yield each._replace(address=start + each.address)

    def subnet_name(self, i: int) -> str:
        """Name the run's i-th subnet."""
        return self.name if self.number is None else f"{self.name}-{self.number + i}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run of adjacent subnets of one automatic entry lies; the fields are as in `Subnets`."""

    name: str
    number: int | None
    first: Prefix
    count: int


class HoldDown(NamedTuple):
    """Addresses from `start` up to but not `end` that `count: all` leaves alone before `until`.

    `until` is INFINITE while an obstacle is there, then CLOCK_BOOTTIME.
    """

    start: int
    end: int
    until: float


@dataclass(frozen=True, slots=True)
class Places:
    """What is remembered of how a delegated prefix was carved, so that subnets keep their places.

    `hold_downs` do not overlap, and are in the order of their addresses.
    """

    kept: tuple[Place, ...] = ()
    hold_downs: tuple[HoldDown, ...] = ()
