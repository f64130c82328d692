"""One pass: observe, decide, apply. The daemon repeats it; `anyipctl` looks once and changes nothing.

Both steps are generators that yield after every few milliseconds of work. A pass always leads from
what is so to what should be so; what was hinted at only spares it observations that are still good.
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from anyipd import clock
from anyipd.decide.carve import carve
from anyipd.decide.delegation import delegations, is_delegated, next_deadline
from anyipd.decide.plan import Plan, Sweep, Wanted, discard_routes, local_routes
from anyipd.kernel import wire
from anyipd.kernel.routes import Routes, discard_route
from anyipd.kernel.routes import local_routes as read_local_routes
from anyipd.kernel.wire import Refusal, Route
from anyipd.model import INFINITE, Assigned, Delegation, Discard, Lease, Prefix, Subnets
from anyipd.observe.discard import discards
from anyipd.observe.lease import Complaint, Leases
from anyipd.observe.onlink import assigned
from anyipd.policy import Policy

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Decision:
    """What should be so at the time it was made; `deadline` is when that changes by itself."""

    delegations: Sequence[Delegation] = ()
    subnets: Sequence[Subnets] = ()
    local: Wanted = field(default_factory=Wanted)
    discard: Wanted = field(default_factory=Wanted)
    deadline: float = field(default=INFINITE, compare=False)


@dataclass(slots=True)
class Changes:
    """What must change to get there. `strays` are of protocol 150 but like no route that we make."""

    local: Plan = field(default_factory=Plan)
    discard: Plan = field(default_factory=Plan)
    strays: list[Route] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.local or self.discard or self.strays)


class Reconciler:
    """The observations that are still good, and the way from them to routes."""

    def __init__(self, policy: Policy, runtime_dir: Path, routes: Routes) -> None:
        self.policy = policy
        self.routes = routes
        self.complaints: list[Complaint] = []
        self._leases = Leases(runtime_dir / "leases")
        self._discards: set[Discard] = set()
        self._leased: list[Lease] = []
        self._assigned: list[Assigned] = []

    def observe_delegations(self) -> list[Prefix]:
        """Look for delegated prefixes, accepted or not; reading files and few routes, it takes no slices."""
        self._leased, complaints = self._leases.read(clock.now())
        self.complaints += complaints
        self._discards = discards(self.routes, self.policy.accept.protocols)
        return sorted({each.prefix for each in self._leased} | {each.prefix for each in self._discards})

    def observe_assigned(self, delegated: Sequence[Prefix]) -> Generator[None]:
        """Look for what else is in use of delegated prefixes."""
        found: set[Assigned] = set()
        for part in assigned(self.routes, delegated):
            found.update(part)
            yield
        self._assigned = sorted(found, key=lambda each: (each.prefix, each.holder))

    def decide(self, now: float) -> Decision:
        """Say what should be so, by the observations at hand."""
        all_delegations = delegations(self._discards, self._leased, self.policy, now)
        subnets = [
            run
            for delegation in all_delegations
            if is_delegated(delegation)
            for run in carve(delegation, self.policy, self._assigned)
        ]
        unassigned = all_delegations if self.policy.unassigned != "none" else []
        discard, discard_deadline = discard_routes(unassigned, self._discards, now)
        return Decision(
            delegations=all_delegations,
            subnets=subnets,
            local=local_routes(subnets),
            discard=discard,
            deadline=min(next_deadline(all_delegations, now), discard_deadline),
        )

    def compare(self, decision: Decision) -> Generator[None, None, Changes]:
        """Find out what must change for a decision."""
        local, discard = Sweep(decision.local), Sweep(decision.discard)
        strays: list[Route] = []
        for chunk in self.routes.dump(wire.TABLE_LOCAL):
            bound, others = read_local_routes(chunk)
            local.see_ours(bound, clock.now())
            for route in others:
                if route.protocol == wire.PROTOCOL:
                    strays.append(route)
                else:
                    local.see_foreign(route.prefix)
            yield
        kind = self._discard_kind()
        for chunk in self.routes.dump(wire.TABLE_MAIN, wire.PROTOCOL):
            for start, _, end in wire.messages(chunk):
                route = wire.route(chunk, start, end)
                if route._replace(ticks=0) == discard_route(kind, route.prefix):
                    discard.see_ours([(route.prefix.address, route.prefix.length, 0)], 0)
                else:
                    strays.append(route)
            yield
        return Changes(local.plan(), discard.plan(), strays)

    def mend(self, decision: Decision, lost: Iterable[Prefix]) -> Changes:
        """Put back single routes that somebody removed, without reading what else is there."""
        runs = [run for prefix in sorted(lost) if (run := decision.local.single(prefix))]
        return Changes(Plan(add=runs))

    def apply(self, changes: Changes) -> Generator[None, None, list[Refusal]]:
        """Change what must be changed: additions first. What the kernel refused is returned.

        That a route was there or gone already is no refusal but somebody who was faster; their doing
        brings an event of its own.
        """
        routes, kind = self.routes, self._discard_kind()
        strays = [discard_route(kind, run.first) for run in changes.discard.remove] + changes.strays
        refused = []
        for steps, faster in (
            (routes.add_local(changes.local.add, clock.now()), errno.EEXIST),
            (routes.add_discard(kind, [run.first for run in changes.discard.add]), errno.EEXIST),
            (routes.renew_local(changes.local.renew, clock.now()), errno.ENOENT),
            (routes.remove_local(changes.local.remove), errno.ESRCH),
            (routes.remove(strays), errno.ESRCH),
        ):
            for refusals in steps:
                refused += [each for each in refusals if each.error != faster]
                yield
        return refused

    def _discard_kind(self) -> int:
        return wire.DISCARDS.get(self.policy.unassigned, 0)


def at_once(work: Generator[None, None, _T]) -> _T:
    """Run a step to its end without a pause, and give its result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _T = end.value
            return result
