"""Carving: the rules by example, and by comparison with a model that looks at every cell by itself."""

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from anyipd.decide.carve import carve
from anyipd.model import Assigned, Delegation, DelegationState, Places, Prefix, Subnets, SubnetState
from anyipd.policy import DEFAULT, Policy, SubnetPolicy

WANTED, CONFLICT = SubnetState.WANTED, SubnetState.CONFLICT
RESERVED, WITHOUT_ROOM = SubnetState.RESERVED, SubnetState.WITHOUT_ROOM


def delegated(text: str, uplink: str | None = None) -> Delegation:
    return Delegation(Prefix.parse(text), "dhclient", DelegationState.GRANTED, uplink, valid_until=99.0)


def in_use(*texts: str) -> list[Assigned]:
    return [Assigned(Prefix.parse(text), "on-link at eth0") for text in texts]


def wanting(*entries: dict[str, object]) -> Policy:
    return Policy(
        subnets=tuple(
            SubnetPolicy.model_validate({"name": f"s{i}"} | entry) for i, entry in enumerate(entries)
        )
    )


def first_carve(delegation: Delegation, policy: Policy, assigned: list[Assigned]) -> list[Subnets]:
    """Carve without memory."""
    return carve(delegation, policy, assigned, Places(), 0.0).subnets


def short(runs: list[Subnets]) -> list[tuple[object, ...]]:
    return [(each.name, each.number, each.count, str(each.first), each.state) for each in runs]


@pytest.mark.parametrize(
    ("exclude", "policy", "expected"),
    [
        ("2001:db8::/64", DEFAULT, [("default", None, 1, "2001:db8:0:1::/64", WANTED)]),
        ("2001:db8::/128", DEFAULT, [("default", None, 1, "2001:db8:0:1::/64", WANTED)]),
        (
            "2001:db8:0:2::/63",
            wanting({"count": "all"}),
            [("s0", 0, 2, "2001:db8::/64", WANTED), ("s0", 2, 12, "2001:db8:0:4::/64", WANTED)],
        ),
        (
            "2001:db8:0:1::/64",
            wanting({"id": 0, "count": 3}),
            [
                ("s0", 0, 1, "2001:db8::/64", WANTED),
                ("s0", 1, 1, "2001:db8:0:1::/64", CONFLICT),
                ("s0", 2, 1, "2001:db8:0:2::/64", WANTED),
            ],
        ),
        ("2001:db8::/64", wanting({"id": 0, "bind": False}), [("s0", None, 1, "2001:db8::/64", RESERVED)]),
    ],
)
def test_an_excluded_prefix_is_left_out(
    exclude: str, policy: Policy, expected: list[tuple[object, ...]]
) -> None:
    delegation = replace(delegated("2001:db8::/60"), exclude=Prefix.parse(exclude))
    found = first_carve(delegation, policy, [])
    assert short(found) == expected
    reasons = {each.reason for each in found if each.state is CONFLICT}
    assert reasons <= {f"{exclude} is excluded by the delegating router (RFC 6603)"}


def test_no_policy_means_the_first_64() -> None:
    [run] = first_carve(delegated("2001:db8::/56"), DEFAULT, [])
    prefix = Prefix.parse("2001:db8::/56")
    assert run == Subnets("default", prefix, WANTED, Prefix.parse("2001:db8::/64"), valid_until=99.0)


@pytest.mark.parametrize(
    ("delegation", "policy", "assigned", "expected"),
    [
        pytest.param(
            "2001:db8::/60",
            wanting({}, {"id": 0}, {"count": 2}),
            [],
            [
                ("s0", None, 1, "2001:db8:0:1::/64", WANTED),
                ("s1", None, 1, "2001:db8::/64", WANTED),
                ("s2", 0, 2, "2001:db8:0:2::/64", WANTED),
            ],
            id="pinned first, then in file order",
        ),
        pytest.param(
            "2001:db8::/62",
            wanting({}, {"id": 2}),
            in_use("2001:db8::/64", "2001:db8:0:2::1/128"),
            [
                ("s0", None, 1, "2001:db8:0:1::/64", WANTED),
                ("s1", None, 1, "2001:db8:0:2::/64", CONFLICT),
            ],
            id="automatic passes over what is in use, pinned is in conflict",
        ),
        pytest.param(
            "2001:db8::/60",
            wanting({"id": 1, "count": 5}),
            in_use("2001:db8:0:3::/64"),
            [
                ("s0", 0, 2, "2001:db8:0:1::/64", WANTED),
                ("s0", 2, 1, "2001:db8:0:3::/64", CONFLICT),
                ("s0", 3, 2, "2001:db8:0:4::/64", WANTED),
            ],
            id="of a count the others go on",
        ),
        pytest.param(
            "2001:db8::/62",
            wanting({"id": 0, "bind": False}, {"count": "all"}, {"bind": False}),
            in_use("2001:db8::/64"),
            [
                ("s0", None, 1, "2001:db8::/64", RESERVED),
                ("s1", 0, 2, "2001:db8:0:2::/64", WANTED),
                ("s2", None, 1, "2001:db8:0:1::/64", RESERVED),
            ],
            id="what is reserved may be in use, and all comes last",
        ),
        pytest.param(
            "2001:db8::/63",
            wanting({"count": 3}, {}, {"id": 2}),
            [],
            [
                ("s0", 0, 2, "2001:db8::/64", WANTED),
                ("s0", 2, 1, "None", WITHOUT_ROOM),
                ("s1", None, 1, "None", WITHOUT_ROOM),
                ("s2", None, 1, "None", WITHOUT_ROOM),
            ],
            id="as many as fit, in file order",
        ),
        pytest.param(
            "2001:db8::/64",
            wanting({"id": 0}, {"id": 1}, {"length": 62}, {"length": 62, "id": 0}),
            [],
            [
                ("s0", None, 1, "2001:db8::/64", WANTED),
                ("s1", None, 1, "None", WITHOUT_ROOM),
                ("s2", None, 1, "None", WITHOUT_ROOM),
                ("s3", None, 1, "None", WITHOUT_ROOM),
            ],
            id="a /64 has ID 0 alone, and nothing larger",
        ),
        pytest.param(
            "2001:db8::/56",
            wanting({"id": 0}, {"length": 62}, {}, {"length": 128, "id": 1 << 71}),
            [],
            [
                ("s0", None, 1, "2001:db8::/64", WANTED),
                ("s1", None, 1, "2001:db8:0:4::/62", WANTED),
                ("s2", None, 1, "2001:db8:0:1::/64", WANTED),
                ("s3", None, 1, "2001:db8:0:80::/128", WANTED),
            ],
            id="lengths are mixed, each aligned to itself",
        ),
        pytest.param(
            "2001:db8::/62",
            wanting({}, {"id": 1}),
            in_use("2001:db8::/32"),
            [
                ("s0", None, 1, "None", WITHOUT_ROOM),
                ("s1", None, 1, "2001:db8:0:1::/64", CONFLICT),
            ],
            id="what is in use covers all",
        ),
    ],
)
def test_rules(
    delegation: str, policy: Policy, assigned: list[Assigned], expected: list[tuple[object, ...]]
) -> None:
    assert short(first_carve(delegated(delegation), policy, assigned)) == expected


def test_reasons_say_what_is_in_the_way() -> None:
    policy = wanting({"id": 1}, {"id": 0x10}, {"count": 5}, {"bind": False, "id": 2})
    runs = first_carve(delegated("2001:db8::/62"), policy, in_use("2001:db8:0:1:8000::/80"))
    assert {each.name: each.reason for each in runs} == {
        "s0": '2001:db8:0:1:8000::/80 is on-link at eth0; `except: ["::8000:0:0:0/80"]` keeps the rest',
        "s1": "ID 0x10 does not fit into a /62",
        "s2": "no free /64 left in 2001:db8::/62: "
        '2001:db8:0:1:8000::/80 is on-link at eth0; `except: ["::8000:0:0:0/80"]` keeps the rest',
        "s3": "bind: false",
    }


def test_an_uplink_is_carved_for_its_own_entries_only() -> None:
    policy = wanting({"uplink": "eth1"}, {})
    for uplink, names in [("eth1", ["s0", "s1"]), ("eth0", ["s1"]), (None, ["s1"])]:
        runs = first_carve(delegated("2001:db8::/60", uplink), policy, [])
        assert [each.name for each in runs] == names
        assert str(runs[0].first) == "2001:db8::/64"


def test_an_entry_for_an_uplink_is_of_what_any_that_reported_the_prefix_came_in_on() -> None:
    told = replace(delegated("2001:db8::/60", "eth0"), uplinks=frozenset({"eth0", "eth1"}))
    assert [each.name for each in carve(told, wanting({"uplink": "eth1"}), [], Places(), 0).subnets] == ["s0"]


def test_what_is_reserved_collides_with_nothing() -> None:
    policy = wanting({"id": 0, "count": 4, "bind": False})
    runs = first_carve(delegated("2001:db8::/60"), policy, in_use("2001:db8:0:1::/64"))
    assert short(runs) == [("s0", 0, 4, "2001:db8::/64", RESERVED)]


@pytest.mark.parametrize("length", [48, 32, 8])
def test_all_is_few_runs_and_at_most_a_48(length: int) -> None:
    policy = wanting({"count": "all"})
    delegation = replace(delegated("2000::/8"), prefix=Prefix(0x20 << 120, length))
    [run] = first_carve(delegation, policy, [])
    assert run.count == 65536
    holes = [Assigned(Prefix((0x20 << 120) + (i << 66), 64), "in use") for i in range(1, 100)]
    assert len(first_carve(delegation, policy, holes)) == 100


def test_pinned_count_is_few_runs() -> None:
    runs = first_carve(
        delegated("2001:db8::/48"), wanting({"id": 0, "count": 65536}), in_use("2001:db8:0:8::/64")
    )
    assert [each.count for each in runs] == [8, 1, 65527]


# A /56 is 64 cells of a /62 here; the model asks each of them.
CELLS, CELL, BASE = 64, 62, Prefix.parse("2001:db8::/56")


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    entries: list[dict[str, object]] = []
    for _ in range(draw(st.integers(0, 5))):
        entry: dict[str, object] = {"length": draw(st.integers(54, CELL)), "bind": draw(st.booleans())}
        if draw(st.booleans()):
            entry["id"] = draw(st.integers(0, 70))
        counts = st.none() | st.integers(1, 80)
        entry["count"] = draw(counts if "id" in entry else counts | st.just("all"))
        entries.append(entry)
    return wanting(*entries)


@st.composite
def assignments(draw: st.DrawFn) -> list[Assigned]:
    found = []
    for number in range(draw(st.integers(0, 6))):
        length = draw(st.integers(50, 70))
        address = BASE.address + draw(st.integers(-8, CELLS + 8)) * (1 << 66) + draw(st.integers(0, 3 << 64))
        found.append(
            Assigned(Prefix(address >> (128 - length) << (128 - length), length), f"holder {number}")
        )
    return found


@dataclass
class Cells:
    """The obviously right way: one subnet after the other, one cell after the other."""

    assigned: list[Assigned]

    def __post_init__(self) -> None:
        self.used = [
            any(each.prefix.overlaps(Prefix(BASE.address + (i << 66), CELL)) for each in self.assigned)
            for i in range(CELLS)
        ]
        self.taken = self.used.copy()

    def carve(self, policy: Policy) -> dict[str, tuple[SubnetState, int | None]]:
        placed: dict[str, tuple[SubnetState, int | None]] = {}
        pinned = [each for each in policy.subnets if each.id is not None]
        automatic = [each for each in policy.subnets if each.id is None]
        for entry in pinned + sorted(automatic, key=lambda each: each.count == "all"):
            for i in range(entry.count if isinstance(entry.count, int) else CELLS if entry.count else 1):
                found = self.place(entry, i)
                if found[0] is not WITHOUT_ROOM or entry.count != "all" or i == 0:
                    placed[entry.name if entry.count is None else f"{entry.name}-{i}"] = found
        return placed

    def place(self, entry: SubnetPolicy, i: int) -> tuple[SubnetState, int | None]:
        step = 1 << (CELL - entry.length)
        for place in range(0, CELLS - step + 1, step):
            cells = slice(place, place + step)
            if any(self.taken[cells]) if entry.id is None else place != (entry.id + i) * step:
                continue
            in_the_way = entry.id is not None and any(self.used[cells])
            self.taken[cells] = [True] * step
            return (RESERVED if not entry.bind else CONFLICT if in_the_way else WANTED), place
        return WITHOUT_ROOM, None


def no_pinned_overlap(policy: Policy) -> bool:
    spans = sorted(
        (s.id << (128 - s.length), (s.id + (s.count if isinstance(s.count, int) else 1)) << (128 - s.length))
        for s in policy.subnets
        if s.id is not None
    )
    return all(one[1] <= other[0] for one, other in pairwise(spans))


@given(policies(), assignments())
def test_like_the_model(policy: Policy, assigned: list[Assigned]) -> None:
    assume(no_pinned_overlap(policy))
    delegation = replace(delegated("2001:db8::/56"), prefix=BASE)
    runs = first_carve(delegation, policy, assigned)
    found = {
        each.subnet_name(i): (each.state, None)
        if each.first is None
        else (each.state, (each.first.address + i * each.first.size - BASE.address) >> 66)
        for each in runs
        for i in range(each.count)
    }
    assert found == Cells(assigned).carve(policy)
    assert first_carve(delegation, policy, assigned) == runs
    assert sum(each.count for each in runs) == len(found)
    order = [entry.name for entry in policy.subnets]
    assert [each.name for each in runs] == sorted((each.name for each in runs), key=order.index)


@given(policies(), assignments())
def test_nothing_is_placed_twice_or_outside(policy: Policy, assigned: list[Assigned]) -> None:
    assume(no_pinned_overlap(policy))
    placed = [
        (each, each.first.address, each.first.address + each.count * each.first.size)
        for each in first_carve(replace(delegated("2001:db8::/56"), prefix=BASE), policy, assigned)
        if each.first
    ]
    placed.sort(key=lambda span: span[1])
    for one, other in pairwise(placed):
        assert one[2] <= other[1]
    for run, start, end in placed:
        assert BASE.address <= start < end <= BASE.end
        if run.state is WANTED:
            assert not any(each.prefix.address < end and start < each.prefix.end for each in assigned)
