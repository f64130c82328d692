"""A View in a sentence, and how good it is."""

from __future__ import annotations

import pytest

from anyipd.model import Delegation, DelegationState, Prefix, Subnets, SubnetState
from anyipd.policy import Accept, Policy, SubnetPolicy
from anyipd.summary import Health, health, summary
from anyipd.view import View

P = Prefix.parse("2001:db8:100::/60")
GRANTED = Delegation(P, "dhclient", DelegationState.GRANTED, "eth0")
REFUSED = Delegation(P, "dhclient", DelegationState.REFUSED, "eth0", reason="outside accept.within")
WAITING = "waiting for a prefix that dhclient, dhcpcd or systemd-networkd is delegated on"
POLICY = Policy(subnets=(SubnetPolicy(name="web"),))
NONE = Policy(subnets=())


def at(state: SubnetState, count: int = 1, reason: str | None = None) -> Subnets:
    number = None if count == 1 else 0
    return Subnets("web", P, state, Prefix(P.address, 64), count, number, reason=reason)


BOUND, MISSING, CONFLICT = SubnetState.BOUND, SubnetState.MISSING, SubnetState.CONFLICT


@pytest.mark.parametrize(
    ("policy", "delegations", "subnets", "expected", "how"),
    [
        (POLICY, (GRANTED,), (at(BOUND),), f"1 of 1 subnets bound of {P} (dhclient, eth0)", Health.OK),
        (
            POLICY,
            (GRANTED,),
            (at(BOUND, 7), at(CONFLICT, 2, "in use")),
            f"7 of 9 subnets bound of {P} (dhclient, eth0); conflict: web-0 and 1 more (in use)",
            Health.WARNING,
        ),
        (
            POLICY,
            (GRANTED,),
            (at(MISSING),),
            f"0 of 1 subnets bound of {P} (dhclient, eth0); missing: web",
            Health.CRITICAL,
        ),
        (
            POLICY,
            (GRANTED,),
            (at(BOUND), at(SubnetState.RESERVED, 3)),
            f"1 of 1 subnets bound of {P} (dhclient, eth0)",
            Health.OK,
        ),
        (Policy(subnets=()), (), (at(SubnetState.RESERVED, 3),), "3 reserved", Health.OK),
        (POLICY, (), (), f"{WAITING} any uplink", Health.CRITICAL),
        (
            Policy(accept=Accept(uplinks=("ppp*",)), listen=("eth7",)),
            (),
            (),
            f"{WAITING} ppp*, or that is heard on eth7",
            Health.CRITICAL,
        ),
        (
            POLICY,
            (REFUSED,),
            (),
            f"{WAITING} any uplink; refused: {P} (outside accept.within)",
            Health.CRITICAL,
        ),
        # A subnet of which nothing is known: its uplink has no delegation.
        (
            Policy(subnets=(SubnetPolicy(name="web"), SubnetPolicy(name="lab", uplink="eth1"))),
            (GRANTED,),
            (at(BOUND),),
            f"1 of 1 subnets bound of {P} (dhclient, eth0)",
            Health.WARNING,
        ),
        (NONE, (), (at(BOUND),), "1 of 1 subnets bound", Health.OK),
        (NONE, (), (), "the policy has no subnets", Health.OK),
    ],
)
def test_what_is_said(
    policy: Policy,
    delegations: tuple[Delegation, ...],
    subnets: tuple[Subnets, ...],
    expected: str,
    how: Health,
) -> None:
    view = View(1.0, 7, "/etc/anyipd.yaml", policy, delegations, subnets)
    assert (summary(view), health(view)) == (expected, how)


def test_a_long_list_is_cut_short() -> None:
    many = tuple(
        Subnets(f"s{n}", P, CONFLICT, Prefix(P.address + (n << 64), 64), reason="in use") for n in range(9)
    )
    text = summary(View(1.0, 7, "/etc/anyipd.yaml", POLICY, (GRANTED,), many))
    assert text.endswith("conflict: s0 (in use), s1 (in use), s2 (in use), s3 (in use) and 5 more")
