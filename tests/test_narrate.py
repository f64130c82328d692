"""The log tells each change once, names what it is about, and is silent where nothing changed."""

from collections.abc import Collection
from dataclasses import replace

from anyipd.decide.covers import addresses
from anyipd.decide.gaps import Gaps
from anyipd.model import INFINITE, Delegation, DelegationState, Prefix, Subnets, SubnetState
from anyipd.narrate import Line, delegation_lines, moved_lines, state_lines, subnet_lines

NOW = 1000.0
P = Prefix.parse("2001:db8::/56")
FIRST = Prefix.parse("2001:db8::/64")
LEASED = Delegation(P, "dhclient", DelegationState.GRANTED, "eth0", "00:00:00:01", NOW + 60, NOW + 90)
TOLD: dict[str, str | int] = {
    "prefix": "2001:db8::/56",
    "source": "dhclient",
    "uplink": "eth0",
    "preferred": 60,
    "valid": 90,
}
REFUSED = replace(LEASED, state=DelegationState.REFUSED, reason="too long")


def told(before: list[Delegation], after: list[Delegation], bound: Collection[Prefix] = ()) -> list[Line]:
    return list(delegation_lines(before, after, NOW, lambda _: ("expired", "it is over"), bound))


def at(place: int, name: str, state: SubnetState, count: int = 1, reason: str | None = None) -> Subnets:
    first = Prefix(FIRST.address + (place << 64), 64)
    return Subnets(name, P, state, first, count, 0 if count > 1 else None, reason=reason)


def at_places(*places: int) -> dict[int, Gaps]:
    return addresses(Prefix(FIRST.address + (place << 64), 64) for place in places)


def test_nothing_changed_nothing_told() -> None:
    both = [LEASED, replace(REFUSED, prefix=FIRST)]
    assert told(both, both) == []
    subnets = [at(0, "web", SubnetState.BOUND), at(1, "lab", SubnetState.CONFLICT, reason="on-link at eth0")]
    assert list(subnet_lines(subnets, subnets, {}, {})) == []


def test_a_delegation_comes_and_goes() -> None:
    assert told([], [LEASED]) == [Line("delegated", TOLD)]
    fields: dict[str, str | int]
    fields = {"prefix": "2001:db8::/56", "source": "dhclient", "uplink": "eth0", "reason": "it is over"}
    assert told([LEASED], []) == [Line("expired", fields)]
    assert told([LEASED], [], {P}) == [Line("expired", fields, warning=True)]


def test_a_route_alone_tells_no_lifetime() -> None:
    [line] = told([], [Delegation(P, "kernel", DelegationState.GRANTED)])
    assert line == Line("delegated", {"prefix": "2001:db8::/56", "source": "kernel"})


def test_lifetimes_are_told_in_words_that_hold() -> None:
    [line] = told([], [replace(LEASED, preferred_until=NOW - 5, valid_until=INFINITE)])
    assert (line.fields["preferred"], line.fields["valid"]) == (0, "infinite")


def test_states_and_renewals() -> None:
    deprecated = replace(LEASED, state=DelegationState.DEPRECATED)
    assert [line.event for line in told([LEASED], [deprecated])] == ["deprecated"]
    assert [line.event for line in told([deprecated], [LEASED])] == ["delegated"]
    superseded = replace(LEASED, state=DelegationState.SUPERSEDED)
    assert [line.event for line in told([LEASED], [superseded])] == ["superseded"]
    for event, changed in (
        ("renewed", replace(LEASED, valid_until=NOW + 99)),
        ("renewed", replace(LEASED, valid_until=INFINITE)),
        ("shortened", replace(LEASED, valid_until=NOW + 50)),
        ("lifetime unknown", replace(LEASED, valid_until=None)),
        ("reported", replace(LEASED, reason="nobody confirms it")),
        ("reported", replace(LEASED, uplink="eth1")),
        ("reported", replace(LEASED, source="kernel")),
    ):
        assert [line.event for line in told([LEASED], [changed])] == [event]
    assert [line.event for line in told([replace(LEASED, valid_until=None)], [LEASED])] == ["lifetime known"]
    assert told([LEASED], [replace(LEASED, valid_until=NOW + 91)]) == []


def test_what_is_not_carved_is_a_warning_with_its_reason() -> None:
    assert told([], [REFUSED]) == [Line("refused", TOLD | {"reason": "too long"}, warning=True)]
    assert told([REFUSED], [replace(REFUSED, reason="overlaps it")])[0].warning
    assert told([REFUSED], [REFUSED]) == []


def test_bound_names_subnet_and_count() -> None:
    after = [at(0, "web", SubnetState.BOUND), at(1, "proxies", SubnetState.BOUND, 4)]
    assert list(subnet_lines([], after, at_places(0, 2, 3), {})) == [
        Line("bound", {"subnet": "web", "prefix": "2001:db8::/64"}),
        Line("bound", {"subnet": "proxies-1", "prefix": "2001:db8:0:2::/64", "count": 2}),
    ]


def test_what_the_kernel_refused_is_not_told_as_bound() -> None:
    after = [at(0, "web", SubnetState.MISSING), at(1, "lab", SubnetState.BOUND)]
    (line,) = subnet_lines([], after, at_places(1), {})
    assert line.fields["subnet"] == "lab"
    # Somebody else's is not named where a static prefix lies over it.
    static = Subnets("rented", None, SubnetState.BOUND, FIRST)
    lines = list(
        subnet_lines([], [at(0, "web", SubnetState.CONFLICT, reason="static"), static], at_places(0), {})
    )
    assert [line.event for line in lines] == ["bound", "conflict"]
    assert lines[0].fields["subnet"] == "rented"


def test_unbound_names_every_subnet() -> None:
    before = [at(0, "web", SubnetState.BOUND), at(1, "proxies", SubnetState.BOUND, 4)]
    assert list(subnet_lines(before, [], {}, at_places(*range(5)))) == [
        Line("unbound", {"subnet": "web", "prefix": "2001:db8::/64"}),
        Line("unbound", {"subnet": "proxies-0", "prefix": "2001:db8:0:1::/64", "count": 4}),
    ]


def test_unbound_of_what_nobody_wanted_names_the_prefix() -> None:
    assert [line.fields for line in subnet_lines([], [], {}, at_places(0, 1, 2, 4))] == [
        {"prefix": "2001:db8::/63"},
        {"prefix": "2001:db8:0:2::/64"},
        {"prefix": "2001:db8:0:4::/64"},
    ]


def test_what_is_held_off_is_told_once() -> None:
    conflict = at(3, "lab", SubnetState.CONFLICT, reason="on-link at eth0")
    no_room = Subnets("big", P, SubnetState.WITHOUT_ROOM, None, 7, 2, reason="no free /64 left")
    assert list(subnet_lines([conflict], [conflict, no_room], {}, {})) == [
        Line(
            "without room",
            {"subnet": "big-2", "delegation": "2001:db8::/56", "count": 7, "reason": "no free /64 left"},
            warning=True,
        )
    ]
    other = replace(conflict, reason="routed to eth1")
    [line] = subnet_lines([conflict], [other], {}, {})
    assert line.fields == {"subnet": "lab", "prefix": "2001:db8:0:3::/64", "reason": "routed to eth1"}


def test_only_what_was_bound_can_move() -> None:
    bound = at(3, "web", SubnetState.BOUND)
    moved = Line("moved", {"subnet": "web", "prefix": "2001:db8:0:3::/64", "was": str(FIRST)})
    assert list(moved_lines([at(0, "web", SubnetState.MISSING)], [bound])) == [moved]
    nowhere = replace(bound, state=SubnetState.WITHOUT_ROOM, first=None)
    for before in (nowhere, at(0, "web", SubnetState.CONFLICT), at(0, "other", SubnetState.BOUND), bound):
        assert not list(moved_lines([before], [bound]))
    assert not list(moved_lines([bound], [at(0, "web", SubnetState.CONFLICT)]))


def test_a_state_is_told_when_it_place_or_reason_changed() -> None:
    bound = at(3, "web", SubnetState.BOUND)
    fields: dict[str, str | int] = {"subnet": "web", "prefix": "2001:db8:0:3::/64"}
    assert list(state_lines([], [bound])) == [Line("bound", fields)]
    assert not list(state_lines([bound], [bound]))
    assert list(state_lines([bound], [])) == [Line("gone", fields)]
    moved = Line("bound", fields | {"was": str(FIRST)})
    assert list(state_lines([at(0, "web", SubnetState.BOUND)], [bound])) == [moved]
    for reason, before in (("mine", bound), ("yours", at(3, "web", SubnetState.CONFLICT, reason="mine"))):
        held_off = at(3, "web", SubnetState.CONFLICT, reason=reason)
        assert list(state_lines([before], [held_off])) == [
            Line("conflict", fields | {"reason": reason}, warning=True)
        ]


def test_of_a_run_the_part_is_told_that_changed() -> None:
    run = at(0, "all", SubnetState.BOUND, 4)
    last = replace(at(3, "all", SubnetState.MISSING), number=3)
    (line,) = state_lines([run], [at(0, "all", SubnetState.BOUND, 3), last])
    assert line == Line("missing", {"subnet": "all-3", "prefix": "2001:db8:0:3::/64"})
