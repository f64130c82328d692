"""`anyipctl random`: uniformly random addresses inside bound subnets."""

from __future__ import annotations

import argparse
import json
import re
import secrets
from bisect import bisect_right
from itertools import accumulate

from anyipd import arguments
from anyipd.decide.verdict import part
from anyipd.kernel import wire
from anyipd.kernel.routes import Routes, local_routes
from anyipd.model import Prefix, SubnetState, address_text

_FAILED = 1


def run(options: argparse.Namespace) -> None:
    """Print addresses, each of all those that are bound as likely as any other."""
    if options.number < 0:
        arguments.fail(arguments.USAGE, f"anyipctl random: -n {options.number} is below 0")
    bound = _bound()
    if options.subnet is not None:
        is_prefix = re.search("[:./]", options.subnet)
        bound = _inside(bound, options) if is_prefix else _named(options)
    if not bound:
        what = f"{options.subnet} is not" if options.subnet else "no subnet is"
        arguments.fail(_FAILED, f"anyipctl random: {what} bound; see anyipctl status")
    ends = list(accumulate(prefix.size for prefix in bound))
    addresses = (_pick(bound, ends) for _ in range(options.number))
    if options.json:
        print(json.dumps(list(addresses), indent=2))
    else:
        for address in addresses:
            print(address)


def _pick(bound: list[Prefix], ends: list[int]) -> str:
    number = secrets.randbelow(ends[-1])
    position = bisect_right(ends, number)
    prefix = bound[position]
    return address_text(prefix.end - ends[position] + number, prefix.width)


def _bound() -> list[Prefix]:
    routes = Routes()
    return [
        Prefix(address, length, width)
        for family, width in wire.WIDTHS.items()
        for chunk in routes.dump(wire.TABLE_LOCAL, wire.PROTOCOL, family)
        for address, length, _ in local_routes(chunk)[0]
    ]


def _inside(bound: list[Prefix], options: argparse.Namespace) -> list[Prefix]:
    try:
        outer = Prefix.parse(options.subnet)
    except ValueError as error:
        arguments.fail(arguments.USAGE, f"anyipctl random: {error}")
    return [prefix for prefix in bound if outer.covers(prefix)]


def _named(options: argparse.Namespace) -> list[Prefix]:
    # They read the policy, which takes longer than all else.
    from anyipd.ctl.look import look  # noqa: PLC0415
    from anyipd.ctl.subnets import named  # noqa: PLC0415

    return [
        single.first
        for each in named(look(options).subnets, options.subnet)
        if each.state is SubnetState.BOUND
        for single in (part(each, i, 1) for i in range(each.count))
        if single.first
    ]
