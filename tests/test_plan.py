"""The comparison of what is wanted with what is there, and what is said of it, against a plain dictionary."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyipd.decide.covers import addresses
from anyipd.decide.gaps import Gaps, Span
from anyipd.decide.plan import LONGEST, Plan, discard_routes, plan
from anyipd.decide.verdict import Placed, part, verdicts
from anyipd.model import (
    INFINITE,
    Assigned,
    Delegation,
    DelegationState,
    Discard,
    Prefix,
    Subnets,
    SubnetState,
)

NOW = 1000.0
FIRST = Prefix.parse("2001:db8::/64")
BOUND, MISSING, CONFLICT = SubnetState.BOUND, SubnetState.MISSING, SubnetState.CONFLICT


def nth(place: int, length: int = 64) -> Prefix:
    return Prefix(FIRST.address + (place << 64), length).masked()


@pytest.mark.parametrize(
    ("left", "ticks", "renewed"),
    [
        (None, 0, False),
        (INFINITE, 0, False),
        (None, 500, True),
        (INFINITE, -1, True),
        (60.0, 0, True),
        (60.0, 5989, True),  # it would go before its delegation
        (60.0, 5990, False),
        (60.0, 6200, False),
        (60.0, 6201, True),
        (60.0, -300, True),  # expired, and not yet collected
        (1.0, 100, False),
        (-5.0, -100, False),  # over, as the delegation is
        (INFINITE, LONGEST, True),
        (4e9, LONGEST, False),  # the kernel counts no further
        (4e9, LONGEST - 1, True),
        (LONGEST / 100 + 0.05, LONGEST - 5, False),
    ],
)
def test_a_lifetime_is_renewed_where_it_differs(left: float | None, ticks: int, renewed: bool) -> None:  # noqa: FBT001  a column
    wanted = {FIRST: None if left is None else NOW + left}
    assert plan(wanted, {FIRST: ticks}, NOW) == Plan(renew=wanted if renewed else {}, remove=[])


destinations = st.tuples(st.integers(0, 15), st.sampled_from([62, 63, 64, 65])).map(lambda place: nth(*place))


@given(
    st.dictionaries(destinations, st.sampled_from([None, INFINITE, NOW + 30])),
    st.dictionaries(destinations, st.sampled_from([0, -5, 2989, 2990, 3000, 3200, 3201])),
)
def test_every_route_is_added_renewed_removed_or_right(
    wanted: dict[Prefix, float | None], present: dict[Prefix, int]
) -> None:
    found = plan(wanted, present, NOW)
    assert found.add == {prefix: wanted[prefix] for prefix in wanted.keys() - present}
    assert set(found.remove) == present.keys() - wanted.keys()
    assert found.renew == {
        prefix: wanted[prefix]
        for prefix in wanted.keys() & present
        if not (2990 <= present[prefix] <= 3200 if wanted[prefix] == NOW + 30 else present[prefix] == 0)
    }


def test_verdicts_split_runs_and_keep_their_numbers() -> None:
    asked = Subnets("web", FIRST, SubnetState.WANTED, FIRST, 10, number=5, valid_until=9.0)
    others = [
        Subnets("docker", FIRST, SubnetState.RESERVED, nth(20)),
        Subnets("lab", FIRST, SubnetState.WITHOUT_ROOM, None, reason="no"),
        Subnets("used", FIRST, CONFLICT, nth(30), reason="on-link"),
    ]
    wanted = [nth(0, 62), nth(4, 62), nth(8, 63)]
    found = list(verdicts([asked, *others], addresses(wanted, [nth(0), *map(nth, range(2, 8))])))
    assert [(each.number, each.count, each.state, each.first) for each in found[:4]] == [
        (5, 1, BOUND, nth(0)),
        (6, 1, MISSING, nth(1)),
        (7, 6, BOUND, nth(2)),
        (13, 2, MISSING, nth(8)),
    ]
    assert found[4:] == others
    # A subnet of which a part lacks its route does not answer everywhere.
    assert [each.count for each in verdicts([asked], {128: Gaps(nth(3).end - 1, nth(4).address + 1)})] == [
        *(3, 2, 5)
    ]
    assert list(verdicts([asked], {32: Gaps(0, 1 << 32)})) == [replace(asked, state=BOUND)]


def test_what_the_kernel_lacks_may_span_several_entries() -> None:
    first, second, third = (
        Subnets(name, FIRST, SubnetState.WANTED, nth(number), count)
        for name, number, count in (("web", 0, 1), ("shop", 1, 3), ("lab", 4, 1))
    )
    found = verdicts([third, second, first], addresses(map(nth, range(3))))
    assert [(each.name, each.first, each.count, each.state) for each in found] == [
        ("lab", nth(4), 1, BOUND),
        ("shop", nth(1), 2, MISSING),
        ("shop", nth(3), 1, BOUND),
        ("web", nth(0), 1, MISSING),
    ]


def test_subnets_are_found_by_addresses() -> None:
    placed = Placed(
        [
            Subnets("none", None, SubnetState.WITHOUT_ROOM, None),
            Subnets("b", None, BOUND, nth(4)),
            Subnets("a", None, BOUND, FIRST, 4, number=0),
            Subnets("v4", None, BOUND, Prefix.parse("192.0.2.0/24")),
        ]
    )

    def found(start: int, end: int, width: int = 128) -> list[tuple[str, int]]:
        return [(each.subnet_name(0), each.count) for each in placed.inside(Span(start, end), width)]

    assert found(FIRST.address, nth(5).address) == [("a-0", 4), ("b", 1)]
    assert found(nth(1).address, nth(3).address) == [("a-1", 2)]
    assert found(nth(1).address + 1, nth(4).end - 1) == [("a-2", 2)]
    assert found(nth(3).address, nth(3).address + 1) == []
    assert found(0, 1 << 32, 32) == [("v4", 1)]
    assert found(nth(5).address, nth(9).address) == []
    middle = part(Subnets("a", None, BOUND, FIRST, 4, number=0), 2, 1)
    assert (str(middle.first), middle.count, middle.subnet_name(0)) == ("2001:db8:0:2::/64", 1, "a-2")


def test_our_discard_routes_stand_where_the_client_left_none() -> None:
    granted, superseded, refused = (
        Delegation(Prefix(i << 64, 64), "dhcpcd", state, began=NOW - 9)
        for i, state in enumerate(
            (DelegationState.GRANTED, DelegationState.SUPERSEDED, DelegationState.REFUSED)
        )
    )
    found = [granted, superseded, refused]
    both = {granted.prefix: None, superseded.prefix: None}
    assert discard_routes(found, [], (), NOW) == (both, INFINITE)
    beside = [Discard(granted.prefix, 1001), Discard(superseded.prefix, 1025)]
    assert discard_routes(found, beside, (), NOW) == ({superseded.prefix: None}, INFINITE)


def test_what_somebody_has_routed_whole_is_not_discarded() -> None:
    """Whatever the metric of his route: the lower one would be ours."""
    found = Delegation(FIRST, "dhclient", DelegationState.GRANTED, began=NOW - 9)
    for length, expected in ((63, {}), (64, {}), (65, {FIRST: None})):
        routed = [Assigned(FIRST._replace(length=length).masked(), "routed to lan0")]
        assert discard_routes([found], [], {FIRST}, NOW, routed) == (expected, INFINITE)


def test_a_client_has_a_moment_to_add_its_own_and_what_stands_of_ours_stays() -> None:
    fresh = Delegation(FIRST, "dhcpcd", DelegationState.GRANTED, began=NOW - 0.4)
    wanted = {FIRST: None}
    assert discard_routes([fresh], [], (), NOW) == ({}, NOW + 0.6)
    assert discard_routes([fresh], [], (), NOW + 0.6) == (wanted, INFINITE)
    assert discard_routes([fresh], [], {FIRST}, NOW) == (wanted, INFINITE)
    assert discard_routes([replace(fresh, source="dhclient")], [], (), NOW) == (wanted, INFINITE)
