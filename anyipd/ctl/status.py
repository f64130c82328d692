"""`anyipctl status`: delegations and subnets, as the daemon has them."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import timedelta
from typing import NoReturn

from anyipd import arguments
from anyipd.ctl import routed_on, subnets
from anyipd.ctl.look import Seen, see
from anyipd.ctl.table import print_table
from anyipd.decide.carve import unmatched
from anyipd.model import INFINITE, Delegation
from anyipd.printable import printable
from anyipd.summary import Health, awaited, health, summary
from anyipd.view import View

_HEAD = ("DELEGATED PREFIX", "SOURCE", "UPLINK", "PREFERRED", "VALID", "STATE", "REASON")


def run(options: argparse.Namespace) -> None:
    """Print what is; with --check in a line, for monitoring."""
    seen = see(options)
    if options.check:
        _check(seen)
    _show(seen.view, as_json=options.json)
    policy = seen.view.policy
    for remark in (*seen.remarks, *unmatched(policy, seen.view.delegations), *routed_on.lacking(policy)):
        print(remark, file=sys.stderr)
    if not seen.is_good:
        raise SystemExit(arguments.CONFIGURATION)


def _check(seen: Seen) -> NoReturn:
    """Print how things are, and end as a monitoring plugin does."""
    view, remarks = seen.view, seen.remarks
    found = health(view)
    if remarks and found is Health.OK:
        found = Health.WARNING
    if not seen.is_daemons:
        found = Health.CRITICAL
    print(printable("; ".join((f"{found.name}: {summary(view)}", *remarks))))
    raise SystemExit(found)


def _show(seen: View, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_object(seen), indent=2))
        return
    print_table(
        _HEAD,
        [
            (
                str(each.prefix),
                each.source,
                each.uplink or "-",
                _duration(_left(each.preferred_until, seen.time)),
                _duration(_left(each.valid_until, seen.time)),
                each.state.value,
                each.reason or "",
            )
            for each in seen.delegations
        ],
    )
    if not seen.delegations:
        print(f"no prefix is delegated to this host; waiting for {awaited(seen)}")
    if seen.subnets:
        print()
        print_table(subnets.HEAD, subnets.rows(seen.subnets))


def _object(seen: View) -> dict[str, object]:
    return {
        "delegations": [_delegation(each, seen.time) for each in seen.delegations],
        "subnets": list(subnets.objects(seen.subnets)),
    }


def _delegation(delegation: Delegation, now: float) -> dict[str, object]:
    return {
        "prefix": str(delegation.prefix),
        "source": delegation.source,
        "uplink": delegation.uplink,
        "iaid": delegation.iaid,
        "preferred_lifetime": _left(delegation.preferred_until, now),
        "valid_lifetime": _left(delegation.valid_until, now),
        "state": delegation.state.value,
        "reason": delegation.reason,
    }


def _left(end: float | None, now: float) -> int | str | None:
    """Seconds left, `infinite`, or None where that is not known."""
    if end is None:
        return None
    return "infinite" if end == INFINITE else max(int(end - now), 0)


def _duration(left: int | str | None) -> str:
    if isinstance(left, int):
        return str(timedelta(seconds=left))
    return left or "unknown"
