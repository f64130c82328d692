"""This host's own addresses: which the policy wants on lo, until when, and what must change there. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from anyipd.model import (
    INFINITE,
    Delegation,
    HostAddresses,
    Lifetimes,
    Prefix,
    Subnets,
    SubnetState,
    address_text,
)

if TYPE_CHECKING:  # pydantic is only needed to read a policy
    from anyipd.policy import Policy

EARLY, LATE = 0.2, 2.0
"""Seconds by which an address may end before and after its lifetime does: the kernel counts whole ones."""

UNMARKED = "the kernel does not keep who assigned an address: that takes Linux 5.18"
MISSING = "lo does not have it"


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """What to do, in this order, where `present` are the addresses of ours that there are."""

    present: Collection[Prefix] = ()
    add: Mapping[Prefix, Lifetimes] = field(default_factory=dict)
    renew: Mapping[Prefix, Lifetimes] = field(default_factory=dict)
    remove: Collection[Prefix] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.renew or self.remove)


def with_addresses(subnets: Iterable[Subnets], policy: Policy, found: HostAddresses) -> Iterator[Subnets]:
    """Name the host's own address in each subnet that is to be bound, and say why it cannot be had."""
    asked = {each.name: each.address for each in policy.subnets if each.address is not None}
    for each in subnets:
        if each.name not in asked or each.delegation is None or each.state is not SubnetState.WANTED:
            yield each
            continue
        assert each.first
        address, reason = each.first.address + asked[each.name], None
        if link := found.others.get(address):
            reason = f"{address_text(address)} is an address of {link} already, and not by anyipd"
        elif not found.are_marked:
            reason = UNMARKED
        yield replace(each, address=address, address_reason=reason)


def own_addresses(
    subnets: Iterable[Subnets], delegations: Iterable[Delegation], ways_out: Collection[str] = ()
) -> dict[Prefix, Lifetimes]:
    """Return the addresses wanted on lo: they live as long as their delegation, deprecated with it.

    `ways_out` are the links with the preferred default route. The kernel takes that first, then an address,
    whichever uplink that is of, and a provider drops the other one's. So where one leaves by the right
    uplink, those that do not are deprecated: nothing takes them that does not name them.
    """
    asked = {each.own_address: each.delegation for each in subnets if each.own_address and each.delegation}
    known = {each.prefix: each for each in delegations}
    found = {address: _lifetimes(known[delegation]) for address, delegation in asked.items()}
    astray = {
        address
        for address, delegation in asked.items()
        if None not in known[delegation].uplinks and known[delegation].uplinks.isdisjoint(ways_out)
    }
    if any(ends.preferred_until for address, ends in found.items() if address not in astray):
        found |= {address: found[address]._replace(preferred_until=0.0) for address in astray}
    return found


def _lifetimes(delegation: Delegation) -> Lifetimes:
    valid, preferred = delegation.valid_until, delegation.preferred_until
    valid = INFINITE if valid is None else valid
    preferred = valid if preferred is None else min(preferred, valid)
    return Lifetimes(0.0 if delegation.deprecated else preferred, valid)


def plan_addresses(
    wanted: Mapping[Prefix, Lifetimes], present: Mapping[Prefix, Lifetimes], now: float
) -> AddressPlan:
    """Compare the wanted addresses with those of ours that are present."""
    return AddressPlan(
        present=present.keys(),
        add={address: ends for address, ends in wanted.items() if address not in present},
        renew={
            address: ends
            for address, ends in wanted.items()
            if address in present and not all(map(_is_right, ends, present[address], (now, now)))
        },
        remove=[address for address in present if address not in wanted],
    )


def _is_right(wanted: float, present: float, now: float) -> bool:
    if INFINITE in {wanted, present}:
        return wanted == present
    return -EARLY <= max(present - now, 0) - max(wanted - now, 0) <= LATE


def without_missing(subnets: Iterable[Subnets], present: Collection[Prefix]) -> Iterator[Subnets]:
    """Say of the addresses that should be on lo and are not `present` that they are missing."""
    for each in subnets:
        is_missing = each.own_address is not None and each.own_address not in present
        yield replace(each, address_reason=MISSING) if is_missing else each
