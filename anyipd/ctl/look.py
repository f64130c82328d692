"""One look at everything, as the daemon's pass has it, and changing nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anyipd import arguments, clock
from anyipd.ctl.in_force import policy_in_force
from anyipd.decide.ledger import Ledger
from anyipd.decide.verdict import verdicts
from anyipd.kernel.monitor import Stale
from anyipd.kernel.routes import Routes
from anyipd.ledger_file import LedgerFile
from anyipd.model import Places, Prefix, Subnets
from anyipd.observe import networkd
from anyipd.policy import Policy, PolicyError
from anyipd.reconcile import Changes, Decision, Reconciler, at_once


@dataclass(frozen=True, slots=True)
class Look:
    """What is and what should be; `now` is CLOCK_BOOTTIME, `dropped` what could not be read, and why."""

    now: float
    policy: Policy
    decision: Decision
    changes: Changes
    subnets: Sequence[Subnets]
    dropped: Sequence[str]


def look(options: argparse.Namespace) -> Look:
    """Observe and compare by the policy in force. Ends the program on a bad one that no daemon has better."""
    try:
        in_force, remarks = policy_in_force(options.config)
    except PolicyError as error:
        arguments.fail(arguments.CONFIGURATION, *error.lines)
    seen = look_by(in_force, options.runtime_dir)
    for remark in (*remarks, *seen.dropped):
        print(remark, file=sys.stderr)
    return seen


def look_by(policy: Policy, runtime_dir: Path) -> Look:
    """Observe and compare by a policy."""
    ledger, dropped = Ledger(), []
    places: Mapping[Prefix, Places] = {}
    ledger_file = LedgerFile(runtime_dir)
    try:
        ledger, places = ledger_file.read()
    except (OSError, ValueError) as error:
        dropped.append(f"dropped: {ledger_file.path}: {error}")
    reconciler = Reconciler(policy, runtime_dir, Routes(), ledger, places)
    try:
        reconciler.networkd.take(networkd.ask(clock.now()))
    except (ValueError, TimeoutError) as error:
        dropped.append(f"dropped: {error}")
    at_once(reconciler.look(Stale.ALL, lambda: None))
    dropped += [f"dropped: {each}" for each in reconciler.complaints]
    now = clock.now()
    decision = reconciler.decide(now)
    changes = at_once(reconciler.compare(decision, whole=True))
    return Look(now, policy, decision, changes, verdicts(decision.subnets, changes.local), dropped)
