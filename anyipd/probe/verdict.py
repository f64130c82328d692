"""From what a probe found to a verdict in plain words, and what to do next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one address. `echo` and `arrived` are seconds, None where nothing came.

    `owner` is the link-layer address of another node that says the address is its own; `error` what a
    router said. `tcp` is `open`, `closed`, `no answer`, or None where no port was asked for.
    """

    address: str
    echo: float | None = None
    bind_error: str | None = None
    tcp: str | None = None
    arrived: float | None = None
    solicited: bool = False
    advertised: bool = False
    owner: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Circumstances:
    """`unasked` says why nobody outside was asked, None if somebody was: `router`, by `uplink`."""

    prefix: str
    uplink: str | None = None
    router: str | None = None
    port: int | None = None
    unasked: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`good` if every address answers and nothing speaks against it from outside."""

    good: bool
    text: str
    next_step: str | None = None


def verdict(findings: Sequence[Finding], around: Circumstances) -> Verdict:
    """Name the first thing that stands in the way, from the inside out."""
    return _here(findings, around) or _outside(findings, around)


def _here(findings: Sequence[Finding], around: Circumstances) -> Verdict | None:
    silent = [each for each in findings if each.echo is None]
    if silent:
        return Verdict(
            good=False,
            text=f"This host does not answer on {_some(silent, findings)}, though the route is there.",
            next_step="look for a firewall (nft list ruleset) and net.ipv6.icmp.echo_ignore_all",
        )
    unbound = [each for each in findings if each.bind_error]
    if unbound:
        return Verdict(
            good=False,
            text=f"Echo Requests are answered, but programs cannot bind to {_some(unbound, findings)}: "
            f"{unbound[0].bind_error}.",
            next_step="sysctl net.ipv6.ip_nonlocal_bind=1, or IPV6_FREEBIND in the program",
        )
    closed = [each for each in findings if each.tcp not in {None, "open"}]
    if closed:
        return Verdict(
            good=False,
            text=f"TCP port {around.port} of {_some(closed, findings)}: {closed[0].tcp}.",
            next_step="have the service listen on :: (ss -ltn), and let the firewall pass it",
        )
    return None


def _outside(findings: Sequence[Finding], around: Circumstances) -> Verdict:
    if around.unasked:
        return Verdict(good=True, text=f"All answer here. Nobody outside was asked: {around.unasked}.")
    owned = [each for each in findings if each.owner]
    if owned:
        return Verdict(
            good=False,
            text=f"Another node on {around.uplink}, {owned[0].owner}, says that {_some(owned, findings)} "
            "is its own.",
            next_step="take the address from that node, or the subnet from the policy",
        )
    refused = [each for each in findings if each.error]
    if refused:
        return Verdict(
            good=False,
            text=f"Packets to {_some(refused, findings)} do not arrive: {refused[0].error}.",
            next_step=f"have the router send {around.prefix} here: start the DHCPv6 client anew, "
            "for a prefix that is delegated now, or ask the provider",
        )
    unanswered = [each for each in findings if each.solicited and not each.advertised]
    if unanswered:
        return Verdict(
            good=False,
            text=f"The router {around.router} takes {around.prefix} for on-link: it asks who has "
            f"{_some(unanswered, findings)}, and nobody answers.",
            next_step=f"set `neighbours: [{around.uplink}]` and start anyipd-neighbour, "
            "or have the prefix routed to this host",
        )
    lost = [each for each in findings if each.arrived is None]
    if lost:
        return Verdict(
            good=False,
            text=f"The router {around.router} neither handed back nor refused packets to "
            f"{_some(lost, findings)}. Either it does not route {around.prefix} here, or it returns nothing "
            "by the way it came.",
            next_step=f"ask from elsewhere: ping {lost[0].address}",
        )
    how = " and this host answers its solicitations" if any(each.advertised for each in findings) else ""
    return Verdict(
        good=True, text=f"All answer, and packets for {around.prefix} come in by {around.uplink}{how}."
    )


def _some(these: Sequence[Finding], findings: Sequence[Finding]) -> str:
    if len(findings) == 1:
        return these[0].address
    return "any of them" if len(these) == len(findings) else f"{len(these)} of {len(findings)}"
