"""Which source routes there should be: examples, and what is so whatever there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyipd.decide.source_routes import (
    MAX_ROUTERS,
    METRIC,
    UNREACHABLE_METRIC,
    Choice,
    SourceChanges,
    Surroundings,
    changed,
    source_changes,
    source_routes,
)
from anyipd.model import (
    DefaultRoute,
    Delegation,
    DelegationState,
    Link,
    LinkKind,
    Prefix,
    SourceRoute,
    Subnets,
    SubnetState,
)

A, B = (Prefix.parse(f"2001:db8:{number}00::/60") for number in (1, 2))
UP, OTHER, VPN = 2, 3, 4
LINKS = {"up": Link(UP, 1), "other": Link(OTHER, 1), "vpn": Link(VPN, 1, LinkKind.TUNNEL)}
NAMES = {None, *LINKS, "gone"}
VIA_A, VIA_B = SourceRoute(A, METRIC, UP, 1), SourceRoute(B, METRIC, OTHER, 1)
UNREACHABLE = {SourceRoute(each, UNREACHABLE_METRIC) for each in (A, B)}


def delegation(prefix: Prefix, *uplinks: str | None) -> Delegation:
    return Delegation(prefix, "dhclient", DelegationState.GRANTED, uplinks[0], uplinks=frozenset(uplinks))


def bound(*prefixes: Prefix) -> list[Subnets]:
    return [Subnets("web", each, SubnetState.WANTED, each._replace(length=64)) for each in prefixes]


TWO = [delegation(A, "up"), delegation(B, "other")]


def default(interface: int, metric: int = 1024, router: int = 1, preference: int = 0) -> DefaultRoute:
    return DefaultRoute(interface, router, metric, preference)


def wanted(
    choice: Choice,
    defaults: list[DefaultRoute],
    delegations: list[Delegation] = TWO,
    **changed_links: Link | None,
) -> set[SourceRoute]:
    links = {name: link for name, link in (LINKS | changed_links).items() if link}
    host = Surroundings(defaults, links)
    return set(source_routes(choice, delegations, bound(A, B), host))


@pytest.mark.parametrize(
    ("defaults", "by_auto", "by_always"),
    [
        ([], set(), UNREACHABLE),
        ([default(UP, 1), default(OTHER, 2)], {VIA_B}, {VIA_A, VIA_B}),
        ([default(UP, 1), default(OTHER, 1)], {VIA_A, VIA_B}, {VIA_A, VIA_B}),
        ([default(UP, 1), default(OTHER, 1, preference=1)], {VIA_A, VIA_B}, {VIA_A, VIA_B}),
        # the other one is between two PPP sessions
        ([default(UP)], {VIA_A}, {VIA_A, SourceRoute(B, UNREACHABLE_METRIC)}),
        # beside a VPN, whether it is preferred or there in case
        ([default(UP, 2), default(OTHER, 3), default(VPN, 1)], set(), {VIA_A, VIA_B}),
        ([default(UP, 2), default(OTHER, 3), default(VPN, 4)], {VIA_B}, {VIA_A, VIA_B}),
        # two routers: the better metric, then the preferred one; one of them by two routes
        (
            [*(default(UP, *each) for each in ((2, 7), (3, 8), (3, 9, 1), (4, 7))), default(OTHER, 1)],
            {SourceRoute(A, METRIC + rank, UP, router) for rank, router in enumerate((7, 9, 8))},
            {SourceRoute(A, METRIC + rank, UP, router) for rank, router in enumerate((7, 9, 8))} | {VIA_B},
        ),
    ],
)  # fmt: skip
def test_by_default_routes(
    defaults: list[DefaultRoute], by_auto: set[SourceRoute], by_always: set[SourceRoute]
) -> None:
    assert wanted("auto", defaults) == by_auto
    assert wanted("always", defaults) == by_always
    assert wanted("never", defaults) == set()


def test_one_uplink_has_none() -> None:
    assert wanted("auto", [default(UP)], [delegation(A, "up")]) == set()


def test_a_tunnel_that_is_an_uplink_is_one() -> None:
    through = [delegation(A, "up"), delegation(B, "vpn")]
    found = wanted("auto", [default(UP, 2), default(VPN, 1)], through)
    assert found == {VIA_A}


def test_a_prefix_that_two_uplinks_tell_of_leaves_by_the_one_that_began() -> None:
    """Else the other one's server takes its replies over by telling of it, too."""
    joined, defaults = (
        [delegation(A, "up", "other"), delegation(B, "other")],
        [default(UP, 2), default(OTHER, 1)],
    )
    assert wanted("auto", defaults, joined) == {VIA_A}
    assert wanted("auto", [default(UP, 1), default(OTHER, 2)], joined) == {VIA_B}
    assert wanted("always", defaults, joined) == {VIA_A, VIA_B}
    # Where the first has no way out now, or no carrier, either will do; one that is gone counts for nothing.
    assert wanted("always", [default(OTHER)], joined) == {VIA_B}
    assert wanted("always", defaults, joined, up=Link(UP, None)) == {VIA_B}
    gone = [delegation(B, "up", "other")]
    assert wanted("always", [default(OTHER)], gone, up=None) == {VIA_B}


def test_a_vrf_has_tables_of_its_own() -> None:
    assert wanted("always", [default(UP)], other=Link(OTHER, 1, LinkKind.IN_VRF)) == {VIA_A}


def test_what_has_no_subnet_has_none() -> None:
    host = Surroundings([default(UP), default(OTHER)], LINKS)
    conflict = Subnets("web", B, SubnetState.CONFLICT, B._replace(length=64))
    assert source_routes("auto", TWO, [*bound(A), conflict], host) == {VIA_A}
    routed_on = Subnets("web", B, SubnetState.RESERVED, B._replace(length=64))
    assert source_routes("auto", TWO, [*bound(A), routed_on], host) == {VIA_A, VIA_B}


ROUTES = st.builds(
    DefaultRoute,
    interface=st.sampled_from([UP, OTHER, VPN]),
    router=st.integers(0, 7),
    metric=st.integers(0, 3),
    preference=st.integers(-1, 1),
)
TOLD = st.frozensets(st.sampled_from(sorted(NAMES, key=str)), min_size=1)
PRESENT = st.dictionaries(
    st.sampled_from([(prefix, METRIC + rank) for prefix in (A, B) for rank in range(3)]),
    st.tuples(st.sampled_from([UP, OTHER]), st.integers(0, 2)),
).map(lambda places: {SourceRoute(*place, *hop) for place, hop in places.items()})


@given(st.lists(ROUTES), st.tuples(TOLD, TOLD), st.sets(st.sampled_from([*LINKS])))
def test_whatever_there_is(
    defaults: list[DefaultRoute], told: tuple[frozenset[str | None], ...], there: set[str]
) -> None:
    links = {name: LINKS[name] for name in there}
    defaults = [each for each in defaults if each.interface in {link.interface for link in links.values()}]
    host = Surroundings(defaults, links)
    delegations = [
        Delegation(prefix, "dhclient", DelegationState.GRANTED, None, uplinks=uplinks)
        for prefix, uplinks in zip((A, B), told, strict=True)
    ]
    auto, always = (set(source_routes(each, delegations, bound(A, B), host)) for each in ("auto", "always"))
    assert auto <= always
    lowest = min((each.metric for each in defaults), default=0)
    preferred = {each.interface for each in defaults if each.metric == lowest}
    for each in delegations:
        present = {links[name].interface for name in each.uplinks if name in links}
        mine = {route for route in auto if route.source == each.prefix}
        # One by each router of the uplink, as far as there is room, and by nobody else.
        routers = {way.router for way in defaults if present == {way.interface}}
        assert {route.interface for route in mine} <= present
        assert {route.router for route in mine} <= routers
        assert len(mine) in {0, min(len(routers), MAX_ROUTERS)}
        if VPN not in preferred and preferred - present and len(present) == 1 and routers:
            assert mine
        ranks = sorted(route.metric for route in mine)
        assert ranks == list(range(METRIC, METRIC + len(ranks)))


@given(PRESENT, PRESENT)
def test_changes_lead_from_what_is_to_what_should_be(
    present: set[SourceRoute], should_be: set[SourceRoute]
) -> None:
    changes = source_changes(should_be, present)
    assert set(changed(present, changes)) == should_be
    assert source_changes(should_be, should_be) == SourceChanges([], [], [])
    assert set(changes.remove) <= present
    places = {each[:2] for each in present}
    assert not places & {each[:2] for each in changes.add}
    assert places >= {each[:2] for each in changes.replace}
