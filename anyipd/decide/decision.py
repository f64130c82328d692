"""The decision: what a look found and the time -> the View, and the routes that make it true."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from anyipd.decide.addresses import own_addresses, with_addresses
from anyipd.decide.carve import carve
from anyipd.decide.covers import Wanted, local_routes
from anyipd.decide.gaps import Span
from anyipd.decide.gate import Host, gate_by_host, nameservers_assigned
from anyipd.decide.holes import hole_discards, throws
from anyipd.decide.overlap import without_overlaps, yielded
from anyipd.decide.plan import discard_routes
from anyipd.decide.source_routes import Surroundings, preferred_links, source_routes
from anyipd.decide.static import (
    DEFAULT_ROUTE_WAIT,
    Gateways,
    gateways,
    static_assigned,
    static_subnets,
    waits_for_default_route,
)
from anyipd.decide.verdict import without_taken
from anyipd.model import (
    INFINITE,
    Assigned,
    DefaultRoute,
    Delegation,
    Discard,
    HostAddresses,
    InUse,
    Lifetimes,
    Link,
    Places,
    Prefix,
    SourceRoute,
)
from anyipd.view import View

if TYPE_CHECKING:  # pydantic is only needed to read a policy
    from anyipd.policy import Policy


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a look found, and the policy that it was made by.

    `delegations` are as the ledger and the policy's gate have them, and `ledger_deadline` is when that
    changes by itself. `addressed` and `routed` is in use inside of them, by addresses and by foreign routes.
    `host_addresses` are this host's own, and all others inside of them.
    `discards` are the clients' discard routes and the hooks' messages, `own_discards` our own discard routes.
    `taken` are the destinations of foreign routes in table local that are in the way of ours. `places` is
    what the last decision remembered, and so are `routers`, those inside static prefixes; `in_use` is what
    else is in there. `defaults` are the default routes of table main.
    """

    network_namespace: int
    configuration: str
    policy: Policy
    delegations: Sequence[Delegation]
    ledger_deadline: float
    links: Mapping[str, Link]
    host: Host
    addressed: AbstractSet[Assigned]
    host_addresses: HostAddresses
    routed: AbstractSet[Assigned]
    discards: Collection[Discard]
    own_discards: AbstractSet[Prefix]
    taken: AbstractSet[Prefix]
    places: Mapping[Prefix, Places]
    routers: Gateways
    in_use: InUse
    defaults: AbstractSet[DefaultRoute] = frozenset()


@dataclass(frozen=True, slots=True)
class Decision:
    """What should be so at the time of its View, in which every subnet that is to be bound is WANTED.

    `local`, `throws`, `discard` and `source` are the routes of that, `addresses` are for lo; `places` and
    `routers` are what the next decision starts from, and `hinges` are where other people's routes would have
    made it another.
    """

    view: View
    local: Wanted
    throws: Wanted
    discard: Wanted
    addresses: Mapping[Prefix, Lifetimes]
    places: Mapping[Prefix, Places] = field(compare=False)
    routers: Gateways = field(compare=False)
    hinges: Sequence[Span] = field(compare=False)
    source: AbstractSet[SourceRoute] = frozenset()


def decide(evidence: Evidence, now: float) -> Decision:
    """Say what should be so; `now` is CLOCK_BOOTTIME."""
    policy, host = evidence.policy, evidence.host
    accepted = gate_by_host(evidence.delegations, policy, host, evidence.routed)
    delegations = without_overlaps(accepted, evidence.links)
    assigned = {*evidence.addressed, *evidence.routed, *static_assigned(policy), *nameservers_assigned(host)}
    routers = gateways(policy, evidence.in_use, evidence.routers)
    subnets = static_subnets(policy, evidence.in_use, routers, now)
    places = dict(evidence.places)
    places_deadline, hinges = INFINITE, [Span(each, each + 1) for each in host.nameservers]
    for each in delegations:
        if each.is_usable:
            # A route around all of it spares our discard route.
            hinges.append(Span(each.prefix.address, each.prefix.address + 1))
            taken = {*assigned, *yielded(each, delegations)}
            carved = carve(each, policy, taken, places.get(each.prefix, Places()), now)
            subnets += carved.subnets
            places[each.prefix] = carved.places
            hinges += carved.hinges
            places_deadline = min(places_deadline, carved.deadline)
    if evidence.taken:
        subnets = list(without_taken(subnets, evidence.taken))
    subnets = list(with_addresses(subnets, policy, evidence.host_addresses))
    unassigned = delegations if policy.unassigned != "none" else []
    discard, discard_deadline = discard_routes(
        unassigned, evidence.discards, evidence.own_discards, now, evidence.routed
    )
    if policy.unassigned != "none":
        next_hops = set(chain.from_iterable(routers.values()))
        reached = {*evidence.routed, *evidence.in_use.assigned}
        discard = {**hole_discards(subnets, next_hops, reached), **discard}
    waits = any(waits_for_default_route(each.prefix, evidence.in_use, now) for each in policy.static)
    view = View(
        time=now,
        network_namespace=evidence.network_namespace,
        configuration=evidence.configuration,
        policy=policy,
        delegations=tuple(delegations),
        subnets=tuple(subnets),
        deadline=min(
            *(evidence.ledger_deadline, discard_deadline, places_deadline),
            DEFAULT_ROUTE_WAIT if waits else INFINITE,
        ),
    )
    around = Surroundings(
        evidence.defaults,
        evidence.links,
        [each.prefix for each in policy.static],
        evidence.host_addresses.others,
    )
    return Decision(
        view,
        local_routes(subnets, evidence.taken),
        throws(subnets),
        discard,
        own_addresses(subnets, delegations, _ways_out(evidence)),
        places,
        routers,
        hinges,
        source_routes(policy.source_routes, delegations, subnets, around),
    )


def _ways_out(evidence: Evidence) -> set[str]:
    """Return the names of the links with the preferred default route."""
    preferred = preferred_links(evidence.defaults)
    return {name for name, link in evidence.links.items() if link.interface in preferred}
