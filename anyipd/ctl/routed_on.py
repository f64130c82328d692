"""What is routed on, reserved subnets and holes: whether it is answered for, and what is missing here."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from anyipd.kernel.lookup import Lookup
from anyipd.model import Prefix, Subnets, SubnetState, address_text
from anyipd.policy import Policy

_FORWARDING = "net.ipv6.conf.all.forwarding"


def lacking(policy: Policy) -> Iterator[str]:
    """Tell of a kernel that forwards no packets to what the policy has answered for."""
    if policy.proxied and not _forwards():
        yield (
            f"{_FORWARDING} is 0, so nothing reaches what {', '.join(policy.proxied)} is routed on to: "
            f"sysctl {_FORWARDING}=1, and accept_ra=2 on links whose router advertises the default route"
        )


def about(policy: Policy, subnets: Iterable[Subnets], address: Prefix | None) -> Iterator[str]:
    """Tell what is answered for of subnets that are routed on, or whether one address of them is."""
    links = {each.name: each.neighbours for each in policy.subnets}
    links |= {each.name or str(each.prefix): each.neighbours for each in policy.static}
    for name in dict.fromkeys(each.name for each in subnets if is_routed_on(each, address)):
        if address:
            yield from (_about_address(address.address, link) for link in links[name])
        elif links[name]:
            where = ", ".join(links[name])
            yield f"{name} is routed on: on {where} what a route leads on to is answered for"
        if links[name]:
            yield from lacking(policy)


def is_routed_on(run: Subnets, address: Prefix | None) -> bool:
    """Whether subnets are reserved, or one address of them is in a hole."""
    in_hole = address is not None and any(hole.covers(address) for hole in run.parts(run.holes))
    return in_hole or run.state is SubnetState.RESERVED


def _forwards() -> bool:
    try:
        return bool(int(Path("/proc/sys", *_FORWARDING.split(".")).read_text()))
    except FileNotFoundError:  # no IPv6 here
        return False


def _about_address(address: int, link: str) -> str:
    text = address_text(address)
    try:
        index = socket.if_nametoindex(link)
    except OSError:
        return f"{text} is not answered for on {link}: there is no such link"
    with closing(Lookup(index)) as lookup:
        if lookup.leads_elsewhere(address):
            return f"{text} is routed on, and answered for on {link}"
    return f"{text} is not answered for on {link}: no route leads on to it"
