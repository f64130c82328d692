"""What moves by another policy, against plain dictionaries from names to prefixes."""

from collections.abc import Iterable, Iterator

from hypothesis import given
from hypothesis import strategies as st

from anyipd.decide.moves import Move, moves
from anyipd.decide.verdict import part
from anyipd.model import Prefix, Subnets, SubnetState

DELEGATIONS = (None, Prefix.parse("2001:db8::/48"))
BOUND = {SubnetState.BOUND, SubnetState.MISSING, SubnetState.WANTED}
Name = tuple[Prefix | None, str]


places = st.tuples(st.integers(0, 3), st.sampled_from([63, 64])).map(
    lambda place: Prefix((0x20010DB8 << 96) + (place[0] << 65), place[1])
)


@st.composite
def policies(draw: st.DrawFn, *states: SubnetState) -> list[Subnets]:
    """Runs as carving leaves them: an entry's may be split anywhere, and lie in any order."""
    runs: list[Subnets] = []
    for name in draw(st.lists(st.sampled_from("ab"), min_size=1, unique=True)):
        delegation = draw(st.sampled_from(DELEGATIONS))
        counts = draw(st.none() | st.lists(st.integers(1, 4), max_size=3))
        for i, count in enumerate(counts or [1]):
            number = None if counts is None else sum(counts[:i])
            state, first = draw(st.sampled_from(states)), draw(places)
            without_room = state is SubnetState.WITHOUT_ROOM
            runs.append(Subnets(name, delegation, state, None if without_room else first, count, number))
    return draw(st.permutations(runs))


def names(runs: Iterable[Subnets]) -> Iterator[tuple[Name, Prefix]]:
    for each in runs:
        for i in range(each.count):
            single = part(each, i, 1)
            if single.first and each.state in BOUND:
                yield (each.delegation, single.subnet_name(0)), single.first


def told(move: Move) -> Iterator[tuple[Name, str, Prefix | None, Prefix | None]]:
    before = dict(names([move.before] if move.before else []))
    after = dict(names([move.after] if move.after else []))
    for name in {**before, **after}:
        yield name, move.change, before.get(name), after.get(name)


def change(before: Prefix | None, after: Prefix | None) -> str:
    return "remove" if after is None else "move" if before else "add"


@given(policies(*SubnetState), policies(*SubnetState))
def test_every_name_that_changes_its_place_is_told_once(before: list[Subnets], after: list[Subnets]) -> None:
    old, new = dict(names(before)), dict(names(after))
    expected = [
        (name, change(old.get(name), new.get(name)), old.get(name), new.get(name))
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    found = [each for move in moves(before, after) for each in told(move)]
    assert sorted(map(str, found)) == sorted(map(str, expected))


def test_a_whole_48_is_two_runs_and_not_65536() -> None:
    before = Subnets("all", DELEGATIONS[1], SubnetState.BOUND, Prefix.parse("2001:db8::/64"), 65536, 0)
    after = part(before, 0, 65535)
    (move,) = moves([before], [after])
    assert (move.change, str(move.before and move.before.first)) == ("remove", "2001:db8:0:ffff::/64")
