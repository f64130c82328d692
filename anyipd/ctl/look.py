"""The View that a subcommand shows: the daemon's, or where none can be asked that of one look of our own."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from anyipd import arguments, clock, policy
from anyipd.apply import Changes
from anyipd.decide.ledger import Ledger
from anyipd.kernel import lock
from anyipd.ledger_file import LedgerFile
from anyipd.model import Places, Prefix, Subnets, SubnetState
from anyipd.observations import Observations
from anyipd.observer import Observer, ask_networkd, view_of
from anyipd.policy import Policy, PolicyError
from anyipd.varlink.client import Client, UnansweredError
from anyipd.view import View
from anyipd.view_wire import view_from_json

LOOKED_ALONE = "what is shown is one look of anyipctl itself, with what the ledger file remembers"
NO_DAEMON = "no daemon is running here"
NOT_MAINTAINED = f"{NO_DAEMON}: routes are not being maintained; run `systemctl start anyipd`"
DEFAULT_HOLDS = "{} does not exist: the default policy holds"


@dataclass(frozen=True, slots=True)
class Seen:
    """What is shown, and what is to be said of it.

    `is_daemons` says that the daemon gave the View, `is_good` that it is by a policy which is good.
    """

    view: View
    remarks: Sequence[str]
    is_daemons: bool = False
    is_good: bool = True


def look(options: argparse.Namespace) -> View:
    """Return what is shown, and print the remarks on it."""
    seen = see(options)
    for remark in seen.remarks:
        print(remark, file=sys.stderr)
    return seen.view


def see(options: argparse.Namespace) -> Seen:
    """Ask the daemon, or else look once."""
    try:
        view = daemons_view(options)
    except UnansweredError as error:
        return _see_alone(options, str(error))
    return Seen(view.at(clock.now()), list(apart(options, view)), is_daemons=True)


def daemons_view(options: argparse.Namespace) -> View:
    """Return the View of the daemon in this network namespace. Raises UnansweredError, with the reason."""
    holder = lock.holder()
    # To connect to a socket unit would start a daemon that somebody stopped.
    if not holder:
        raise UnansweredError(NO_DAEMON)
    try:
        with Client(options.runtime_dir) as client:
            return view_from_json(client.describe())
    except (UnansweredError, ValueError) as error:
        raise UnansweredError(f"the daemon ({holder}) cannot be asked: {error}") from None


def apart(options: argparse.Namespace, view: View) -> Iterator[str]:
    """Say what is between the configuration and what the daemon works by."""
    config = options.config
    if str(config.absolute()) != view.configuration:
        yield f"the daemon works by {view.configuration}, not by {config}"
        return
    try:
        found = policy.read(config)
    except policy.UnreadableError as error:
        yield from error.lines
    except PolicyError as error:
        yield from error.lines
        yield f"{config} is not in force: mend it"
    else:
        if found != view.policy:
            yield f"{config} is not in force: see anyipctl plan, apply it by systemctl reload anyipd"


def _see_alone(options: argparse.Namespace, reason: str) -> Seen:
    """Look once, by what the daemon had last where it runs or the file is bad, else by the file."""
    last = None
    with contextlib.suppress(OSError, ValueError):  # the look names what is wrong with it
        last = LedgerFile(options.runtime_dir).read_view()
    errors: list[str] = []
    try:
        found = policy.read(options.config)
    except PolicyError as error:
        errors, found = error.lines, Policy(subnets=())
    if last and (errors or lock.holder()):
        found = last.policy
    alone = look_by(found, options)
    remarks = [NOT_MAINTAINED if reason == NO_DAEMON else reason, LOOKED_ALONE, *errors, *alone.dropped]
    if found is policy.DEFAULT:
        remarks.append(DEFAULT_HOLDS.format(options.config))
    view = alone.view
    if errors and not last:  # then nobody knows the names of what is bound
        bound = [
            Subnets(str(prefix), None, SubnetState.BOUND, prefix) for prefix in alone.changes.local.remove
        ]
        view = replace(view, subnets=(*view.subnets, *bound))
    return Seen(view, remarks, is_good=not errors or bool(lock.holder()))


@dataclass(frozen=True, slots=True)
class Alone:
    """What one look came to; `dropped` is what could not be read, and why."""

    view: View
    changes: Changes
    dropped: Sequence[str]


def look_by(policy: Policy, options: argparse.Namespace) -> Alone:
    """Observe and compare by a policy, with what the ledger file remembers."""
    ledger, dropped = Ledger(), []
    places: Mapping[Prefix, Places] = {}
    ledger_file = LedgerFile(options.runtime_dir)
    try:
        ledger, places = ledger_file.read()
    except (OSError, ValueError) as error:
        dropped.append(f"dropped: {ledger_file.path}: {error}")
    observer = Observer(Observations(options.config, policy, options.runtime_dir, ledger, places))
    answer = ask_networkd()
    observer.take_networkd(answer)
    seen = asyncio.run(observer.look())
    decision, changes = observer.compare(seen.decision, whole=True)
    dropped += [f"dropped: {answer}"] if isinstance(answer, Exception) else []
    dropped += [f"dropped: {each}" for each in seen.complaints]
    view = view_of(decision, changes.present, changes.addresses.present)
    return Alone(view, changes, dropped)


def read_policy(options: argparse.Namespace) -> Policy:
    """Read the policy, or take the default one where there is no file. Ends the program on a bad one."""
    try:
        found = policy.read(options.config)
    except PolicyError as error:
        arguments.fail(arguments.CONFIGURATION, *error.lines)
    if found is policy.DEFAULT:
        print(DEFAULT_HOLDS.format(options.config), file=sys.stderr)
    return found
