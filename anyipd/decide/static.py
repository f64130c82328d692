"""Static prefixes: there whatever is delegated, since somebody says that they are ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from anyipd.model import Assigned, Prefix, Subnets, SubnetState

if TYPE_CHECKING:  # pydantic is only needed to read a policy
    from anyipd.policy import Policy

STATIC = "static"
"""The holder of a static prefix."""


def static_subnets(policy: Policy) -> list[Subnets]:
    """Every static prefix as a subnet of no delegation, named by its prefix where it has no name."""
    return [
        Subnets(
            name=each.name or str(each.prefix),
            delegation=None,
            state=SubnetState.WANTED if each.bind else SubnetState.RESERVED,
            first=each.prefix,
            reason=None if each.bind else why_reserved(each.neighbours),
            holes=tuple(_below(hole, each.prefix) for hole in sorted(each.holes)),
        )
        for each in policy.static
    ]


def why_reserved(neighbours: Sequence[str]) -> str:
    """Say of a subnet with `bind: false` what is done with it."""
    return f"bind: false, answered for on {', '.join(neighbours)}" if neighbours else "bind: false"


def _below(part: Prefix, prefix: Prefix) -> Prefix:
    """Return a part of a prefix as the bits below it."""
    return part._replace(address=part.address - prefix.address)


def static_assigned(policy: Policy) -> set[Assigned]:
    """What the static prefixes use up of delegated ones that they overlap."""
    return {Assigned(each.prefix, STATIC) for each in policy.static}
