"""What must change in the kernel for a decision, and the changing of it: additions first.

In: a decision and what the comparison found. Out: routes, by `kernel.routes`, and what the kernel refused.
What takes long is a generator that yields after every few milliseconds of work.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from anyipd import clock
from anyipd.decide.decision import Decision
from anyipd.decide.plan import Plan, Run, Sweep, Wanted
from anyipd.kernel import wire
from anyipd.kernel.routes import BATCH, Routes, discard_route
from anyipd.kernel.wire import Refusal, Route
from anyipd.model import Prefix
from anyipd.policy import Policy


@dataclass(slots=True)
class Changes:
    """What must change. `strays` are of protocol 150 but like no route that we make.

    `leftovers` are of our hooks, and mean nothing any more.
    """

    local: Plan = field(default_factory=Plan)
    discard: Plan = field(default_factory=Plan)
    strays: list[Route] = field(default_factory=list)
    leftovers: list[Route] = field(default_factory=list)


def add_at_once(routes: Routes, before: Wanted, wanted: Wanted) -> Generator[None, None, list[Run]]:
    """Add local routes that were not wanted before, if one send takes them; return those that came.

    Somebody waits for them, and an add that is exclusive needs no look at what is there. The comparison,
    which must follow, finds what stood in the way.
    """
    known = {(run.first, run.count) for run in before.runs}
    new = [run for run in wanted.runs if (run.first, run.count) not in known]
    if sum(run.count for run in new) > BATCH:
        return []
    came = Sweep(Wanted.of(new))
    for refusals in routes.add_local(new, clock.now()):
        for each in refusals:
            came.see_foreign(each.prefix)
        yield
    return came.plan().add


def restore(decision: Decision, lost: Iterable[Prefix]) -> Changes:
    """Put back single routes that somebody removed, without reading what else is there."""
    runs = [run for prefix in sorted(lost) if (run := decision.local.single(prefix))]
    return Changes(Plan(add=runs))


class Refused(NamedTuple):
    """What the kernel refused: subnets that are not bound by that, discard routes, and everything else."""

    missing: list[Refusal]
    discards: list[Refusal]
    others: list[Refusal]


def apply(routes: Routes, policy: Policy, changes: Changes) -> Generator[None, None, Refused]:
    """Change what must be changed, and return what the kernel refused."""
    kind, refused = wire.DISCARDS.get(policy.unassigned, 0), Refused([], [], [])
    discards = [discard_route(kind, prefix) for prefix in _prefixes(changes.discard.remove)]
    for kept, steps in (
        (refused.missing, routes.add_local(changes.local.add, clock.now())),
        (refused.discards, routes.add_discard(kind, list(_prefixes(changes.discard.add)))),
        (refused.others, routes.renew_local(changes.local.renew, clock.now())),
        (refused.others, routes.remove_local(changes.local.remove)),
        (refused.discards, routes.remove(discards)),
        (refused.others, routes.remove(changes.strays)),
        (refused.others, routes.remove(changes.leftovers)),
    ):
        for refusals in steps:
            kept.extend(refusals)
            yield
    return refused


def _prefixes(runs: Iterable[Run]) -> Iterable[Prefix]:
    return (prefix for run in runs for prefix in run.prefixes())
