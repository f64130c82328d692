"""What wanted subnets are: bound, missing, or held off by somebody else. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from anyipd.decide.gaps import Gaps, Span
from anyipd.model import Prefix, Subnets, SubnetState

TAKEN = "another local route has this destination"


def without_taken(subnets: Iterable[Subnets], taken: Collection[Prefix]) -> Iterator[Subnets]:
    """Put those of the wanted subnets in CONFLICT that a foreign local route has the destination of."""
    places = sorted(taken)
    for each in subnets:
        held = Gaps()
        if each.state is SubnetState.WANTED and each.first:
            end = each.first.address + each.count * each.first.size
            low, high = bisect_left(places, (each.first.address,)), bisect_left(places, (end,))
            for place in places[low:high]:
                if place[1:] == each.first[1:]:
                    held.add(place.address, place.end)
        yield from _split(each, held, SubnetState.CONFLICT, TAKEN) if held else (each,)


def verdicts(subnets: Iterable[Subnets], missing: Mapping[int, Gaps]) -> Iterator[Subnets]:
    """Replace WANTED by what the kernel has, which lacks routes to `missing`; see `addresses`."""
    for each in subnets:
        if each.state is not SubnetState.WANTED:
            yield each
            continue
        assert each.first
        bound, lacking = replace(each, state=SubnetState.BOUND), missing.get(each.first.width)
        yield from _split(bound, lacking, SubnetState.MISSING) if lacking else (bound,)


def part(subnets: Subnets, begin: int, count: int) -> Subnets:
    """`count` of the subnets from the `begin`th on."""
    first = subnets.first
    if first:
        first = first._replace(address=first.address + begin * first.size)
    number = None if subnets.number is None else subnets.number + begin
    return replace(subnets, first=first, count=count, number=number)


class Placed:
    """Finds the subnets at some addresses."""

    def __init__(self, subnets: Iterable[Subnets]) -> None:
        self._runs: defaultdict[int, list[tuple[int, Subnets]]] = defaultdict(list)
        for each in subnets:
            if each.first:
                self._runs[each.first.width].append((each.first.address, each))
        for runs in self._runs.values():
            runs.sort(key=_start)

    def inside(self, span: Span, width: int) -> Iterator[Subnets]:
        """Yield, in order, those that lie in a span whole."""
        runs = self._runs[width]
        low, high = bisect_right(runs, span.start, key=_start) - 1, bisect_left(runs, span.end, key=_start)
        for start, each in runs[max(low, 0) : high]:
            assert each.first
            begin = max(-((start - span.start) // each.first.size), 0)
            end = min((span.end - start) // each.first.size, each.count)
            if begin < end:
                yield part(each, begin, end - begin)

    def around(self, prefix: Prefix) -> Iterator[Subnets]:
        """Yield the one that a smaller prefix lies in, if there is one."""
        runs = self._runs[prefix.width]
        at = bisect_right(runs, prefix.address, key=_start) - 1
        if at >= 0:
            start, each = runs[at]
            assert each.first
            number = (prefix.address - start) // each.first.size
            if number < each.count and each.first.length < prefix.length:
                yield part(each, number, 1)


def _start(run: tuple[int, Subnets]) -> int:
    return run[0]


def _split(
    subnets: Subnets, addresses: Gaps, state: SubnetState, reason: str | None = None
) -> Iterator[Subnets]:
    """Split a run where some subnets have any of these addresses, and give those another state."""
    assert subnets.first
    start, size = subnets.first.address, subnets.first.size
    numbers = Gaps()
    for low, high in addresses.within(start, start + subnets.count * size):
        numbers.add((low - start) // size, -((start - high) // size))
    done = 0
    for begin, end in (*numbers, Span(subnets.count, subnets.count)):
        if done < begin:
            yield part(subnets, done, begin - done)
        if begin < end:
            yield replace(part(subnets, begin, end - begin), state=state, reason=reason)
        done = end
