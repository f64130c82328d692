"""One look at everything, as the daemon's pass has it, and changing nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from anyipd import arguments, bound, clock, only_one, policy
from anyipd.decide.moves import moves
from anyipd.decide.verdict import verdicts
from anyipd.kernel.monitor import Stale
from anyipd.kernel.routes import Routes
from anyipd.model import Subnets
from anyipd.observe import networkd
from anyipd.reconcile import Changes, Decision, Reconciler, at_once


@dataclass(frozen=True, slots=True)
class Look:
    """What is and what should be; `now` is CLOCK_BOOTTIME."""

    now: float
    policy: policy.Policy
    decision: Decision
    changes: Changes
    subnets: Sequence[Subnets]


def look(options: argparse.Namespace) -> Look:
    """Observe and compare. Ends the program on a bad policy."""
    reconciler = Reconciler(read_policy(options), options.runtime_dir, Routes())
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
    return Look(now, reconciler.policy, decision, changes, verdicts(decision.subnets, changes.local))


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


def read_policy(options: argparse.Namespace) -> policy.Policy:
    """Read the policy, or take the default one where there is no file. Ends the program on a bad one."""
    if not options.config.exists():
        print(f"{options.config} does not exist: the default policy holds", file=sys.stderr)
    try:
        return policy.read(options.config)
    except policy.PolicyError as error:
        arguments.fail(arguments.CONFIGURATION, *error.lines)
