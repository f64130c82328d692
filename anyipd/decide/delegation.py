"""From evidence to delegations: which prefixes are delegated to this host, and until when.

In: discard routes and leases, the policy's `accept`, the time. Out: one `Delegation` for each
prefix that any evidence names, whatever became of it. A lease file knows lifetimes and uplink;
a discard route says no more than "delegated, as long as I stand here".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import groupby
from typing import TYPE_CHECKING

from anyipd.model import INFINITE, Delegation, DelegationState, Discard, Lease, Prefix

if TYPE_CHECKING:  # pydantic is only needed to read a policy
    from anyipd.policy import Policy

HOOK_METRIC, LEASELESS_METRIC = 1025, 1026
"""Metrics of the dhclient hook's discard routes: beside a lease file, which says it all, and alone.

The second means something only where no lease file could be written. A route with another metric is
another client's word, and outlives the lease.
"""

HOOK_METRICS = HOOK_METRIC, LEASELESS_METRIC

CLIENT_METRICS = {"dhcpcd": 1001, "networkd": 1024}
"""Metrics of the discard routes that these clients leave; they mean nothing beside the client's own lease.

They know of no lifetime, and stay when the client dies or, with dhcpcd, when it gives the prefix back.
"""

SAME_TELLING = 10.0
"""Seconds within which a hook and we ourselves write down one Reply, also on a busy machine."""

KERNEL = "kernel"
"""The source of a delegation that only a discard route tells of."""


def delegations(
    discards: Iterable[Discard], leases: Iterable[Lease], policy: Policy, now: float
) -> list[Delegation]:
    """Merge all evidence to one delegation a prefix, in the order of their addresses.

    `now` is seconds of CLOCK_BOOTTIME.
    """
    leases = list(leases)
    mute = {(lease.prefix, LEASELESS_METRIC) for lease in leases}
    mute |= {(lease.prefix, CLIENT_METRICS.get(lease.client, LEASELESS_METRIC)) for lease in leases}
    witnesses = [_from_lease(lease, policy, now) for lease in _told_last(leases) if lease.lifetime != 0]
    witnesses += [
        _judged(Delegation(discard.prefix, KERNEL, DelegationState.LIVE), policy)
        for discard in discards
        if discard.metric != HOOK_METRIC and (discard.prefix, discard.metric) not in mute
    ]
    witnesses.sort(key=lambda witness: (witness.prefix, _precedence(witness)))
    merged = [next(group) for _, group in groupby(witnesses, key=lambda witness: witness.prefix)]
    return _without_overlaps(merged)


def is_delegated(delegation: Delegation) -> bool:
    """Whether subnets may be carved out of it now."""
    return delegation.state in {DelegationState.LIVE, DelegationState.DEPRECATED}


def next_deadline(delegations: Iterable[Delegation], now: float) -> float:
    """When the next lifetime ends, in seconds of CLOCK_BOOTTIME; INFINITE if none does."""
    ends = (end for each in delegations for end in (each.preferred_until, each.valid_until))
    return min((end for end in ends if end is not None and end > now), default=INFINITE)


def _told_last(leases: Iterable[Lease]) -> Iterator[Lease]:
    """Of what several programs wrote down of one prefix on one uplink keep what was told last.

    An excluded prefix is kept from the others, too: most clients tell their hooks nothing of it.
    """
    for _, group in groupby(sorted(leases, key=_place), _place):
        leases_there = list(group)
        newest = max(lease.written for lease in leases_there)
        told = [(lease.written, lease.exclude) for lease in leases_there if lease.exclude]
        _, exclude = max(told, default=(0.0, None))
        for lease in leases_there:
            if newest - lease.written <= SAME_TELLING:
                yield replace(lease, exclude=exclude)


def _place(lease: Lease) -> tuple[Prefix, str]:
    return lease.prefix, lease.uplink or ""


def _from_lease(lease: Lease, policy: Policy, now: float) -> Delegation:
    if lease.valid_until <= now:
        state = DelegationState.EXPIRED
    elif lease.preferred_until is not None and lease.preferred_until <= now:
        state = DelegationState.DEPRECATED
    else:
        state = DelegationState.LIVE
    delegation = Delegation(
        prefix=lease.prefix,
        source=lease.client,
        state=state,
        uplink=lease.uplink,
        iaid=lease.iaid,
        preferred_until=lease.preferred_until,
        valid_until=lease.valid_until,
        told_at=lease.written,
        lifetime=lease.lifetime,
        exclude=lease.exclude,
    )
    return delegation if state is DelegationState.EXPIRED else _judged(delegation, policy)


def _judged(delegation: Delegation, policy: Policy) -> Delegation:
    """Apply `accept` and the lengths of the policy's subnets."""
    accept, prefix, uplink = policy.accept, delegation.prefix, delegation.uplink
    if not any(range_.covers(prefix) for range_ in accept.within):
        return replace(delegation, state=DelegationState.IGNORED, reason="outside accept.within")
    if not any(pattern == "*" or (uplink and fnmatchcase(uplink, pattern)) for pattern in accept.uplinks):
        found = f"uplink {uplink}" if uplink else "an unknown uplink"
        return replace(delegation, state=DelegationState.IGNORED, reason=f"{found} is not in accept.uplinks")
    longest = max((subnet.length for subnet in policy.subnets), default=prefix.length)
    if prefix.length > longest:
        reason = f"a /{prefix.length} is too long to hold a /{longest}"
        return replace(delegation, state=DelegationState.REFUSED, reason=reason)
    return delegation


def _precedence(witness: Delegation) -> tuple[int, bool, float, tuple[str, ...], tuple[float, ...]]:
    """What is delegated goes before what is not, a lease before a mere route, the longer-lived first.

    The rest only makes sure that the order of reading decides nothing.
    """
    ranks = {DelegationState.EXPIRED: 2, DelegationState.IGNORED: 1, DelegationState.REFUSED: 1}
    return (
        ranks.get(witness.state, 0),
        witness.lifetime is None,
        -_lifetime(witness),
        (witness.uplink or "", witness.source, witness.iaid or ""),
        (-(witness.valid_until or 0), -(witness.preferred_until or 0), -(witness.told_at or 0)),
    )


def _lifetime(delegation: Delegation) -> float:
    """How long it was granted for, not how long it has left: a renewal must not turn the order round."""
    return INFINITE if delegation.lifetime is None else delegation.lifetime


def _without_overlaps(merged: Sequence[Delegation]) -> list[Delegation]:
    """Of delegated prefixes with common addresses keep the longest-lived, then the largest."""
    kept: list[Prefix] = []  # in the order of their addresses; prefixes overlap as one covers the other
    result = {each.prefix: each for each in merged}
    for each in sorted(filter(is_delegated, merged), key=_claim):
        place = bisect_left(kept, each.prefix)
        neighbours = kept[max(place - 1, 0) : place + 1]
        rival = next((prefix for prefix in neighbours if prefix.overlaps(each.prefix)), None)
        if rival:
            reason = f"overlaps {rival}, which lives longer"
            result[each.prefix] = replace(each, state=DelegationState.OVERLAPPED, reason=reason)
        else:
            kept.insert(place, each.prefix)
    return list(result.values())


def _claim(delegation: Delegation) -> tuple[float, int, int]:
    return -_lifetime(delegation), delegation.prefix.length, delegation.prefix.address
