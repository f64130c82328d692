"""The gate: what of all that is delegated is accepted."""

from __future__ import annotations

import pytest

from anyipd.decide.gate import gate
from anyipd.model import Delegation, DelegationState, Prefix
from anyipd.policy import Policy

GRANTED, SUPERSEDED, REFUSED = (
    DelegationState.GRANTED,
    DelegationState.SUPERSEDED,
    DelegationState.REFUSED,
)


def delegated(
    number: int, began: float, since: float | None = None, uplink: str | None = "eth0"
) -> Delegation:
    """A prefix, granted at `began`, and superseded at `since`."""
    prefix = Prefix((0x20010DB8 << 96) + (number << 80), 48)
    state = GRANTED if since is None else SUPERSEDED
    return Delegation(prefix, "dhclient", state, uplink, preferred_until=since, began=began)


@pytest.mark.parametrize(
    ("found", "accepted"),
    [
        ([delegated(1, 10), delegated(2, 20)], {1, 2}),
        ([delegated(1, 10), delegated(2, 20), delegated(3, 5)], {1, 3}),
        ([delegated(1, 30), delegated(2, 30), delegated(3, 30)], {1, 2}),
        ([delegated(1, 10, 15), delegated(2, 20)], {1, 2}),
        ([delegated(1, 10, 15), delegated(2, 11, 16), delegated(3, 20)], {2, 3}),
        ([delegated(1, 10, 15), delegated(2, 20), delegated(3, 21)], {2, 3}),
        ([delegated(1, 10), delegated(2, 20), delegated(3, 30, uplink="eth1")], {1, 2, 3}),
        ([delegated(i, i, uplink=None) for i in (1, 2, 3)], {1, 2}),
    ],
    ids=[
        "two may be",
        "incumbents stay",
        "at once",
        "one of them superseded",
        "the oldest superseded goes first",
        "the superseded goes first",
        "each uplink by itself",
        "an unknown uplink",
    ],
)
def test_at_most_so_many_of_an_uplink(found: list[Delegation], accepted: set[int]) -> None:
    policy = Policy.model_validate({"accept": {"at_most": 2}})
    passed = gate(found, policy)
    assert {each.prefix.address >> 80 & 0xFF for each in passed if each.is_usable} == accepted
    reasons = {each.reason for each in passed if each.state is REFUSED}
    assert reasons <= {"is beyond accept.at_most, 2 of an uplink"}
    assert len(passed) == len(found)
