"""From a delegation to its subnets: which ones the policy wants, where they lie, what is in their way.

A delegated prefix is a line of addresses. Pinned subnets are laid on it first, then automatic ones
into the lowest gaps in file order, `all` last into what is left. Nothing here walks over single
subnets: a run of thousands is one `Subnets`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from anyipd.model import Assigned, Delegation, Prefix, Subnets, SubnetState
from anyipd.policy import Policy, SubnetPolicy

ALL_MOST = 65536
"""How many subnets `all` takes of one delegated prefix: a /48 whole, and no more of a larger one."""


class _Span(NamedTuple):
    """Addresses from `start` up to but not `end`."""

    start: int
    end: int


def carve(delegation: Delegation, policy: Policy, assigned: Iterable[Assigned]) -> list[Subnets]:
    """Lay the policy's subnets on a delegated prefix; runs come in file order.

    `assigned` may hold prefixes from anywhere. Every run is WANTED, CONFLICT, RESERVED or WITHOUT_ROOM.
    """
    prefix = delegation.prefix
    entries = [entry for entry in policy.subnets if entry.uplink in {None, delegation.uplink}]
    obstacles = [each for each in assigned if each.prefix.overlaps(prefix)]
    taken = [_Span(each.prefix.address, each.prefix.end) for each in obstacles]
    runs: dict[str, list[Subnets]] = {}
    for entry in entries:
        if entry.id is not None:
            in_the_way = obstacles if entry.bind else []
            runs[entry.name] = list(_pinned(entry, entry.id, delegation, in_the_way))
            taken += _spans(runs[entry.name])
    for entry in sorted(entries, key=lambda entry: entry.count == "all"):
        if entry.id is None:
            runs[entry.name] = list(_automatic(entry, delegation, taken))
            taken += _spans(runs[entry.name])
    return [run for entry in entries for run in runs[entry.name]]


def _spans(runs: Sequence[Subnets]) -> list[_Span]:
    return [
        _Span(run.first.address, run.first.address + run.count * run.first.size)
        for run in runs
        if run.first is not None
    ]


def _pinned(
    entry: SubnetPolicy, subnet_id: int, delegation: Delegation, obstacles: Sequence[Assigned]
) -> Iterator[Subnets]:
    """Place a subnet, or a count of them, at their ID, split where somebody else is in the way."""
    prefix = delegation.prefix
    count = entry.count if isinstance(entry.count, int) else 1
    ids = 1 << (entry.length - prefix.length) if entry.length >= prefix.length else 0
    fitting = max(min(count, ids - subnet_id), 0)
    start = prefix.address + (subnet_id << (128 - entry.length))
    begin = 0
    while begin < fitting:
        end, holder = _same_fate(begin, fitting, Prefix(start, entry.length), obstacles)
        yield _run(entry, delegation, start, begin, end - begin, holder)
        begin = end
    if fitting < count:
        reason = f"ID {subnet_id + fitting:#x} does not fit into a /{prefix.length}"
        yield _roomless(entry, delegation, fitting, count - fitting, reason)


def _same_fate(
    begin: int, end: int, first: Prefix, obstacles: Sequence[Assigned]
) -> tuple[int, Assigned | None]:
    """Where the run of subnets that starts with the `begin`th stops, and what all of it collides with."""
    for each in obstacles:
        low = (each.prefix.address - first.address) // first.size
        high = (each.prefix.end - 1 - first.address) // first.size
        if low <= begin <= high:
            return min(end, high + 1), each
        if begin < low < end:
            end = low
    return end, None


def _automatic(entry: SubnetPolicy, delegation: Delegation, taken: Sequence[_Span]) -> Iterator[Subnets]:
    """Fill the lowest gaps."""
    size = 1 << (128 - entry.length)
    count = entry.count if isinstance(entry.count, int) else ALL_MOST if entry.count else 1
    placed = 0
    for gap in _gaps(delegation.prefix, taken):
        # A delegated prefix is aligned to every size that fits into it.
        start = -(-gap.start // size) * size
        number = min((gap.end - start) // size, count - placed)
        if number > 0:
            yield _run(entry, delegation, start - placed * size, placed, number, None)
            placed += number
    if placed < count and entry.count != "all":
        reason = f"no free /{entry.length} left in {delegation.prefix}"
        yield _roomless(entry, delegation, placed, count - placed, reason)
    elif not placed:
        yield _roomless(entry, delegation, 0, 1, f"no free /{entry.length} left in {delegation.prefix}")


def _gaps(prefix: Prefix, taken: Sequence[_Span]) -> Iterator[_Span]:
    start = prefix.address
    for span in sorted(taken):
        if span.start > start:
            yield _Span(start, min(span.start, prefix.end))
        start = max(start, span.end)
    if start < prefix.end:
        yield _Span(start, prefix.end)


def _run(
    entry: SubnetPolicy, delegation: Delegation, start: int, begin: int, count: int, holder: Assigned | None
) -> Subnets:
    """A run whose first subnet is the entry's `begin`th, `start` being where its first would lie."""
    state, reason = SubnetState.WANTED, None
    if not entry.bind:
        state, reason = SubnetState.RESERVED, "bind: false"
    elif holder:
        state, reason = SubnetState.CONFLICT, f"{holder.prefix} is {holder.holder}"
    return Subnets(
        name=entry.name,
        delegation=delegation.prefix,
        state=state,
        first=Prefix(start + (begin << (128 - entry.length)), entry.length),
        count=count,
        number=None if entry.count is None else begin,
        valid_until=delegation.valid_until,
        reason=reason,
    )


def _roomless(entry: SubnetPolicy, delegation: Delegation, begin: int, count: int, reason: str) -> Subnets:
    return Subnets(
        name=entry.name,
        delegation=delegation.prefix,
        state=SubnetState.WITHOUT_ROOM,
        first=None,
        count=count,
        number=None if entry.count is None else begin,
        reason=reason,
    )
