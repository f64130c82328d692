"""`anyipctl probe`: whether addresses really answer, here and from outside, and if not, why."""

from __future__ import annotations

import argparse
import json
import re
import secrets
import socket
import sys
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, chain

from anyipd import arguments
from anyipd.ctl import routed_on
from anyipd.ctl.look import look
from anyipd.ctl.subnets import HEAD, named, rows
from anyipd.ctl.table import print_table
from anyipd.decide.holes import spans
from anyipd.decide.verdict import part
from anyipd.model import Prefix, Subnets, SubnetState, address_text
from anyipd.printable import printable
from anyipd.probe import advertisements, here
from anyipd.probe.reply import replies
from anyipd.probe.uplink import NoUplinkError, Uplink, find
from anyipd.probe.verdict import Circumstances, Finding, Reply, Verdict, verdict
from anyipd.view import View

try:
    from anyipd.probe import arp
    from anyipd.probe.outside import Outside, ask
except UnicodeDecodeError:  # scapy reads the names of all links when it is imported
    arguments.fail(
        arguments.UNAVAILABLE,
        "anyipctl probe: a link here has a name that is not UTF-8, which scapy cannot read; rename that link",
    )

_FAILED = 1
_HEAD = ("ADDRESS", "HERE", "FROM OUTSIDE", "BIND", "TCP", "REPLIES LEAVE BY")


@dataclass(frozen=True, slots=True)
class Probe:
    """All of one subnet, or of a run of them, and what it means."""

    name: str
    around: Circumstances
    findings: list[Finding]
    verdict: Verdict


def run(options: argparse.Namespace) -> None:
    """Probe, print, and end with 1 where something does not answer."""
    if options.number < 1:
        arguments.fail(arguments.USAGE, f"anyipctl probe: -n {options.number} is below 1")
    seen = look(options)
    probes = []
    for each in _chosen(seen, options.target):
        probes.append(_probe(each, seen, options))
        if not options.json:
            _print(probes[-1], each)
    if options.json:
        print(json.dumps([asdict(probe) for probe in probes], indent=2))
    if not all(probe.verdict.good for probe in probes):
        raise SystemExit(_FAILED)


def _chosen(seen: View, target: str | None) -> list[Subnets]:
    """Find the bound subnets that are meant. Ends the program where none is."""
    if target is None:
        chosen, nothing = list(seen.subnets), "no subnet"
    elif re.search("[:.]", target):
        chosen, nothing = _holding(seen.subnets, _prefix(target)), f"nothing at {target}"
    else:
        chosen = list(named(seen.subnets, target))
        names = ", ".join(dict.fromkeys(each.name for each in seen.subnets)) or "none"
        if not chosen:
            arguments.fail(_FAILED, f"anyipctl probe: there is no subnet {target} now, but: {names}")
        nothing = f"nothing of {target}"
    single = _single(target)
    bound = [
        each
        for each in chosen
        if each.state is SubnetState.BOUND and not routed_on.is_routed_on(each, single)
    ]
    if not bound:
        print(
            f"anyipctl probe: {nothing} is bound{':' if chosen else '; see anyipctl status'}", file=sys.stderr
        )
        if chosen:
            print_table(HEAD, rows(chosen))
        for line in routed_on.about(seen.policy, chosen, single):
            print(line, file=sys.stderr)
        raise SystemExit(_FAILED)
    return bound


def _prefix(target: str) -> Prefix:
    try:
        return Prefix.parse(target if "/" in target else f"{target}/{128 if ':' in target else 32}")
    except ValueError as error:
        arguments.fail(arguments.USAGE, f"anyipctl probe: {error}")


def _single(target: str | None) -> Prefix | None:
    """Read the one address that is meant, if one is."""
    prefix = _prefix(target) if target and re.search("[:.]", target) else None
    return prefix if prefix and prefix.size == 1 else None


def _holding(subnets: Iterable[Subnets], wanted: Prefix) -> list[Subnets]:
    """Narrow runs to what they share with a prefix."""
    found = []
    for each in subnets:
        if each.first and each.first.width == wanted.width:
            low = max((wanted.address - each.first.address) // each.first.size, 0)
            high = min((wanted.end - 1 - each.first.address) // each.first.size, each.count - 1)
            if low <= high:
                found.append(part(each, low, high - low + 1))
    return found


def _probe(subnets: Subnets, seen: View, options: argparse.Namespace) -> Probe:
    assert subnets.first
    name = subnets.subnet_name(0)
    prefix = subnets.first if subnets.count == 1 else subnets.delegation or subnets.first
    pairs = _pick(subnets, options)
    _show(f"{name}: {len(pairs)} asked here")
    try:
        echoes = here.echoes(list(pairs))
    except PermissionError:
        arguments.fail(arguments.NO_PERMISSION, "anyipctl probe: may send no Echo Requests: run it as root")
    back, uplinks = replies(pairs), _uplinks(subnets, seen)
    ignoring = advertisements.ignored(uplinks) if prefix.width == 128 else ()  # noqa: PLR2004  the width of IPv6
    around = Circumstances(
        str(prefix),
        delegation=str(subnets.delegation) if subnets.delegation else None,
        uplinks=tuple(map(printable, uplinks)),
        ignores_advertisements=tuple(map(printable, ignoring)),
        port=options.tcp,
    )
    around, outside = _ask_outside(around, uplinks, back, pairs, name)
    findings = [
        Finding(
            address,
            echo=echoes.get(address),
            bind_error=here.bind_error(address),
            tcp=here.tcp(address, options.tcp) if options.tcp else None,
            reply=_printable_reply(back.get(address)),
            arrived=outside.arrived.get(address),
            solicited=address in outside.solicited,
            advertised=outside.advertised.get(address),
            owner=outside.owners.get(address),
            error=outside.errors.get(address),
        )
        for address in pairs
    ]
    _show("")
    return Probe(name, around, findings, verdict(findings, around))


def _pick(subnets: Subnets, options: argparse.Namespace) -> dict[str, str]:
    """Choose addresses at random, or the one that is meant, and for each another that asks for it."""
    assert subnets.first
    width, outside_holes = subnets.first.width, list(spans(subnets))
    ends = list(accumulate(each.end - each.start for each in outside_holes))
    size = ends[-1]

    def nth(number: int) -> int:
        at = bisect_right(ends, number % size)
        return outside_holes[at].end - ends[at] + number % size

    def another(address: int) -> int:
        number = secrets.randbelow(size)
        return nth(number) if nth(number) != address else nth(number + 1)

    single = _single(options.target)
    if single:
        chosen = {single.address}
    elif options.number >= size:
        chosen = set(map(nth, range(size)))
    else:
        chosen = set()
        while len(chosen) < options.number:
            chosen.add(nth(secrets.randbelow(size)))
    return {address_text(each, width): address_text(another(each), width) for each in chosen}


def _uplinks(subnets: Subnets, seen: View) -> tuple[str, ...]:
    """Name the links by which packets come in, as far as anybody told: none for most static prefixes."""
    if subnets.delegation:
        told = (each.uplinks for each in seen.delegations if each.prefix == subnets.delegation)
        names = [subnets.uplink, *sorted(filter(None, chain.from_iterable(told)))]
    else:
        static = (each.neighbours for each in seen.policy.static if each.prefix == subnets.first)
        names = [*chain.from_iterable(static)]
    return tuple(dict.fromkeys(filter(None, names)))


def _ask_outside(
    around: Circumstances,
    uplinks: Sequence[str],
    back: Mapping[str, Reply],
    pairs: Mapping[str, str],
    name: str,
) -> tuple[Circumstances, Outside]:
    """Ask the router, by the way that replies leave if that is an uplink of the prefix."""
    source = next(iter(pairs))
    leaves = back[source].links if source in back else ()
    if here.family(source) == socket.AF_INET:
        ignored = arp.ignore(leaves[0]) if leaves else 0
        around = replace(around, unasked="that is done for IPv6 alone", arp_ignore=ignored)
        if not ignored:
            return around, Outside()
    try:
        way = find(next((each for each in (*leaves, *uplinks) if each in uplinks), None), source)
        around = replace(around, uplink=printable(way.name), router=way.router, is_silent=way.is_silent)
        return around, _ask_router(way, pairs, name)
    except NoUplinkError as error:
        return replace(around, unasked=str(error)), Outside()
    except PermissionError:
        return replace(around, unasked="that takes CAP_NET_RAW; run it as root"), Outside()


def _ask_router(way: Uplink, pairs: Mapping[str, str], name: str) -> Outside:
    """Raise NoUplinkError or PermissionError where that cannot be done."""
    if way.is_silent:
        raise NoUplinkError(f"the router {way.router} does not answer on the link")
    source, other = next(iter(pairs.items()))
    if here.family(source) == socket.AF_INET:
        return Outside(solicited=arp.asked_for(way, pairs))
    if not way.address and source == other:
        raise NoUplinkError("neither subnet nor uplink has another address to ask from")
    # What a router refuses it says to the source: that should be one which it can reach.
    sources = dict.fromkeys(pairs, way.address) if way.address else pairs
    return ask(way, sources, lambda arrived: _show(f"{name}: {arrived} of {len(pairs)} came in"))


def _printable_reply(reply: Reply | None) -> Reply | None:
    return replace(reply, links=tuple(map(printable, reply.links))) if reply else None


def _show(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{printable(text)}", end="", file=sys.__stderr__, flush=True)


def _print(probe: Probe, subnets: Subnets) -> None:
    around, findings = probe.around, probe.findings
    [(name, prefix, *_)] = rows([subnets])
    print(f"{name} {prefix}" + (f" by {around.uplink}" if around.uplink else ""))
    print_table(
        _HEAD,
        [
            (
                each.address,
                _milliseconds(each.echo),
                "" if around.unasked else each.error or _milliseconds(each.arrived),
                each.bind_error or "works",
                each.tcp or "",
                (" ".join(each.reply.links) or "nothing") if each.reply else "",
            )
            for each in findings
        ],
    )
    answered = sum(each.echo is not None for each in findings)
    arrived = sum(each.arrived is not None for each in findings)
    outside = "" if around.unasked else f", {arrived} came in from outside"
    print(f"{len(findings)} probed, {answered} answered here{outside}")
    print(probe.verdict.text)
    if probe.verdict.next_step:
        print(f"Next: {probe.verdict.next_step}.")


def _milliseconds(seconds: float | None) -> str:
    return "nothing" if seconds is None else f"{seconds * 1000:.2f} ms"
