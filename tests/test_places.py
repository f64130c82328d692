"""Places stay, by example; test_places_model.py has histories, test_places_stay.py a real kernel."""

from dataclasses import replace

import pytest

from anyipd.decide.carve import Carved, carve
from anyipd.decide.covers import addresses, local_routes
from anyipd.decide.moves import moves
from anyipd.decide.static import STATIC
from anyipd.decide.verdict import verdicts
from anyipd.model import INFINITE, Assigned, Delegation, DelegationState, Places, Prefix, SubnetState
from anyipd.narrate import subnet_lines
from anyipd.policy import Policy, SubnetPolicy

BASE = Prefix.parse("2001:db8::/56")
DELEGATION = Delegation(BASE, "dhclient", DelegationState.GRANTED, "eth0")
Entry = dict[str, object]


def wanting(entries: list[Entry]) -> Policy:
    return Policy(subnets=tuple(map(SubnetPolicy.model_validate, entries)))


def in_use(*ids: int, length: int = 64, holder: str = "on-link at eth1") -> list[Assigned]:
    size = 1 << (128 - length)
    return [Assigned(Prefix(BASE.address + each * size, length), holder) for each in ids]


def text(carved: Carved) -> str:
    """The names, in ranges, and where they lie, in /64s of BASE."""
    words = []
    for each in carved.subnets:
        name, where = each.subnet_name(0), "-"
        if each.count > 1:
            name += f"..{each.count - 1 + (each.number or 0)}"
        if each.first:
            where = format((each.first.address - BASE.address) >> 64, "x")
        words.append(f"{name}={where}")
    return " ".join(words)


WEB: Entry = {"name": "web"}
TWO: Entry = {"name": "p", "count": 2}
THREE: Entry = {"name": "p", "count": 3}
ALL: Entry = {"name": "a", "count": "all", "length": 60}
SEVEN: Entry = {"name": "p", "count": 7, "length": 60}

Step = tuple[float, list[Entry], list[Assigned], str]


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(
            [
                (0, [WEB], [], "web=0"),
                (1, [WEB], in_use(0), "web=1"),
                (2, [WEB], [], "web=1"),
                (3, [WEB], in_use(0), "web=1"),
                (99, [WEB], [], "web=1"),
                (100, [WEB], in_use(1), "web=0"),
            ],
            id="the prefix of a flapping link (C12)",
        ),
        pytest.param(
            [
                (0, [THREE], [], "p-0..2=0"),
                (1, [THREE], in_use(1), "p-0=0 p-1=3 p-2=2"),
                (2, [THREE], [], "p-0=0 p-1=3 p-2=2"),
                (3, [THREE], in_use(2), "p-0=0 p-1=3 p-2=1"),
            ],
            id="of a count only the one in whose place an obstacle is",
        ),
        pytest.param(
            [
                (0, [WEB], [], "web=0"),
                (1, [TWO, WEB], [], "p-0..1=1 web=0"),
                (2, [THREE, WEB], [], "p-0..2=1 web=0"),
                (3, [{"name": "new"}, THREE, WEB], [], "new=4 p-0..2=1 web=0"),
                (4, [TWO, WEB], [], "p-0..1=1 web=0"),
                (5, [TWO], [], "p-0..1=1"),
                (6, [THREE], [], "p-0..1=1 p-2=0"),
                (7, [{"name": "p", "count": 2, "length": 63}], [], "p-0..1=0"),
                (8, [{"name": "p"}], [], "p=0"),
            ],
            id="reloads: entries, counts and lengths",
        ),
        pytest.param(
            [
                (0, [WEB, TWO], [], "web=0 p-0..1=1"),
                (1, [WEB, TWO, {"name": "x", "id": 1}], [], "web=0 p-0=3 p-1=2 x=1"),
                (2, [WEB, TWO, {"name": "x", "id": 0}], [], "web=1 p-0=3 p-1=2 x=0"),
                (3, [{"name": "web", "id": 7}, TWO], [], "web=7 p-0=3 p-1=2"),
                (4, [WEB, TWO], [], "web=0 p-0=3 p-1=2"),
            ],
            id="a pinned entry goes first, and is not remembered",
        ),
        pytest.param(
            [
                (0, [{"name": "r", "bind": False}, WEB], [], "r=0 web=1"),
                (1, [WEB, {"name": "r", "bind": False}], in_use(1), "web=2 r=0"),
                (2, [WEB, {"name": "r"}], [], "web=2 r=0"),
            ],
            id="what is reserved keeps its place too",
        ),
        pytest.param(
            [
                (0, [WEB], [], "web=0"),
                (1, [{"name": "web", "uplink": "eth9"}], [], ""),
                (2, [{"name": "new"}, {"name": "web", "uplink": "eth0"}], [], "new=0 web=1"),
            ],
            id="another uplink's entry loses its places",
        ),
        pytest.param(
            [
                (0, [THREE], in_use(0, length=57), "p-0..2=80"),
                (1, [THREE], in_use(0, length=56), "p-0..2=-"),
                (2, [THREE], in_use(1, length=57), "p-0..2=0"),
                (3, [THREE], in_use(1, length=64) + in_use(2, 3, 4, 5, 6, 7, length=59), "p-0=0 p-1=3 p-2=2"),
            ],
            id="no room, and room elsewhere",
        ),
        pytest.param(
            [
                (0, [ALL], [], "a-0..15=0"),
                (5, [ALL], in_use(0x35), "a-0..2=0 a-4..15=40"),
                (50, [ALL], [], "a-0..2=0 a-4..15=40"),
                (109, [ALL], [], "a-0..2=0 a-4..15=40"),
                (110, [ALL], [], "a-0..15=0"),
            ],
            id="all: an obstacle leaves a gap, for a minute from its end",
        ),
        pytest.param(
            [
                (0, [ALL], in_use(0x35, 0x79), "a-0..2=0 a-3..5=40 a-6..13=80"),
                (10, [ALL], in_use(0x79), "a-0..2=0 a-3..5=40 a-6..13=80"),
                (20, [ALL], in_use(0x36, 0x79), "a-0..2=0 a-3..5=40 a-6..13=80"),
                (30, [ALL], [], "a-0..2=0 a-3..5=40 a-6..13=80"),
                (89, [ALL], [], "a-0..2=0 a-3..5=40 a-6..13=80"),
                (90, [ALL], [], "a-0..2=0 a-3..5=40 a-6..13=80 a-14=30 a-15=70"),
            ],
            id="all: what flaps waits anew, and gets the lowest unused numbers",
        ),
        pytest.param(
            [
                (0, [WEB, ALL], [], "web=0 a-0..14=10"),
                (1, [ALL], [], "a-0..14=10 a-15=0"),
                (2, [ALL, SEVEN], [], "a-6..14=70 p-0..6=0"),
                (3, [ALL, {"name": "x", "length": 60}], [], "a-0..14=10 x=0"),
                (4, [ALL], in_use(1, length=60, holder=STATIC), "a-0=0 a-1..14=20"),
                (5, [ALL], [], "a-0=0 a-1..14=20 a-15=10"),
            ],
            id="all: takes at once what the policy frees, and leaves to others what they need",
        ),
    ],
)
def test_rules(steps: list[Step]) -> None:
    places = Places()
    for now, entries, assigned, expected in steps:
        carved = carve(DELEGATION, wanting(entries), assigned, places, now)
        assert text(carved) == expected, now
        places = carved.places


def test_runs_that_are_not_in_the_order_of_their_numbers_are_found_by_address() -> None:
    policy, places = wanting([THREE]), carve(DELEGATION, wanting([THREE]), [], Places(), 0).places
    subnets = carve(DELEGATION, policy, in_use(1), places, 1).subnets
    assert [run.number for run in subnets] == [0, 1, 2]
    zero, missing, two = (Prefix(BASE.address + (each << 64), 64) for each in (0, 3, 2))
    found = list(verdicts(subnets, addresses(local_routes(subnets), [zero, two])))
    states = [(each.subnet_name(0), each.state) for each in found]
    assert states == [("p-0", SubnetState.BOUND), ("p-1", SubnetState.MISSING), ("p-2", SubnetState.BOUND)]
    bound = list(verdicts(subnets, {}))
    [line] = subnet_lines([], bound, addresses([missing]), {})
    assert line.fields == {"subnet": "p-1", "prefix": "2001:db8:0:3::/64"}
    [move] = moves(carve(DELEGATION, policy, [], Places(), 0).subnets, subnets)
    assert move.change == "move"
    assert move.after == subnets[1]


def test_a_48_is_one_place_and_three_around_an_obstacle() -> None:
    delegation = replace(DELEGATION, prefix=Prefix.parse("2001:db8::/48"))
    policy = wanting([{"name": "a", "count": "all"}])
    first = carve(delegation, policy, [], Places(), 0)
    assert (len(first.places.kept), first.places.hold_downs, first.deadline) == (1, (), INFINITE)
    second = carve(delegation, policy, in_use(0x8000), first.places, 1)
    assert [each.count for each in second.places.kept] == [32768, 32767]
    [hold_down] = second.places.hold_downs
    assert (hold_down.until, second.deadline) == (INFINITE, INFINITE)
    third = carve(delegation, policy, [], second.places, 2)
    assert [each.count for each in third.subnets] == [32768, 32767]
    assert third.deadline == 62
    assert carve(delegation, policy, [], third.places, 62) == first


def test_all_of_more_than_a_48_goes_on_behind_its_last() -> None:
    delegation = replace(DELEGATION, prefix=Prefix.parse("2001:db8::/40"))
    policy = wanting([{"name": "a", "count": "all"}])
    first = carve(delegation, policy, [], Places(), 0)
    second = carve(delegation, policy, in_use(5), first.places, 1)
    assert text(second) == "a-0..4=0 a-5=10000 a-6..65535=6"
    assert carve(delegation, policy, [], second.places, 99).subnets == second.subnets


def test_what_is_superseded_keeps_places_and_begins_nothing_new() -> None:
    superseded = replace(DELEGATION, state=DelegationState.SUPERSEDED)
    before = carve(DELEGATION, wanting([WEB, THREE]), [], Places(), 0)
    after = carve(superseded, wanting([{"name": "new"}, WEB, THREE]), in_use(0), before.places, 1)
    assert text(after) == "new=- web=- p-0..2=1"
    [reason] = {each.reason for each in after.subnets if each.state is SubnetState.WITHOUT_ROOM}
    assert reason == "2001:db8::/56 is superseded, so nothing new is begun there"
    # It lost all, and still begins nothing.
    lost = carve(
        superseded, wanting([WEB]), in_use(0), carve(DELEGATION, wanting([WEB]), [], Places(), 0).places, 1
    )
    assert text(lost) == text(carve(superseded, wanting([WEB]), in_use(0), lost.places, 2)) == "web=-"
    # Without memory there is nothing to keep.
    assert text(carve(superseded, wanting([WEB]), [], Places(), 0)) == "web=0"


def test_what_is_superseded_begins_nothing_in_the_next_pass_either() -> None:
    """A reload may leave none of the entries that had a place there."""
    superseded, policy = replace(DELEGATION, state=DelegationState.SUPERSEDED), wanting([{"name": "new"}])
    before = carve(DELEGATION, wanting([WEB]), [], Places(), 0)
    first = carve(superseded, policy, [], before.places, 1)
    assert carve(superseded, policy, [], first.places, 2) == first
    assert text(first) == "new=-"
