"""Which routes are wanted, and what must change in the kernel where others are present. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from anyipd.decide.covers import Wanted
from anyipd.decide.ledger import HOOK_METRICS, KERNEL
from anyipd.model import INFINITE, Assigned, Delegation, Discard, Prefix

TICKS = 100
"""Ticks a second: the kernel counts lifetimes out in USER_HZ (rta_expires)."""

LONGEST = 2**31 - 1
"""Ticks of a route that lives 248 days or longer (rtnl_put_cacheinfo in net/core/rtnetlink.c)."""

EARLY, LATE = 10, 200
"""Ticks by which a route may expire before and after the valid lifetime ends.

Lifetimes go in as whole seconds, rounded up; a route that would go earlier than its delegation is renewed.
"""

PATIENCE = 1.0
"""Seconds that a client has to add its discard route after it reported a prefix for the first time."""

ADDS_NONE = {"dhclient", KERNEL}
"""Sources that add none, or none any more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in this order: add, renew (only the lifetime differs), remove.

    A cover that is split, or parts that are merged, never leave an address without a route by that.
    """

    add: Wanted = field(default_factory=dict)
    renew: Wanted = field(default_factory=dict)
    remove: Collection[Prefix] = ()


def plan(wanted: Wanted, present: Mapping[Prefix, int], now: float) -> Plan:
    """Compare the wanted routes of a table with those that are present, and the ticks left (0 for ever)."""
    return Plan(
        add={prefix: until for prefix, until in wanted.items() if prefix not in present},
        renew={
            prefix: until
            for prefix, until in wanted.items()
            if prefix in present and not _is_right(until, present[prefix], now)
        },
        remove=[prefix for prefix in present if prefix not in wanted],
    )


def _is_right(until: float | None, ticks: int, now: float) -> bool:
    """Whether the kernel lets go of a route when its delegation ends, or a little later."""
    if until is None or until == INFINITE:
        return ticks == 0
    exact = (until - now) * TICKS
    return min(exact - EARLY, LONGEST) <= (ticks or INFINITE) <= max(exact + LATE, 1)


def discard_routes(
    delegations: Iterable[Delegation],
    discards: Iterable[Discard],
    ours: Collection[Prefix],
    now: float,
    routed: Iterable[Assigned] = (),
) -> tuple[Wanted, float]:
    """Our own discard routes over delegated prefixes: where the client leaves none (RFC 7084, WPD-5).

    Of what somebody has `routed` whole nothing is unassigned, and his route may be the one of higher metric.

    A client that adds one reports the prefix first and adds it then, so there is a moment's wait; what stands
    of `ours` stays meanwhile. Second comes when the first of those has waited enough, in CLOCK_BOOTTIME;
    INFINITE if none waits.
    """
    usable = {each.prefix: each for each in delegations if each.is_usable}
    for discard in discards:  # thousands, maybe
        if discard.metric not in HOOK_METRICS:
            usable.pop(discard.prefix, None)
    bare = list(usable.values())
    longest = max((each.prefix.length for each in bare), default=0)
    whole = [each.prefix for each in routed if each.prefix.length <= longest]
    bare = [each for each in bare if not any(prefix.covers(each.prefix) for prefix in whole)]
    waiting = {
        each.prefix: each.began + PATIENCE
        for each in bare
        if each.source not in ADDS_NONE and each.prefix not in ours and each.began + PATIENCE > now
    }
    return (
        {each.prefix: None for each in bare if each.prefix not in waiting},
        min(waiting.values(), default=INFINITE),
    )
