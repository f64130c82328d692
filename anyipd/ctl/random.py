"""`anyipctl random`: uniformly random addresses inside bound subnets."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import secrets
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from anyipd import arguments, clock
from anyipd.decide.delegations import delegations
from anyipd.decide.preferred import preferred
from anyipd.decide.verdict import part
from anyipd.kernel import lock, wire
from anyipd.kernel.routes import Routes, local_routes
from anyipd.ledger_file import LedgerFile
from anyipd.model import Prefix, Subnets, SubnetState, address_text

_FAILED = 1


def run(options: argparse.Namespace) -> None:
    """Print addresses, each of those that new connections should use as likely as any other."""
    if options.number < 0:
        arguments.fail(arguments.USAGE, f"anyipctl random: -n {options.number} is below 0")
    is_name = options.subnet is not None and not re.search("[:./]", options.subnet)
    daemons = None if is_name else _daemons(options)
    if is_name or (options.subnet is None and daemons is None and _is_any_leaving(options)):
        bound = _looked_up(options)
    else:
        bound = _bound() if daemons is None else _single(daemons)
        bound = _inside(bound, options) if options.subnet else bound
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
        return any(each.deprecated for each in delegations(ledger, now))
    return False


def _daemons(options: argparse.Namespace) -> Sequence[Subnets] | None:
    """Return what the daemon has bound, for new connections or inside a prefix; None without a daemon."""
    if not lock.holder():
        return None
    from anyipd.varlink.client import Client, UnansweredError  # noqa: PLC0415  nothing else needs it
    from anyipd.view_wire import subnets_from_json  # noqa: PLC0415

    with contextlib.suppress(UnansweredError, ValueError), Client(options.runtime_dir) as client:
        found = subnets_from_json(client.describe()["subnets"])
        if options.subnet is None:
            return preferred(found)
        return [each for each in found if each.state is SubnetState.BOUND]
    return None


def _looked_up(options: argparse.Namespace) -> list[Prefix]:
    # They read the policy, which takes longer than all else.
    from anyipd.ctl.look import look  # noqa: PLC0415
    from anyipd.ctl.subnets import named  # noqa: PLC0415

    found = look(options).subnets
    return _single(preferred(found if options.subnet is None else named(found, options.subnet)))


def _single(subnets: Iterable[Subnets]) -> list[Prefix]:
    """Return the prefix of each subnet."""
    return [
        single.first
        for each in subnets
        for single in (part(each, i, 1) for i in range(each.count))
        if single.first
    ]
