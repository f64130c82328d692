"""Sets of integers as disjoint spans: the free addresses of a prefix, or the unused numbers of a `count`.

Each operation costs what the spans it touches cost, however many addresses are in them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Span(NamedTuple):
    """Integers from `start` up to but not `end`."""

    start: int
    end: int


class Gaps:
    """A set of integers, stored as spans in ascending order with something missing between any two.

    It begins as those from `start` up to but not `end`.
    """

    def __init__(self, start: int = 0, end: int = 0) -> None:
        self._starts = [start] if start < end else []
        self._ends = [end] if start < end else []

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int]]) -> Gaps:
        """Return the set of what is in any of these, which is faster than to add them one by one."""
        found = cls()
        starts, ends = found._starts, found._ends
        for start, end in sorted(spans):
            if ends and start <= ends[-1]:
                ends[-1] = max(end, ends[-1])
            else:
                starts.append(start)
                ends.append(end)
        return found

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __iter__(self) -> Iterator[Span]:
        return map(Span, self._starts, self._ends)

    def copy(self) -> Gaps:
        """Return the same set, to be changed by itself."""
        copy = Gaps()
        copy._starts, copy._ends = self._starts.copy(), self._ends.copy()
        return copy

    def add(self, start: int, end: int) -> None:
        """Add the integers from `start` up to but not `end`."""
        low, high = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if low < high:  # it overlaps these, or is adjacent to them
            start, end = min(start, self._starts[low]), max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]

    def remove(self, start: int, end: int) -> None:
        """Remove those from `start` up to but not `end` that are here."""
        low, high = bisect_right(self._ends, start), bisect_left(self._starts, end)
        if low >= high:
            return
        left, right = self._starts[low], self._ends[high - 1]
        before, after = left < start, end < right
        self._starts[low:high] = [left] * before + [end] * after
        self._ends[low:high] = [start] * before + [right] * after

    def holds(self, start: int, end: int) -> bool:
        """Whether all of them from `start` up to but not `end` are here."""
        return list(self.within(start, end)) == [(start, end)]

    def within(self, start: int, end: int) -> Iterator[Span]:
        """Yield what is here from `start` up to but not `end`."""
        low, high = bisect_right(self._ends, start), bisect_left(self._starts, end)
        for i in range(low, high):
            yield Span(max(self._starts[i], start), min(self._ends[i], end))


def aligned(spans: Iterable[Span], size: int) -> Iterator[Span]:
    """Yield what is left of each span when both ends are rounded inwards to a multiple of `size`."""
    for start, end in spans:
        low, high = -(-start // size) * size, end // size * size
        if low < high:
            yield Span(low, high)
