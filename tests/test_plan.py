"""The comparison of what is wanted with what is there, and what is said of it, against a plain dictionary."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyipd.decide.plan import LONGEST, Plan, Run, Sweep, Wanted, discard_routes, local_routes, runs
from anyipd.decide.verdict import TAKEN, find, part, verdicts
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
Key = tuple[int, int]


# The space is 16 places of a /64; runs are of /64 or of /63.
@st.composite
def wanted_runs(draw: st.DrawFn) -> list[Run]:
    runs = []
    place = 0
    while place < 16:
        if draw(st.booleans()):
            length = draw(st.sampled_from([64, 63] if place % 2 == 0 else [64]))
            step = 1 << (64 - length)
            count = draw(st.integers(1, (16 - place) // step))
            until = draw(st.sampled_from([None, INFINITE, NOW + 30, NOW - 1]))
            runs.append(Run(Prefix(FIRST.address + (place << 64), length), count, until))
            place += count * step
        else:
            place += 1
    return draw(st.permutations(runs))


places = st.tuples(st.integers(-2, 17), st.sampled_from([63, 64, 65])).map(
    lambda place: (FIRST.address + (place[0] << 64) >> (128 - place[1]) << (128 - place[1]), place[1])
)
present_routes = st.lists(
    st.tuples(places, st.sampled_from([0, -5, 2989, 2990, 3000, 3200, 3201])).map(lambda r: (*r[0], r[1])),
    max_size=20,
)


def swept(run: Run, ticks: int) -> Plan:
    sweep = Sweep(Wanted.of([run]))
    sweep.see_ours([(run.first.address, run.first.length, ticks)], NOW)
    return sweep.plan()


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
    run = Run(FIRST, 1, None if left is None else NOW + left)
    assert swept(run, ticks) == Plan(renew=[run] if renewed else [])


def test_a_whole_48_stays_one_run() -> None:
    run = Run(FIRST, 65536)
    assert Sweep(Wanted.of([run])).plan() == Plan(add=[run])
    sweep = Sweep(Wanted.of([run]))
    sweep.see_ours([(address, 64, 0) for address in run.addresses() if address != FIRST.end], NOW)
    assert sweep.plan() == Plan(add=[run.part(1, 2)])
    sweep.see_foreign(Prefix(FIRST.end, 64))
    assert sweep.plan() == Plan(taken=[run.part(1, 2)])


@pytest.mark.parametrize("inside", ["2001:db8::/61", "2001:db8:0:8::/61"])
def test_single_routes_may_overlap(inside: str) -> None:
    runs = [Run(Prefix.parse(text), 1) for text in ("2001:db8::/60", inside)]
    sweep = Sweep(Wanted.of(reversed(runs)))
    assert sweep.plan() == Plan(add=runs)
    sweep.see_ours(((*run.first[:2], 0) for run in runs), NOW)
    assert sweep.plan() == Plan()


def test_what_nobody_wants_any_more_is_few_runs() -> None:
    sweep = Sweep(Wanted())
    run, other = Run(FIRST, 65536), Run(Prefix.parse("2001:db9::/63"), 3)
    for each in (run, other):
        sweep.see_ours([(address, each.first.length, 5) for address in each.addresses()], NOW)
    assert sweep.plan() == Plan(remove=[run, other])


@given(st.data())
def test_a_single_wanted_route_is_found(data: st.DataObject) -> None:
    runs = data.draw(wanted_runs())
    wanted = Wanted.of(runs)
    assert wanted.runs == tuple(sorted(runs, key=lambda run: run.first))
    keys = {(address, run.first.length): run for run in runs for address in run.addresses()}
    address, length = data.draw(places)
    prefix, run = Prefix(address, length), keys.get((address, length))
    assert wanted.single(prefix) == (run and Run(prefix, 1, run.valid_until))


def test_a_wanted_route_inside_another_is_told_from_it() -> None:
    runs = [Run(FIRST._replace(length=length), 1) for length in (56, 60)]
    sweep = Sweep(Wanted.of(runs))
    assert sweep.plan().add == runs
    sweep.see_ours([(FIRST.address, 56, 0), (FIRST.address, 60, 0), (FIRST.address, 58, 0)], NOW)
    assert sweep.plan() == Plan(remove=[Run(FIRST._replace(length=58), 1)])


def test_ours_counts_beside_a_foreign_one_whichever_is_seen_first() -> None:
    run = Run(FIRST, 1)
    for first in (True, False):
        sweep = Sweep(Wanted.of([run]))
        if first:
            sweep.see_foreign(FIRST)
        sweep.see_ours([(FIRST.address, 64, 0)], NOW)
        sweep.see_foreign(FIRST)
        assert sweep.plan() == Plan()


def expand(runs: list[Run]) -> list[Key]:
    return [(address, run.first.length) for run in runs for address in run.addresses()]


def fine(run: Run, ticks: int) -> bool:
    if run.valid_until in {None, INFINITE}:
        return ticks == 0
    if run.valid_until == NOW + 30:
        return 2990 <= ticks <= 3200
    return -110 <= ticks <= 100 and ticks != 0


@given(wanted_runs(), present_routes, st.lists(places), st.integers(1, 5), st.booleans())
def test_like_the_dictionary(
    wanted: list[Run],
    present: list[tuple[int, int, int]],
    foreign: list[Key],
    chunk: int,
    foreign_first: bool,  # noqa: FBT001  hypothesis draws it
) -> None:
    sweep = Sweep(Wanted.of(wanted))
    for seeing in (foreign_first, not foreign_first):
        if seeing:
            for address, length in foreign:
                sweep.see_foreign(Prefix(address, length))
        else:
            for start in range(0, len(present), chunk):
                sweep.see_ours(present[start : start + chunk], NOW)
    plan = sweep.plan()

    there = {(address, length): ticks for address, length, ticks in present}  # a dump may repeat itself
    keys = {(address, run.first.length): run for run in wanted for address in run.addresses()}
    missing = keys.keys() - there
    assert set(expand(plan.add)) == missing - set(foreign)
    assert set(expand(plan.taken)) == missing & set(foreign)
    assert set(expand(plan.renew)) == {
        key for key in keys if key in there and not fine(keys[key], there[key])
    }
    assert set(expand(plan.remove)) == there.keys() - keys.keys()
    for run in [*plan.add, *plan.renew]:
        assert run.valid_until == keys[run.first.address, run.first.length].valid_until

    subnets = [
        Subnets(f"s{i}", None, SubnetState.WANTED, run.first, run.count) for i, run in enumerate(wanted)
    ]
    states = {
        (address, each.first.length): each.state
        for each in verdicts(subnets, plan)
        if each.first
        for address in Run(each.first, each.count).addresses()
    }
    assert states == {
        key: BOUND if key in there else CONFLICT if key in set(foreign) else MISSING for key in keys
    }


def test_verdicts_split_runs_and_keep_their_numbers() -> None:
    run = Run(FIRST, 10)
    asked = Subnets("web", FIRST, SubnetState.WANTED, FIRST, 10, number=5, valid_until=9.0)
    others = [
        Subnets("docker", FIRST, SubnetState.RESERVED, Prefix(FIRST.address + (20 << 64), 64)),
        Subnets("lab", FIRST, SubnetState.WITHOUT_ROOM, None, reason="no"),
        Subnets("used", FIRST, CONFLICT, Prefix(FIRST.address + (30 << 64), 64), reason="on-link"),
    ]
    found = verdicts([asked, *others], Plan(add=[run.part(8, 10)], taken=[run.part(0, 1), run.part(3, 4)]))
    assert [(each.number, each.count, each.state, each.reason) for each in found[:5]] == [
        (5, 1, CONFLICT, TAKEN),
        (6, 2, BOUND, None),
        (8, 1, CONFLICT, TAKEN),
        (9, 4, BOUND, None),
        (13, 2, MISSING, None),
    ]
    assert all(
        each.first and each.first.address == FIRST.address + (each.number - 5 << 64)
        for each in found[:5]
        if each.number is not None
    )
    assert found[5:] == others


def test_what_the_kernel_lacks_may_span_several_entries() -> None:
    first, second, third = (
        Subnets(name, FIRST, SubnetState.WANTED, Prefix(FIRST.address + (number << 64), 64), count)
        for name, number, count in (("web", 0, 1), ("shop", 1, 3), ("lab", 4, 1))
    )
    found = verdicts([third, second, first], Plan(add=[Run(FIRST, 3)]))
    assert [(each.name, each.first and each.first.address, each.count, each.state) for each in found] == [
        ("lab", FIRST.address + (4 << 64), 1, BOUND),
        ("shop", FIRST.address + (1 << 64), 2, MISSING),
        ("shop", FIRST.address + (3 << 64), 1, BOUND),
        ("web", FIRST.address, 1, MISSING),
    ]


def test_find_and_part() -> None:
    subnets = [
        Subnets("none", None, SubnetState.WITHOUT_ROOM, None),
        Subnets("a", None, SubnetState.WANTED, FIRST, 4, number=0),
        Subnets("b", None, SubnetState.WANTED, Prefix(FIRST.address + (4 << 64), 64)),
    ]
    for place, expected in [(0, ("a", 0)), (3, ("a", 3)), (4, ("b", 0)), (5, None), (-1, None)]:
        found = find(subnets, Run(Prefix(FIRST.address + (place << 64), 64), 1))
        assert (found and (found[0].name, found[1])) == expected
    assert find(subnets, Run(FIRST._replace(length=65), 1)) is None
    middle = part(subnets[1], 2, 1)
    assert (str(middle.first), middle.count, middle.subnet_name(0)) == ("2001:db8:0:2::/64", 1, "a-2")


def test_only_wanted_subnets_become_local_routes() -> None:
    subnets = [Subnets("s", None, state, FIRST, 3, valid_until=7.0) for state in SubnetState]
    assert local_routes(subnets).runs == (Run(FIRST, 3, 7.0),)


def test_our_discard_routes_stand_where_the_client_left_none() -> None:
    granted, superseded, refused = (
        Delegation(Prefix(i << 64, 64), "dhcpcd", state, began=NOW - 9)
        for i, state in enumerate(
            (DelegationState.GRANTED, DelegationState.SUPERSEDED, DelegationState.REFUSED)
        )
    )
    found = [granted, superseded, refused]
    both = Wanted((Run(granted.prefix, 1), Run(superseded.prefix, 1)))
    assert discard_routes(found, [], (), NOW) == (both, INFINITE)
    beside = [Discard(granted.prefix, 1001), Discard(superseded.prefix, 1025)]
    assert discard_routes(found, beside, (), NOW) == (Wanted((Run(superseded.prefix, 1),)), INFINITE)


def test_what_somebody_has_routed_whole_is_not_discarded() -> None:
    """Whatever the metric of his route: the lower one would be ours."""
    found = Delegation(FIRST, "dhclient", DelegationState.GRANTED, began=NOW - 9)
    wanted = Wanted((Run(FIRST, 1),))
    for length, expected in ((63, Wanted()), (64, Wanted()), (65, wanted)):
        routed = [Assigned(FIRST._replace(length=length).masked(), "routed to lan0")]
        assert discard_routes([found], [], {FIRST}, NOW, routed) == (expected, INFINITE)


def test_a_client_has_a_moment_to_add_its_own_and_what_stands_of_ours_stays() -> None:
    fresh = Delegation(FIRST, "dhcpcd", DelegationState.GRANTED, began=NOW - 0.4)
    wanted = Wanted((Run(FIRST, 1),))
    assert discard_routes([fresh], [], (), NOW) == (Wanted(), NOW + 0.6)
    assert discard_routes([fresh], [], (), NOW + 0.6) == (wanted, INFINITE)
    assert discard_routes([fresh], [], {FIRST}, NOW) == (wanted, INFINITE)
    assert discard_routes([replace(fresh, source="dhclient")], [], (), NOW) == (wanted, INFINITE)


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 10)))
def test_adjacent_prefixes_are_one_run(places: set[int], longer: set[int]) -> None:
    prefixes = {Prefix(FIRST.address + (n << 64), 64) for n in places}
    prefixes |= {Prefix(FIRST.address + (n << 56), 72) for n in longer}
    found = runs(prefixes)
    assert sorted(each for run in found for each in run.prefixes()) == sorted(prefixes)
    ends = {(run.first.length, run.first.address + run.count * run.first.size) for run in found}
    assert not ends & {(run.first.length, run.first.address) for run in found}
