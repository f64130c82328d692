"""The observations that are still good: what a look must read again, and the evidence that all make together.

An event only spares looks: of a single route it says itself what became of that, and everything else is read
again. What must be remembered of the past is in the ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from itertools import chain
from pathlib import Path

from anyipd import clock, here
from anyipd.apply import Changes, Outcome
from anyipd.decide.addresses import AddressPlan, plan_addresses
from anyipd.decide.decision import Decision, Evidence
from anyipd.decide.delegations import delegations
from anyipd.decide.gaps import Gaps, Span
from anyipd.decide.gate import Host, accepts_uplink, gate
from anyipd.decide.ledger import HOOK_METRICS, Ledger
from anyipd.decide.plan import plan
from anyipd.decide.source_routes import changed, source_changes
from anyipd.decide.static import Gateways
from anyipd.kernel import wire
from anyipd.kernel.event_filter import MAX_PREFIXES
from anyipd.kernel.monitor import Hint, LinkDown, Monitor, News, Stale
from anyipd.kernel.routes import (
    DISCARD_METRIC,
    LOCAL_METRIC,
    Routes,
    discard_route,
    is_throw_route,
    ours_and_others,
)
from anyipd.kernel.source_routes import as_source_route
from anyipd.kernel.wire import Route
from anyipd.model import Assigned, Delegation, Discard, HostAddresses, Link, Places, Prefix, SourceRoute
from anyipd.observe.discard import Discards
from anyipd.observe.lease import Complaint, Leases
from anyipd.observe.lease_monitor import LeaseMonitor
from anyipd.observe.nameservers import Nameservers
from anyipd.observe.networkd import Networkd
from anyipd.observe.onlink import Routed, addressed, host_addresses
from anyipd.observe.static_use import StaticUse
from anyipd.policy import Policy

_IPV4 = wire.WIDTHS[wire.AF_INET]

SHOWN_OF_ACCEPTED = 2
"""Times as many delegations of an uplink are known as may be accepted; a server may grant thousands."""


class Observations:
    """What was read of the kernel, the lease files and networkd, and the sockets that it takes.

    `policy` may be set anew; all is to be read again then.
    """

    def __init__(
        self,
        configuration: Path,
        policy: Policy,
        runtime_dir: Path,
        ledger: Ledger,
        places: Mapping[Prefix, Places],
    ) -> None:
        self.policy = policy
        self.routes, self.monitor = Routes(), Monitor()
        self.lease_monitor = LeaseMonitor(runtime_dir / "leases")
        self.ledger, self.places = ledger, places
        self.networkd = Networkd()
        self.complaints: list[Complaint] = []
        self._configuration, self._network_namespace = str(configuration.absolute()), here.network_namespace()
        # What root's hooks were told, and what the daemon itself heard on the wire.
        self._leases = Leases(runtime_dir / "leases"), Leases(runtime_dir / "heard")
        self.links: dict[str, Link] = {}
        """Those that the last look found, by name."""
        self._discards = Discards()
        self._delegations: list[Delegation] = []
        self._delegated: list[Prefix] = []
        self._places: set[Prefix] = set()  # of clients' discard routes, also those of what is not delegated
        self._watches_all = False
        self._addressed: set[Assigned] = set()
        self._host_addresses = HostAddresses()
        self._routed = Routed()
        self._hinges = Gaps(0, 1 << 128)  # of the last decision; before the first one all matters
        self._nameservers = Nameservers()
        self._static_use = StaticUse()
        self._routers: Gateways = {}
        self._throws: set[Prefix] = set()
        self._own_discards: set[Prefix] = set()
        self._own_sources: set[SourceRoute] = set()
        self._discards_ipv4 = True  # some of them may be; before the first look nobody knows
        self._strays: list[Route] = []  # of table main
        self._local_strays: list[Route] = []
        self.taken: set[Prefix] = set()
        """Where in table local foreign routes are in the way of ours."""
        self.set_filter()

    @property
    def in_doubt(self) -> bool:
        """Whether foreign routes were missing that nobody said were gone: they should be looked for again."""
        return self._routed.in_doubt

    def set_filter(self) -> None:
        """Have events pass that matter by the policy and delegations of now, but not our own changes."""
        self._watches_all = False
        accept, watched = self.policy.accept, self._delegated
        if len(watched) <= MAX_PREFIXES:
            watched = sorted({*watched, *(each.prefix for each in self.policy.static)})
        self.monitor.watch(self.routes.port, accept.protocols, watched, accept.shortest, self._places)

    def come_to_rest(self) -> None:
        """Do what a look left for when nobody waits for it any more."""
        if self._watches_all:
            self.set_filter()

    def reopen(self) -> None:
        """Go on with another socket after a pass that failed: this one may hold answers to the past.

        All is to be observed anew then, for the observations are half new, half old.
        """
        self.routes.close()
        self.routes = Routes()
        self.set_filter()

    def hear(self, hint: Hint) -> Stale:
        """Take note of what events said of single routes; say which looks are due all the same."""
        protocols, now = self.policy.accept.protocols, clock.now()
        if hint.lo_fell:
            self.ledger.lo_fell()
        stale = hint.stale
        for news in hint.news:
            if self._concerns_static(news):
                stale |= Stale.STATIC
            if isinstance(news, News) and news.route.prefix.width == _IPV4:
                continue
            if isinstance(news, LinkDown):
                known = self._routed.lose_link(news.interface)
                self._own_sources = {each for each in self._own_sources if each.interface != news.interface}
            else:
                route, came, replaced, _ = news
                known = self._routed.hear(route, came=came, replaced=replaced)
                if place := self._discards.hear(route, protocols, came=came):
                    if place in self._discards.standing:
                        self.ledger.route_added(place, now)
                    else:
                        self.ledger.route_removed(place)
                    # Where their directory is not watched yet, nothing else tells of lease files.
                    stale |= Stale.LEASES
                if self._is_in_place_of_ours(route):
                    stale |= Stale.PRESENT
            if not known:
                stale |= Stale.ROUTES
        return stale

    def _is_in_place_of_ours(self, route: Route) -> bool:
        """Whether somebody's route may be where a discard or source route of ours was, or belongs."""
        of_source = not route.prefix.length and route.source in self._delegated
        return route.table == wire.TABLE_MAIN and (route.metric == DISCARD_METRIC or of_source)

    @property
    def _static(self) -> list[Prefix]:
        """Return the static prefixes that are to be bound."""
        return [each.prefix for each in self.policy.static if each.bind]

    def _concerns_static(self, news: News | LinkDown) -> bool:
        """Whether a router may have come, or what is in use inside a static prefix may have changed.

        Thousands of routes may come and go by a router that is known. One that is none any more stays a hole
        up to the next look. A default route of IPv6 matters by its routers alone: whoever sends Router
        Advertisements has it come and go.
        """
        if isinstance(news, LinkDown):
            return bool(self._static)
        prefix = news.route.prefix
        if not prefix.length and prefix.width != _IPV4 and not news.replaced:
            hops = [Prefix(hop.router, 128) for hop in news.route.hops]
            return any(each.covers(hop) for each in self._static for hop in hops)
        new = [hop for hop in news.gateways if news.came and hop not in self._static_use.found.next_hops]
        return any(
            not prefix.length or each.overlaps(prefix) or any(each.covers(hop) for hop in new)
            for each in self._static
        )

    async def look(self, stale: Stale) -> bool:
        """Make anew the observations that are stale; say whether all lease files could be read.

        Where more is delegated than before, events from in there pass the filter before the look inside.
        Raises OSError and MalformedError as `Routes` does.
        """
        readable = Stale.LEASES not in stale or self._look_at_leases()
        if Stale.LINKS in stale:
            self.links = self.routes.links()
            self.ledger.see_links(self.links, clock.now())
        if Stale.DISCARDS in stale:
            self.look_at_discards()
        known, watched = self._delegated, self._places
        self._delegate()
        if not self._places <= watched:  # who took such a place before its events pass no event has told
            self.look_at_discards()
            self._delegate()
        self._nameservers.look()
        if not set(self._delegated) <= set(known):
            stale |= Stale.ADDRESSES | Stale.ROUTES
        if Stale.ADDRESSES in stale:
            self._look_at_addresses()
        if Stale.ROUTES in stale:
            await self.look_at_routes(self._delegated)
        if Stale.STATIC in stale:
            await self._static_use.look(self.routes, self._static)
        if Stale.PRESENT in stale:
            self._look_at_own_discards()
        return readable

    def _delegate(self) -> None:
        """Take in all reports and routes at hand, and hear from then on of what is delegated by them."""
        overfull = set(self.ledger.overfull)
        self._take_leases()
        if overfull.difference(self.ledger.overfull):  # what was passed over may have its turn
            for directory in self._leases:
                directory.read_anew()
            self._look_at_leases()
            self._take_leases()
        now = clock.now()
        known = delegations(self.ledger, now, partial(accepts_uplink, self.policy), self._max_known)
        self._delegations = gate(known, self.policy)
        delegated = [each.prefix for each in self._delegations if each.is_usable]
        places = self._discards.places(MAX_PREFIXES)
        if (delegated, places) != (self._delegated, self._places):
            self._delegated, self._places = delegated, places
            # Somebody waits for an address, and a filter for these takes the kernel a while to compile.
            self.monitor.watch_all(self.routes.port)
            self._watches_all = True

    def _take_leases(self) -> None:
        """Have the ledger take in all reports; what it does not, of thousands, is let go of."""
        silent = () if self.networkd.understood else ("networkd",)
        reports = chain(*(directory.held for directory in self._leases), self.networkd.leases)
        self.ledger.take(reports, clock.now(), silent=silent, max_live=self._max_known)
        for directory in self._leases:
            directory.keep(self.ledger.holds)

    def _look_at_leases(self) -> bool:
        self.lease_monitor.watch()
        for directory in self._leases:
            _, complaints = directory.read(clock.now, self.lease_monitor.written)
            self.complaints += complaints
        return not any(directory.unreadable for directory in self._leases)

    def _look_at_addresses(self) -> None:
        found = list(self.routes.addresses())
        self._addressed = set(addressed(found, self._delegated))
        self._host_addresses = host_addresses(found, self._delegated, clock.now())

    def look_at_discards(self) -> None:
        """Look for the clients' discard routes; the kernel filters."""
        self._discards.look(self.routes, self.policy.accept.protocols)
        self.ledger.see_routes(self._discards.standing, clock.now())

    async def look_at_routes(self, delegated: Collection[Prefix]) -> None:
        """Look for other people's routes inside delegated prefixes."""
        await self._routed.look(self.routes, list(delegated))

    def _look_at_own_discards(self) -> None:
        """Read our routes in table main: discard and source routes, and what is like none that we make."""
        # Of IPv4 some are over holes in static prefixes, or were when the last daemon ended.
        families = wire.WIDTHS if self._discards_ipv4 or self._has_static(_IPV4) else (wire.AF_INET6,)
        self._own_discards, self._own_sources, self._strays = set(), set(), []
        for chunk in (
            chunk for family in families for chunk in self.routes.dump(wire.TABLE_MAIN, wire.PROTOCOL, family)
        ):
            for start, _, end in wire.messages(chunk):
                route = wire.route(chunk, start, end)
                if route._replace(ticks=0) == discard_route(self._discard_kind, route.prefix):
                    self._own_discards.add(route.prefix)
                elif source := as_source_route(route):
                    self._own_sources.add(source)
                else:
                    self._strays.append(route)
        self._discards_ipv4 = any(each.width == _IPV4 for each in self._own_discards)

    def _has_static(self, width: int) -> bool:
        return any(each.prefix.width == width for each in self.policy.static)

    @property
    def _discard_kind(self) -> int:
        return wire.DISCARDS.get(self.policy.unassigned, 0)

    @property
    def _max_known(self) -> int:
        """Delegations of an uplink that are known: those beyond `accept.at_most` are shown as refused."""
        return SHOWN_OF_ACCEPTED * self.policy.accept.at_most

    def evidence(self, *, everywhere: bool = False) -> Evidence:
        """Return what all observations come to.

        Of the foreign routes, of which there may be many, those are in it that lie where the last decision
        looked for some, or all of them.
        """
        known = {each.prefix for each in self._delegations}
        return Evidence(
            network_namespace=self._network_namespace,
            configuration=self._configuration,
            policy=self.policy,
            delegations=self._delegations,
            ledger_deadline=self.ledger.next_deadline,
            links=self.links,
            host=Host(self._routed.covering, self._nameservers.addresses),
            addressed=self._addressed,
            host_addresses=self._host_addresses,
            routed=self._routed.assigned if everywhere else self._routed.mattering,
            discards=self._discards.standing,
            own_discards=self._own_discards,
            taken=self.taken,
            routers=self._routers,
            in_use=self._static_use.found,
            defaults=self._routed.defaults,
            places={
                prefix: kept
                for prefix, kept in self.places.items()
                if prefix in known or self.ledger.remembers(prefix)
            },
        )

    def attends_to(self, hinges: Iterable[Span]) -> bool:
        """Whether the evidence had all foreign routes that there are at these addresses."""
        known = self._routed
        return all(self._hinges.holds(*span) for span in hinges) or known.mattering == known.assigned

    def follow(self, decision: Decision) -> None:
        """Have the next evidence start from a decision: its places, and the routes that it hinges on."""
        self.places, self._routers = decision.places, decision.routers
        hinges = Gaps.of(decision.hinges)
        if list(hinges) != list(self._hinges):
            self._hinges = hinges
            self._routed.attend(lambda prefix: any(hinges.within(prefix.address, prefix.end)))

    def look_at_local(self, *, whole: bool) -> dict[Prefix, int]:
        """Read table local; return our routes there, and the ticks that each has left.

        IPv4 is read where a static prefix of it is wanted, or where it is to be `whole`, for what is ours and
        not wanted.
        """
        families = wire.WIDTHS if whole or self._has_static(_IPV4) else (wire.AF_INET6,)
        ours, others = ours_and_others(
            chunk for family in families for chunk in self.routes.dump(wire.TABLE_LOCAL, family=family)
        )
        own = [route for route in others if route.protocol == wire.PROTOCOL]
        self._throws = {route.prefix for route in own if is_throw_route(route)}
        self._local_strays = [route for route in own if not is_throw_route(route)]
        # Another metric is another place, and where ours is nobody else's is in its way.
        foreign = {
            route.prefix
            for route in others
            if route.protocol != wire.PROTOCOL and route.metric == LOCAL_METRIC
        }
        self.taken = foreign - ours.keys()
        return ours

    def compare(self, decision: Decision, present: Mapping[Prefix, int]) -> Changes:
        """Find out what must change for a decision.

        Of table main the last look counts: to find our few routes there the kernel walks over everybody's.
        """
        return Changes(
            present.keys(),
            plan(decision.local, present, clock.now()),
            plan(decision.throws, dict.fromkeys(self._throws, 0), 0),
            plan(decision.discard, dict.fromkeys(self._own_discards, 0), 0),
            source_changes(decision.source, self._own_sources),
            [*self._local_strays, *self._strays],
            self.stale_messages(),
            self._discards.leftover,
            self.compare_addresses(decision),
        )

    def compare_addresses(self, decision: Decision) -> AddressPlan:
        """Find out what must change of this host's own addresses for a decision.

        A renewal and a removal hit whoever's address it is by now, so there is a last look before them.
        """
        if plan_addresses(decision.addresses, self._host_addresses.own, clock.now()):
            self._look_at_addresses()
        return plan_addresses(decision.addresses, self._host_addresses.own, clock.now())

    def stale_messages(self) -> list[Discard]:
        """Return the messages of our hooks in the kernel that say nothing any more."""
        messages = (each for each in self._discards.standing if each.metric in HOOK_METRICS)
        return [each for each in messages if self.ledger.is_stale(each)]

    def see_applied(self, changes: Changes, outcome: Outcome) -> None:
        """Take note of what we changed: no event tells us."""
        gone = {*changes.discard.remove, *(each.prefix for each in outcome.discards)}
        self._own_discards = (self._own_discards | changes.discard.add.keys()) - gone
        self._own_sources = set(changed(self._own_sources, changes.source)).difference(outcome.sources)
        self._strays = []
        for place in changes.messages:
            self._discards.standing.pop(place)
            self.ledger.route_removed(place)
        self._discards.leftover = self._discards.leftover.difference(changes.leftovers)
