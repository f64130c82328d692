"""`anyipctl watch`: what `status` shows, as it changes, a line for each change."""

from __future__ import annotations

import argparse
import json
import select
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from structlog.processors import LogfmtRenderer

from anyipd import arguments, clock
from anyipd.ctl.in_force import policy_in_force
from anyipd.decide.carve import unmatched
from anyipd.decide.ledger import HOOK_METRICS, Ledger
from anyipd.decide.verdict import verdicts
from anyipd.kernel.monitor import Hint, Monitor, Stale
from anyipd.kernel.routes import Routes
from anyipd.kernel.wire import MalformedError
from anyipd.ledger_file import LedgerFile
from anyipd.model import Delegation, Places, Prefix, Subnets
from anyipd.narrate import Line, delegation_lines, state_lines
from anyipd.observe import networkd
from anyipd.observe.lease_monitor import LeaseMonitor
from anyipd.passes import LONGEST_REST
from anyipd.policy import PolicyError
from anyipd.reconcile import Reconciler, at_once

LONGEST_WAIT = 10.0
"""Seconds after which there is a look in any case: nothing tells of an edited policy, nor of one that was
put in force and changed no route."""

MISUNDERSTOOD = 60.0
"""Seconds until networkd is asked again that gave an answer which is of no use."""

RETRY = 1.0
"""Seconds until a look that failed is repeated."""

_HUNG_UP = select.POLLERR | select.POLLHUP

_render = LogfmtRenderer()


def run(options: argparse.Namespace) -> None:
    """Print all that is, and then what becomes of it, until interrupted or nobody reads on."""
    try:
        watch = _Watch(options)
    except PolicyError as error:
        arguments.fail(arguments.CONFIGURATION, *error.lines)
    while watch.is_read():
        _print(watch.look(), as_json=options.json)
        watch.wait()


class _Watch:
    """What was seen and said last, and everything that tells when to look again."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._config = options.config
        in_force, _ = policy_in_force(self._config)
        self._reconciler = Reconciler(
            in_force, options.runtime_dir, Routes(), *_read_ledger(options.runtime_dir)
        )
        self._delegations: Sequence[Delegation] = ()
        self._subnets: Sequence[Subnets] = ()
        self._remarks: list[str] = []
        self._misunderstood: list[str] = []
        self._ask_networkd_at = self._looked_at = 0.0
        self._hint = Hint(Stale.ALL)
        self._monitor, self._alarm = Monitor(), clock.Alarm()
        self._lease_monitors = [LeaseMonitor(options.runtime_dir / name) for name in ("leases", "heard")]
        self._filter()
        self._monitor.subscribe()
        self._poll = select.poll()
        for descriptor in (self._monitor.fileno(), self._alarm.fileno()):
            self._poll.register(descriptor, select.POLLIN)
        for monitor in self._lease_monitors:
            self._poll.register(monitor.fileno(), select.POLLIN)
        self._poll.register(sys.stdout.fileno(), 0)  # a pipe that nobody reads is always told

    def is_read(self) -> bool:
        """Whether what is printed has somewhere to go."""
        return not any(
            flags & _HUNG_UP for descriptor, flags in self._poll.poll(0) if descriptor == sys.stdout.fileno()
        )

    def wait(self) -> None:
        """Wait for a reason to look again, and take note of it."""
        longest = min(self._ask_networkd_at - clock.now(), LONGEST_WAIT)
        if Stale.ALL not in self._hint.stale and not self._poll.poll(max(longest, 0) * 1000):
            self._hint.add(Hint(Stale.ALL))
        time.sleep(max(self._looked_at + LONGEST_REST - clock.now(), 0))
        self._alarm.clear()
        for each in self._lease_monitors:
            each.read()
        self._hint.add(self._monitor.read())

    def look(self) -> list[Line]:
        """Look again; give what changed, and say on stderr what is remarkable for the first time."""
        try:
            return self._look()
        except (OSError, MalformedError) as error:
            print(f"a look failed, and is repeated: {error}", file=sys.stderr)
            self._reconciler.reopen()
            self._filter()
            self._hint.add(Hint(Stale.ALL))
            time.sleep(RETRY)
            return []

    def _look(self) -> list[Line]:
        hint, self._hint = self._hint, Hint()
        remarks = self._take_policy(hint)
        self._ask_networkd(hint)
        for monitor in self._lease_monitors:
            monitor.watch()
        reconciler = self._reconciler
        at_once(reconciler.look(reconciler.hear(hint) | Stale.LEASES, self._filter))
        now = self._looked_at = clock.now()
        decision = reconciler.decide(now)
        reconciler.remember(decision)
        subnets = verdicts(decision.subnets, at_once(reconciler.compare(decision, whole=False)).local)
        self._alarm.set(decision.deadline)
        remarks += [*self._misunderstood, *unmatched(reconciler.policy, decision.delegations)]
        remarks += [f"dropped: {each}" for each in reconciler.complaints]
        reconciler.complaints.clear()
        for remark in remarks:
            if remark not in self._remarks:
                print(remark, file=sys.stderr)
        self._remarks = remarks
        lines = [
            *delegation_lines(self._delegations, decision.delegations, now, reconciler.ledger.ending, ()),
            *state_lines(self._subnets, subnets),
        ]
        self._delegations, self._subnets = decision.delegations, subnets
        return lines

    def _take_policy(self, hint: Hint) -> list[str]:
        """Go by the policy that is in force now; give what is to be said of that."""
        in_force, remarks = policy_in_force(self._config, self._reconciler.policy)
        if in_force != self._reconciler.policy:
            self._reconciler.policy = in_force
            self._filter()
            hint.add(Hint(Stale.ALL))
        return remarks

    def _filter(self) -> None:
        self._reconciler.set_filter(self._monitor)

    def _ask_networkd(self, hint: Hint) -> None:
        """Ask what only networkd knows, when it is time to, or when a discard route came or went."""
        now, known = clock.now(), self._reconciler.networkd
        if now < self._ask_networkd_at and (self._misunderstood or not hint.of_discards(HOOK_METRICS)):
            return
        try:
            known.take(networkd.ask(now))
            self._misunderstood = []
            self._ask_networkd_at = now + min(known.ask_again_after(now), LONGEST_WAIT)
        except TimeoutError:
            known.is_silent()
            self._ask_networkd_at = now + min(known.ask_again_after(now), LONGEST_WAIT)
            return
        except ValueError as error:
            self._misunderstood = [f"dropped: {error}"]
            self._ask_networkd_at = now + MISUNDERSTOOD
        known.understood = not self._misunderstood


def _read_ledger(runtime_dir: Path) -> tuple[Ledger, Mapping[Prefix, Places]]:
    file = LedgerFile(runtime_dir)
    try:
        return file.read()
    except (OSError, ValueError) as error:
        print(f"dropped: {file.path}: {error}", file=sys.stderr)
        return Ledger(), {}


def _print(lines: Iterable[Line], *, as_json: bool) -> None:
    now = datetime.now().astimezone().isoformat(timespec="milliseconds")
    for line in lines:
        fields = {"time": now, "event": line.event, **line.fields}
        print(json.dumps(fields) if as_json else _render(None, "", fields), flush=True)
