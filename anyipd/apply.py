"""What must change in the kernel for a decision, and the changing of it: additions first.

In: a decision and what is present. Out: routes, by `kernel.routes`, and what the kernel refused.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from anyipd import clock
from anyipd.decide.addresses import AddressPlan
from anyipd.decide.decision import Decision
from anyipd.decide.plan import Plan
from anyipd.decide.source_routes import SourceChanges
from anyipd.kernel import addresses, source_routes, wire
from anyipd.kernel.routes import (
    Routes,
    discard_route,
    hook_message,
    hooks_discard_route,
    local_route,
    throw_route,
)
from anyipd.kernel.wire import Refusal, Route
from anyipd.model import Discard, Prefix, SourceRoute
from anyipd.policy import Policy


@dataclass(frozen=True, slots=True)
class Changes:
    """What must change, and which local routes of ours are `present`.

    `throws` and some of `discard` are the holes of bound subnets.
    `strays` are of protocol 150 but like no route that we make. `messages` of our hooks say nothing any more,
    and `leftovers` are the discard routes of 0.1.0's: there may be thousands. `addresses` are for lo.
    """

    present: Collection[Prefix]
    local: Plan
    throws: Plan = field(default_factory=Plan)
    discard: Plan = field(default_factory=Plan)
    source: SourceChanges = field(default_factory=SourceChanges)
    strays: Collection[Route] = ()
    messages: Collection[Discard] = ()
    leftovers: Collection[Discard] = ()
    addresses: AddressPlan = field(default_factory=AddressPlan)


def restore(
    decision: Decision,
    lost: Collection[Prefix],
    lost_throws: Collection[Prefix],
    messages: Collection[Discard],
    addresses: AddressPlan,
) -> Changes:
    """Put back what somebody removed: single routes, addresses; remove messages. All else is not read."""
    local, throws = (
        Plan(add={prefix: wanted[prefix] for prefix in sorted(gone) if prefix in wanted})
        for wanted, gone in ((decision.local, lost), (decision.throws, lost_throws))
    )
    return Changes(decision.local.keys() - lost, local, throws, messages=messages, addresses=addresses)


class Outcome(NamedTuple):
    """What the kernel refused: local and discard routes, addresses, source routes, and everything else.

    `present` are the local routes of ours that are there now, `own` are this host's own addresses.
    """

    missing: list[Refusal]
    discards: list[Refusal]
    addresses: list[Refusal]
    sources: Mapping[SourceRoute, int]
    others: list[Refusal]
    present: Collection[Prefix]
    own: Collection[Prefix]

    @property
    def refused(self) -> list[Refusal]:
        """All that was refused, but for what this kernel has not."""
        sources = [
            Refusal(each.source, error) for each, error in self.sources.items() if error != errno.EINVAL
        ]
        return self.missing + self.discards + self.addresses + sources + self.others

    @property
    def without_subtrees(self) -> bool:
        """Whether the kernel seems to know no source routes."""
        return errno.EINVAL in self.sources.values()


def apply(routes: Routes, policy: Policy, changes: Changes) -> Outcome:
    """Change what must be changed. A route stays where one did not come that would have replaced it.

    Holes come before the routes that are around them, and go after these: none is ever answered for.
    """
    kind, local, discard = wire.DISCARDS.get(policy.unassigned, 0), changes.local, changes.discard
    others = routes.add_throws(changes.throws.add)
    discards = routes.add_discard(kind, discard.add)
    missing = routes.add_local(local.add, clock.now())
    refused = addresses.add(routes, changes.addresses.add, clock.now())
    refused += addresses.renew(routes, changes.addresses.renew, clock.now())
    sources = source_routes.add(routes, changes.source.add)
    others += routes.renew_local(local.renew, clock.now())
    sources |= source_routes.replace(routes, changes.source.replace)
    kept_out = [each.prefix for each in missing]

    def replaced(routes: Collection[Prefix]) -> list[Prefix]:
        return [each for each in routes if not any(each.overlaps(other) for other in kept_out)]

    removed = replaced(local.remove)
    # An address is bound as long as it is there, and longer: so it has a route at any moment.
    refused += addresses.remove(routes, changes.addresses.remove)
    others += routes.remove(map(local_route, removed))
    others += routes.remove(map(throw_route, replaced(changes.throws.remove)))
    discards += routes.remove(discard_route(kind, prefix) for prefix in discard.remove)
    others += routes.remove(map(source_routes.source_route, changes.source.remove))
    others += routes.remove(changes.strays)
    others += routes.remove(map(hook_message, changes.messages))
    others += routes.remove(map(hooks_discard_route, changes.leftovers))
    present = {*changes.present, *local.add}.difference(kept_out, removed)
    own = {*changes.addresses.present, *changes.addresses.add}
    own = own.difference(changes.addresses.remove, (each.prefix for each in refused))
    return Outcome(missing, discards, refused, sources, others, present, own)
