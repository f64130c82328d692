"""From what a probe found to a verdict in plain words, and what to do next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAIN = 254
"""The number of table main, where a default route is found without any rule but the kernel's own."""

_LINK_LOCAL = "fe80:"


@dataclass(frozen=True, slots=True)
class Reply:
    """Which way a reply to outside would leave: by one of `links`, by a route of `table`.

    `default` says that this is a default route, `error` why there is none.
    """

    links: tuple[str, ...] = ()
    table: int | None = None
    default: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one address. `echo` and `arrived` are seconds, None where nothing came.

    `solicited` says that the router asked for the address on the link, `advertised` is the address that this
    host's answer came from. `owner` is the link-layer address of another node that says the address is its
    own; `error` what a router said. `tcp` is `open`, `closed`, `no answer`, or None where no port was asked
    for. `reply` is None for private addresses, which have no outside to reply to.
    """

    address: str
    echo: float | None = None
    bind_error: str | None = None
    tcp: str | None = None
    reply: Reply | None = None
    arrived: float | None = None
    solicited: bool = False
    advertised: str | None = None
    owner: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Circumstances:
    """`unasked` says why nobody outside was asked, None if somebody was: `router`, by `uplink`.

    `prefix` lies in `delegation`, which came in by `uplinks`: none where nobody knows by which. `is_silent`
    says that the router does not answer on the link, `ignores_advertisements` on which links this host takes
    no Router Advertisements because it forwards, and `arp_ignore` is what is in force on the uplink.
    """

    prefix: str
    delegation: str | None = None
    uplinks: tuple[str, ...] = ()
    uplink: str | None = None
    router: str | None = None
    is_silent: bool = False
    ignores_advertisements: tuple[str, ...] = ()
    arp_ignore: int = 0
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
    return (
        _here(findings, around)
        or _back(findings, around)
        or _on_link(findings, around)
        or _outside(findings, around)
    )


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


def _back(findings: Sequence[Finding], around: Circumstances) -> Verdict | None:
    stuck = [each for each in findings if each.reply and each.reply.error]
    if stuck and (reply := stuck[0].reply):
        return Verdict(
            good=False,
            text=f"Replies{_from(stuck, findings)} do not leave this host: "
            f"{reply.error}{_why_no_default_route(around)}.",
            next_step=_have_a_default_route(around),
        )
    wrong = [each for each in findings if each.reply and not {*each.reply.links} <= {*around.uplinks}]
    astray = wrong if around.uplinks else []
    if astray and (reply := astray[0].reply):
        rule = "" if reply.table == MAIN else f" by table {reply.table}, as a rule has it (ip -6 rule)"
        alone = " alone" if {*reply.links} & {*around.uplinks} else ""
        return Verdict(
            good=False,
            text=f"Replies{_from(astray, findings)} leave by {' or '.join(reply.links)}{rule}, not by "
            f"{_uplinks(around)}{alone}, the uplink of {around.delegation or around.prefix}: most providers "
            "drop foreign sources.",
            next_step=_have_them_leave_by_the_uplink(reply, around),
        )
    if around.is_silent and any(each.reply for each in findings):
        return Verdict(
            good=False,
            text=f"The router {around.router} does not answer on {around.uplink}, so no reply leaves by it.",
            next_step=f"see whether it is there (ip -6 neigh show dev {around.uplink}), and whether it drops "
            "Neighbor Solicitations from link-local addresses (fe80::/10)",
        )
    return None


def _why_no_default_route(around: Circumstances) -> str:
    if not around.ignores_advertisements:
        return ""
    links = ", ".join(around.ignores_advertisements)
    return (
        ", for this host forwards (forwarding=1), and so takes no Router Advertisements "
        f"on {links} (accept_ra=1)"
    )


def _have_a_default_route(around: Circumstances) -> str:
    if around.ignores_advertisements:
        settings = [f"net.ipv6.conf.{_in_sysctl(each)}.accept_ra=2" for each in around.ignores_advertisements]
        # Where nobody knows which is the uplink, others may be links to containers, on which it is right so.
        sysctl = " or ".join(settings) if not around.uplinks else " ".join(settings)
        return f"sysctl {sysctl}, and the next Router Advertisement brings the default route"
    ip = "ip -6" if ":" in around.prefix else "ip"
    return f"look at {ip} route show default and {ip} rule: the uplink's router should give a default route"


def _in_sysctl(link: str) -> str:
    """Write a link's name as sysctl(8) wants it."""
    return link.replace(".", "/")


def _have_them_leave_by_the_uplink(reply: Reply, around: Circumstances) -> str:
    if not around.uplink:
        why = _why_no_default_route(around)
        return f"{_have_a_default_route(around)}; there is none by {_uplinks(around)}{why}"
    source = around.delegation or around.prefix
    way = (f"via {around.router} " if around.router else "") + f"dev {around.uplink}"
    if reply.table == MAIN and reply.default:
        return f"ip -6 route add default from {source} {way}"
    # In table main it would come behind the rule, or behind what is longer than a default route.
    return f"ip -6 route add default {way} table 100 && ip -6 rule add from {source} lookup 100"


def _uplinks(around: Circumstances) -> str:
    return " or ".join(around.uplinks)


def _on_link(findings: Sequence[Finding], around: Circumstances) -> Verdict | None:
    takes = f"The router {around.router} takes {around.prefix} for on-link: it asks who has"
    owned = [each for each in findings if each.owner]
    if owned:
        return Verdict(
            good=False,
            text=f"Another node on {around.uplink}, {owned[0].owner}, says that {_some(owned, findings)} "
            "is its own.",
            next_step="take the address from that node, or the subnet from the policy",
        )
    silenced = [each for each in findings if each.solicited and around.arp_ignore]
    if silenced:
        return Verdict(
            good=False,
            text=f"{takes} {_some(silenced, findings)} by ARP, and arp_ignore={around.arp_ignore} keeps "
            "this host from answering.",
            next_step="sysctl net.ipv4.conf.all.arp_ignore=0 "
            f"net.ipv4.conf.{_in_sysctl(around.uplink or '')}.arp_ignore=0, or have the prefix routed here",
        )
    ignored = [each for each in findings if each.solicited and each.advertised and each.arrived is None]
    if ignored and (source := ignored[0].advertised):
        some_do = ", as some do with what comes from fe80::/10" if source.startswith(_LINK_LOCAL) else ""
        return Verdict(
            good=False,
            text=f"Asked, answered, nothing came. {takes} {_some(ignored, findings)}, this host answers "
            f"from {source}, and no packet follows: the router drops the answer{some_do}.",
            next_step=f"have it accept Neighbor Advertisements from {source}, or route {around.prefix} here",
        )
    return None


def _outside(findings: Sequence[Finding], around: Circumstances) -> Verdict:
    if around.unasked:
        return Verdict(good=True, text=f"Nobody outside was asked: {around.unasked}. Here all answer.")
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


def _from(these: Sequence[Finding], findings: Sequence[Finding]) -> str:
    return "" if len(these) == len(findings) > 1 else f" from {_some(these, findings)}"


def _some(these: Sequence[Finding], findings: Sequence[Finding]) -> str:
    if len(findings) == 1:
        return these[0].address
    return "any of them" if len(these) == len(findings) else f"{len(these)} of {len(findings)}"
