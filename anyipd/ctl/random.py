"""`anyipctl random`: uniformly random addresses inside bound subnets."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import secrets
from bisect import bisect_right
from itertools import accumulate

from anyipd import arguments, clock
from anyipd.decide.preferred import LEAVING, preferred
from anyipd.decide.verdict import part
from anyipd.kernel import wire
from anyipd.kernel.routes import Routes, local_routes
from anyipd.ledger_file import LedgerFile
from anyipd.model import Prefix, address_text

_FAILED = 1


def run(options: argparse.Namespace) -> None:
    """Print addresses, each of those that new connections should use as likely as any other."""
    if options.number < 0:
        arguments.fail(arguments.USAGE, f"anyipctl random: -n {options.number} is below 0")
    if options.subnet is None:
        bound = _preferred(options) if _is_any_leaving(options) else _bound()
    elif re.search("[:./]", options.subnet):
        bound = _inside(_bound(), options)
    else:
        bound = _preferred(options)
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


def _is_any_leaving(options: argparse.Namespace) -> bool:
    """Whether, by the ledger file, some delegation is not for new connections any more."""
    now = clock.now()
    with contextlib.suppress(OSError, ValueError):  # `status` says what is wrong with it
        ledger, _ = LedgerFile(options.runtime_dir).read()
        ledger.pass_time(now)
        return any(each.state in LEAVING for each in ledger.delegations(now))
    return False


def _preferred(options: argparse.Namespace) -> list[Prefix]:
    # They read the policy, which takes longer than all else.
    from anyipd.ctl.look import look  # noqa: PLC0415
    from anyipd.ctl.subnets import named  # noqa: PLC0415

    seen = look(options)
    found = seen.subnets if options.subnet is None else named(seen.subnets, options.subnet)
    return [
        single.first
        for each in preferred(found, seen.decision.delegations)
        for single in (part(each, i, 1) for i in range(each.count))
        if single.first
    ]
