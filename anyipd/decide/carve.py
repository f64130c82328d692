"""From a delegation to its subnets: which ones the policy wants, where they lie, what is in their way.

A delegated prefix is a line of addresses. Pinned subnets are laid on it first, then automatic ones: see
`places`. Nothing here walks over single subnets: a run of thousands is one `Subnets`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING

from anyipd.decide.gaps import Gaps, Span
from anyipd.decide.holes import is_in_hole
from anyipd.decide.places import Piece, allocate, hold_downs
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
    pieces: dict[str, list[Piece]] = {}
    placed: list[Span] = []
    for entry in entries:
        if entry.id is not None:
            in_the_way = _outside_holes(obstacles, entry) if entry.bind else []
            pieces[entry.name] = _pinned(entry, entry.id, prefix, in_the_way)
            placed += [
                Span(start, start + ((end - begin) << (128 - entry.length)))
                for begin, end, start, _ in pieces[entry.name]
                if start is not None
            ]
    pinned = Gaps.of(placed)
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
    pieces |= allocate(automatic, free, places.kept, held, in_holes, keeps_only=keeps_only)
    kept = tuple(
        Place(entry.name, None if entry.count is None else begin, Prefix(start, entry.length), end - begin)
        for entry in automatic
        for begin, end, start, _ in pieces[entry.name]
        if start is not None
    )
    deprecated = delegation.deprecated
    # Whoever kept his place looked nowhere else.
    searched = kept != places.kept or (
        not keeps_only
        and any(
            entry.count == "all" or any(each.start is None for each in pieces[entry.name])
            for entry in automatic
        )
    )
    return Carved(
        [
            _subnets(entry, delegation, piece, obstacles, deprecated=deprecated)
            for entry in entries
            for piece in pieces[entry.name]
        ],
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


def _pinned(
    entry: SubnetPolicy, subnet_id: int, prefix: Prefix, obstacles: Sequence[Assigned]
) -> list[Piece]:
    """Place a subnet, or a count of them, at their ID, split where somebody else is in the way."""
    count = entry.count if isinstance(entry.count, int) else 1
    ids = 1 << (entry.length - prefix.length) if entry.length >= prefix.length else 0
    fitting = max(min(count, ids - subnet_id), 0)
    start, shift = prefix.address + (subnet_id << (128 - entry.length)), 128 - entry.length
    found: list[Piece] = []
    begin = 0
    for low, high, holder in _collisions(entry, Prefix(start, entry.length), obstacles) if obstacles else ():
        if begin == fitting:
            break
        if high < begin or low >= fitting:
            continue
        if begin < low:
            found.append(Piece(begin, low, start + (begin << shift)))
        begin, end = max(begin, low), min(high + 1, fitting)
        found.append(Piece(begin, end, start + (begin << shift), holder))
        begin = end
    if begin < fitting:
        found.append(Piece(begin, fitting, start + (begin << shift)))
    if fitting < count:
        reason = f"ID {subnet_id + fitting:#x} does not fit into a /{prefix.length}"
        found.append(Piece(fitting, count, None, reason))
    return found


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


def _subnets(
    entry: SubnetPolicy,
    delegation: Delegation,
    piece: Piece,
    obstacles: Sequence[Assigned],
    *,
    deprecated: bool,
) -> Subnets:
    reason = piece.reason
    if piece.start is None:
        state, reason = SubnetState.WITHOUT_ROOM, reason or _lack(entry, delegation, obstacles)
    elif not entry.bind:
        state, reason = SubnetState.RESERVED, why_reserved(entry.neighbours)
    else:
        state = SubnetState.CONFLICT if reason else SubnetState.WANTED
    # There may be thousands: keywords would take as long again.
    return Subnets(
        entry.name,
        delegation.prefix,
        state,
        None if piece.start is None else Prefix(piece.start, entry.length),
        piece.end - piece.begin,
        None if entry.count is None else piece.begin,
        delegation.valid_until,
        reason,
        delegation.uplink,
        deprecated,
        holes=entry.holes and tuple(sorted(entry.holes)),
    )
