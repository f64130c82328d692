"""What must change in the kernel for a decision, and the changing of it: additions first.

In: a decision and what is present. Out: routes, by `kernel.routes`, and what the kernel refused.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from anyipd import clock
from anyipd.decide.decision import Decision
from anyipd.decide.plan import Plan
from anyipd.kernel import wire
from anyipd.kernel.routes import Routes, discard_route, hook_message, hooks_discard_route, local_route
from anyipd.kernel.wire import Refusal, Route
from anyipd.model import Discard, Prefix
from anyipd.policy import Policy


@dataclass(frozen=True, slots=True)
class Changes:
    """What must change, and which local routes of ours are `present`.

    `strays` are of protocol 150 but like no route that we make. `messages` of our hooks say nothing any more,
    and `leftovers` are the discard routes of 0.1.0's: there may be thousands.
    """

    present: Collection[Prefix]
    local: Plan
    discard: Plan = field(default_factory=Plan)
    strays: Collection[Route] = ()
    messages: Collection[Discard] = ()
    leftovers: Collection[Discard] = ()


def restore(decision: Decision, lost: Collection[Prefix], messages: Collection[Discard]) -> Changes:
    """Put back single routes that somebody removed, and remove messages, without reading all else."""
    add = {prefix: decision.local[prefix] for prefix in sorted(lost) if prefix in decision.local}
    return Changes(decision.local.keys() - lost, Plan(add=add), messages=messages)


class Outcome(NamedTuple):
    """What the kernel refused: local routes that did not come, discard routes, and everything else.

    `present` are the local routes of ours that are there now.
    """

    missing: list[Refusal]
    discards: list[Refusal]
    others: list[Refusal]
    present: Collection[Prefix]

    @property
    def refused(self) -> list[Refusal]:
        """All that was refused."""
        return self.missing + self.discards + self.others


def apply(routes: Routes, policy: Policy, changes: Changes) -> Outcome:
    """Change what must be changed. A route stays where one did not come that would have replaced it."""
    kind, local, discard = wire.DISCARDS.get(policy.unassigned, 0), changes.local, changes.discard
    missing = routes.add_local(local.add, clock.now())
    discards = routes.add_discard(kind, discard.add)
    others = routes.renew_local(local.renew, clock.now())
    kept_out = [each.prefix for each in missing]
    removed = [each for each in local.remove if not any(each.overlaps(other) for other in kept_out)]
    others += routes.remove(map(local_route, removed))
    discards += routes.remove(discard_route(kind, prefix) for prefix in discard.remove)
    others += routes.remove(changes.strays)
    others += routes.remove(map(hook_message, changes.messages))
    others += routes.remove(map(hooks_discard_route, changes.leftovers))
    present = {*changes.present, *local.add}.difference(kept_out, removed)
    return Outcome(missing, discards, others, present)
