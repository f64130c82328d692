"""`anyipctl status`: delegations and subnets, from the kernel and the lease files alone."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import timedelta

from anyipd.ctl import subnets
from anyipd.ctl.look import Look, look
from anyipd.ctl.table import print_table
from anyipd.decide.carve import unmatched
from anyipd.model import INFINITE, Delegation

_HEAD = ("DELEGATED PREFIX", "SOURCE", "UPLINK", "PREFERRED", "VALID", "STATE", "REASON")


def run(options: argparse.Namespace) -> None:
    """Print what is."""
    seen = look(options)
    if options.json:
        print(json.dumps(_object(seen), indent=2))
        return
    print_table(
        _HEAD,
        [
            (
                str(each.prefix),
                each.source,
                each.uplink or "-",
                _duration(_left(each.preferred_until, seen.now)),
                _duration(_left(each.valid_until, seen.now)),
                each.state.value,
                each.reason or "",
            )
            for each in seen.decision.delegations
        ],
    )
    if not seen.decision.delegations:
        print("no prefix is delegated to this host")
    if seen.subnets:
        print()
        print_table(subnets.HEAD, subnets.rows(seen.subnets))
    for remark in unmatched(seen.policy, seen.decision.delegations):
        print(remark, file=sys.stderr)


def _object(seen: Look) -> dict[str, object]:
    return {
        "delegations": [_delegation(each, seen.now) for each in seen.decision.delegations],
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
