"""One pass: observe, decide, apply. The daemon repeats it; `anyipctl` looks once and changes nothing.

Both steps are generators that yield after every few milliseconds of work. A pass always leads from
what is so to what should be so; what was hinted at only spares it observations that are still good.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from anyipd import clock
from anyipd.decide.carve import carve
from anyipd.decide.delegation import delegations, is_delegated, next_deadline
from anyipd.decide.plan import Plan, Sweep, Wanted, discard_routes, local_routes
from anyipd.kernel import wire
from anyipd.kernel.routes import LOCAL_METRIC, Routes, discard_route
from anyipd.kernel.routes import local_routes as read_local_routes
from anyipd.kernel.wire import Refusal, Route
from anyipd.model import INFINITE, Assigned, Delegation, Discard, Lease, Prefix, Subnets
from anyipd.observe.discard import discards
from anyipd.observe.lease import Complaint, Leases
from anyipd.observe.onlink import addressed, routed
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


class Reconciler:
    """The observations that are still good, and the way from them to routes."""

    def __init__(self, policy: Policy, runtime_dir: Path, routes: Routes) -> None:
        self.policy = policy
        self.routes = routes
        self.complaints: list[Complaint] = []
        self._leases = Leases(runtime_dir / "leases")
        self._discards: set[Discard] = set()
        self._fallen: set[Discard] = set()
        self._leased: list[Lease] = []
        self._addressed: set[Assigned] = set()
        self._routed: set[Assigned] = set()

    def observe_delegations(self, *, lo_fell: bool) -> None:
        """Look for what tells of delegations; reading files and few routes, it takes no slices.

        `lo_fell` says that lo went down since the last time, with all discard routes. That was not
        their clients' word: what fell then counts until its client says it again.
        """
        self._leased, complaints = self._leases.read(clock.now())
        self.complaints += complaints
        if lo_fell:
            self._fallen |= self._discards
        self._discards = discards(self.routes, self.policy.accept.protocols)
        told = {each.prefix for each in self._discards}
        self._fallen = {each for each in self._fallen if each.prefix not in told}

    def delegations(self, now: float) -> list[Delegation]:
        """Say what is delegated, by the observations at hand."""
        return delegations(self._discards | self._fallen, self._leased, self.policy, now)

    def observe_addresses(self, delegated: Sequence[Prefix]) -> None:
        """Look for addresses on links inside delegated prefixes."""
        self._addressed = set(addressed(self.routes, delegated))

    def observe_routes(self, delegated: Sequence[Prefix]) -> Generator[None]:
        """Look for other people's routes inside delegated prefixes."""
        found: set[Assigned] = set()
        for part in routed(self.routes, delegated):
            found.update(part)
            yield
        self._routed = found

    def decide(self, now: float) -> Decision:
        """Say what should be so, by the observations at hand."""
        all_delegations = self.delegations(now)
        assigned = self._addressed | self._routed
        subnets = [
            run
            for delegation in all_delegations
            if is_delegated(delegation)
            for run in carve(delegation, self.policy, assigned)
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
                elif route.metric == LOCAL_METRIC:  # another metric is another place
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
        """Change what must be changed: additions first. What the kernel refused is returned."""
        routes, kind, refused = self.routes, self._discard_kind(), list[Refusal]()
        for steps in (
            routes.add_local(changes.local.add, clock.now()),
            routes.add_discard(kind, [run.first for run in changes.discard.add]),
            routes.renew_local(changes.local.renew, clock.now()),
            routes.remove_local(changes.local.remove),
            routes.remove([discard_route(kind, run.first) for run in changes.discard.remove]),
            routes.remove(changes.strays),
        ):
            for refusals in steps:
                refused += refusals
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
