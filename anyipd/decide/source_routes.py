"""Default routes for what is sent from delegated prefixes, so that replies leave by the right uplink. Pure.

A provider drops packets from prefixes of another one's (RFC 2827), so where there is another way out than
the uplink of a prefix, what is sent from the prefix needs a route of its own (RFC 8028): the kernel takes it
before the default route for everybody, with no rule and no table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal, NamedTuple

from anyipd.model import (
    DefaultRoute,
    Delegation,
    Link,
    LinkKind,
    Prefix,
    SourceRoute,
    Subnets,
    SubnetState,
)

METRIC, UNREACHABLE_METRIC = 1024, 4096
"""Of the route by an uplink's best router; that by the next one has the next metric."""

MAX_ROUTERS = 4
"""Routers of an uplink that are used: the kernel takes the next one where it does not reach the first."""

Choice = Literal["auto", "always", "never"]

_USED = (SubnetState.WANTED, SubnetState.RESERVED)


class Surroundings(NamedTuple):
    """What there is on this host: default routes, links by name, static prefixes, and foreign addresses.

    Of these the name of their link is known.
    """

    defaults: Collection[DefaultRoute]
    links: Mapping[str, Link]
    static: Collection[Prefix] = ()
    addresses: Mapping[int, str] = {}


def source_routes(
    choice: Choice,
    delegations: Iterable[Delegation],
    subnets: Iterable[Subnets],
    host: Surroundings,
) -> frozenset[SourceRoute]:
    """Say which source routes there should be for delegated prefixes that have subnets.

    By `auto` there are some only where packets may leave by another link than the uplink of the prefix. Of a
    prefix that several present uplinks tell of the one that began counts: else another one's server would
    take its replies over by joining in. There is none for an uplink in a VRF, nor for a prefix around
    addresses of others: whoever delegates it has no say in what is sent from them.
    """
    defaults, links = host.defaults, host.links
    if choice == "never":
        return frozenset()
    used = {each.delegation for each in subnets if each.state in _USED}
    told = [each for each in delegations if each.prefix in used and each.uplinks != {None}]
    uplinks = {each.prefix: _uplinks(each, links) for each in told}
    joined = {each.prefix for each in told if sum(name in links for name in each.uplinks) > 1}
    ways = defaultdict[int, list[DefaultRoute]](list)
    for each in defaults:
        ways[each.interface].append(each)
    preferred = preferred_links(defaults)
    if choice == "auto":
        if preferred & _tunnels(links, {name for each in told for name in each.uplinks}):
            return frozenset()
        # An uplink without a default route, as between two PPP sessions, may be preferred when it has one
        # again, before anybody could add a route for the prefixes of others.
        if all(any(link.interface in ways for link in present) for present in uplinks.values()):
            uplinks = {
                prefix: present
                for prefix, present in uplinks.items()
                if {link.interface for link in present} != preferred
            }
    found = set[SourceRoute]()
    for prefix, present in uplinks.items():
        if len(present) > 1 or any(link.kind is LinkKind.IN_VRF for link in present):
            continue
        if _is_around_others(prefix, present, ways, host):
            continue
        routers = [way for link in present for way in ways[link.interface]]
        found |= set(_by_routers(prefix, routers))
        if choice == "always" and not routers and prefix not in joined:
            found.add(SourceRoute(prefix, UNREACHABLE_METRIC))
    return frozenset(found)


def preferred_links(defaults: Collection[DefaultRoute]) -> set[int]:
    """Return the links with the preferred default route, by their indices.

    Of equal metrics the kernel takes whichever it reaches, and for a reply whichever the packet came by.
    """
    lowest = min((each.metric for each in defaults), default=0)
    return {each.interface for each in defaults if each.metric == lowest}


def _uplinks(delegation: Delegation, links: Mapping[str, Link]) -> list[Link]:
    """Return the links that what is sent from a prefix should leave by: the first, if it has a carrier."""
    first = links.get(delegation.uplink or "")
    if first and first.carrier_changes is not None:
        return [first]
    return [links[name] for name in delegation.uplinks if name and name in links]


def _is_around_others(
    prefix: Prefix, present: Iterable[Link], ways: Collection[int], host: Surroundings
) -> bool:
    """Whether a static prefix is in a delegated one, or an address of another link that leads outside."""
    if any(prefix.overlaps(each) for each in host.static):
        return True
    outside = {name for name, link in host.links.items() if link.interface in ways and link not in present}
    return any(
        name in outside and prefix.covers(Prefix(address, 128)) for address, name in host.addresses.items()
    )


def _tunnels(links: Mapping[str, Link], uplinks: Collection[str | None]) -> set[int]:
    """Return the links that are tunnels and nobody's uplink.

    Whoever has all packets go through a VPN does not want those of some source to go beside it.
    """
    return {
        link.interface for name, link in links.items() if link.kind is LinkKind.TUNNEL and name not in uplinks
    }


def _by_routers(source: Prefix, ways: Iterable[DefaultRoute]) -> Iterator[SourceRoute]:
    routers: dict[int, DefaultRoute] = {}  # one may be there by several routes
    for way in sorted(ways, key=lambda each: (each.metric, -each.preference, each.router)):
        routers.setdefault(way.router, way)
    for rank, way in enumerate(islice(routers.values(), MAX_ROUTERS)):
        yield SourceRoute(source, METRIC + rank, way.interface, way.router, way.onlink)


class SourceChanges(NamedTuple):
    """What to do, in this order: add, replace what is in the same place, remove."""

    add: Sequence[SourceRoute] = ()
    replace: Sequence[SourceRoute] = ()
    remove: Sequence[SourceRoute] = ()


def source_changes(wanted: Iterable[SourceRoute], present: Iterable[SourceRoute]) -> SourceChanges:
    """Compare the wanted source routes with those that are present."""
    there = {_place(each): each for each in present}
    places = {_place(each): each for each in sorted(wanted)}
    return SourceChanges(
        add=[each for place, each in places.items() if place not in there],
        replace=[each for place, each in places.items() if there.get(place, each) != each],
        remove=[each for place, each in sorted(there.items()) if place not in places],
    )


def changed(present: Iterable[SourceRoute], changes: SourceChanges) -> Iterable[SourceRoute]:
    """Return what is present after changes."""
    there = {_place(each): each for each in (*present, *changes.add, *changes.replace)}
    for each in changes.remove:
        there.pop(_place(each), None)
    return there.values()


def _place(route: SourceRoute) -> tuple[Prefix, int]:
    """Return what makes a route one to the kernel: two cannot share it."""
    return route.source, route.metric
