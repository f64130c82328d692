"""Static prefixes: bound always, whatever is delegated, since somebody says that they are ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyipd.model import Assigned, Subnets, SubnetState

if TYPE_CHECKING:  # pydantic is only needed to read a policy
    from anyipd.policy import Policy

STATIC = "static"
"""The holder of a static prefix."""


def static_subnets(policy: Policy) -> list[Subnets]:
    """Every static prefix as a subnet of no delegation, named by its prefix where it has no name."""
    return [
        Subnets(
            name=each.name or str(each.prefix), delegation=None, state=SubnetState.WANTED, first=each.prefix
        )
        for each in policy.static
    ]


def static_assigned(policy: Policy) -> set[Assigned]:
    """What the static prefixes use up of delegated ones that they overlap."""
    return {Assigned(each.prefix, STATIC) for each in policy.static}
