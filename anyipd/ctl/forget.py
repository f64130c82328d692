"""`anyipctl forget`: end a delegation now, for good, until it is granted again."""

from __future__ import annotations

import argparse

from anyipd import arguments, asking
from anyipd.kernel import lock
from anyipd.model import Prefix

_FAILED = 1


def run(options: argparse.Namespace) -> None:
    """Have the daemon forget a prefix."""
    try:
        prefix = Prefix.parse(options.prefix)
    except ValueError as error:
        arguments.fail(arguments.USAGE, f"anyipctl forget: {error}")
    answer = asking.request(f"forget {prefix}")
    if answer is None:
        holder = lock.holder()
        arguments.fail(
            arguments.UNAVAILABLE,
            f"anyipctl forget: the daemon ({holder}) does not answer; try again"
            if holder
            else "anyipctl forget: no daemon is running here; run `systemctl start anyipd`",
        )
    if not answer:
        arguments.fail(arguments.NO_PERMISSION, "anyipctl forget: the daemon refused; run it as root")
    if answer != "forgotten":
        arguments.fail(_FAILED, f"anyipctl forget: {prefix} is not delegated; see anyipctl status")
    print(f"{prefix} is forgotten until it is granted again")
