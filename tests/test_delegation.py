"""Evidence becomes delegations: states, which witness is believed, what overlaps, and no order matters."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyipd.decide.delegation import (
    CLIENT_METRICS,
    HOOK_METRIC,
    KERNEL,
    SAME_TELLING,
    delegations,
    is_delegated,
    next_deadline,
)
from anyipd.model import INFINITE, Delegation, DelegationState, Discard, Lease, Prefix
from anyipd.policy import DEFAULT, Accept, Policy, SubnetPolicy

NOW = 1000.0
P = Prefix.parse("2001:db8::/56")
LIVE, DEPRECATED, EXPIRED = DelegationState.LIVE, DelegationState.DEPRECATED, DelegationState.EXPIRED
REFUSED, OVERLAPPED, IGNORED = (
    DelegationState.REFUSED,
    DelegationState.OVERLAPPED,
    DelegationState.IGNORED,
)
LEASE = Lease(P, "dhclient", "eth0", "00:00:00:01", NOW - 7, 207, NOW + 100, NOW + 200)
NETWORKD = CLIENT_METRICS["networkd"]


def states(found: list[Delegation]) -> list[tuple[str, DelegationState]]:
    return [(str(each.prefix), each.state) for each in found]


def accepting(**accept: tuple[object, ...]) -> Policy:
    return Policy(accept=Accept.model_validate(accept))


@pytest.mark.parametrize(
    ("preferred", "valid", "state"),
    [
        (100, 200, LIVE),
        (0, 200, DEPRECATED),
        (-1, 1, DEPRECATED),
        (-1, 0, EXPIRED),
        (INFINITE, INFINITE, LIVE),
        (-1, INFINITE, DEPRECATED),
    ],
)
def test_lifetimes_make_the_state(preferred: float, valid: float, state: DelegationState) -> None:
    lease = replace(LEASE, preferred_until=NOW + preferred, valid_until=NOW + valid)
    [found] = delegations([], [lease], DEFAULT, NOW)
    assert found == Delegation(
        P, "dhclient", state, "eth0", "00:00:00:01", NOW + preferred, NOW + valid, NOW - 7, 207
    )
    assert is_delegated(found) is (state is not EXPIRED)


def test_a_discard_route_alone_knows_no_lifetime() -> None:
    assert delegations([Discard(P, NETWORKD)], [], DEFAULT, NOW) == [Delegation(P, KERNEL, LIVE)]


@pytest.mark.parametrize(
    ("metric", "valid", "source", "state"),
    [
        (HOOK_METRIC, 200, "dhclient", LIVE),
        (NETWORKD, 200, "dhclient", LIVE),  # the lease knows more
        (HOOK_METRIC, 0, "dhclient", EXPIRED),  # the hook's route is no other word than its lease
        (NETWORKD, 0, KERNEL, LIVE),  # another client's is
    ],
)
def test_a_route_beside_a_lease(metric: int, valid: float, source: str, state: DelegationState) -> None:
    lease = replace(LEASE, preferred_until=NOW + valid, valid_until=NOW + valid)
    [found] = delegations([Discard(P, metric)], [lease], DEFAULT, NOW)
    assert (found.source, found.state) == (source, state)


@pytest.mark.parametrize(("client", "metric"), CLIENT_METRICS.items())
def test_a_clients_own_route_says_nothing_beside_its_lease(client: str, metric: int) -> None:
    lease = replace(LEASE, client=client, preferred_until=NOW, valid_until=NOW)
    [found] = delegations([Discard(P, metric)], [lease], DEFAULT, NOW)
    assert (found.source, found.state) == (client, EXPIRED)
    [found] = delegations([Discard(P, metric + 1000)], [lease], DEFAULT, NOW)
    assert (found.source, found.state) == (KERNEL, LIVE)
    elsewhere = replace(lease, prefix=Prefix.parse("2001:db8:ff00::/56"))
    assert (str(P), LIVE) in states(delegations([Discard(P, metric)], [elsewhere], DEFAULT, NOW))


def test_a_lease_without_a_lifetime_takes_the_clients_route_back() -> None:
    given_back = replace(LEASE, client="dhcpcd", lifetime=0, preferred_until=NOW, valid_until=NOW)
    assert delegations([Discard(P, CLIENT_METRICS["dhcpcd"])], [given_back], DEFAULT, NOW) == []
    [found] = delegations([Discard(P, NETWORKD)], [given_back], DEFAULT, NOW)
    assert (found.source, found.state) == (KERNEL, LIVE)
    [found] = delegations([], [given_back, LEASE], DEFAULT, NOW)
    assert (found.source, found.state) == ("dhclient", LIVE)


def test_what_is_not_known_of_a_lease_is_not_made_up() -> None:
    lease = replace(LEASE, uplink=None, lifetime=None, preferred_until=None)
    [found] = delegations([], [lease], DEFAULT, NOW)
    assert (found.state, found.uplink, found.preferred_until) == (LIVE, None, None)
    assert next_deadline([found], NOW) == lease.valid_until
    [found] = delegations([], [lease], accepting(uplinks=("eth0",)), NOW)
    assert found.state is IGNORED


def test_a_hooks_route_says_nothing_without_its_lease() -> None:
    other = replace(LEASE, prefix=Prefix.parse("2001:db8:ff00::/56"))
    found = delegations([Discard(P, HOOK_METRIC)], [other], DEFAULT, NOW)
    assert [each.prefix for each in found] == [other.prefix]


def test_the_longer_lease_of_two_is_believed() -> None:
    longer = replace(LEASE, uplink="eth1", lifetime=307, valid_until=NOW + 300)
    [found] = delegations([], [LEASE, longer], DEFAULT, NOW)
    assert (found.uplink, found.valid_until) == ("eth1", NOW + 300)


@pytest.mark.parametrize(
    ("policy", "state", "reason"),
    [
        (accepting(within=(Prefix.parse("2001:db8::/32"),)), LIVE, None),
        (accepting(within=(P,)), LIVE, None),
        (accepting(within=(Prefix.parse("2001:db8::/57"),)), IGNORED, "outside accept.within"),
        (accepting(within=(Prefix.parse("fc00::/7"),)), IGNORED, "outside accept.within"),
        (accepting(uplinks=("wan*", "eth?")), LIVE, None),
        (accepting(uplinks=("wan*",)), IGNORED, "uplink eth0 is not in accept.uplinks"),
        (accepting(uplinks=("ETH0",)), IGNORED, "uplink eth0 is not in accept.uplinks"),
        (Policy(subnets=(SubnetPolicy(name="a", length=56),)), LIVE, None),
        (
            Policy(subnets=(SubnetPolicy(name="a", length=55), SubnetPolicy(name="b", length=48))),
            REFUSED,
            "a /56 is too long to hold a /55",
        ),
        (Policy(subnets=()), LIVE, None),
    ],
)
def test_the_policy_accepts(policy: Policy, state: DelegationState, reason: str | None) -> None:
    [found] = delegations([], [LEASE], policy, NOW)
    assert (found.state, found.reason) == (state, reason)


def test_an_unknown_uplink_matches_the_lone_star_only() -> None:
    for pattern, state in [("*", LIVE), ("**", IGNORED), ("eth0", IGNORED)]:
        [found] = delegations([Discard(P, NETWORKD)], [], accepting(uplinks=(pattern,)), NOW)
        assert found.state is state, pattern


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (SAME_TELLING + 1, ("listen", 50.0)),  # whatever the other was granted: that is over
        (SAME_TELLING, ("dhclient", 207.0)),
        (0, ("dhclient", 207.0)),
        (-SAME_TELLING, ("dhclient", 207.0)),
        (-SAME_TELLING - 1, ("dhclient", 207.0)),
    ],
)
def test_what_was_told_last_on_an_uplink_is_believed(later: float, expected: tuple[str, float]) -> None:
    heard = replace(LEASE, client="listen", written=LEASE.written + later, lifetime=50.0)
    for leases in ([LEASE, heard], [heard, LEASE]):
        [found] = delegations([], leases, DEFAULT, NOW)
        assert (found.source, found.lifetime) == expected


def test_of_the_same_told_twice_the_later_is_believed() -> None:
    again = replace(LEASE, written=LEASE.written + 1)
    for leases in ([LEASE, again], [again, LEASE]):
        assert [each.told_at for each in delegations([], leases, DEFAULT, NOW)] == [again.written]


@pytest.mark.parametrize("later", [-1000.0, 0.0, 1000.0])
def test_an_excluded_prefix_is_known_whoever_tells_of_it(later: float) -> None:
    exclude = Prefix(P.address, 64)
    heard = replace(LEASE, client="listen", written=LEASE.written + later, exclude=exclude)
    [found] = delegations([], [LEASE, heard], DEFAULT, NOW)
    assert found.exclude == exclude
    assert delegations([], [LEASE], DEFAULT, NOW)[0].exclude is None


def test_an_accepted_witness_goes_before_one_that_is_not() -> None:
    elsewhere = replace(LEASE, uplink="eth1", lifetime=10006, valid_until=NOW + 9999)
    [found] = delegations([], [elsewhere, LEASE], accepting(uplinks=("eth0",)), NOW)
    assert (found.state, found.uplink) == (LIVE, "eth0")


def test_of_overlapping_ones_the_longer_lived_is_carved() -> None:
    inner = replace(LEASE, prefix=Prefix.parse("2001:db8::/60"), lifetime=307, valid_until=NOW + 300)
    [outer, inside] = delegations([], [LEASE, inner], DEFAULT, NOW)
    assert states([outer, inside]) == [("2001:db8::/56", OVERLAPPED), ("2001:db8::/60", LIVE)]
    assert outer.reason
    assert "2001:db8::/60" in outer.reason


def test_of_equally_long_lived_ones_the_larger_is_carved() -> None:
    inner = replace(LEASE, prefix=Prefix.parse("2001:db8::/60"))
    found = delegations([], [inner, LEASE], DEFAULT, NOW)
    assert states(found) == [("2001:db8::/56", LIVE), ("2001:db8::/60", OVERLAPPED)]


def test_what_is_not_delegated_holds_no_addresses() -> None:
    expired = replace(LEASE, preferred_until=NOW, valid_until=NOW)
    inner = replace(LEASE, prefix=Prefix.parse("2001:db8::/60"))
    found = delegations([], [expired, inner], DEFAULT, NOW)
    assert states(found) == [("2001:db8::/56", EXPIRED), ("2001:db8::/60", LIVE)]


PREFIXES = [Prefix.parse(text) for text in ("2001:db8::/48", "2001:db8::/56", "2001:db8:0:100::/56")]
PREFIXES += [Prefix.parse(text) for text in ("2001:db8:0:110::/60", "2001:db8:0:110::/80", "2002::/16")]
DEADLINES = st.sampled_from([0.0, NOW, NOW + 1, NOW + 2, INFINITE])
LEASES = st.builds(
    lambda prefix, client, uplink, iaid, written, lifetimes, excluded: Lease(
        prefix,
        client,
        uplink,
        iaid,
        written,
        max(lifetimes) - NOW + 7,
        min(lifetimes),
        max(lifetimes),
        exclude=Prefix(prefix.address, 81) if excluded else None,
    ),
    st.sampled_from(PREFIXES),
    st.sampled_from(["dhclient", "listen"]),
    st.sampled_from(["eth0", "eth1"]),
    st.sampled_from([None, "00:00:00:01", "00:00:00:02"]),
    st.sampled_from([NOW - 7, NOW - 5, NOW - 7 - SAME_TELLING, 0.0]),
    st.tuples(DEADLINES, DEADLINES),
    st.booleans(),
)
DISCARDS = st.builds(Discard, st.sampled_from(PREFIXES), st.sampled_from([HOOK_METRIC, NETWORKD]))
POLICIES = st.sampled_from([DEFAULT, accepting(uplinks=("eth1",)), accepting(within=(PREFIXES[0],))])


@given(st.lists(DISCARDS, max_size=6), st.lists(LEASES, max_size=6), POLICIES, st.randoms())
def test_order_of_evidence_does_not_matter(
    discards: list[Discard], leases: list[Lease], policy: Policy, random: Random
) -> None:
    before = delegations(discards, leases, policy, NOW)
    random.shuffle(discards)
    random.shuffle(leases)
    assert delegations(discards, leases, policy, NOW) == before


@given(st.lists(DISCARDS, max_size=6), st.lists(LEASES, max_size=6), POLICIES)
def test_every_prefix_once_and_no_address_twice(
    discards: list[Discard], leases: list[Lease], policy: Policy
) -> None:
    found = delegations(discards, leases, policy, NOW)
    assert [each.prefix for each in found] == sorted(
        {each.prefix for each in discards if each.metric != HOOK_METRIC} | {each.prefix for each in leases}
    )
    kept = [each for each in found if is_delegated(each)]
    for each in kept:
        assert not any(other is not each and each.prefix.overlaps(other.prefix) for other in kept)
        assert each.valid_until is None or each.valid_until > NOW
    for each in found:
        if each.state is OVERLAPPED:
            rivals = [other for other in kept if other.prefix.overlaps(each.prefix)]
            assert any(lived(other) >= lived(each) for other in rivals)


@given(st.lists(LEASES), st.lists(DISCARDS))
def test_nothing_changes_before_the_next_deadline_and_something_then(
    leases: list[Lease], discards: list[Discard]
) -> None:
    found = delegations(discards, leases, DEFAULT, NOW)
    deadline = next_deadline(found, NOW)
    assert deadline > NOW
    if deadline == INFINITE:
        assert delegations(discards, leases, DEFAULT, 1e12) == found
    else:
        assert delegations(discards, leases, DEFAULT, deadline - 0.001) == found


def test_next_deadline_is_the_first_of_both_lifetimes_that_is_to_come() -> None:
    def until(preferred: float | None, valid: float | None) -> Delegation:
        return Delegation(P, KERNEL, LIVE, preferred_until=preferred, valid_until=valid)

    assert next_deadline([], NOW) == INFINITE
    assert next_deadline([until(None, None), until(INFINITE, INFINITE)], NOW) == INFINITE
    assert next_deadline([until(NOW + 5, NOW + 9), until(NOW, NOW + 7)], NOW) == NOW + 5
    assert next_deadline([until(NOW - 1, NOW + 9), until(NOW - 2, NOW)], NOW) == NOW + 9


def lived(delegation: Delegation) -> float:
    return INFINITE if delegation.valid_until is None else delegation.valid_until
