"""A View comes back from JSON as it was, and nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyipd.model import INFINITE, Delegation, DelegationState, Prefix, Subnets, SubnetState
from anyipd.policy import Accept, Policy, Static, SubnetPolicy
from anyipd.view import View
from anyipd.view_wire import view_from_json, view_to_json

PREFIX = Prefix.parse("2001:db8:100::/60")


def whole_usec(number: int) -> float:
    return number / 1e6


# To a microsecond times are exact for 285 years of uptime.
times = st.integers(0, 1 << 53).map(whole_usec)
deadlines = st.none() | st.just(INFINITE) | times
prefixes = st.builds(
    lambda address, length: Prefix(address, length).masked(),
    st.integers(0, (1 << 128) - 1),
    st.integers(0, 128),
)
networks4 = st.builds(
    lambda address, length: Prefix(address, length, 32).masked(),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, 32),
)
texts = st.text(st.characters(codec="utf-8"), max_size=9)
words = st.none() | texts
delegations = st.builds(
    Delegation,
    prefix=prefixes,
    source=texts,
    state=st.sampled_from(DelegationState),
    uplink=words,
    iaid=words,
    preferred_until=deadlines,
    valid_until=deadlines,
    began=st.just(-INFINITE) | times,
    uplinks=st.frozensets(st.none() | st.text(st.characters(codec="utf-8"), min_size=1), max_size=3),
    exclude=st.none() | prefixes,
    reason=words,
    left_out=st.booleans(),
)
subnets = st.builds(
    Subnets,
    name=texts,
    delegation=st.none() | prefixes,
    state=st.sampled_from(SubnetState),
    first=st.none() | prefixes | networks4,
    count=st.integers(1, 1 << 20),
    number=st.none() | st.integers(0, 1 << 20),
    valid_until=deadlines,
    reason=words,
    uplink=words,
    deprecated=st.booleans(),
    address=st.none() | st.integers(0, (1 << 128) - 1),
    address_reason=words,
    holes=st.lists(prefixes, max_size=3).map(tuple),
    gateways=st.lists(prefixes, max_size=2).map(tuple),
)
POLICIES = [
    Policy(),
    Policy(
        subnets=(
            SubnetPolicy.model_validate({"name": "web", "id": 3, "neighbours": ["eth0"], "address": "::1"}),
            SubnetPolicy(name="all", count="all", length=62, uplink="eth1", bind=False),
        ),
        accept=Accept(
            uplinks=("ppp*",), within=(Prefix.parse("2001:db8::/32"),), at_most=2, protocols=(16, 99)
        ),
        unassigned="none",
        static=(Static(prefix=Prefix.parse("192.0.2.0/24"), name="rented"),),
        listen=("eth0",),
    ),
]
views = st.builds(
    View,
    time=times,
    network_namespace=st.integers(1, 1 << 32),
    configuration=texts,
    policy=st.sampled_from(POLICIES),
    delegations=st.lists(delegations, max_size=3).map(tuple),
    subnets=st.lists(subnets, max_size=3).map(tuple),
    deadline=st.just(INFINITE) | times,
)


@given(views)
def test_what_is_written_is_read(view: View) -> None:
    text = json.dumps(view_to_json(view), allow_nan=False)
    found = view_from_json(json.loads(text))
    assert found == view
    assert (found.time, found.deadline) == (view.time, view.deadline)


def test_a_range_is_one_object_however_many_subnets_it_has() -> None:
    run = Subnets("all", PREFIX, SubnetState.BOUND, Prefix(PREFIX.address, 64), 65_536, 0, valid_until=99.5)
    [found] = view_to_json(View(1.0, 7, "/etc/anyipd.yaml", Policy(), (), (run,)))["subnets"]
    assert found == {
        "name": "all",
        "delegation": "2001:db8:100::/60",
        "uplink": None,
        "deprecated": False,
        "state": "bound",
        "first": "2001:db8:100::/64",
        "count": 65_536,
        "number": 0,
        "valid_until_usec": 99_500_000,
        "valid_forever": False,
        "reason": None,
        "address": None,
        "address_reason": None,
        "except": [],
        "gateways": [],
    }


GOOD = view_to_json(
    View(
        1.0,
        7,
        "/etc/anyipd.yaml",
        Policy(),
        (Delegation(PREFIX, "dhclient", DelegationState.GRANTED),),
        (Subnets("web", PREFIX, SubnetState.BOUND, Prefix(PREFIX.address, 64)),),
    )
)


@pytest.mark.parametrize(
    "changed",
    [
        {"policy": {"subnets": [{"name": "Web"}]}},
        {"policy": {"surprise": 1}},
        {"delegations": [{}]},
        {"subnets": [GOOD["subnets"][0] | {"state": "lost"}]},
        {"subnets": [GOOD["subnets"][0] | {"first": "2001:db8::1/64"}]},
        {"subnets": [GOOD["subnets"][0] | {"valid_until_usec": "soon"}]},
    ],
    ids=str,
)
def test_what_is_no_view_is_a_value_error(changed: dict[str, Any]) -> None:
    view_from_json(GOOD)
    with pytest.raises(ValueError, match=r".+"):
        view_from_json(GOOD | changed)


@pytest.mark.parametrize("missing", GOOD)
def test_each_field_is_required(missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        view_from_json({key: value for key, value in GOOD.items() if key != missing})


def test_nothing_outlives_its_lifetime() -> None:
    """What is left of a View while nobody makes another."""
    lives = [None, 5.0, 7.0, INFINITE]
    view = View(
        1.0,
        7,
        "/etc/anyipd.yaml",
        Policy(),
        tuple(Delegation(PREFIX, "dhclient", DelegationState.GRANTED, valid_until=end) for end in lives),
        tuple(Subnets("web", PREFIX, SubnetState.BOUND, PREFIX, valid_until=end) for end in lives),
    )
    assert view.next_end == 5.0
    for now, left in ((4.9, lives), (5.0, [None, 7.0, INFINITE]), (7.5, [None, INFINITE])):
        later = view.at(now)
        assert later.time == now
        assert [each.valid_until for each in later.subnets] == left
        assert [each.valid_until for each in later.delegations] == left
    assert view.at(7.5).next_end == INFINITE
