"""From a delegation to its subnets: which ones the policy wants, where they lie, what is in their way.

A delegated prefix is a line of addresses. Pinned subnets are laid on it first, then automatic ones
into the lowest gaps in file order, `all` last into what is left. Nothing here walks over single
subnets: a run of thousands is one `Subnets`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from anyipd.model import Assigned, Delegation, Prefix, Subnets, SubnetState

if TYPE_CHECKING:  # pydantic is only needed to read a policy
    from anyipd.policy import Policy, SubnetPolicy

ALL_MOST = 65536
"""How many subnets `all` takes of one delegated prefix: a /48 whole, and no more of a larger one."""

EXCLUDED = "excluded by the delegating router (RFC 6603)"
"""The holder of a delegation's excluded prefix."""


class _Span(NamedTuple):
    """Addresses from `start` up to but not `end`."""

    start: int
    end: int


class _Piece(NamedTuple):
    """`number` adjacent subnets of an entry, from its `begin`th on. `start` None: there is no room."""

    begin: int
    number: int
    start: int | None
    reason: str | None = None


def carve(delegation: Delegation, policy: Policy, assigned: Iterable[Assigned]) -> list[Subnets]:
    """Lay the policy's subnets on a delegated prefix; runs come in file order.

    `assigned` may hold prefixes from anywhere. Every run is WANTED, CONFLICT, RESERVED or WITHOUT_ROOM.
    """
    prefix = delegation.prefix
    entries = [
        entry for entry in policy.subnets if entry.uplink in {None, delegation.uplink, *delegation.uplinks}
    ]
    excluded = [Assigned(delegation.exclude, EXCLUDED)] if delegation.exclude else []
    obstacles = sorted(
        (each for each in [*assigned, *excluded] if each.prefix.overlaps(prefix)),
        key=attrgetter("prefix", "holder"),
    )
    taken = [_Span(each.prefix.address, each.prefix.end) for each in obstacles]
    pieces: dict[str, list[_Piece]] = {}
    for entry in entries:
        if entry.id is not None:
            pieces[entry.name] = list(_pinned(entry, entry.id, prefix, obstacles if entry.bind else []))
            taken += _spans(entry, pieces[entry.name])
    for entry in sorted(entries, key=lambda entry: entry.count == "all"):
        if entry.id is None:
            pieces[entry.name] = list(_automatic(entry, prefix, taken))
            taken += _spans(entry, pieces[entry.name])
    return [_subnets(entry, delegation, piece) for entry in entries for piece in pieces[entry.name]]


def unmatched(policy: Policy, delegations: Iterable[Delegation]) -> list[str]:
    """Tell of subnets whose uplink none of the delegations is known to have come in on."""
    uplinks = {uplink for each in delegations for uplink in (each.uplink, *each.uplinks)}
    return [
        f"{each.name}: no prefix is known to be delegated on {each.uplink}"
        for each in policy.subnets
        if each.uplink and each.uplink not in uplinks
    ]


def _spans(entry: SubnetPolicy, pieces: Iterable[_Piece]) -> list[_Span]:
    size = 1 << (128 - entry.length)
    return [_Span(each.start, each.start + each.number * size) for each in pieces if each.start is not None]


def _pinned(
    entry: SubnetPolicy, subnet_id: int, prefix: Prefix, obstacles: Sequence[Assigned]
) -> Iterator[_Piece]:
    """Place a subnet, or a count of them, at their ID, split where somebody else is in the way."""
    count = entry.count if isinstance(entry.count, int) else 1
    ids = 1 << (entry.length - prefix.length) if entry.length >= prefix.length else 0
    fitting = max(min(count, ids - subnet_id), 0)
    first = Prefix(prefix.address + (subnet_id << (128 - entry.length)), entry.length)
    begin = 0
    for low, high, holder in _collisions(first, obstacles):
        if begin == fitting:
            break
        if high < begin or low >= fitting:
            continue
        if begin < low:
            yield _Piece(begin, low - begin, first.address + begin * first.size)
        begin, end = max(begin, low), min(high + 1, fitting)
        yield _Piece(begin, end - begin, first.address + begin * first.size, holder)
        begin = end
    if begin < fitting:
        yield _Piece(begin, fitting - begin, first.address + begin * first.size)
    if fitting < count:
        reason = f"ID {subnet_id + fitting:#x} does not fit into a /{prefix.length}"
        yield _Piece(fitting, count - fitting, None, reason)


def _collisions(first: Prefix, obstacles: Iterable[Assigned]) -> Iterator[tuple[int, int, str]]:
    """First and last of the adjacent subnets that each obstacle meets, counted from `first`, and why."""
    for each in obstacles:
        low = (each.prefix.address - first.address) // first.size
        high = (each.prefix.end - 1 - first.address) // first.size
        yield max(low, 0), high, f"{each.prefix} is {each.holder}"


def _automatic(entry: SubnetPolicy, prefix: Prefix, taken: Sequence[_Span]) -> Iterator[_Piece]:
    """Fill the lowest gaps."""
    size = 1 << (128 - entry.length)
    count = entry.count if isinstance(entry.count, int) else ALL_MOST if entry.count else 1
    placed = 0
    for gap in _gaps(prefix, taken):
        start = -(-gap.start // size) * size
        number = min((gap.end - start) // size, count - placed)
        if number > 0:
            yield _Piece(placed, number, start)
            placed += number
    missing = count - placed if entry.count != "all" else int(not placed)
    if missing:
        yield _Piece(placed, missing, None, f"no free /{entry.length} left in {prefix}")


def _gaps(prefix: Prefix, taken: Sequence[_Span]) -> Iterator[_Span]:
    start = prefix.address
    for span in sorted(taken):
        if span.start > start:
            yield _Span(start, span.start)
        start = max(start, span.end)
    if start < prefix.end:
        yield _Span(start, prefix.end)


def _subnets(entry: SubnetPolicy, delegation: Delegation, piece: _Piece) -> Subnets:
    if piece.start is None:
        state, reason = SubnetState.WITHOUT_ROOM, piece.reason
    elif not entry.bind:
        state, reason = SubnetState.RESERVED, "bind: false"
    else:
        state, reason = (SubnetState.CONFLICT if piece.reason else SubnetState.WANTED), piece.reason
    return Subnets(
        name=entry.name,
        delegation=delegation.prefix,
        state=state,
        first=None if piece.start is None else Prefix(piece.start, entry.length),
        count=piece.number,
        number=None if entry.count is None else piece.begin,
        valid_until=delegation.valid_until,
        reason=reason,
    )
