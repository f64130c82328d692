"""`anyipctl random`: uniformly random addresses inside bound subnets, none of them this host's own."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import secrets
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from anyipd import arguments, clock
from anyipd.decide.delegations import delegations
from anyipd.decide.preferred import preferred
from anyipd.kernel import addresses, lock, wire
from anyipd.kernel.routes import Routes, ours_and_others
from anyipd.ledger_file import LedgerFile
from anyipd.model import Prefix, Subnets, SubnetState, address_text

_FAILED = 1


class _Range(NamedTuple):
    """Bound addresses from `start` up to but not `end`; `width` is as in `Prefix`."""

    start: int
    end: int
    width: int


def run(options: argparse.Namespace) -> None:
    """Print addresses, each of those that new connections should use as likely as any other."""
    if options.number < 0:
        arguments.fail(arguments.USAGE, f"anyipctl random: -n {options.number} is below 0")
    is_name = options.subnet is not None and not re.search("[:./]", options.subnet)
    daemons = None if is_name else _daemons(options)
    if is_name or (options.subnet is None and daemons is None and _is_any_leaving(options)):
        bound = _looked_up(options)
    else:
        bound = _bound() if daemons is None else _ranges(daemons)
        bound = _inside(bound, options) if options.subnet else bound
    if not bound:
        what = f"{options.subnet} is not" if options.subnet else "no subnet is"
        arguments.fail(_FAILED, f"anyipctl random: {what} bound; see anyipctl status")
    ends = list(accumulate(each.end - each.start for each in bound))
    found = (_pick(bound, ends) for _ in range(options.number))
    if options.json:
        print(json.dumps(list(found), indent=2))
    else:
        for address in found:
            print(address)


def _pick(bound: list[_Range], ends: list[int]) -> str:
    number = secrets.randbelow(ends[-1])
    position = bisect_right(ends, number)
    found = bound[position]
    return address_text(found.end - ends[position] + number, found.width)


def _bound() -> list[_Range]:
    routes = Routes()
    chunks = (
        chunk for family in wire.WIDTHS for chunk in routes.dump(wire.TABLE_LOCAL, wire.PROTOCOL, family)
    )
    found = [_Range(each.address, each.end, each.width) for each in ours_and_others(chunks)[0]]
    own = [each.prefix.address for each in routes.addresses() if addresses.is_own(each)]
    return list(_without(found, own)) if own else found


def _inside(bound: list[_Range], options: argparse.Namespace) -> list[_Range]:
    try:
        outer = Prefix.parse(options.subnet)
    except ValueError as error:
        arguments.fail(arguments.USAGE, f"anyipctl random: {error}")
    return [
        _Range(max(start, outer.address), min(end, outer.end), width)
        for start, end, width in bound
        if width == outer.width and start < outer.end and outer.address < end
    ]


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


def _looked_up(options: argparse.Namespace) -> list[_Range]:
    # They read the policy, which takes longer than all else.
    from anyipd.ctl.look import look  # noqa: PLC0415
    from anyipd.ctl.subnets import named  # noqa: PLC0415

    found = look(options).subnets
    return _ranges(preferred(found if options.subnet is None else named(found, options.subnet)))


def _ranges(subnets: Iterable[Subnets]) -> list[_Range]:
    subnets = list(subnets)
    found = (
        _Range(each.first.address, each.first.address + each.count * each.first.size, each.first.width)
        for each in subnets
        if each.first
    )
    return list(_without(found, [each.address for each in subnets if each.address is not None]))


def _without(ranges: Iterable[_Range], own: Iterable[int]) -> Iterator[_Range]:
    """Yield what is left of some ranges without these addresses of IPv6."""
    own = sorted(own)
    for start, end, width in ranges:
        rest = start
        for address in own if width == 128 else ():  # noqa: PLR2004  the width of IPv6
            if rest <= address < end:
                if rest < address:
                    yield _Range(rest, address, width)
                rest = address + 1
        if rest < end:
            yield _Range(rest, end, width)
