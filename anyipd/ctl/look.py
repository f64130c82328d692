"""One look at everything, as the daemon's pass has it, and changing nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anyipd import arguments, bound, clock, only_one, policy
from anyipd.decide.moves import moves
from anyipd.decide.verdict import verdicts
from anyipd.kernel.monitor import Stale
from anyipd.kernel.routes import Routes
from anyipd.model import Subnets
from anyipd.observe import networkd
from anyipd.policy import Policy
from anyipd.reconcile import Changes, Decision, Reconciler, at_once


@dataclass(frozen=True, slots=True)
class Look:
    """What is and what should be; `now` is CLOCK_BOOTTIME."""

    now: float
    policy: Policy
    decision: Decision
    changes: Changes
    subnets: Sequence[Subnets]
    complaints: Sequence[str]


def look(options: argparse.Namespace) -> Look:
    """Observe and compare. Says on stderr what was dropped, and ends the program on a bad policy."""
    seen = look_by(read_policy(options), options.runtime_dir, Routes())
    for complaint in seen.complaints:
        print(complaint, file=sys.stderr)
    return seen


def look_by(policy: Policy, runtime_dir: Path, routes: Routes) -> Look:
    """Observe and compare by a policy."""
    reconciler, complaints = Reconciler(policy, runtime_dir, routes), []
    try:
        reconciler.networkd.take(networkd.ask(clock.now()), clock.now())
    except ValueError as error:
        complaints.append(f"dropped: {error}")
    at_once(reconciler.look(Stale.ALL, lambda: None))
    complaints += [f"dropped: {each.path}: {each.reason}" for each in reconciler.complaints]
    now = clock.now()
    decision = reconciler.decide(now)
    changes = at_once(reconciler.compare(decision, whole=True))
    return Look(now, policy, decision, changes, verdicts(decision.subnets, changes.local), complaints)


def say_who_minds(seen: Look) -> None:
    """Say on stderr where no daemon makes it so, or one that works by another policy."""
    told = only_one.ask()
    if told is None and only_one.holder() is None:
        print("no daemon is running here: nothing comes or goes; systemctl start anyipd", file=sys.stderr)
    elif told is not None and any(moves(bound.loads(told), seen.subnets)):
        print(
            "the daemon works by another policy than this: see anyipctl plan, "
            "apply it by systemctl reload anyipd",
            file=sys.stderr,
        )


def read_policy(options: argparse.Namespace) -> Policy:
    """Read the policy, or take the default one where there is no file. Ends the program on a bad one."""
    if not options.config.exists():
        print(f"{options.config} does not exist: the default policy holds", file=sys.stderr)
    try:
        return policy.read(options.config)
    except policy.PolicyError as error:
        arguments.fail(arguments.CONFIGURATION, *error.lines)
