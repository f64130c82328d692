"""Static prefixes: there whatever is delegated, since somebody says that they are ours.

The router of this host may be inside one. It is a hole by itself: a host in its place would cut itself off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from anyipd.decide.holes import is_in_hole
from anyipd.model import INFINITE, Assigned, InUse, Prefix, Subnets, SubnetState

if TYPE_CHECKING:  # pydantic is only needed to read a policy
    from anyipd.policy import Policy, Static

STATIC = "static"
"""The holder of a static prefix."""

DEFAULT_ROUTE_WAIT = 60.0
"""Seconds after the boot in which the IPv4 gateway may not be known yet."""

MAX_NAMED = 3
"""Addresses in use that are named; of more only how many there are is said."""

NOTHING = InUse()

Gateways = Mapping[Prefix, tuple[Prefix, ...]]
"""The routers inside each static prefix."""


def gateways(policy: Policy, use: InUse, before: Gateways) -> Gateways:
    """Return the routers inside each static prefix; those that were, while there is no other.

    A link that goes down takes its routes along, and comes back with the same router.
    """
    return {
        each.prefix: tuple(sorted(hop for hop in use.next_hops if each.prefix.covers(hop)))
        or before.get(each.prefix, ())
        for each in policy.static
    }


def static_subnets(
    policy: Policy, use: InUse = NOTHING, routers: Gateways | None = None, now: float = INFINITE
) -> list[Subnets]:
    """Every static prefix as a subnet of no delegation, named by its prefix where it has no name.

    What is in use there for something else is the reason of one that is to be bound.
    """
    return [_subnet(each, use, (routers or {}).get(each.prefix, ()), now) for each in policy.static]


def _subnet(entry: Static, use: InUse, routers: Sequence[Prefix], now: float) -> Subnets:
    holes = sorted(entry.holes)
    holes = sorted([*holes, *(each for each in routers if not any(hole.covers(each) for hole in holes))])
    reason: str | None
    below = tuple(_below(hole, entry.prefix) for hole in holes)
    if not entry.bind:
        state, reason = SubnetState.RESERVED, why_reserved(entry.neighbours)
    elif waits_for_default_route(entry.prefix, use, now):
        state, reason = SubnetState.MISSING, "waits for a default route: its gateway may be inside"
    else:
        state, reason = SubnetState.WANTED, _used(entry.prefix, below, use)
    return Subnets(
        name=entry.name or str(entry.prefix),
        delegation=None,
        state=state,
        first=entry.prefix,
        reason=reason,
        holes=below,
        gateways=tuple(_below(each, entry.prefix) for each in routers),
    )


def waits_for_default_route(prefix: Prefix, use: InUse, now: float) -> bool:
    """Whether nobody knows yet, after a boot, if the gateway is inside a static prefix."""
    return prefix.width == 32 and not use.has_default and now < DEFAULT_ROUTE_WAIT  # noqa: PLR2004  the width of IPv4


def _used(prefix: Prefix, holes: Sequence[Prefix], use: InUse) -> str | None:
    """Say who has addresses inside a static prefix, or nobody."""
    inside = sorted(
        (each.prefix, each.holder)
        for each in use.assigned
        if prefix.covers(each.prefix)
        and each.prefix != prefix
        and not is_in_hole(each.prefix, prefix.length, holes)
    )
    if not inside:
        return None
    named = ", ".join(f"{each} ({holder})" for each, holder in inside[:MAX_NAMED])
    more = f" and {len(inside) - MAX_NAMED} more" if len(inside) > MAX_NAMED else ""
    kept = ", ".join(f'"{each}"' for each, _ in inside[:MAX_NAMED])
    return f"in use, and cut off by this: {named}{more}; `except: [{kept}]` leaves that out"


def why_reserved(neighbours: Sequence[str]) -> str:
    """Say of a subnet with `bind: false` what is done with it."""
    return f"bind: false, answered for on {', '.join(neighbours)}" if neighbours else "bind: false"


def _below(part: Prefix, prefix: Prefix) -> Prefix:
    """Return a part of a prefix as the bits below it."""
    return part._replace(address=part.address - prefix.address)


def static_assigned(policy: Policy) -> set[Assigned]:
    """What the static prefixes use up of delegated ones that they overlap."""
    return {Assigned(each.prefix, STATIC) for each in policy.static}
