"""One pass: observe, decide, apply. The daemon repeats it; `anyipctl` looks once and changes nothing.

Both steps are generators that yield after every few milliseconds of work. A pass always leads from
what is so to what should be so; what was hinted at only spares it observations that are still good.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from anyipd import clock
from anyipd.decide.carve import carve
from anyipd.decide.gaps import Gaps, Span
from anyipd.decide.gate import Host, accepts_uplink, gate, gate_by_host, nameservers_assigned
from anyipd.decide.ledger import HOOK_METRICS, Ledger
from anyipd.decide.overlap import without_overlaps, yielded
from anyipd.decide.plan import Plan, Run, Sweep, Wanted, discard_routes, local_routes
from anyipd.decide.static import static_assigned, static_subnets
from anyipd.kernel import wire
from anyipd.kernel.event_filter import MAX_PREFIXES
from anyipd.kernel.monitor import Hint, LinkDown, Monitor, Stale
from anyipd.kernel.routes import BATCH, DISCARD_METRIC, LOCAL_METRIC, Routes, discard_route, hook_message
from anyipd.kernel.routes import local_routes as read_local_routes
from anyipd.kernel.wire import Refusal, Route
from anyipd.model import INFINITE, Assigned, Delegation, Discard, Lease, Link, Places, Prefix, Subnets
from anyipd.observe.discard import Discards
from anyipd.observe.lease import Complaint, Leases
from anyipd.observe.nameservers import Nameservers
from anyipd.observe.networkd import Networkd
from anyipd.observe.onlink import Routed, addressed
from anyipd.policy import Policy

_T = TypeVar("_T")

SLICE = 0.002
"""Seconds after which the loop gets a turn within a pass; a step of work takes a millisecond or two."""


SHOWN_OF_ACCEPTED = 2
"""Times as many delegations of an uplink are known as may be accepted; a server may grant thousands."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What should be so at the time it was made; `deadline` is when that changes by itself.

    `places` is what `remember` takes where the decision is carried out; `hinges` are the addresses where
    other people's routes would have made it another one.
    """

    delegations: Sequence[Delegation] = ()
    subnets: Sequence[Subnets] = ()
    local: Wanted = field(default_factory=Wanted)
    discard: Wanted = field(default_factory=Wanted)
    deadline: float = field(default=INFINITE, compare=False)
    places: Mapping[Prefix, Places] = field(default_factory=dict, compare=False)
    hinges: Sequence[Span] = field(default=(), compare=False)


@dataclass(slots=True)
class Changes:
    """What must change to get there. `strays` are of protocol 150 but like no route that we make.

    `leftovers` are of our hooks, and mean nothing any more.
    """

    local: Plan = field(default_factory=Plan)
    discard: Plan = field(default_factory=Plan)
    strays: list[Route] = field(default_factory=list)
    leftovers: list[Route] = field(default_factory=list)


class Reconciler:
    """The observations that are still good, and the way from them to routes."""

    def __init__(
        self,
        policy: Policy,
        runtime_dir: Path,
        routes: Routes,
        ledger: Ledger | None = None,
        places: Mapping[Prefix, Places] | None = None,
    ) -> None:
        self.policy = policy
        self.routes = routes
        self.ledger = ledger or Ledger()
        self.places = places or {}
        self.complaints: list[Complaint] = []
        self.delegated: list[Prefix] = []
        self._delegations: list[Delegation] = []
        # What root's hooks were told, and what the daemon itself heard on the wire.
        self._leases = Leases(runtime_dir / "leases"), Leases(runtime_dir / "heard")
        self.arriving: AbstractSet[str] = frozenset()  # names of lease files that are not in their places yet
        self._leased: list[Lease] = []
        self.networkd = Networkd()
        self._links: dict[str, Link] = {}
        self._discards = Discards()
        self._addressed: set[Assigned] = set()
        self._routed = Routed()
        self._hinges = Gaps(0, 1 << 128)  # of the last decision; before the first one all matters
        self._nameservers = Nameservers()
        self._own_discards: set[Prefix] = set()

    @property
    def in_doubt(self) -> bool:
        """Whether foreign routes were missing that nobody said were gone: they should be looked for again."""
        return self._routed.in_doubt

    def set_filter(self, monitor: Monitor) -> None:
        """Have `monitor` pass what matters by the policy and delegations of now, but not our own changes."""
        accept, watched = self.policy.accept, self.delegated
        if len(watched) <= MAX_PREFIXES:
            watched = sorted({*watched, *(each.prefix for each in self.policy.static)})
        monitor.watch(self.routes.port, accept.protocols, watched, accept.shortest)

    def reopen(self) -> None:
        """Go on with another socket after a pass that failed: this one may hold answers to the past.

        All is to be observed anew then, for the observations are half new, half old; the filter is to be set.
        """
        self.routes.close()
        self.routes = Routes()

    def hear(self, hint: Hint) -> Stale:
        """Take note of what events said of single routes; say which looks are due all the same."""
        protocols, now = self.policy.accept.protocols, clock.now()
        if hint.lo_fell:
            self.ledger.lo_fell()
        stale = hint.stale
        for news in hint.news:
            if isinstance(news, LinkDown):
                known = self._routed.lose_link(news.interface)
            else:
                route, came = news
                known = route.table != wire.TABLE_MAIN or self._routed.hear(route, came=came)
                if self._discards.hear(route, protocols, came=came):
                    place = Discard(route.prefix, route.metric)
                    if place in self._discards.standing:
                        self.ledger.route_added(place, now)
                    else:
                        self.ledger.route_removed(place)
                    # Where their directory is not watched yet, nothing else tells of lease files.
                    stale |= Stale.LEASES
                if route.metric == DISCARD_METRIC:  # in the place of one of ours
                    stale |= Stale.PRESENT
            if not known:
                stale |= Stale.ROUTES
        return stale

    def look(self, stale: Stale, watch: Callable[[], object]) -> Generator[None, None, bool]:
        """Make anew the observations that are stale, and keep `delegated` up with them.

        `watch` is called when that changed, before there is a look inside of what was added: events from in
        there may pass a filter from then on only. False is for lease files that could not be read.
        """
        readable = Stale.LEASES not in stale or self.observe_leases()
        if Stale.LINKS in stale:
            self.observe_links()
        if Stale.DISCARDS in stale:
            self.observe_discards()
        now = clock.now()
        silent = () if self.networkd.understood else ("networkd",)
        reported = self._leased + self.networkd.leases
        self.ledger.take(reported, now, silent=silent, most=self._most)
        self._delegations = self.delegations(now)
        delegated = [each.prefix for each in self._delegations if each.is_usable]
        self._nameservers.look()
        if delegated != self.delegated:
            if not set(delegated) <= set(self.delegated):
                stale |= Stale.ADDRESSES | Stale.ROUTES
            self.delegated = delegated
            watch()
        if Stale.ADDRESSES in stale:
            self.observe_addresses(delegated)
        if Stale.ROUTES in stale:
            yield from self.observe_routes(delegated)
        return readable

    def observe_leases(self) -> bool:
        """Read lease files; say whether their directories could be read."""
        self._leased = []
        for directory in self._leases:
            leased, complaints = directory.read(clock.now, self.arriving)
            self._leased += leased
            self.complaints += complaints
        return not any(directory.unreadable for directory in self._leases)

    def observe_links(self) -> None:
        """Read which links there are, and which have a carrier."""
        self._links = self.routes.links()
        self.ledger.see_links(self._links, clock.now())

    def observe_discards(self) -> None:
        """Look for the clients' discard routes; the kernel filters, so it takes no slices."""
        self._discards.look(self.routes, self.policy.accept.protocols)
        self.ledger.see_routes(self._discards.standing, clock.now())

    def delegations(self, now: float) -> list[Delegation]:
        """Say what is delegated, and what of it the policy accepts."""
        known = self.ledger.delegations(now, partial(accepts_uplink, self.policy), self._most)
        return gate(known, self.policy)

    @property
    def _most(self) -> int:
        """Delegations of an uplink that are known: those beyond `accept.at_most` are shown as refused."""
        return SHOWN_OF_ACCEPTED * self.policy.accept.at_most

    def observe_addresses(self, delegated: Sequence[Prefix]) -> None:
        """Look for addresses on links inside delegated prefixes."""
        self._addressed = set(addressed(self.routes, delegated))

    def observe_routes(self, delegated: Sequence[Prefix]) -> Generator[None]:
        """Look for other people's routes inside delegated prefixes."""
        return self._routed.look(self.routes, delegated)

    def decide(self, now: float) -> Decision:
        """Say what should be so, by the last look.

        Of the foreign routes, of which there may be many, those are enough that lie where the last decision
        looked for some; where this one looks further it is made anew, by all of them.
        """
        decision = self._decide(now, self._routed.mattering)
        if not all(self._hinges.holds(*span) for span in decision.hinges):
            decision = self._decide(now, self._routed.assigned)
        hinges = Gaps()
        for span in decision.hinges:
            hinges.add(*span)
        if list(hinges) != list(self._hinges):
            self._hinges = hinges
            self._routed.attend(lambda prefix: any(hinges.within(prefix.address, prefix.end)))
        return decision

    def _decide(self, now: float, routed: set[Assigned]) -> Decision:
        host = Host(self._routed.covering, self._nameservers.addresses)
        accepted = gate_by_host(self._delegations, self.policy, host, routed)
        all_delegations = without_overlaps(accepted, self._links)
        assigned = self._addressed | routed | static_assigned(self.policy) | nameservers_assigned(host)
        subnets = static_subnets(self.policy)
        known = {each.prefix for each in all_delegations}
        places = {
            prefix: kept
            for prefix, kept in self.places.items()
            if prefix in known or self.ledger.remembers(prefix)
        }
        places_deadline, hinges = INFINITE, [Span(each, each + 1) for each in host.nameservers]
        for each in all_delegations:
            if each.is_usable:
                # A route around all of it spares our discard route.
                hinges.append(Span(each.prefix.address, each.prefix.address + 1))
                taken = assigned.union(yielded(each, all_delegations))
                carved = carve(each, self.policy, taken, places.get(each.prefix, Places()), now)
                subnets += carved.subnets
                places[each.prefix] = carved.places
                hinges += carved.hinges
                places_deadline = min(places_deadline, carved.deadline)
        unassigned = all_delegations if self.policy.unassigned != "none" else []
        discard, discard_deadline = discard_routes(
            unassigned, self._discards.standing, self._own_discards, now, self._routed.mattering
        )
        return Decision(
            delegations=all_delegations,
            subnets=subnets,
            local=local_routes(subnets),
            discard=discard,
            deadline=min(self.ledger.next_deadline(now), discard_deadline, places_deadline),
            places=places,
            hinges=hinges,
        )

    def remember(self, decision: Decision) -> None:
        """Have the next decision start from the places of this one."""
        self.places = decision.places

    def add_at_once(self, before: Decision, decision: Decision) -> Generator[None, None, list[Run]]:
        """Add local routes that were not wanted before, if one send takes them; return those that came.

        Somebody waits for them, and an add that is exclusive needs no look at what is there. `compare`, which
        must follow, finds what stood in the way.
        """
        known = {(run.first, run.count) for run in before.local.runs}
        new = [run for run in decision.local.runs if (run.first, run.count) not in known]
        if sum(run.count for run in new) > BATCH:
            return []
        came = Sweep(Wanted.of(new))
        for refusals in self.routes.add_local(new, clock.now()):
            for each in refusals:
                came.see_foreign(each.prefix)
            yield
        return came.plan().add

    def compare(self, decision: Decision, *, whole: bool) -> Generator[None, None, Changes]:
        """Find out what must change for a decision.

        IPv6 in table local is looked at always, IPv4 where a static prefix of it is wanted. Where it is to be
        `whole`, IPv4 is looked at for what is ours and not wanted, and table main: to find our own few routes
        there the kernel walks over everybody's.
        """
        local, discard = Sweep(decision.local), Sweep(decision.discard)
        strays: list[Route] = []
        wanted = {run.first.width for run in decision.local.runs}
        for family, width in wire.WIDTHS.items():
            if not whole and family != wire.AF_INET6 and width not in wanted:
                continue
            for chunk in self.routes.dump(wire.TABLE_LOCAL, family=family):
                bound, others = read_local_routes(chunk)
                local.see_ours(bound, clock.now(), width)
                for route in others:
                    if route.protocol == wire.PROTOCOL:
                        strays.append(route)
                    elif route.metric == LOCAL_METRIC:  # another metric is another place
                        local.see_foreign(route.prefix)
                yield
        if whole:
            self._own_discards, others = self._read_own_discards()
            strays += others
            yield
        discard.see_ours(((each.address, each.length, 0) for each in self._own_discards), 0)
        return Changes(local.plan(), discard.plan(), strays, self._hooks_leftovers())

    def _hooks_leftovers(self) -> list[Route]:
        """Return the hooks' messages that say nothing any more, and the discard routes of 0.1.0's hooks."""
        messages = [each for each in self._discards.standing if each.metric in HOOK_METRICS]
        stale = [hook_message(each) for each in messages if self.ledger.is_stale(each)]
        old = [hook_message(each)._replace(table=wire.TABLE_MAIN) for each in self._discards.leftover]
        return stale + old

    def _read_own_discards(self) -> tuple[set[Prefix], list[Route]]:
        """Read our routes in table main: the discard routes, and what is like none that we make."""
        own: set[Prefix] = set()
        strays: list[Route] = []
        kind = self._discard_kind()
        for chunk in self.routes.dump(wire.TABLE_MAIN, wire.PROTOCOL):
            for start, _, end in wire.messages(chunk):
                route = wire.route(chunk, start, end)
                if route._replace(ticks=0) == discard_route(kind, route.prefix):
                    own.add(route.prefix)
                else:
                    strays.append(route)
        return own, strays

    def mend(self, decision: Decision, lost: Iterable[Prefix]) -> Changes:
        """Put back single routes that somebody removed, without reading what else is there."""
        runs = [run for prefix in sorted(lost) if (run := decision.local.single(prefix))]
        return Changes(Plan(add=runs))

    def apply(self, changes: Changes) -> Generator[None, None, list[Refusal]]:
        """Change what must be changed: additions first. What the kernel refused is returned."""
        routes, kind, refused = self.routes, self._discard_kind(), list[Refusal]()
        added = [prefix for run in changes.discard.add for prefix in run.prefixes()]
        removed = [prefix for run in changes.discard.remove for prefix in run.prefixes()]
        for steps in (
            routes.add_local(changes.local.add, clock.now()),
            routes.add_discard(kind, added),
            routes.renew_local(changes.local.renew, clock.now()),
            routes.remove_local(changes.local.remove),
            routes.remove([discard_route(kind, prefix) for prefix in removed]),
            routes.remove(changes.strays),
            routes.remove(changes.leftovers),
        ):
            for refusals in steps:
                refused += refusals
                yield
        self._own_discards = self._own_discards.union(added).difference(
            removed, (each.prefix for each in refused)
        )
        for route in changes.leftovers:
            self._discards.hear(route, self.policy.accept.protocols, came=False)
            self.ledger.route_removed(Discard(route.prefix, route.metric))
        return refused

    def _discard_kind(self) -> int:
        return wire.DISCARDS.get(self.policy.unassigned, 0)


class _Steps(Generic[_T]):
    """The steps of some work, and what it came to when they are over."""

    result: _T

    def __init__(self, work: Generator[None, None, _T]) -> None:
        self._work = work

    def __iter__(self) -> Iterator[None]:
        self.result = yield from self._work


def at_once(work: Generator[None, None, _T]) -> _T:
    """Run a step to its end without a pause, and give its result."""
    steps = _Steps(work)
    for _ in steps:
        pass
    return steps.result


async def in_slices(work: Generator[None, None, _T]) -> _T:
    """Run a step to its end, let the loop take its turn now and then, and give its result."""
    steps = _Steps(work)
    turn = time.monotonic() + SLICE
    for _ in steps:
        if time.monotonic() > turn:
            await asyncio.sleep(0)
            turn = time.monotonic() + SLICE
    return steps.result
