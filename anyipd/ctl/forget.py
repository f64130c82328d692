"""`anyipctl forget`: end a delegation now, for good, until it is granted again."""

from __future__ import annotations

import argparse

from anyipd import arguments
from anyipd.kernel import lock
from anyipd.model import Prefix
from anyipd.varlink.client import Client, UnansweredError
from anyipd.varlink.message import INTERFACE, VarlinkError

_FAILED = 1


def run(options: argparse.Namespace) -> None:
    """Have the daemon forget a prefix."""
    try:
        prefix = Prefix.parse(options.prefix)
    except ValueError as error:
        arguments.fail(arguments.USAGE, f"anyipctl forget: {error}")
    holder = lock.holder()
    if not holder:
        arguments.fail(
            arguments.UNAVAILABLE,
            "anyipctl forget: no daemon is running here; run `systemctl start anyipd`",
        )
    try:
        with Client(options.runtime_dir) as client:
            client.forget(str(prefix))
    except UnansweredError as error:
        arguments.fail(
            arguments.UNAVAILABLE,
            f"anyipctl forget: the daemon ({holder}) does not answer: {error}; try again",
        )
    except VarlinkError as error:
        if error.name == f"{INTERFACE}.NotDelegated":
            arguments.fail(_FAILED, f"anyipctl forget: {prefix} is not delegated; see anyipctl status")
        arguments.fail(arguments.NO_PERMISSION, "anyipctl forget: the daemon refused; run it as root")
    print(f"{prefix} is forgotten until it is granted again")
