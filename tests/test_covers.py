"""Covers hold exactly what is wanted, are as few as can be, and leave nothing unbound on the way."""

from collections.abc import Iterable
from itertools import combinations, pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from anyipd.decide.covers import addresses, covers, local_routes
from anyipd.decide.gaps import Span
from anyipd.decide.plan import plan
from anyipd.decide.verdict import TAKEN, without_taken
from anyipd.model import Prefix, Subnets, SubnetState

P = Prefix.parse
FIRST = P("2001:db8::/64")
DELEGATED = P("2001:db8::/48")
UNTIL = 1000.0


def at(place: int, count: int, name: str = "all", until: float | None = UNTIL) -> Subnets:
    first = Prefix(FIRST.address + (place << 64), 64)
    return Subnets(name, DELEGATED, SubnetState.WANTED, first, count, 0, until)


def texts(prefixes: Iterable[Prefix]) -> list[str]:
    return [str(prefix) for prefix in prefixes]


def test_a_whole_48_is_one_route() -> None:
    assert local_routes([at(0, 65536)]) == {DELEGATED: UNTIL}


def test_runs_of_an_entry_share_routes_whatever_their_numbers_and_order() -> None:
    assert texts(local_routes([at(2, 2), at(0, 2)])) == ["2001:db8::/62"]


def test_other_entries_delegations_and_deadlines_have_routes_of_their_own() -> None:
    both = ["2001:db8::/64", "2001:db8:0:1::/64"]
    assert texts(local_routes([at(0, 1), at(1, 1, "web")])) == both
    assert texts(local_routes([at(0, 1), at(1, 1, until=UNTIL + 1)])) == both
    static = [Subnets(text, None, SubnetState.WANTED, P(text)) for text in ("192.0.2.0/25", "192.0.2.128/25")]
    assert local_routes(static) == {P("192.0.2.0/25"): None, P("192.0.2.128/25"): None}


def test_only_wanted_subnets_are_bound() -> None:
    subnets = [Subnets("s", None, state, FIRST, 4, valid_until=7.0) for state in SubnetState]
    assert local_routes(subnets) == {FIRST._replace(length=62): 7.0}


def test_a_hole_in_the_middle_splits_and_its_end_merges() -> None:
    assert texts(local_routes([at(0, 5), at(6, 10)])) == [
        "2001:db8::/62",
        "2001:db8:0:4::/64",
        "2001:db8:0:6::/63",
        "2001:db8:0:8::/61",
    ]
    assert texts(local_routes([at(0, 5), at(5, 11)])) == ["2001:db8::/60"]


def test_a_foreign_route_in_a_covers_place_or_inside_halves_it() -> None:
    whole, halves = [at(0, 16)], ["2001:db8::/61", "2001:db8:0:8::/61"]
    assert texts(local_routes(whole, {P("2001:db8::/60")})) == halves
    assert texts(local_routes(whole, {P("2001:db8:0:8::/61")})) == [
        *("2001:db8::/61", "2001:db8:0:8::/62", "2001:db8:0:c::/62")
    ]
    assert texts(local_routes(whole, {P("2001:db8::/59"), P("2001:db8:0:8::/80"), P("2001:db8:1::/62")})) == [
        "2001:db8::/60"
    ]
    # As an IPv4 prefix it has the same number, and nothing to do with it.
    low = Subnets("low", None, SubnetState.WANTED, Prefix(0, 64), 2)
    assert texts(local_routes([low], {Prefix(0, 8, 32)})) == ["::/63"]


def test_a_foreign_route_in_a_subnets_place_is_a_conflict_of_that_subnet() -> None:
    taken = {P("2001:db8:0:5::/64"), P("2001:db8:0:6::/64"), P("2001:db8:0:8::/63"), P("2001:db8:0:9::/128")}
    found = list(without_taken([at(0, 16)], taken))
    assert [(each.number, each.count, each.state, each.reason) for each in found] == [
        (0, 5, SubnetState.WANTED, None),
        (5, 2, SubnetState.CONFLICT, TAKEN),
        (7, 9, SubnetState.WANTED, None),
    ]
    assert texts(local_routes(found, taken)) == [
        *("2001:db8::/62", "2001:db8:0:4::/64", "2001:db8:0:7::/64"),
        *("2001:db8:0:8::/64", "2001:db8:0:9::/64", "2001:db8:0:a::/63", "2001:db8:0:c::/62"),
    ]
    reserved = Subnets("lab", DELEGATED, SubnetState.RESERVED, P("2001:db8:0:5::/64"))
    assert list(without_taken([reserved], taken)) == [reserved]


WIDTH = 5
"""Bits of the addresses below: few enough to try every set of prefixes."""

PREFIXES = [
    Prefix(address, length, WIDTH)
    for length in range(WIDTH + 1)
    for address in range(0, 1 << WIDTH, 1 << WIDTH - length)
]
places = st.integers(0, 1 << WIDTH)


@given(places, places, st.sets(st.sampled_from([each for each in PREFIXES if each.length < WIDTH])))
@example(0, 1 << WIDTH, set())
@example(1, (1 << WIDTH) - 1, set())
def test_covers_are_exact_and_none_can_be_spared(one: int, other: int, taken: set[Prefix]) -> None:
    span = Span(*sorted((one, other)))
    found = list(covers(span, WIDTH, sorted(taken)))
    assert [address for each in found for address in range(each.address, each.end)] == list(range(*span))
    assert not any(mine.covers(theirs) for mine in found for theirs in taken)
    # Any two that could be one would be.
    allowed = {each for each in PREFIXES if not any(each.covers(theirs) for theirs in taken)}
    for mine, next_one in pairwise(found):
        assert not (mine.length == next_one.length and mine._replace(length=mine.length - 1) in allowed)
    if span.end - span.start <= 5:
        inside = [each for each in allowed if each.address >= span.start and each.end <= span.end]
        assert not any(
            sum(each.size for each in fewer) == span.end - span.start and not _overlap(fewer)
            for count in range(len(found))
            for fewer in combinations(inside, count)
        )


def _overlap(prefixes: Iterable[Prefix]) -> bool:
    return any(one.overlaps(other) for one, other in combinations(prefixes, 2))


ranges = st.lists(st.tuples(st.integers(0, 31), st.integers(1, 32)), max_size=4)


def wanted_of(spans: list[tuple[int, int]], taken: set[Prefix]) -> dict[Prefix, float | None]:
    subnets, free = [], 0
    for start, count in sorted(spans):
        if start >= free and start + count <= 32:
            subnets.append(at(start, count))
            free = start + count
    return local_routes(without_taken(subnets, taken), taken)


inside_space = st.sets(
    st.tuples(st.integers(0, 31), st.integers(59, 64)).map(
        lambda place: Prefix(FIRST.address + (place[0] << 64), place[1]).masked()
    ),
    max_size=3,
)


@given(ranges, inside_space, ranges, inside_space)
def test_whatever_stays_bound_has_a_route_after_every_step(
    before: list[tuple[int, int]],
    taken_before: set[Prefix],
    after: list[tuple[int, int]],
    taken_after: set[Prefix],
) -> None:
    present, wanted = wanted_of(before, taken_before), wanted_of(after, taken_after)
    stays = [
        address
        for address in range(FIRST.address, FIRST.address + (32 << 64), 1 << 64)
        if all(any(each.address <= address < each.end for each in routes) for routes in (present, wanted))
    ]
    changes = plan(wanted, dict.fromkeys(present, 100_000), 0.0)
    table = set(present)
    steps = [*((table.add, prefix) for prefix in changes.add), *((table.remove, p) for p in changes.remove)]
    for step, prefix in steps:
        step(prefix)
        assert all(any(each.address <= address < each.end for each in table) for address in stays)
    assert table == wanted.keys()


@given(st.sets(st.sampled_from(PREFIXES)), st.sets(st.sampled_from(PREFIXES)))
def test_addresses_are_a_difference_of_sets(some: set[Prefix], besides: set[Prefix]) -> None:
    found = addresses(some, besides)
    listed = {address for span in found[WIDTH] for address in range(*span)}
    expected = {address for each in some for address in range(each.address, each.end)}
    assert listed == expected - {address for each in besides for address in range(each.address, each.end)}


def test_addresses_of_ipv4_and_ipv6_are_apart() -> None:
    found = addresses([Prefix(0, 8, 32), Prefix(0, 64)], [Prefix(0, 0, 32)])
    assert {width: list(spans) for width, spans in found.items()} == {32: [], 128: [(0, 1 << 64)]}
