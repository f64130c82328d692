"""Which of the bound subnets new connections should use: none that is about to go while there is another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from anyipd.decide.gaps import Gaps
from anyipd.decide.verdict import part
from anyipd.model import Delegation, DelegationState, Subnets, SubnetState

LEAVING = {DelegationState.DEPRECATED, DelegationState.SUPERSEDED}
"""What existing connections may use, and new ones should not (RFC 4862, section 5.5.4; RFC 9096)."""


def preferred(subnets: Iterable[Subnets], delegations: Iterable[Delegation]) -> list[Subnets]:
    """Return the bound subnets of delegations that are neither deprecated nor superseded.

    A subnet that has no such prefix left is there with those that it has.
    """
    leaving = {each.prefix for each in delegations if each.state in LEAVING}
    bound = [each for each in subnets if each.state is SubnetState.BOUND]
    found = [each for each in bound if each.delegation not in leaving]
    numbers: defaultdict[str, Gaps] = defaultdict(Gaps)
    for each in found:
        numbers[each.name].add(_begin(each), _begin(each) + each.count)
    for each in bound:
        if each.delegation in leaving:
            others = numbers[each.name]
            alone = Gaps(_begin(each), _begin(each) + each.count)
            for span in others.within(_begin(each), _begin(each) + each.count):
                alone.remove(*span)
            found += [part(each, start - _begin(each), end - start) for start, end in alone]
    return found


def _begin(run: Subnets) -> int:
    return run.number or 0
