"""From a delegation to its subnets: which ones the policy wants, where they lie, what is in their way.

A delegated prefix is a line of addresses. Pinned subnets are laid on it first, then automatic ones: see
`places`. Nothing here walks over single subnets: a run of thousands is one `Subnets`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

from anyipd.decide.gaps import Gaps, Span
from anyipd.decide.holes import is_in_hole
from anyipd.decide.places import allocate, hold_downs
from anyipd.decide.static import STATIC, why_reserved
from anyipd.model import (
    INFINITE,
    MAX_WITH_HOLES,
    Assigned,
    Delegation,
    HoldDown,
    Place,
    Places,
    Prefix,
    Subnets,
    SubnetState,
)

if TYPE_CHECKING:  # pydantic is only needed to read a policy
    from anyipd.policy import Policy, SubnetPolicy

_WANTED = SubnetState.WANTED  # looked up once: it takes 0.1 µs, and there may be thousands

EXCLUDED = "excluded by the delegating router (RFC 6603)"
"""The holder of a delegation's excluded prefix."""


@dataclass(frozen=True, slots=True)
class Carved:
    """Subnets of a delegated prefix, what to remember of their places, and when to carve again.

    `deadline` is when `all` may take a place that an obstacle left, in CLOCK_BOOTTIME; INFINITE if it waits
    for none. `hinges` are the addresses where obstacles were looked for: whatever comes or goes elsewhere
    changes nothing of this.
    """

    subnets: list[Subnets]
    places: Places
    deadline: float
    hinges: list[Span] = field(compare=False)


def carve(
    delegation: Delegation, policy: Policy, assigned: Iterable[Assigned], places: Places, now: float
) -> Carved:
    """Lay the policy's subnets on a delegated prefix; runs come in file order, then in that of their numbers.

    `assigned` may hold prefixes from anywhere, `places` is what the last carving of this prefix returned, or
    empty. Every run is WANTED, CONFLICT, RESERVED or WITHOUT_ROOM.
    """
    prefix = delegation.prefix
    uplinks = {None, delegation.uplink, *delegation.uplinks}
    entries = [entry for entry in policy.subnets if entry.uplink in uplinks]
    excluded = [Assigned(delegation.exclude, EXCLUDED)] if delegation.exclude else []
    obstacles = sorted(
        (each for each in [*assigned, *excluded] if each.prefix.overlaps(prefix)),
        key=attrgetter("prefix", "holder"),
    )
    free = Gaps(prefix.address, prefix.end)
    for each in obstacles:
        free.remove(each.prefix.address, each.prefix.end)
    line = _Line(delegation, obstacles)
    runs = {entry.name: [] if entry.id is None else line.pinned(entry, entry.id) for entry in entries}
    pinned = Gaps.of(
        (each.first.address, each.first.address + (each.count << 128 - each.first.length))
        for each in chain.from_iterable(runs.values())
        if each.first
    )
    for span in pinned:
        free.remove(*span)
    automatic = [entry for entry in entries if entry.id is None]
    held: tuple[HoldDown, ...] = ()
    if any(entry.count == "all" for entry in automatic):
        # A static prefix comes and goes by the policy: no place of its own is held down.
        others = (each.prefix for each in obstacles if each.holder != STATIC)
        held = hold_downs(places.hold_downs, prefix, others, now)
    # What yields goes in a while: there nothing new is begun.
    keeps_only = delegation.yields and bool(places.kept)
    in_holes = {entry.name: _in_holes(obstacles, entry) for entry in automatic if entry.holes}
    pieces = allocate(automatic, free, places.kept, held, in_holes, keeps_only=keeps_only)
    runs |= {entry.name: [line.subnets(entry, *each) for each in pieces[entry.name]] for entry in automatic}
    kept = tuple(
        Place(entry.name, None if entry.count is None else begin, Prefix(start, entry.length), end - begin)
        for entry in automatic
        for begin, end, start, _ in pieces[entry.name]
        if start is not None
    )
    # Whoever kept his place looked nowhere else.
    searched = kept != places.kept or (
        not keeps_only
        and any(
            entry.count == "all" or any(each.start is None for each in pieces[entry.name])
            for entry in automatic
        )
    )
    return Carved(
        list(chain.from_iterable(runs.values())),
        # Where nothing of it is kept any more, it is known all the same that something was begun.
        Places(kept or places.kept if keeps_only else kept, held),
        min((each.until for each in held), default=INFINITE),
        [Span(prefix.address, prefix.end)] if searched else [*pinned, *map(_span, places.kept)],
    )


def unmatched(policy: Policy, delegations: Iterable[Delegation]) -> list[str]:
    """Tell of subnets whose uplink none of the delegations is known to have come in on."""
    uplinks = {uplink for each in delegations for uplink in (each.uplink, *each.uplinks)}
    return [
        f"{each.name}: no prefix is known to be delegated on {each.uplink}"
        for each in policy.subnets
        if each.uplink and each.uplink not in uplinks
    ]


def _span(place: Place) -> Span:
    return Span(place.first.address, place.first.address + place.count * place.first.size)


class _Line:
    """A delegated prefix that subnets are laid on, among obstacles."""

    def __init__(self, delegation: Delegation, obstacles: Sequence[Assigned]) -> None:
        self._delegation, self._obstacles = delegation, obstacles
        self._prefix, self._size = delegation.prefix, delegation.prefix.size
        self._deprecated = delegation.deprecated

    def pinned(self, entry: SubnetPolicy, subnet_id: int) -> list[Subnets]:
        """Lay a subnet, or a count of them, at their ID, split where somebody else is in the way."""
        length = entry.length
        count = entry.count if isinstance(entry.count, int) else 1
        shift = 128 - length
        start = self._prefix.address + (subnet_id << shift)
        in_the_way = _outside_holes(self._obstacles, entry) if self._obstacles and entry.bind else ()
        if not in_the_way and subnet_id + count << shift <= self._size:
            return [self.subnets(entry, 0, count, start)]
        fitting = max(min(count, (self._size >> shift) - subnet_id), 0)
        found: list[Subnets] = []
        begin = 0
        for low, high, holder in _collisions(entry, Prefix(start, length), in_the_way):
            if begin == fitting:
                break
            if high < begin or low >= fitting:
                continue
            if begin < low:
                found.append(self.subnets(entry, begin, low, start + (begin << shift)))
            begin, end = max(begin, low), min(high + 1, fitting)
            found.append(self.subnets(entry, begin, end, start + (begin << shift), holder))
            begin = end
        if begin < fitting:
            found.append(self.subnets(entry, begin, fitting, start + (begin << shift)))
        if fitting < count:
            reason = f"ID {subnet_id + fitting:#x} does not fit into a /{self._prefix.length}"
            found.append(self.subnets(entry, fitting, count, None, reason))
        return found

    def subnets(
        self, entry: SubnetPolicy, begin: int, end: int, start: int | None, reason: str | None = None
    ) -> Subnets:
        """Return a run of an entry's subnets; see `Piece`."""
        delegation = self._delegation
        if start is None:
            state, reason = SubnetState.WITHOUT_ROOM, reason or _lack(entry, delegation, self._obstacles)
        elif not entry.bind:
            state, reason = SubnetState.RESERVED, why_reserved(entry.neighbours)
        else:
            state = SubnetState.CONFLICT if reason else _WANTED
        # There may be thousands: keywords would take as long again.
        return Subnets(
            entry.name,
            self._prefix,
            state,
            None if start is None else Prefix(start, entry.length),
            end - begin,
            None if entry.count is None else begin,
            delegation.valid_until,
            reason,
            delegation.uplink,
            self._deprecated,
            None,
            None,
            entry.holes and tuple(sorted(entry.holes)),
        )


def _in_holes(obstacles: Iterable[Assigned], entry: SubnetPolicy) -> list[Prefix]:
    """Return what lies in holes of an entry's subnets, wherever these are: it is in nobody's way."""
    holes = sorted(entry.holes)
    return [each.prefix for each in obstacles if is_in_hole(each.prefix, entry.length, holes)]


def _outside_holes(obstacles: Sequence[Assigned], entry: SubnetPolicy) -> Sequence[Assigned]:
    """Return what does not."""
    if not entry.holes:
        return obstacles
    in_holes = set(_in_holes(obstacles, entry))
    return [each for each in obstacles if each.prefix not in in_holes]


def _collisions(
    entry: SubnetPolicy, first: Prefix, obstacles: Iterable[Assigned]
) -> Iterator[tuple[int, int, str]]:
    """First and last of the adjacent subnets that each obstacle meets, counted from `first`, and why."""
    for each in obstacles:
        low = (each.prefix.address - first.address) // first.size
        high = (each.prefix.end - 1 - first.address) // first.size
        yield max(low, 0), high, f"{each.prefix} is {each.holder}{_hint(entry, each.prefix)}"


def _hint(entry: SubnetPolicy, obstacle: Prefix) -> str:
    """Say how an entry's subnets can be bound around an obstacle that is a small part of one."""
    if obstacle.length <= entry.length or entry.count == "all" or (entry.count or 1) > MAX_WITH_HOLES:
        return ""
    below = obstacle._replace(address=obstacle.address % (1 << 128 - entry.length))
    return f'; `except: ["{below}"]` keeps the rest'


def _lack(entry: SubnetPolicy, delegation: Delegation, obstacles: Sequence[Assigned]) -> str:
    if delegation.yields:
        return f"{delegation.prefix} is superseded, so nothing new is begun there"
    lack = f"no free /{entry.length} left in {delegation.prefix}"
    for each in _outside_holes(obstacles, entry):
        if hint := _hint(entry, each.prefix):
            return f"{lack}: {each.prefix} is {each.holder}{hint}"
    return lack
