"""The gate: what of all that is delegated is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from anyipd.decide.gate import Host, gate, gate_by_host, nameservers_assigned
from anyipd.model import Assigned, Covering, Delegation, DelegationState, Prefix
from anyipd.observe.nameservers import Nameservers
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


HELD = Prefix.parse("2001:db8:100::/56")
SERVER = Prefix.parse("2001:db8:100:7::53/128")


@pytest.mark.parametrize(
    ("covering", "uplinks", "reason"),
    [
        ("2001:db8::/32", {"eth0"}, "2001:db8::/32 is routed to tun0, and this is a part of it"),
        ("2001:db8:100::/48", {"eth0"}, "2001:db8:100::/48 is routed to tun0, and this is a part of it"),
        ("2001:db8::/32", {None}, "2001:db8::/32 is routed to tun0, and this is a part of it"),
        ("2001:db8::/32", {"eth0", "tun0"}, None),
        ("2000::/3", {"eth0"}, None),
        ("2001:db9::/32", {"eth0"}, None),
    ],
)
def test_what_is_behind_somebody_else_stays_there(
    covering: str, uplinks: set[str | None], reason: str | None
) -> None:
    delegation = Delegation(HELD, "dhclient", GRANTED, "eth0", uplinks=frozenset(uplinks))
    host = Host(covering=[Covering(Prefix.parse(covering), "tun0")])
    [found] = gate_by_host([delegation], Policy(), host, [])
    assert found.reason == reason
    assert found.state is (REFUSED if reason else GRANTED)


def test_of_what_is_routed_by_another_table_the_reason_names_it() -> None:
    delegation = Delegation(HELD, "dhclient", GRANTED, "eth0", uplinks=frozenset({"eth0"}))
    host = Host(covering=[Covering(Prefix.parse("2001:db8::/32"), "tun0", 52)])
    [found] = gate_by_host([delegation], Policy(), host, [])
    assert found.reason == "2001:db8::/32 is routed to tun0 in table 52, and this is a part of it"


def test_a_nameserver_may_not_be_reached_by_another_table() -> None:
    """It may be for packets from some addresses alone."""
    host = Host(nameservers=[SERVER.address])
    used = [Assigned(SERVER, "routed to lan0 in table 52", 52)]
    delegation = Delegation(HELD, "dhclient", GRANTED, "eth0", uplinks=frozenset({"eth0"}))
    [found] = gate_by_host([delegation], Policy(), host, used)
    assert found.state is REFUSED


@pytest.mark.parametrize(
    ("assigned", "unassigned", "state"),
    [
        (None, "unreachable", REFUSED),
        (None, "blackhole", REFUSED),
        (None, "none", GRANTED),
        ("2001:db8:100:7::/64", "unreachable", GRANTED),
        ("2001:db8:100:7::53/128", "unreachable", GRANTED),
        ("2001:db8:100:8::/64", "unreachable", REFUSED),
    ],
)
def test_a_nameserver_stays_where_it_is(
    assigned: str | None, unassigned: str, state: DelegationState
) -> None:
    policy = Policy.model_validate({"unassigned": unassigned})
    host = Host(nameservers=[SERVER.address])
    used = [Assigned(Prefix.parse(assigned), "on-link at lan0")] if assigned else []
    delegation = Delegation(HELD, "dhclient", GRANTED, "eth0", uplinks=frozenset({"eth0"}))
    [found] = gate_by_host([delegation], policy, host, used)
    assert found.state is state
    if state is REFUSED:
        assert found.reason == "holds the nameserver 2001:db8:100:7::53, which would be cut off"
    assert nameservers_assigned(host) == {Assigned(SERVER, "a nameserver of this host")}


def test_resolv_conf_is_read(tmp_path: Path) -> None:
    one, other = tmp_path / "resolv.conf", tmp_path / "upstreams"
    nameservers = Nameservers([one, other])
    nameservers.look()
    assert nameservers.addresses == set()
    one.write_bytes(
        b"# nameserver 2001:db8::1\nnameserver 192.0.2.1\n nameserver\t2001:db8::53 x\nnameserver\n"
    )
    other.write_bytes(b"search \xff\nnameserver fe80::1%eth0\nnameserver nonsense\nnameserver 2001:db8::54")
    nameservers.look()
    expected = {Prefix.parse(f"{each}/128").address for each in ("2001:db8::53", "fe80::1", "2001:db8::54")}
    assert nameservers.addresses == expected
    one.unlink()
    other.unlink()
    other.mkdir()
    nameservers.look()
    assert nameservers.addresses == set()
