"""`anyipctl flush`: remove every route of protocol 150 from the tables main and local."""

from __future__ import annotations

import argparse
import json
from itertools import chain

from anyipd import arguments, only_one
from anyipd.kernel import wire
from anyipd.kernel.routes import Routes


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
    refused = list(chain.from_iterable(routes.remove(found)))
    if options.json:
        print(json.dumps({"removed": len(found) - len(refused)}))
    else:
        print(f"removed {len(found) - len(refused)} routes")
        if only_one.holder():
            print("a daemon is running and puts back what belongs there")
