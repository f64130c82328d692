"""From wanted subnets and the plan to what they are: bound, missing, or held off by somebody else."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from anyipd.decide.plan import Plan, Run
from anyipd.model import Subnets, SubnetState

TAKEN = "another local route has this destination"


def verdicts(subnets: Iterable[Subnets], plan: Plan) -> list[Subnets]:
    """Replace WANTED by what the comparison with the kernel found; runs are split where it differs."""
    exceptions = sorted(
        [(run.first.address, run, SubnetState.MISSING) for run in plan.add]
        + [(run.first.address, run, SubnetState.CONFLICT) for run in plan.taken]
    )
    starts = [start for start, _, _ in exceptions]
    result: list[Subnets] = []
    for each in subnets:
        if each.state is SubnetState.WANTED and each.first:
            # The last one before may span several entries of the policy.
            begin = max(bisect_right(starts, each.first.address) - 1, 0)
            end = bisect_right(starts, each.first.address + each.count * each.first.size - 1)
            result += _split(each, [(run, state) for _, run, state in exceptions[begin:end]])
        else:
            result.append(each)
    return result


def find(subnets: Iterable[Subnets], run: Run) -> tuple[Subnets, int] | None:
    """The run of subnets that holds a run of routes, and the position of its first in there."""
    for each in subnets:
        if each.first and each.first.length == run.first.length:
            position = (run.first.address - each.first.address) // each.first.size
            if 0 <= position < each.count:
                return each, position
    return None


def part(subnets: Subnets, begin: int, count: int) -> Subnets:
    """`count` of the subnets from the `begin`th on."""
    first = subnets.first
    if first:
        first = first._replace(address=first.address + begin * first.size)
    number = None if subnets.number is None else subnets.number + begin
    return replace(subnets, first=first, count=count, number=number)


def _split(subnets: Subnets, exceptions: Sequence[tuple[Run, SubnetState]]) -> Iterator[Subnets]:
    assert subnets.first
    done = 0
    for run, state in exceptions:
        offset = (run.first.address - subnets.first.address) // subnets.first.size
        begin, end = max(offset, 0), min(offset + run.count, subnets.count)
        if begin >= end or run.first.length != subnets.first.length:
            continue
        if begin > done:
            yield replace(part(subnets, done, begin - done), state=SubnetState.BOUND)
        reason = TAKEN if state is SubnetState.CONFLICT else None
        yield replace(part(subnets, begin, end - begin), state=state, reason=reason)
        done = end
    if done < subnets.count:
        yield replace(part(subnets, done, subnets.count - done), state=SubnetState.BOUND)
