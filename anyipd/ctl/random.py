"""`anyipctl random`: uniformly random addresses inside bound subnets, none of them this host's own."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import secrets
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from typing import NamedTuple

from anyipd import arguments, clock
from anyipd.decide import covers
from anyipd.decide.delegations import delegations
from anyipd.decide.gaps import Gaps
from anyipd.decide.holes import spans
from anyipd.decide.preferred import preferred
from anyipd.kernel import addresses, lock, wire
from anyipd.kernel.routes import Routes, is_throw_route, ours_and_others
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
    bound, others = ours_and_others(chunks)
    own = (each.prefix for each in routes.addresses() if addresses.is_own(each))
    besides = chain(own, (each.prefix for each in others if is_throw_route(each)))
    return [
        _Range(*span, width) for width, spans in covers.addresses(bound, besides).items() for span in spans
    ]


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
    return [_Range(*span, each.first.width) for each in subnets if each.first for span in _free(each)]


def _free(run: Subnets) -> Gaps:
    """Return the addresses of a run that are neither in a hole nor this host's own."""
    free = Gaps.of(spans(run))
    if run.address is not None:
        free.remove(run.address, run.address + 1)
    return free
