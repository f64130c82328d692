"""From subnets to routes, and from what is wanted and what is present to what must change.

Mark and sweep: every wanted route owns one byte, what the kernel lists is ticked off against them,
and what is left over on either side is the plan. The wanted routes stay runs from carving to the
kernel, so that 65,536 of them cost 64 KiB here.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from anyipd.decide.ledger import HOOK_METRICS, KERNEL
from anyipd.model import INFINITE, Assigned, Delegation, Discard, Prefix, Subnets, SubnetState

TICKS = 100
"""Ticks a second: the kernel counts lifetimes out in USER_HZ (rta_expires)."""

LONGEST = 2**31 - 1
"""Ticks of a route that lives 248 days or longer (rtnl_put_cacheinfo in net/core/rtnetlink.c)."""

EARLY, LATE = 10, 200
"""Ticks by which a route may expire before and after the valid lifetime ends.

Lifetimes go in as whole seconds, rounded up; a route that would go earlier than its delegation is renewed.
"""

PATIENCE = 1.0
"""Seconds that a client has to add its discard route after it reported a prefix for the first time."""

ADDS_NONE = {"dhclient", KERNEL}
"""Sources that add none, or none any more."""

_NONE: tuple[list[int], list[int]] = ([], [])
_MISSING, _RIGHT, _OUTDATED, _TAKEN = range(4)
_STRETCH = re.compile(b"\0+|\2+|\3+")


@dataclass(frozen=True, slots=True)
class Run:
    """Adjacent routes of one length that live and die together; the deadline is as in `Delegation`."""

    first: Prefix
    count: int
    valid_until: float | None = None

    def part(self, begin: int, end: int) -> Run:
        """The routes from the `begin`th up to but not the `end`th."""
        address = self.first.address + begin * self.first.size
        return replace(self, first=self.first._replace(address=address), count=end - begin)

    def addresses(self) -> Iterable[int]:
        """The address that each of the routes starts at."""
        return range(self.first.address, self.first.address + self.count * self.first.size, self.first.size)

    def prefixes(self) -> Iterator[Prefix]:
        """The destination of each of the routes."""
        return (self.first._replace(address=address) for address in self.addresses())


@dataclass(slots=True)
class Plan:
    """What to do, in this order: add, renew (only the lifetime differs), remove."""

    add: list[Run] = field(default_factory=list)
    renew: list[Run] = field(default_factory=list)
    remove: list[Run] = field(default_factory=list)
    taken: list[Run] = field(default_factory=list)  # wanted, but a foreign route stands there


@dataclass(frozen=True)
class Wanted:
    """The wanted routes of one table, in the order of their addresses: no route is in two of the runs.

    A route may lie inside another: a delegation inside the one that it superseded, each with a discard route.
    """

    runs: tuple[Run, ...] = ()

    @classmethod
    def of(cls, runs: Iterable[Run]) -> Wanted:
        """Make it of runs in any order."""
        return cls(tuple(sorted(runs, key=lambda run: run.first)))

    @cached_property
    def _of_length(self) -> dict[tuple[int, int], tuple[list[int], list[int]]]:
        """Where the runs of each length and width start, and their places in `runs`."""
        found: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
        for number, run in enumerate(self.runs):
            starts, numbers = found.setdefault((run.first.length, run.first.width), ([], []))
            starts.append(run.first.address)
            numbers.append(number)
        return found

    def holder(self, address: int, length: int, width: int = 128) -> int | None:
        """Which of `runs` has a route to this destination, if any."""
        starts, numbers = self._of_length.get((length, width), _NONE)
        place = bisect_right(starts, address) - 1
        if place < 0:
            return None
        run = self.runs[numbers[place]]
        return numbers[place] if address < run.first.address + run.count * run.first.size else None

    def single(self, prefix: Prefix) -> Run | None:
        """The wanted route to this destination alone, if any."""
        number = self.holder(*prefix)
        return None if number is None else replace(self.runs[number], first=prefix, count=1)


def runs(prefixes: Iterable[Prefix]) -> list[Run]:
    """Put adjacent prefixes of one length together."""
    found: list[Run] = []
    for each in sorted(prefixes, key=lambda prefix: (prefix.length, prefix)):
        last = found[-1] if found else None
        if (
            last
            and last.first[1:] == each[1:]
            and last.first.address + last.count * each.size == each.address
        ):
            found[-1] = replace(last, count=last.count + 1)
        else:
            found.append(Run(each, 1))
    return found


def local_routes(subnets: Iterable[Subnets]) -> Wanted:
    """The local routes that bind the wanted subnets."""
    return Wanted.of(
        Run(each.first, each.count, each.valid_until)
        for each in subnets
        if each.state is SubnetState.WANTED and each.first is not None
    )


def discard_routes(
    delegations: Iterable[Delegation],
    discards: Iterable[Discard],
    ours: Collection[Prefix],
    now: float,
    routed: Iterable[Assigned] = (),
) -> tuple[Wanted, float]:
    """Our own discard routes over delegated prefixes: where the client leaves none (RFC 7084, WPD-5).

    Of what somebody has `routed` whole nothing is unassigned, and his route may be the one of higher metric.

    A client that adds one reports the prefix first and adds it then, so there is a moment's wait; what stands
    of `ours` stays meanwhile. Second comes when the first of those has waited enough, in CLOCK_BOOTTIME;
    INFINITE if none waits.
    """
    covered = {discard.prefix for discard in discards if discard.metric not in HOOK_METRICS}
    bare = [each for each in delegations if each.is_usable and each.prefix not in covered]
    longest = max((each.prefix.length for each in bare), default=0)
    whole = [each.prefix for each in routed if each.prefix.length <= longest]
    bare = [each for each in bare if not any(prefix.covers(each.prefix) for prefix in whole)]
    waiting = {
        each.prefix: each.began + PATIENCE
        for each in bare
        if each.source not in ADDS_NONE and each.prefix not in ours and each.began + PATIENCE > now
    }
    return (
        Wanted.of(Run(each.prefix, 1) for each in bare if each.prefix not in waiting),
        min(waiting.values(), default=INFINITE),
    )


class Sweep:
    """Ticks the routes that are in a table off against the wanted ones."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._marks = [bytearray(run.count) for run in wanted.runs]
        self._unwanted: list[_Leftover] = []

    def see_ours(self, routes: Iterable[tuple[int, int, int]], now: float, width: int = 128) -> None:
        """Tick off routes of ours: address, length and ticks left (0 for ever) of each, as read at `now`.

        `width` is that of their addresses, as in `Prefix`.
        """
        start = end = length = size = 0
        early = late = INFINITE
        mark = bytearray()
        for address, found_length, ticks in routes:
            if not start <= address < end or found_length != length:
                number = self._wanted.holder(address, found_length, width)
                if number is None:
                    self._leave_over(Prefix(address, found_length, width))
                    continue
                run, mark = self._wanted.runs[number], self._marks[number]
                start, length, size = run.first.address, run.first.length, run.first.size
                end = start + run.count * size
                early, late = _tolerance(run, now)
            fine = early <= (ticks or INFINITE) <= late
            mark[(address - start) // size] = _RIGHT if fine else _OUTDATED

    def see_foreign(self, prefix: Prefix) -> None:
        """Note that somebody else's route has this destination."""
        number = self._wanted.holder(*prefix)
        if number is not None:
            first = self._wanted.runs[number].first
            position = (prefix.address - first.address) // first.size
            if self._marks[number][position] == _MISSING:
                self._marks[number][position] = _TAKEN

    def plan(self) -> Plan:
        """What is left to do after everything present was seen."""
        plan = Plan(remove=[Run(each.first, each.count) for each in self._unwanted])
        for run, marks in zip(self._wanted.runs, self._marks, strict=True):
            for stretch in _STRETCH.finditer(marks):
                part = run.part(*stretch.span())
                mark = marks[stretch.start()]
                (plan.add if mark == _MISSING else plan.renew if mark == _OUTDATED else plan.taken).append(
                    part
                )
        return plan

    def _leave_over(self, prefix: Prefix) -> None:
        # The kernel lists a table in the order of its addresses: what was one run comes as one.
        last = self._unwanted[-1] if self._unwanted else None
        if last and last.end == prefix.address and last.first[1:] == prefix[1:]:
            last.end = prefix.end
            last.count += 1
        else:
            self._unwanted.append(_Leftover(prefix, prefix.end))


@dataclass(slots=True)
class _Leftover:
    """Adjacent routes of ours that nobody wants, as they are found."""

    first: Prefix
    end: int
    count: int = 1


def _tolerance(run: Run, now: float) -> tuple[float, float]:
    """The least and the most ticks that the kernel may have left for the routes of a run."""
    if run.valid_until is None or run.valid_until == INFINITE:
        return INFINITE, INFINITE
    exact = (run.valid_until - now) * TICKS
    return min(exact - EARLY, LONGEST), max(exact + LATE, 1)
