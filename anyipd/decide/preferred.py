"""Which of the bound subnets new connections should use: none that is about to go while there is another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from anyipd.decide.gaps import Gaps
from anyipd.decide.verdict import part
from anyipd.model import Subnets, SubnetState


def preferred(subnets: Iterable[Subnets]) -> list[Subnets]:
    """Return the bound subnets that are not deprecated.

    A subnet that has no such prefix left is there with those that it has.
    """
    bound = [each for each in subnets if each.state is SubnetState.BOUND]
    found = [each for each in bound if not each.deprecated]
    numbers: defaultdict[str, Gaps] = defaultdict(Gaps)
    for each in found:
        numbers[each.name].add(_begin(each), _begin(each) + each.count)
    for each in bound:
        if each.deprecated:
            others = numbers[each.name]
            alone = Gaps(_begin(each), _begin(each) + each.count)
            for span in others.within(_begin(each), _begin(each) + each.count):
                alone.remove(*span)
            found += [part(each, start - _begin(each), end - start) for start, end in alone]
    return found


def _begin(run: Subnets) -> int:
    return run.number or 0
