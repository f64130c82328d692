"""Which policy is in force here, and what the configuration has to do with it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from anyipd import arguments, asking, policy
from anyipd.kernel import lock
from anyipd.policy import InForce, Policy

DEFAULT_HOLDS = "{} does not exist: the default policy holds"


def policy_in_force(config: Path, known: Policy | None = None) -> tuple[Policy, list[str]]:
    """Give the policy that the daemon here works by, and what is to be said of it.

    Where no daemon tells one it is `known`, which was in force before, or else that in the file. Raises
    PolicyError where that is needed and bad.
    """
    told = daemons_policy()
    if told:
        return told.policy, list(_apart(config, told))
    holder = lock.holder()
    remark = untold(holder) if holder else f"{untold(holder)}: nothing comes or goes; systemctl start anyipd"
    try:
        found = policy.read(config)
    except policy.PolicyError as error:
        if known is None:
            raise
        return known, [remark, *error.lines]
    if holder and known:
        return known, [remark]
    if holder:
        return found, [f"{remark}: this is by {config}"]
    return found, [remark, *([DEFAULT_HOLDS.format(config)] if found is policy.DEFAULT else [])]


def untold(holder: str | None) -> str:
    """Say why no daemon tells its policy; `holder` is the one that is running, as `lock.holder` gives it."""
    return f"the daemon ({holder}) does not tell its policy" if holder else "no daemon is running here"


def _apart(config: Path, told: InForce) -> Iterator[str]:
    """Say what is between the configuration and what a daemon works by."""
    if str(config.absolute()) != told.configuration:
        yield f"the daemon works by {told.configuration}, not by {config}"
        return
    try:
        found = policy.read(config)
    except policy.UnreadableError as error:
        yield from error.lines
    except policy.PolicyError as error:
        yield from error.lines
        yield f"{config} is not in force: mend it"
    else:
        if found != told.policy:
            yield f"{config} is not in force: see anyipctl plan, apply it by systemctl reload anyipd"


def daemons_policy() -> InForce | None:
    """Ask the daemon in this network namespace; None where none answers, or one that is not understood."""
    told = asking.ask()
    try:
        return None if told is None else InForce.model_validate_json(told)
    except ValidationError:  # of another version
        return None


def read_policy(options: argparse.Namespace) -> Policy:
    """Read the policy, or take the default one where there is no file. Ends the program on a bad one."""
    try:
        found = policy.read(options.config)
    except policy.PolicyError as error:
        arguments.fail(arguments.CONFIGURATION, *error.lines)
    if found is policy.DEFAULT:
        print(DEFAULT_HOLDS.format(options.config), file=sys.stderr)
    return found
