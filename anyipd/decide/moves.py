"""What another policy makes of the subnets that are bound: which stay, move to another prefix, come or go."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from anyipd.decide.verdict import part
from anyipd.model import Subnets, SubnetState

_BOUND = {SubnetState.WANTED, SubnetState.MISSING, SubnetState.BOUND}  # or to be


class Move(NamedTuple):
    """Runs of the same names, the one as it is bound and the other as it is to be; None where it is not.

    `reason` says why not, where the policy has it.
    """

    before: Subnets | None
    after: Subnets | None
    reason: str | None = None

    @property
    def change(self) -> str:
        """`add`, `move` or `remove`."""
        return "remove" if self.after is None else "move" if self.before else "add"


def moves(before: Iterable[Subnets], after: Iterable[Subnets]) -> Iterator[Move]:
    """Say what of the bound subnets `before` has another prefix `after`, comes or goes."""
    for was, will_be in pairs((each for each in before if each.state in _BOUND), after):
        to_be_bound = will_be if will_be and will_be.state in _BOUND else None
        if (was and was.first) != (to_be_bound and to_be_bound.first):
            yield Move(was, to_be_bound, will_be.reason if will_be else None)


def pairs(
    before: Iterable[Subnets], after: Iterable[Subnets]
) -> Iterator[tuple[Subnets | None, Subnets | None]]:
    """Put together what has the same names in a delegation: in the order of `after`, then the rest."""
    named: defaultdict[tuple[object, ...], tuple[list[Subnets], list[Subnets]]]
    named = defaultdict(lambda: ([], []))
    for side, runs in ((1, after), (0, before)):
        for each in runs:
            named[each.delegation, each.name, each.number is None][side].append(each)
    for old, new in named.values():
        edges = sorted({edge for each in (*old, *new) for edge in (_begin(each), _begin(each) + each.count)})
        old.sort(key=_begin)
        new.sort(key=_begin)
        for begin, end in pairwise(edges):
            was, will_be = _between(old, begin, end), _between(new, begin, end)
            if was or will_be:
                yield was, will_be


def _begin(subnets: Subnets) -> int:
    return subnets.number or 0


def _between(runs: Sequence[Subnets], begin: int, end: int) -> Subnets | None:
    """What of `runs`, in order, has the numbers from `begin` up to but not `end`: all of one, or nothing."""
    found = bisect_right(runs, begin, key=_begin) - 1
    if found < 0:
        return None
    offset = begin - _begin(runs[found])
    return part(runs[found], offset, end - begin) if offset < runs[found].count else None
