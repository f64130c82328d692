"""The gate: which delegations the policy accepts. Nothing else is bound or discarded.

A DHCPv6 server is authenticated by nobody, so what it delegates is a proposal. What is refused says why, and
by which key of the policy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from anyipd.model import Delegation, DelegationState

if TYPE_CHECKING:  # pydantic is only needed to read a policy
    from anyipd.policy import Policy


def accepts_uplink(policy: Policy, uplink: str | None) -> bool:
    """Whether `accept.uplinks` matches; where the uplink is not known only `*` does."""
    patterns = policy.accept.uplinks
    return any(
        pattern == "*" or (uplink is not None and fnmatchcase(uplink, pattern)) for pattern in patterns
    )


def gate(delegations: Iterable[Delegation], policy: Policy) -> list[Delegation]:
    """Mark as REFUSED what the policy does not accept."""
    result = []
    for each in delegations:
        reason = _objection(each, policy)
        result.append(replace(each, state=DelegationState.REFUSED, reason=reason) if reason else each)
    return result


def _objection(delegation: Delegation, policy: Policy) -> str | None:
    accept, prefix = policy.accept, delegation.prefix
    if prefix.length < accept.shortest:
        return f"a /{prefix.length} is shorter than accept.shortest, /{accept.shortest}"
    if not any(range_.covers(prefix) for range_ in accept.within):
        return "outside accept.within"
    if not any(accepts_uplink(policy, uplink) for uplink in delegation.uplinks):
        found = f"uplink {delegation.uplink}" if delegation.uplink else "an unknown uplink"
        return f"{found} is not in accept.uplinks"
    longest = max((subnet.length for subnet in policy.subnets), default=prefix.length)
    if prefix.length > longest:
        return f"a /{prefix.length} is too long to hold a /{longest}"
    return None
