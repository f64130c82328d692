from __future__ import annotations

from dataclasses import replace

import pytest

from anyipd.decide.preferred import preferred
from anyipd.model import Delegation, DelegationState, Prefix, Subnets, SubnetState

OLD, NEW = Prefix.parse("2001:db8:100::/56"), Prefix.parse("2001:db8:200::/56")
GRANTED, DEPRECATED, SUPERSEDED = (
    DelegationState.GRANTED,
    DelegationState.DEPRECATED,
    DelegationState.SUPERSEDED,
)


def run(
    name: str, delegation: Prefix | None, place: int, count: int = 1, number: int | None = None
) -> Subnets:
    base = delegation or Prefix.parse("2001:db8:5::/56")
    first = Prefix(base.address + (place << 64), 64)
    return Subnets(name, delegation, SubnetState.BOUND, first, count, number)


def text(runs: list[Subnets]) -> list[str]:
    return [f"{each.subnet_name(0)}x{each.count} {each.first}" for each in runs]


@pytest.mark.parametrize("leaving", [DEPRECATED, SUPERSEDED])
@pytest.mark.parametrize(
    ("subnets", "expected"),
    [
        ([run("web", OLD, 0), run("web", NEW, 0)], ["webx1 2001:db8:200::/64"]),
        ([run("web", OLD, 0)], ["webx1 2001:db8:100::/64"]),
        (
            [run("web", OLD, 0), run("lab", OLD, 1), run("web", NEW, 0)],
            ["webx1 2001:db8:200::/64", "labx1 2001:db8:100:1::/64"],
        ),
        (
            [run("p", OLD, 0, 8, 0), run("p", NEW, 0, 2, 0), run("p", NEW, 5, 1, 5)],
            [
                "p-0x2 2001:db8:200::/64",
                "p-5x1 2001:db8:200:5::/64",
                "p-2x3 2001:db8:100:2::/64",
                "p-6x2 2001:db8:100:6::/64",
            ],
        ),
        (
            [run("web", OLD, 0), replace(run("web", NEW, 0), state=SubnetState.CONFLICT)],
            ["webx1 2001:db8:100::/64"],
        ),
        (
            [run("vps", None, 0), run("web", OLD, 0)],
            ["vpsx1 2001:db8:5::/64", "webx1 2001:db8:100::/64"],
        ),
    ],
    ids=["another", "no other", "no other of one", "numbers", "the other is not bound", "static"],
)
def test_what_is_for_new_connections(
    subnets: list[Subnets], expected: list[str], leaving: DelegationState
) -> None:
    old = Delegation(OLD, "dhclient", leaving)
    subnets = [replace(each, deprecated=old.deprecated and each.delegation == OLD) for each in subnets]
    assert text(preferred(subnets)) == expected
