"""Addresses to answer for, as spans. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from anyipd.model import Prefix, Subnets, SubnetState

if TYPE_CHECKING:  # pydantic is only needed to read a policy
    from anyipd.policy import Policy


@dataclass(frozen=True, slots=True)
class Spans:
    """A set of addresses: those from each bound of even index up to but not the next one."""

    bounds: tuple[int, ...] = ()

    def hold(self, address: int) -> bool:
        """Say whether an address is in the set. The operator `in` would take more to call than this does."""
        return bool(bisect_right(self.bounds, address) % 2)

    def without(self, addresses: Iterable[int]) -> Spans:
        """Give what is left when these are taken out."""
        return self.of(
            list(zip(self.bounds[::2], self.bounds[1::2], strict=True)),
            [(each, each + 1) for each in addresses],
        )

    @classmethod
    def of(cls, inside: Collection[tuple[int, int]], outside: Collection[tuple[int, int]]) -> Spans:
        """Make it of spans [start, end) in any order: what is in the former and in none of the latter."""
        steps = [(start, 1, 0) for start, _ in inside] + [(end, -1, 0) for _, end in inside]
        steps += [(start, 0, 1) for start, _ in outside] + [(end, 0, -1) for _, end in outside]
        bounds: list[int] = []
        depth = hidden = 0
        for position, group in groupby(sorted(steps), itemgetter(0)):
            for _, deeper, more_hidden in group:
                depth += deeper
                hidden += more_hidden
            if (depth > 0 and not hidden) != bool(len(bounds) % 2):
                bounds.append(position)
        return cls(tuple(bounds))


@dataclass(frozen=True, slots=True)
class Answered:
    """What is to be answered for on a link: all of `spans`, but `routed` ones only where a route leads on."""

    spans: Spans = Spans()
    routed: Spans = Spans()


def answered(policy: Policy, subnets: Sequence[Subnets]) -> dict[str, Answered]:
    """Say for each link of the policy what is to be answered for there: its subnets, bound and routed on.

    `subnets` are verdicts. Reserved ones not answered for there are left out, also inside static prefixes,
    and so are this host's routers. Holes in bound ones are answered for where a route leads on, as what is
    routed on is; of what is routed on they are left out.
    """
    links = {each.name: each.neighbours for each in policy.subnets}
    links |= {each.name or str(each.prefix): each.neighbours for each in policy.static}
    bound, reserved = (
        [
            (links[each.name], _span(each.first, each.count))
            for each in subnets
            if each.first and each.state is state
        ]
        for state in (SubnetState.BOUND, SubnetState.RESERVED)
    )
    holes, unanswered = (
        [
            (links[run.name], (each.address, each.end))
            for run in subnets
            if run.state is state
            for each in run.parts(run.holes)
        ]
        for state in (SubnetState.BOUND, SubnetState.RESERVED)
    )
    nobodys = [(each.address, each.end) for run in subnets for each in run.parts(run.gateways)]
    nobodys += [span for _, span in unanswered]

    def on(link: str) -> Answered:
        routed = [span for wanted, span in reserved if link in wanted]
        others = nobodys + [span for wanted, span in reserved if link not in wanted]
        inside = [span for wanted, span in bound if link in wanted]
        left = [span for wanted, span in holes if link in wanted]
        return Answered(Spans.of([*inside, *routed], others), Spans.of([*routed, *left], others))

    return {link: on(link) for link in policy.links}


def _span(first: Prefix, count: int) -> tuple[int, int]:
    return first.address, first.address + count * first.size
