"""`anyipctl plan`: what a pass would change now; or what the policy makes of an example prefix."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from anyipd import arguments
from anyipd.ctl import routed_on, subnets
from anyipd.ctl.look import daemons_view, look_by, read_policy
from anyipd.ctl.table import print_table
from anyipd.decide.addresses import with_addresses
from anyipd.decide.carve import carve
from anyipd.decide.gaps import Span
from anyipd.decide.gate import gate
from anyipd.decide.ledger import KERNEL
from anyipd.decide.moves import moves
from anyipd.decide.overlap import without_overlaps
from anyipd.decide.static import static_assigned, static_subnets
from anyipd.decide.verdict import Placed
from anyipd.model import Delegation, DelegationState, HostAddresses, Places, Prefix, Subnets, SubnetState
from anyipd.policy import TURN_NEIGHBOURS_ON, Policy
from anyipd.varlink.client import UnansweredError

_BOUND = {SubnetState.BOUND, SubnetState.MISSING}  # or to be
_HEAD = ("CHANGE", "TYPE", "PREFIX", "SUBNET")


class _Change(NamedTuple):
    """What would become of a route or an address, and the runs of subnets in it or around it."""

    change: str
    kind: str
    prefix: Prefix
    subnets: Sequence[Subnets] = ()


def run(options: argparse.Namespace) -> None:
    """Print what would be."""
    if options.prefix:
        _print_example(options)
    else:
        _print_changes(options)


def _print_example(options: argparse.Namespace) -> None:
    policy = read_policy(options)
    if policy.links:
        print(TURN_NEIGHBOURS_ON, file=sys.stderr)
    _print_lacking(policy)
    try:
        prefixes = [Prefix.parse(text) for text in options.prefix]
    except ValueError as error:
        arguments.fail(arguments.USAGE, f"anyipctl plan: --prefix: {error}")
    examples = [Delegation(prefix, KERNEL, DelegationState.GRANTED) for prefix in sorted(set(prefixes))]
    found = without_overlaps(gate(examples, policy), ())
    carved = static_subnets(policy)
    for each in found:
        if each.is_usable:
            carved += carve(each, policy, static_assigned(policy), Places(), 0.0).subnets
        else:
            print(f"{each.prefix} is {each.state.value}: {each.reason}", file=sys.stderr)
    carved = list(with_addresses(carved, policy, HostAddresses()))
    if options.json:
        print(json.dumps({"subnets": list(subnets.objects(carved))}, indent=2))
    else:
        print_table(subnets.HEAD, subnets.rows(carved))


def _print_changes(options: argparse.Namespace) -> None:
    edited = read_policy(options)
    _print_lacking(edited)
    seen = look_by(edited, options)
    after, before = seen.view.subnets, tuple[Subnets, ...]()
    moved, unknown = None, ""
    try:
        before = daemons_view(options).subnets
        moved = list(moves(before, after))
    except UnansweredError as error:
        unknown = f"{error}: which subnets would move is not known"
    for dropped in seen.dropped:
        print(dropped, file=sys.stderr)
    local, discard, own = seen.changes.local, seen.changes.discard, seen.changes.addresses
    throws, source = seen.changes.throws, seen.changes.source
    changes = [
        *_of_holes("add", "throw", throws.add, after),
        *_changes("add", "local", local.add, after),
        *_of_holes("add", "discard", discard.add, after),
        *_of_addresses("add", own.add, after),
        *_changes("add", "source", (each.source for each in source.add)),
        *_changes("renew", "source", (each.source for each in source.replace)),
        *_changes("renew", "local", local.renew, after),
        *_of_addresses("renew", own.renew, after),
        *_of_addresses("remove", own.remove, before),
        *_changes("remove", "local", local.remove, before),
        *_of_holes("remove", "throw", throws.remove, before),
        *_of_holes("remove", "discard", discard.remove, before),
        *_changes("remove", "source", (each.source for each in source.remove)),
        *_changes("remove", "stray", (route.prefix for route in seen.changes.strays)),
        *_changes(
            "remove", "leftover", (each.prefix for each in (*seen.changes.messages, *seen.changes.leftovers))
        ),
    ]
    if options.json:
        found = None if moved is None else [subnets.move_object(move) for move in moved]
        routes = [_object(change) for change in changes]
        print(json.dumps({"subnets": found, "routes": routes}, indent=2))
        return
    if unknown:
        print(unknown, file=sys.stderr)
    if not seen.view.delegations:
        print("no prefix is delegated to this host; --prefix P shows an example", file=sys.stderr)
    if moved:
        print_table(subnets.MOVE_HEAD, [subnets.move_row(move) for move in moved])
    if moved and changes:
        print()
    if changes:
        print_table(_HEAD, [_row(change) for change in changes])
    if not moved and not changes:
        print("nothing to change")


def _print_lacking(policy: Policy) -> None:
    for remark in routed_on.lacking(policy):
        print(remark, file=sys.stderr)


def _changes(
    change: str, kind: str, prefixes: Iterable[Prefix], subnets: Iterable[Subnets] = ()
) -> Iterator[_Change]:
    placed = Placed(each for each in subnets if each.state in _BOUND)
    for prefix in prefixes:
        inside = list(placed.inside(Span(prefix.address, prefix.end), prefix.width))
        yield _Change(change, kind, prefix, inside or list(placed.around(prefix)))


def _of_holes(
    change: str, kind: str, prefixes: Iterable[Prefix], subnets: Iterable[Subnets]
) -> Iterator[_Change]:
    """Yield changes of routes over holes, each with the subnet that it is in, or over a delegated prefix."""
    placed = Placed(each for each in subnets if each.state in _BOUND)
    for prefix in prefixes:
        yield _Change(change, kind, prefix, list(placed.around(prefix)))


def _of_addresses(change: str, addresses: Iterable[Prefix], subnets: Iterable[Subnets]) -> Iterator[_Change]:
    named = {each.address: each for each in subnets}
    for prefix in addresses:
        found = named.get(prefix.address)
        yield _Change(change, "address", prefix, [found] if found else ())


def _object(change: _Change) -> dict[str, str | int | None]:
    return {
        "change": change.change,
        "type": change.kind,
        "prefix": str(change.prefix),
        "count": sum(each.count for each in change.subnets) or 1,
        "subnet": change.subnets[0].subnet_name(0) if change.subnets else None,
    }


def _row(change: _Change) -> tuple[str, str, str, str]:
    names = ", ".join(map(subnets.names, change.subnets))
    return change.change, change.kind, str(change.prefix), names or "-"
