"""What another policy makes of the subnets that are bound: which stay, move to another prefix, come or go."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from anyipd.decide.verdict import part
from anyipd.model import Subnets, SubnetState

_TO_BE_BOUND = {SubnetState.WANTED, SubnetState.MISSING, SubnetState.BOUND}


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
    """Compare by name, within each delegation, what is bound with what is to be; what stays is left out."""
    named: defaultdict[tuple[object, ...], tuple[list[Subnets], list[Subnets]]]
    named = defaultdict(lambda: ([], []))  # in the order of the policy, then what it has no more
    for side, runs in ((1, after), (0, before)):
        for each in runs:
            named[each.delegation, each.name, each.number is None][side].append(each)
    for old, new in named.values():
        edges = sorted({edge for each in (*old, *new) for edge in (_begin(each), _begin(each) + each.count)})
        old.sort(key=_begin)
        new.sort(key=_begin)
        for begin, end in pairwise(edges):
            was, will_be = _between(old, begin, end), _between(new, begin, end)
            reason = will_be.reason if will_be else None
            if will_be and will_be.state not in _TO_BE_BOUND:
                will_be = None
            if (was and was.first) != (will_be and will_be.first):
                yield Move(was, will_be, reason)


def _begin(subnets: Subnets) -> int:
    return subnets.number or 0


def _between(runs: Sequence[Subnets], begin: int, end: int) -> Subnets | None:
    """What of `runs`, in order, has the numbers from `begin` up to but not `end`: all of one, or nothing."""
    found = bisect_right(runs, begin, key=_begin) - 1
    if found < 0:
        return None
    offset = begin - _begin(runs[found])
    return part(runs[found], offset, end - begin) if offset < runs[found].count else None
