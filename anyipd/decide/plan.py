"""From subnets to routes, and from what is wanted and what is present to what must change.

Mark and sweep: every wanted route owns one byte, what the kernel lists is ticked off against them,
and what is left over on either side is the plan. The wanted routes stay runs from carving to the
kernel, so that 65,536 of them cost 64 KiB here.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from anyipd.decide.delegation import is_delegated
from anyipd.model import INFINITE, Delegation, Discard, Prefix, Subnets, SubnetState

TICKS = 100
"""Ticks a second: the kernel counts lifetimes out in USER_HZ (rta_expires)."""

FOREVER = 0
"""Ticks of a route that does not expire."""

LONGEST = 2**31 - 1
"""Ticks of a route that lives 248 days or longer (rtnl_put_cacheinfo in net/core/rtnetlink.c)."""

EARLY, LATE = 10, 200
"""Ticks by which a route may expire before and after the valid lifetime ends.

Lifetimes go in as whole seconds, rounded up; a route that would go earlier than its delegation is renewed.
"""

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


@dataclass(slots=True)
class Plan:
    """What to do, in this order: add, renew (only the lifetime differs), remove."""

    add: list[Run] = field(default_factory=list)
    renew: list[Run] = field(default_factory=list)
    remove: list[Prefix] = field(default_factory=list)
    taken: list[Run] = field(default_factory=list)  # wanted, but a foreign route stands there

    def __bool__(self) -> bool:
        return bool(self.add or self.renew or self.remove)


def local_routes(subnets: Iterable[Subnets]) -> list[Run]:
    """The local routes that bind the wanted subnets."""
    return [
        Run(each.first, each.count, each.valid_until)
        for each in subnets
        if each.state is SubnetState.WANTED and each.first is not None
    ]


def discard_routes(delegations: Iterable[Delegation], discards: Iterable[Discard]) -> list[Run]:
    """Our own discard routes over delegated prefixes: where the client left none (RFC 7084, WPD-5)."""
    covered = {discard.prefix for discard in discards}
    return [Run(each.prefix, 1) for each in delegations if is_delegated(each) and each.prefix not in covered]


class Sweep:
    """Ticks the routes of one table off against the wanted ones.

    The wanted runs do not overlap.
    """

    def __init__(self, wanted: Iterable[Run]) -> None:
        self._runs = sorted(wanted, key=lambda run: run.first.address)
        self._starts = [run.first.address for run in self._runs]
        self._marks = [bytearray(run.count) for run in self._runs]
        self._unwanted: list[Prefix] = []

    def see_ours(self, routes: Iterable[tuple[int, int, int]], now: float) -> None:
        """Tick off routes of ours: address, length and ticks left of each, as read at `now`."""
        start = end = length = size = 0
        early = late = INFINITE
        mark = bytearray()
        for address, found_length, ticks in routes:
            if not start <= address < end or found_length != length:
                number = self._holder(address, found_length)
                if number is None:
                    self._unwanted.append(Prefix(address, found_length))
                    continue
                run, mark = self._runs[number], self._marks[number]
                start, length, size = run.first.address, run.first.length, run.first.size
                end = start + run.count * size
                early, late = _tolerance(run, now)
            fine = early <= (ticks or INFINITE) <= late
            mark[(address - start) // size] = _RIGHT if fine else _OUTDATED

    def see_foreign(self, prefix: Prefix) -> None:
        """Note that somebody else's route has this destination."""
        number = self._holder(prefix.address, prefix.length)
        if number is not None:
            first = self._runs[number].first
            position = (prefix.address - first.address) // first.size
            if self._marks[number][position] == _MISSING:
                self._marks[number][position] = _TAKEN

    def plan(self) -> Plan:
        """What is left to do after everything present was seen."""
        plan = Plan(remove=self._unwanted)
        for run, marks in zip(self._runs, self._marks, strict=True):
            for stretch in _STRETCH.finditer(marks):
                part = run.part(*stretch.span())
                mark = marks[stretch.start()]
                (plan.add if mark == _MISSING else plan.renew if mark == _OUTDATED else plan.taken).append(
                    part
                )
        return plan

    def _holder(self, address: int, length: int) -> int | None:
        number = bisect_right(self._starts, address) - 1
        if number < 0:
            return None
        run = self._runs[number]
        inside = address < run.first.address + run.count * run.first.size
        return number if inside and run.first.length == length else None


def _tolerance(run: Run, now: float) -> tuple[float, float]:
    """The least and the most ticks that the kernel may have left for the routes of a run."""
    if run.valid_until is None or run.valid_until == INFINITE:
        return INFINITE, INFINITE
    exact = (run.valid_until - now) * TICKS
    return min(exact - EARLY, LONGEST), max(exact + LATE, 1)
