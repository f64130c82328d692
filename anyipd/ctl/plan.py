"""`anyipctl plan`: what a pass would change now; or what the policy makes of an example prefix."""

from __future__ import annotations

import argparse
import json
import sys

from anyipd import arguments, bound, only_one
from anyipd.ctl import subnets
from anyipd.ctl.look import Look, look, read_policy
from anyipd.ctl.table import print_table
from anyipd.decide.carve import carve
from anyipd.decide.delegation import delegations, is_delegated
from anyipd.decide.moves import moves
from anyipd.decide.plan import Run
from anyipd.decide.static import static_assigned, static_subnets
from anyipd.decide.verdict import find
from anyipd.model import Discard, Prefix
from anyipd.policy import TURN_NEIGHBOURS_ON

_HEAD = ("CHANGE", "TYPE", "PREFIX", "SUBNET")


def run(options: argparse.Namespace) -> None:
    """Print what would be."""
    if options.prefix:
        _print_example(options)
    else:
        _print_changes(look(options), as_json=options.json)


def _print_example(options: argparse.Namespace) -> None:
    policy = read_policy(options)
    if policy.links:
        print(TURN_NEIGHBOURS_ON, file=sys.stderr)
    try:
        prefixes = [Prefix.parse(text) for text in options.prefix]
    except ValueError as error:
        arguments.fail(arguments.USAGE, f"anyipctl plan: --prefix: {error}")
    found = delegations([Discard(prefix, 0) for prefix in prefixes], [], policy, now=0)
    carved = static_subnets(policy)
    for each in found:
        if is_delegated(each):
            carved += carve(each, policy, static_assigned(policy))
        else:
            print(f"{each.prefix} is {each.state.value}: {each.reason}", file=sys.stderr)
    if options.json:
        print(json.dumps({"subnets": list(subnets.objects(carved))}, indent=2))
    else:
        print_table(subnets.HEAD, subnets.rows(carved))


def _print_changes(seen: Look, *, as_json: bool) -> None:
    told = only_one.ask()
    moved = None if told is None else list(moves(bound.loads(told), seen.subnets))
    local, discard = seen.changes.local, seen.changes.discard
    changes = [("add", "local", run) for run in local.add]
    changes += [("add", "discard", run) for run in discard.add]
    changes += [("renew", "local", run) for run in local.renew]
    changes += [("remove", "local", run) for run in local.remove]
    changes += [("remove", "discard", run) for run in discard.remove]
    changes += [("remove", "stray", Run(route.prefix, 1)) for route in seen.changes.strays]
    if as_json:
        found = None if moved is None else [each for move in moved for each in subnets.move_objects(move)]
        routes = [_object(seen, *change) for change in changes]
        print(json.dumps({"subnets": found, "routes": routes}, indent=2))
        return
    if told is None:
        print("no daemon is running here: which subnets would move is not known", file=sys.stderr)
    if not seen.decision.delegations:
        print("no prefix is delegated to this host; --prefix P shows an example", file=sys.stderr)
    if moved:
        print_table(subnets.MOVE_HEAD, [subnets.move_row(move) for move in moved])
    if moved and changes:
        print()
    if changes:
        print_table(_HEAD, [_row(seen, *change) for change in changes])
    if not moved and not changes:
        print("nothing to change")


def _object(seen: Look, change: str, kind: str, run: Run) -> dict[str, str | int | None]:
    return {
        "change": change,
        "type": kind,
        "prefix": str(run.first),
        "count": run.count,
        "subnet": _name(seen, kind, run),
    }


def _row(seen: Look, change: str, kind: str, run: Run) -> tuple[str, str, str, str]:
    prefix = str(run.first)
    if run.count > 1:
        prefix += f" ... {run.part(run.count - 1, run.count).first}"
    name = _name(seen, kind, run) or "-"
    last = _name(seen, kind, run.part(run.count - 1, run.count))
    return change, kind, prefix, f"{name} ... {last}" if last and run.count > 1 else name


def _name(seen: Look, kind: str, run: Run) -> str | None:
    if kind != "local":
        return None
    found = find(seen.subnets, run)
    if found is None:
        return None
    holder, position = found
    return holder.subnet_name(position)
