"""One look at everything, as the daemon's pass has it, and changing nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from anyipd import arguments, clock, only_one, policy
from anyipd.decide.verdict import verdicts
from anyipd.kernel.monitor import Stale
from anyipd.kernel.routes import Routes
from anyipd.model import Subnets
from anyipd.observe import networkd
from anyipd.policy import Policy
from anyipd.reconcile import Changes, Decision, Reconciler, at_once

DEFAULT_HOLDS = "{} does not exist: the default policy holds"


@dataclass(frozen=True, slots=True)
class Look:
    """What is and what should be; `now` is CLOCK_BOOTTIME."""

    now: float
    policy: Policy
    decision: Decision
    changes: Changes
    subnets: Sequence[Subnets]


def look(options: argparse.Namespace) -> Look:
    """Observe and compare by the policy in force. Ends the program on a bad one that no daemon has better."""
    try:
        in_force, remarks = policy_in_force(options.config)
    except policy.PolicyError as error:
        arguments.fail(arguments.CONFIGURATION, *error.lines)
    for remark in remarks:
        print(remark, file=sys.stderr)
    return look_by(in_force, options.runtime_dir)


def look_by(policy: Policy, runtime_dir: Path) -> Look:
    """Observe and compare. Says on stderr what was dropped."""
    reconciler = Reconciler(policy, runtime_dir, Routes())
    try:
        reconciler.networkd.take(networkd.ask(clock.now()), clock.now())
    except ValueError as error:
        print(f"dropped: {error}", file=sys.stderr)
    at_once(reconciler.look(Stale.ALL, lambda: None))
    for complaint in reconciler.complaints:
        print(f"dropped: {complaint.path}: {complaint.reason}", file=sys.stderr)
    now = clock.now()
    decision = reconciler.decide(now)
    changes = at_once(reconciler.compare(decision, whole=True))
    return Look(now, policy, decision, changes, verdicts(decision.subnets, changes.local))


def policy_in_force(config: Path) -> tuple[Policy, list[str]]:
    """Give the policy that the daemon here works by, or that in the file where there is none.

    Also what is to be said of that. Raises PolicyError for a bad one that no daemon has better.
    """
    in_force, remarks = daemons_policy(), list[str]()
    if in_force is None:
        if only_one.holder() is None:
            remarks.append("no daemon is running here: nothing comes or goes; systemctl start anyipd")
        if not config.exists():
            remarks.append(DEFAULT_HOLDS.format(config))
        return policy.read(config), remarks
    try:
        edited = policy.read(config)
    except policy.PolicyError as error:
        return in_force, [*error.lines, f"{config} is not in force: mend it"]
    if edited != in_force:
        remarks.append(f"{config} is not in force: see anyipctl plan, apply it by systemctl reload anyipd")
    return in_force, remarks


def daemons_policy() -> Policy | None:
    """Ask the daemon in this network namespace; None where there is none, or one that is not understood."""
    told = only_one.ask()
    try:
        return None if told is None else Policy.model_validate_json(told)
    except ValidationError:  # of another version
        return None


def read_policy(options: argparse.Namespace) -> Policy:
    """Read the policy, or take the default one where there is no file. Ends the program on a bad one."""
    if not options.config.exists():
        print(DEFAULT_HOLDS.format(options.config), file=sys.stderr)
    try:
        return policy.read(options.config)
    except policy.PolicyError as error:
        arguments.fail(arguments.CONFIGURATION, *error.lines)
