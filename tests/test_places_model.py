"""Places stay, through histories: against a model that looks at each subnet, cell and second by itself."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from anyipd.decide.carve import Carved, carve
from anyipd.decide.static import STATIC
from anyipd.model import Assigned, Delegation, DelegationState, Places, Prefix, SubnetState
from anyipd.policy import Policy, SubnetPolicy

BASE = Prefix.parse("2001:db8::/56")
DELEGATION = Delegation(BASE, "dhclient", DelegationState.GRANTED, "eth0")

Entry = dict[str, object]
Member = tuple[str, int | None]
Cells = tuple[int, int]
"""The first, and how many."""
Fate = tuple[SubnetState, int | None]
"""What became of a subnet, and its first cell."""

# 16 cells of a /60. An entry's subnets are one, two or four of them; obstacles are smaller, or larger.
CELLS, CELL = 16, 1 << 68
NAMES = "abcd"
ENTRIES = st.fixed_dictionaries(
    {
        "length": st.sampled_from([60, 60, 59, 58]),
        "count": st.none() | st.integers(1, 6) | st.just("all") | st.just("all"),
        "uplink": st.sampled_from([None, None, "eth0", "eth9"]),
        "bind": st.sampled_from([True, True, False]),
    }
)


@st.composite
def policies(draw: st.DrawFn) -> list[list[Entry]]:
    """A policy and what reloads make of it: mostly the same entries, in another order, changed, pinned."""
    usual = {name: draw(ENTRIES) for name in NAMES}
    found = []
    for _ in range(draw(st.integers(1, 3))):
        names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))
        entries = []
        for name in names:
            entry: Entry = {"name": name, **usual[name]}
            change = draw(st.sampled_from(["none", "none", "count", "id", "whole"]))
            if change == "count":
                entry["count"] = draw(st.integers(1, 9))
            elif change == "id" and entry["count"] != "all":
                entry["id"] = draw(st.integers(0, 18))
            elif change == "whole":
                entry |= draw(ENTRIES)
            entries.append(entry)
        found.append(entries)
    return found


@st.composite
def obstacles(draw: st.DrawFn) -> Assigned:
    length = draw(st.sampled_from([55, 58, 59, 60, 60, 61, 64, 128]))
    address = BASE.address + draw(st.integers(-2, 4 * CELLS + 2)) * (CELL // 4)
    holder = draw(st.sampled_from(["on-link", "on-link", "routed", STATIC]))
    return Assigned(Prefix(address, length).masked(), holder)


@dataclass
class Happening:
    """A pass: when, by which policy, with which obstacles."""

    now: float
    policy: Policy
    assigned: list[Assigned]


@st.composite
def histories(draw: st.DrawFn) -> list[Happening]:
    usual, now, found = draw(policies()), 0.0, []
    pool = draw(st.lists(obstacles(), max_size=4))
    for _ in range(draw(st.integers(1, 8))):
        now += draw(st.sampled_from([0, 1, 29, 30, 60]))
        assigned = draw(st.lists(st.sampled_from(pool), unique=True)) if pool else []
        subnets = tuple(map(SubnetPolicy.model_validate, draw(st.sampled_from(usual))))
        assume(not pinned_overlap(subnets))
        found.append(Happening(now, Policy(subnets=subnets), assigned))
    return found


def pinned_overlap(subnets: Iterable[SubnetPolicy]) -> bool:
    pinned = [
        cell
        for each in subnets
        if each.id is not None
        for _, number in members(each)
        for cell in span(((each.id + (number or 0)) * width(each), width(each)))
    ]
    return len(set(pinned)) < len(pinned)


@dataclass
class Naive:
    """The obviously right way."""

    places: dict[Member, Cells] = field(default_factory=dict)
    obstructed: set[int] = field(default_factory=set)
    freed_at: dict[int, float] = field(default_factory=dict)

    def carve(self, it: Happening) -> dict[str, Fate]:
        used, found = cells(it.assigned), dict[Member, Fate]()
        entries = [each for each in it.policy.subnets if each.uplink in {None, "eth0"}]
        automatic = [each for each in entries if each.id is None]
        everything = [each for each in automatic if each.count == "all"]
        others = [each for each in automatic if each.count != "all"]
        waiting = self.wait(it, heeded=bool(everything))
        self.taken, self.placed = set(used), dict[Member, Cells]()
        for entry in entries:
            if entry.id is not None:
                for member in members(entry):
                    found[member] = self.pin(entry, entry.id + (member[1] or 0), used)
        self.keep(others)
        self.keep(everything)
        self.find(others)
        if any(member not in self.placed for entry in others for member in members(entry)):
            for entry in everything:
                for member in members(entry):
                    self.taken -= span(self.placed.pop(member, (0, 0)))
            self.find(others)
            self.keep(everything)
        self.taken |= waiting
        self.find(everything)
        self.places = self.placed
        for entry in automatic:
            placed = [member for member in members(entry) if member in self.placed]
            state = SubnetState.WANTED if entry.bind else SubnetState.RESERVED
            found |= {member: (state, self.placed[member][0]) for member in placed}
            if entry.count != "all" or not placed:
                missing = [member for member in members(entry) if member not in placed]
                missing = missing[:1] if entry.count == "all" else missing
                found |= dict.fromkeys(missing, (SubnetState.WITHOUT_ROOM, None))
        return {named(member): fate for member, fate in found.items()}

    def wait(self, it: Happening, *, heeded: bool) -> set[int]:
        """Return the cells in which there was an obstacle less than a minute ago, and is none."""
        now_obstructed = cells([each for each in it.assigned if each.holder != STATIC]) if heeded else set()
        self.freed_at |= dict.fromkeys(self.obstructed - now_obstructed, it.now)
        self.freed_at = {
            cell: since
            for cell, since in self.freed_at.items()
            if heeded and cell not in now_obstructed and it.now - since < 60
        }
        self.obstructed = now_obstructed
        return set(self.freed_at)

    def keep(self, entries: list[SubnetPolicy]) -> None:
        for entry in entries:
            for member in members(entry):
                place = self.places.get(member)
                if place and place[1] == width(entry) and not self.taken & span(place):
                    self.put(member, place)

    def find(self, entries: list[SubnetPolicy]) -> None:
        for entry in entries:
            for member in members(entry):
                for first in range(0, CELLS, width(entry)):
                    if member not in self.placed and not self.taken & span((first, width(entry))):
                        self.put(member, (first, width(entry)))

    def put(self, member: Member, place: Cells) -> None:
        self.placed[member] = place
        self.taken |= span(place)

    def pin(self, entry: SubnetPolicy, subnet_id: int, used: set[int]) -> Fate:
        place = subnet_id * width(entry), width(entry)
        if place[0] >= CELLS:
            return SubnetState.WITHOUT_ROOM, None
        self.taken |= span(place)
        state = SubnetState.CONFLICT if used & span(place) else SubnetState.WANTED
        return (state if entry.bind else SubnetState.RESERVED), place[0]


def cells(assigned: list[Assigned]) -> set[int]:
    """Return the cells that obstacles are in."""
    whole = [Prefix(BASE.address + cell * CELL, 60) for cell in range(CELLS)]
    return {i for i, cell in enumerate(whole) if any(each.prefix.overlaps(cell) for each in assigned)}


def width(entry: SubnetPolicy) -> int:
    return 1 << (60 - entry.length)


def span(place: Cells) -> set[int]:
    return set(range(place[0], sum(place)))


def members(entry: SubnetPolicy) -> list[Member]:
    if entry.count is None:
        return [(entry.name, None)]
    return [(entry.name, number) for number in range(CELLS if entry.count == "all" else entry.count)]


def named(member: Member) -> str:
    return member[0] if member[1] is None else f"{member[0]}-{member[1]}"


def by_name(carved: Carved) -> dict[str, Fate]:
    found: dict[str, Fate] = {}
    for run in carved.subnets:
        for i in range(run.count):
            assert run.subnet_name(i) not in found
            address = run.first and run.first.address + i * run.first.size - BASE.address
            assert address is None or address % CELL == 0
            found[run.subnet_name(i)] = run.state, None if address is None else address // CELL
    return found


def carvings(history: list[Happening]) -> Iterator[tuple[Happening, Carved]]:
    """Carve again and again, each time with what the last time left."""
    places = Places()
    for it in history:
        carved = carve(DELEGATION, it.policy, it.assigned, places, it.now)
        yield it, carved
        places = carved.places


@given(histories())
def test_like_the_model(history: list[Happening]) -> None:
    naive = Naive()
    for it, carved in carvings(history):
        assert by_name(carved) == naive.carve(it)


@given(histories())
def test_each_subnet_has_a_place_of_its_own(history: list[Happening]) -> None:
    for it, carved in carvings(history):
        placed = sorted((run.first, run) for run in carved.subnets if run.first)
        ends = BASE.address
        for first, run in placed:
            assert ends <= first.address
            ends = first.address + run.count * first.size
            for obstacle in it.assigned if run.name in {each.name for each in carved.places.kept} else ():
                assert obstacle.prefix.end <= first.address or ends <= obstacle.prefix.address
        assert ends <= BASE.end
        edges = [edge for start, end, _ in carved.places.hold_downs for edge in (start, end - 1)]
        assert edges == sorted(edges)
        assert all(BASE.address <= edge < BASE.end for edge in edges)


@given(histories())
def test_nothing_changes_before_the_deadline(history: list[Happening]) -> None:
    for it, carved in carvings(history):
        assert carved.deadline > it.now
        for later in (it.now, min(carved.deadline - 0.001, it.now + 1000)):
            assert carve(DELEGATION, it.policy, it.assigned, carved.places, later) == carved


@given(histories())
def test_what_comes_or_goes_where_nothing_hinges_on_it_changes_nothing(history: list[Happening]) -> None:
    places = Places()
    for it, carved in carvings(history):

        def counts(each: Assigned, carved: Carved = carved) -> bool:
            return any(each.prefix.address < end and start < each.prefix.end for start, end in carved.hinges)

        near = [each for each in it.assigned if counts(each)]
        everywhere = [Assigned(Prefix(start, 60), "taken") for start in range(BASE.address, BASE.end, CELL)]
        crowded = near + [each for each in everywhere if not counts(each)]
        for assigned in (near, crowded):
            assert carve(DELEGATION, it.policy, assigned, places, it.now) == carved
        places = carved.places


def test_who_kept_his_place_looked_nowhere_else() -> None:
    policy = Policy.model_validate({"subnets": [{"name": "web"}, {"name": "lab", "id": 5}]})
    first = carve(DELEGATION, policy, [], Places(), 0)
    assert first.hinges == [(BASE.address, BASE.end)]
    second = carve(DELEGATION, policy, [], first.places, 1)
    spans = {(run.first.address, run.first.end) for run in second.subnets if run.first}
    assert set(second.hinges) == spans
    assert len(spans) == 2


@given(histories())
def test_runs_are_the_fewest_and_in_order(history: list[Happening]) -> None:
    for it, carved in carvings(history):
        for one, other in pairwise(carved.places.kept):
            if one.name == other.name:
                assert one.number is not None
                assert other.number is not None
                end = one.first.address + one.count * one.first.size
                assert one.number + one.count <= other.number
                assert (one.number + one.count, end) != (other.number, other.first.address)
        order = [each.name for each in it.policy.subnets]
        keys = [(order.index(run.name), run.number or 0) for run in carved.subnets]
        assert keys == sorted(keys)


@given(histories())
def test_a_subnet_stays_while_its_place_is_free(history: list[Happening]) -> None:
    """Whatever else comes and goes. Only `all` gives way, and to nothing but another entry."""
    before = dict[str, tuple[SubnetPolicy, int | None]]()
    for it, carved in carvings(history):
        found = by_name(carved)
        after = {
            named(member): (entry, found.get(named(member), (None, None))[1])
            for entry in it.policy.subnets
            if entry.uplink != "eth9"
            for member in members(entry)
        }
        for name in before.keys() & after.keys():
            (old, was), (entry, cell) = before[name], after[name]
            if was is None or (old.id, entry.id) != (None, None) or old.length != entry.length:
                continue
            blocked = cells(it.assigned)
            for other, taken in after.values():
                if taken is not None and (
                    other.id is not None or (entry.count == "all" and other.count != "all")
                ):
                    blocked |= span((taken, width(other)))
            assert cell == was or blocked & span((was, width(entry)))
        before = after
