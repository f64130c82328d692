"""Places: which automatic subnet lies where, what keeps its place, and what `all` leaves alone for a minute.

In: the entries without an ID in file order, the free addresses, and what is remembered of the last carving.
Out: pieces, each a run of adjacent subnets with consecutive numbers. The order of precedence:

1. Every subnet whose place is free keeps it, with its number.
2. What has no place takes the lowest free one, in file order, `all` last.
3. Where no place is free but those that `all` holds, `all` gives them up, the lowest first: it takes what
   the others leave.

`all` numbers its subnets with the lowest unused numbers. It takes a place that an obstacle left only after
HOLD_DOWN, because what came and went once (the LAN of a flapping link) does so again, and each time subnets
would be bound and unbound. Every other place it takes at once: nothing but the policy frees those, by
intention, or a subnet that gave way to an obstacle, and that one does not return. An entry other than `all`
does not wait either, because it had to be without room until then. Without memory nothing is held down.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from anyipd.decide.gaps import Gaps, Span, aligned
from anyipd.model import INFINITE, HoldDown, Place, Prefix

if TYPE_CHECKING:  # pydantic is only needed to read a policy
    from anyipd.policy import SubnetPolicy

MAX_ALL = 65536
"""Subnets that `all` takes of one delegated prefix: a /48 whole, and no more of a larger one."""

HOLD_DOWN = 60.0
"""Seconds for which a place must have been free of obstacles before `all` takes it."""


class Piece(NamedTuple):
    """An entry's subnets with the numbers from `begin` up to but not `end`, which lie side by side.

    `start` is the first one's address, None where there is no room. `reason` is why they are in conflict or
    without room.
    """

    begin: int
    end: int
    start: int | None
    reason: str | None = None


def allocate(  # noqa: PLR0913  who wants a place, and the five things that decide where
    entries: Iterable[SubnetPolicy],
    free: Gaps,
    remembered: Iterable[Place],
    held: Iterable[HoldDown],
    in_holes: Mapping[str, Sequence[Prefix]],
    *,
    keeps_only: bool = False,
) -> dict[str, list[Piece]]:
    """Return the pieces of each entry by its name, in the order of their numbers. `free` is used up.

    `in_holes` is what is in use in the holes of an entry's subnets, and no obstacle to them. Where it
    `keeps_only`, nothing takes a place that it did not have.
    """
    kept: dict[str, list[Place]] = {}
    for place in remembered:
        kept.setdefault(place.name, []).append(place)
    everyone = [_Members(entry, kept.get(entry.name, ()), in_holes.get(entry.name, ())) for entry in entries]
    counted = [each for each in everyone if each.entry.count != "all"]
    whole = [each for each in everyone if each.entry.count == "all"]
    for each in everyone if kept else ():
        each.keep(free)
    if keeps_only:
        return {each.entry.name: each.runs() for each in everyone}
    for each in counted:
        each.fill(free)
    if any(each.pieces for each in whole) and any(each.unplaced for each in counted):
        _make_room(counted, whole, free)
    for start, end, _ in held if whole else ():
        free.remove(start, end)
    for each in whole:
        each.fill(free)
    return {each.entry.name: each.runs() for each in everyone}


def _make_room(counted: Iterable[_Members], whole: Iterable[_Members], free: Gaps) -> None:
    """Have `all` leave the lowest of its places to what has none."""
    for each in whole:
        each.give_up(free)
    for each in counted:
        each.fill(free)
    for each in whole:
        each.keep(free)


def hold_downs(
    before: Iterable[HoldDown], prefix: Prefix, obstacles: Iterable[Prefix], now: float
) -> tuple[HoldDown, ...]:
    """Return what `all` leaves alone in a prefix: where obstacles are, and where one was until lately."""
    present = Gaps.of(
        Span(max(each.address, prefix.address), min(each.end, prefix.end)) for each in obstacles
    )
    found = [HoldDown(start, end, INFINITE) for start, end in present]
    for start, end, until in set(before).difference(found):
        deadline = now + HOLD_DOWN if until == INFINITE else until
        if deadline > now:
            left = Gaps(start, end)
            for span in present.within(start, end):
                left.remove(*span)
            found += [HoldDown(*span, deadline) for span in left]
    return tuple(sorted(found))


class _Members:
    """The subnets of one automatic entry.

    `kept` are its places as remembered, `in_holes` is in use where these subnets may have holes.
    """

    def __init__(self, entry: SubnetPolicy, kept: Iterable[Place], in_holes: Sequence[Prefix]) -> None:
        self.entry = entry
        self._in_holes = in_holes
        self._size = 1 << (128 - entry.length)
        self._kept = kept
        self._begin()

    def _begin(self) -> None:
        count = self.entry.count
        self.pieces: list[Piece] = []
        self.unplaced = Gaps(0, 1 if count is None else MAX_ALL if count == "all" else count)

    def keep(self, free: Gaps) -> None:
        """Take the places that are free of those that are remembered."""
        room = self._room(free)
        for each in self._kept:
            if (each.number is None) != (self.entry.count is None) or each.first.length != self.entry.length:
                continue
            number = each.number or 0
            zero = each.first.address - number * self._size  # where number 0 is, or would be
            for begin, end in list(self.unplaced.within(number, number + each.count)):
                places = aligned(room.within(zero + begin * self._size, zero + end * self._size), self._size)
                for low, high in list(places):
                    self._put(Piece((low - zero) // self._size, (high - zero) // self._size, low), free, room)

    def fill(self, free: Gaps) -> None:
        """Take the lowest free places for what has none."""
        if self.unplaced:
            for piece in list(self._numbered(aligned(self._room(free), self._size))):
                self._put(piece, free)

    def _room(self, free: Gaps) -> Gaps:
        """Return the addresses that these subnets may take, with what others use in their holes.

        A hole is smaller than a subnet, so that alone gives no place to any.
        """
        if not self._in_holes:
            return free
        room = free.copy()
        for each in self._in_holes:
            room.add(each.address, each.end)
        return room

    def give_up(self, free: Gaps) -> None:
        """Leave all places."""
        for begin, end, start, _ in self.pieces:
            assert start is not None
            free.add(start, start + (end - begin) * self._size)
        self._begin()

    def runs(self) -> list[Piece]:
        """Return the pieces in the order of their numbers, adjacent ones as one, and what has no room."""
        found: list[Piece] = []
        following = 0, -1
        for piece in sorted(self.pieces):
            begin, end, start, _ = piece
            assert start is not None
            if (begin, start) == following:
                found[-1] = found[-1]._replace(end=end)
            else:
                found.append(piece)
            following = end, start + (end - begin) * self._size
        if self.entry.count == "all":
            return found or [Piece(0, 1, None)]
        return sorted(found + [Piece(*span, None) for span in self.unplaced]) if self.unplaced else found

    def _numbered(self, places: Iterable[Span]) -> Iterator[Piece]:
        """Number places, lowest to lowest; a piece ends where its numbers or its places do."""
        numbers = iter(self.unplaced)
        begin, end = next(numbers)
        for low, high in places:
            start = low
            while start < high:
                count = min(end - begin, (high - start) // self._size)
                yield Piece(begin, begin + count, start)
                begin, start = begin + count, start + count * self._size
                if begin == end:
                    begin, end = next(numbers, (0, 0))
                if begin == end:
                    return

    def _put(self, piece: Piece, *gaps: Gaps) -> None:
        begin, end, start, _ = piece
        assert start is not None
        self.pieces.append(piece)
        self.unplaced.remove(begin, end)
        for free in gaps:
            free.remove(start, start + (end - begin) * self._size)
