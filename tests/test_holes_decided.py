"""Holes as they are decided: what is left to others, and what is bound around that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyipd.decide.carve import carve
from anyipd.decide.covers import local_routes
from anyipd.decide.holes import hole_discards, holes, is_in_hole, spans, throws
from anyipd.model import Assigned, Delegation, DelegationState, Places, Prefix, Subnets, SubnetState
from anyipd.neighbour.spans import answered
from anyipd.policy import parse

P = Prefix.parse
D = P("2001:db8:100::/60")
DELEGATION = Delegation(D, "dhclient", DelegationState.GRANTED)
WANTED = SubnetState.WANTED


@st.composite
def parts(draw: st.DrawFn, width: int, length: int) -> tuple[Prefix, ...]:
    """Some prefixes of 16 addresses at the beginning, none inside another, in order."""
    found: list[Prefix] = []
    for _ in range(draw(st.integers(0, 5))):
        size = draw(st.integers(width - 3, width))
        each = Prefix(draw(st.integers(0, 15)), max(size, length + 1), width).masked()
        if not any(each.overlaps(other) for other in found):
            found.append(each)
    return tuple(sorted(found))


def members(prefixes: Sequence[Prefix]) -> set[int]:
    return {address for each in prefixes for address in range(each.address, each.end)}


@given(parts(32, 28), st.integers(1, 3))
def test_ipv4_is_bound_by_the_fewest_prefixes_around_the_holes(below: tuple[Prefix, ...], count: int) -> None:
    run = Subnets("a", None, WANTED, P("192.0.2.16/28"), count, holes=below)
    routes = sorted(local_routes([run]))
    inside = range(P("192.0.2.16/32").address, P("192.0.2.16/32").address + 16 * count)
    assert members(routes) == set(inside) - members(list(holes(run)))
    assert sum(each.size for each in routes) == len(members(routes))
    for each in routes:  # none could be shorter
        shorter = each._replace(length=each.length - 1).masked()
        assert not members([shorter]) <= members(routes)
    assert not throws([run])


@given(parts(128, 124), st.integers(1, 3))
def test_ipv6_is_bound_whole_with_a_throw_for_each_hole(below: tuple[Prefix, ...], count: int) -> None:
    run = Subnets("a", D, WANTED, Prefix(D.address, 124), count, holes=below)
    without = replace(run, holes=())
    assert local_routes([run]) == local_routes([without])
    assert list(throws([run])) == list(holes(run)) == list(hole_discards([run], (), ()))
    left = {address for span in spans(run) for address in range(*span)}
    assert left == set(range(D.address, D.address + 16 * count)) - members(list(holes(run)))
    for state in set(SubnetState) - {WANTED}:
        assert not throws([replace(run, state=state)])


@given(parts(128, 124), st.integers(0, 63), st.integers(120, 128))
def test_what_is_in_a_hole(below: tuple[Prefix, ...], address: int, length: int) -> None:
    prefix = Prefix(address, length).masked()
    around = Subnets("a", None, WANTED, Prefix(0, 124), 4, holes=below)
    assert is_in_hole(prefix, 124, below) == any(hole.covers(prefix) for hole in holes(around))


@given(
    parts(128, 64),
    st.integers(0, 15),
    st.integers(0, 15),
    st.integers(124, 128),
    st.sampled_from(["id: 7, ", ""]),
)
def test_what_is_in_a_hole_is_in_nobodys_way(
    below: tuple[Prefix, ...], subnet: int, address: int, length: int, pinned: str
) -> None:
    policy = parse(
        f"subnets: [{{name: a, count: 3, {pinned}except: {list(map(str, below))}}}, {{name: b, count: 4}}]",
        "f",
    )
    used = Assigned(Prefix(D.address + (subnet << 64) + address, length).masked(), "routed to br0")
    carved = carve(DELEGATION, policy, [used], Places(), 0.0)
    free = carve(DELEGATION, policy, [], Places(), 0.0)
    again = carve(DELEGATION, policy, [used], free.places, 0.0)
    [mine] = [each for each in free.subnets if each.name == "a"]
    assert mine.first
    if any(hole.covers(used.prefix) for hole in holes(mine)):
        assert [each for each in carved.subnets if each.name == "a"] == [mine]
        assert again.subnets == carved.subnets == free.subnets
    for each in (*carved.subnets, *again.subnets):
        if each.first and each.state is WANTED:
            run = each.first._replace(length=64)
            inside = used.prefix.address >> 64 in range(run.address >> 64, (run.address >> 64) + each.count)
            assert not inside or any(hole.covers(used.prefix) for hole in holes(each))


def test_a_place_with_something_in_a_hole_is_for_one_alone() -> None:
    policy = parse("subnets: [{name: a, except: ['::5']}, {name: b, except: ['::5']}, {name: c}]", "f")
    used = [Assigned(Prefix(D.address + (i << 64) + 5, 128), "routed to br0") for i in range(16)]
    a, b, c = carve(DELEGATION, policy, used, Places(), 0.0).subnets
    assert (a.first, b.first) == (P("2001:db8:100::/64"), P("2001:db8:100:1::/64"))
    assert c.state is SubnetState.WITHOUT_ROOM
    assert c.reason
    assert c.reason.endswith('2001:db8:100::5/128 is routed to br0; `except: ["::5/128"]` keeps the rest')


def test_the_responder_knows_holes() -> None:
    """What may be routed on it answers for where that is so, and for a router of this host never."""
    policy = parse(
        "subnets: [{name: a, id: 0, neighbours: [eth0], except: ['::5']},"
        " {name: b, id: 1, bind: false, neighbours: [eth0], except: ['::6']}]",
        "f",
    )
    first, below = Prefix(D.address, 64), (Prefix(1, 128), Prefix(5, 128))
    a = Subnets("a", D, SubnetState.BOUND, first, holes=below, gateways=below[:1])
    b = Subnets("b", D, SubnetState.RESERVED, first._replace(address=first.end), holes=(Prefix(6, 128),))
    answered_for = answered(policy, [a, b])["eth0"]
    known = {
        address: (answered_for.spans.hold(address), answered_for.routed.hold(address))
        for address in (first.address + 1, first.address + 5, first.address + 7, first.end + 6, first.end + 7)
    }
    assert list(known.values()) == [
        (False, False),
        (True, True),
        (True, False),
        (False, False),
        (True, True),
    ]


@pytest.mark.parametrize(
    ("used", "table", "discarded"),
    [
        ("2001:db8:5::/64", None, False),  # the link that it is on: a discard route would win
        ("2001:db8:5::/64", 52, True),
        ("2001:db8:5::5/128", None, True),  # who has the hole has the better metric
        ("2001:db8:6::/64", None, True),
    ],
)
def test_a_discard_route_takes_no_hole_from_whoever_has_it(
    used: str, table: int | None, *, discarded: bool
) -> None:
    run = Subnets("a", None, WANTED, P("2001:db8:5::/64"), holes=(Prefix(5, 128),))
    hole = P("2001:db8:5::5/128")
    assert (hole in hole_discards([run], (), [Assigned(P(used), "on-link at eth0", table)])) is discarded
    assert hole not in hole_discards([run], [hole], ())
