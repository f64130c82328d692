"""The gate: which delegations are accepted. Nothing else is bound or discarded.

A DHCPv6 server is authenticated by nobody, so what it delegates is a proposal. What is refused says why, and
by which key of the policy. It is also refused where it would take over what this host reaches by somebody
else: addresses behind a VPN, or its nameserver.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from anyipd.decide.ledger import seniority
from anyipd.model import Assigned, Covering, Delegation, DelegationState, Prefix, address_text

if TYPE_CHECKING:  # pydantic is only needed to read a policy
    from anyipd.policy import Policy


@dataclass(frozen=True, slots=True)
class Host:
    """What the host reaches by others.

    `covering` are routes around delegated prefixes, `nameservers` the IPv6 addresses of those that it asks.
    """

    covering: Collection[Covering] = ()
    nameservers: Collection[int] = ()


def accepts_uplink(policy: Policy, uplink: str | None) -> bool:
    """Whether `accept.uplinks` matches; where the uplink is not known only `*` does."""
    patterns = policy.accept.uplinks
    return any(
        pattern == "*" or (uplink is not None and fnmatchcase(uplink, pattern)) for pattern in patterns
    )


def gate(delegations: Iterable[Delegation], policy: Policy) -> list[Delegation]:
    """Mark as REFUSED what the policy does not accept."""
    result, accepted = [], defaultdict[str | None, list[Delegation]](list)
    for each in delegations:
        reason = _objection(each, policy)
        if not reason:
            accepted[each.uplink].append(each)
        result.append(_refused(each, reason) if reason else each)
    beyond = {each.prefix for found in accepted.values() for each in _beyond(found, policy.accept.at_most)}
    why = f"is beyond accept.at_most, {policy.accept.at_most} of an uplink"
    return [_refused(each, why) if each.prefix in beyond else each for each in result] if beyond else result


def _beyond(found: list[Delegation], at_most: int) -> list[Delegation]:
    """Return what is too much of what one uplink delegates."""
    return sorted(found, key=_seniority)[at_most:] if len(found) > at_most else []


def _seniority(delegation: Delegation) -> tuple[bool, float, Prefix]:
    superseded = delegation.state is DelegationState.SUPERSEDED
    since = delegation.preferred_until or 0.0 if superseded else None
    return seniority(delegation.prefix, delegation.began, since)


def gate_by_host(
    delegations: Iterable[Delegation], policy: Policy, host: Host, routed: Iterable[Assigned]
) -> list[Delegation]:
    """Mark as REFUSED what would cut the host off.

    `routed` is what routes lead to a link, inside delegated prefixes or around them. An address on a link is
    no route: from a router that wants all traffic itself (RFC 4861, 4.6.2: L=0) a host has addresses alone.
    """
    result, reached = [], list(routed)
    for each in delegations:
        reason = _harm(each, policy, host, reached) if each.is_usable else None
        result.append(_refused(each, reason) if reason else each)
    return result


def _harm(delegation: Delegation, policy: Policy, host: Host, routed: Iterable[Assigned]) -> str | None:
    prefix = delegation.prefix
    for around in host.covering:
        covers = policy.accept.shortest <= around.prefix.length < prefix.length and around.prefix.covers(
            prefix
        )
        if covers and around.link not in delegation.uplinks:
            where = f" in table {around.table}" if around.table else ""
            return f"{around.prefix} is routed to {around.link}{where}, and this is a part of it"
    for address in host.nameservers if policy.unassigned != "none" else ():
        server = Prefix(address, 128)
        # What another table routes may be for others than this host itself.
        reached = any(each.prefix.covers(server) and each.table is None for each in routed)
        if prefix.covers(server) and not reached:
            return f"holds the nameserver {address_text(address)}, which would be cut off"
    return None


def nameservers_assigned(host: Host) -> set[Assigned]:
    """Return the nameservers as what subnets must keep clear of."""
    return {Assigned(Prefix(address, 128), "a nameserver of this host") for address in host.nameservers}


def _refused(delegation: Delegation, reason: str) -> Delegation:
    return replace(delegation, state=DelegationState.REFUSED, reason=reason)


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
