"""`anyipctl flush`: remove every route and address of protocol 150, and the messages of the hooks."""

from __future__ import annotations

import argparse
import json

from anyipd import arguments
from anyipd.decide.ledger import HOOK_METRICS
from anyipd.kernel import addresses, lock, wire
from anyipd.kernel.routes import Routes, hook_message
from anyipd.model import Discard


def run(options: argparse.Namespace) -> None:
    """Remove, and say how many."""
    routes = Routes()
    if not routes.may_change():
        arguments.fail(
            arguments.NO_PERMISSION, "anyipctl flush: may not change routes here: CAP_NET_ADMIN is missing"
        )
    found = [
        wire.route(chunk, start, end)
        for table in (wire.TABLE_LOCAL, wire.TABLE_MAIN)
        for family in wire.WIDTHS
        for chunk in routes.dump(table, wire.PROTOCOL, family)
        for start, _, end in wire.messages(chunk)
    ]
    found += [
        route
        for chunk in routes.dump(wire.TABLE_HOOKS, wire.DHCP)
        for start, _, end in wire.messages(chunk)
        for route in [wire.route(chunk, start, end)]
        if route == hook_message(Discard(route.prefix, route.metric)) and route.metric in HOOK_METRICS
    ]
    removed = len(found) - len(routes.remove(found))
    own = [each.prefix for each in routes.addresses() if addresses.is_own(each)]
    unassigned = len(own) - len(addresses.remove(routes, own))
    if options.json:
        print(json.dumps({"removed": removed + unassigned}))
    else:
        print(f"removed {removed} routes" + (f", {unassigned} addresses" if own else ""))
        if lock.holder():
            print("a daemon is running and puts back what belongs there")
