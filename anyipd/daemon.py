"""The daemon: an observer whose decisions are carried out, and whose Views are published."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import structlog

from anyipd import __version__, clock, here, notify, policy
from anyipd.apply import Changes, Outcome, apply, restore
from anyipd.decide.covers import addresses
from anyipd.decide.decision import Decision
from anyipd.decide.ledger import Ledger
from anyipd.heard import Hearing
from anyipd.kernel.monitor import Stale
from anyipd.kernel.wire import MalformedError
from anyipd.ledger_file import LedgerFile
from anyipd.model import Places, Prefix, SubnetState
from anyipd.narrate import (
    Line,
    address_lines,
    delegation_lines,
    moved_lines,
    source_lines,
    subnet_lines,
)
from anyipd.observations import Observations
from anyipd.observer import Look, Observer, view_of
from anyipd.policy import Policy, PolicyError
from anyipd.printable import printable
from anyipd.summary import awaited, summary
from anyipd.varlink.listening import Listening
from anyipd.varlink.publisher import Publisher
from anyipd.varlink.service import Service
from anyipd.view import View
from anyipd.view_wire import view_to_json

_FASTER = {errno.EEXIST, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV}

WITHOUT_SUBTREES = (
    "this kernel seems to be built without CONFIG_IPV6_SUBTREES, so replies may leave by another uplink than "
    "that of their prefix; take another kernel, or rules of your own and `source_routes: never`"
)

_log = structlog.get_logger()


class Daemon:
    """Makes what is decided true, logs and publishes what came of it; asked to, it reloads and forgets."""

    def __init__(
        self, configuration: Path, runtime_dir: Path, first_policy: Policy, listening: Listening | None
    ) -> None:
        self._configuration, self._socket = configuration, listening
        self._ledger_file = LedgerFile(runtime_dir)
        seen = Observations(configuration, first_policy, runtime_dir, *self._read_ledger())
        self._observer = Observer(seen)
        self._hearing = Hearing(runtime_dir / "heard", lambda: self._observer.look_again(Stale.LEASES))
        self._next_policy: Policy | None = None
        self._decision: Decision | None = None  # as carried out
        self._view: View | None = None
        self._published: View | None = None
        self._status = ""
        self._publisher: Publisher | None = None
        self._reload = self._watchdog_waits = False
        self._unwritten: str | None = None
        self._overfull: set[str | None] = set()
        self._without_subtrees = False

    def _read_ledger(self) -> tuple[Ledger, Mapping[Prefix, Places]]:
        try:
            return self._ledger_file.read()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            _log.warning("ledger file dropped", path=str(self._ledger_file.path), reason=reason)
            return Ledger(), {}

    async def run(self) -> None:
        """Look and apply again and again until cancelled."""
        observer = self._observer
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_hangup)
        self._await_watchdog()
        self._hearing.start()
        self._begin_policy()
        await observer.start()
        observer.look_again()
        if self._socket:
            service = Service(self, here.network_namespace(), __version__)
            self._publisher = Publisher(self._socket, service)
        try:
            await self._pass_again_and_again()
        finally:
            if self._publisher:
                self._publisher.close()

    async def _pass_again_and_again(self) -> None:
        observer, ready = self._observer, False
        while True:
            await observer.wait()
            # A signal that comes from here on is for the next pass.
            reload, self._reload = self._reload, False
            if self._next_policy:
                observer.take_policy(self._next_policy)
                self._next_policy = None
                _log.info("reloaded", configuration=str(self._configuration))
                self._begin_policy()
            completed = await self._pass()
            if completed and not ready:
                assert self._view
                waiting = {} if self._view.delegations else {"waiting_for": awaited(self._view)}
                _log.info("ready", delegations=len(self._view.delegations), **waiting)
            if reload or (completed and not ready):
                notify.tell("READY=1")
            ready |= completed
            if completed and self._watchdog_waits:
                self._watchdog_waits = False
                notify.tell("WATCHDOG=1")
                self._await_watchdog()

    # What it is asked for.

    def forget(self, prefix: Prefix) -> bool:
        """End a delegation until it is granted again; return whether there was one."""
        return self._observer.forget(prefix)

    def reload(self) -> Sequence[str]:
        """Go by the configuration as it is now, from the next pass on; return why not, if it is bad."""
        try:
            self._next_policy = policy.read(self._configuration)
        except PolicyError as error:
            for line in error.lines:
                _log.error("refused", configuration=line)
            _log.error("the old configuration stays in force", configuration=str(self._configuration))
            return error.lines
        self._observer.look_again(Stale.ALL)
        return ()

    def _on_hangup(self) -> None:
        notify.reloading()
        self.reload()
        self._reload = True
        self._observer.look_again()

    def _begin_policy(self) -> None:
        """Do what a policy asks for besides a pass, and log where it does less than may be expected."""
        if not self._configuration.exists():
            path = str(self._configuration)
            _log.warning("no configuration file, the default policy holds", configuration=path)
        if self._observer.seen.policy.links:
            _log.info(policy.TURN_NEIGHBOURS_ON)
        self._hearing.begin(self._observer.seen.policy.listen)

    def _await_watchdog(self) -> None:
        interval = notify.watchdog_interval()
        if interval:
            asyncio.get_running_loop().call_later(interval / 2, self._on_watchdog)

    def _on_watchdog(self) -> None:
        # Only a completed pass feeds the watchdog, so each of its turns is an audit as well.
        self._watchdog_waits = True
        self._observer.look_again(Stale.ALL)

    # A pass.

    async def _pass(self) -> bool:
        """Look, and make it so; return whether that came to its end."""
        observer = self._observer
        self._hearing.follow(observer.seen.policy.listen)
        began = clock.now()
        try:
            look = await observer.look()
            self._log_look(look)
            if observer.seen.ledger.fallen:  # no look after a crash could find out that they fell
                self._remember()
            if look.whole or look.decision != self._decision:
                self._make_so(look.decision, whole=look.whole)
            elif self._view:
                messages = observer.seen.stale_messages()
                own = observer.seen.compare_addresses(look.decision)
                if look.lost or look.lost_throws or messages or own:
                    changes = restore(look.decision, look.lost, look.lost_throws, messages, own)
                    self._log_changes(self._view, self._view, changes, self._apply(changes))
        except (OSError, MalformedError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            _log.error("pass failed, will be repeated", reason=reason, after=observer.retry_after)
            observer.start_over()
            return False
        self._publish()
        self._hearing.clear_up(began)
        return True

    def _make_so(self, decision: Decision, *, whole: bool) -> None:
        seen, before = self._observer.seen, self._view
        known = self._decision.local if self._decision else {}
        at_once = not whole and not decision.throws
        new = {each: end for each, end in decision.local.items() if at_once and each not in known}
        # Somebody waits for them, and adding them takes no look: what was in the way the comparison finds.
        # Holes come before them.
        seen.routes.add_local(new, clock.now())
        decision, changes = self._observer.compare(decision, whole=whole)
        outcome = self._apply(changes)
        view = view_of(decision, outcome.present, outcome.own)
        _write(
            delegation_lines(
                before.delegations if before else (),
                view.delegations,
                view.time,
                seen.ledger.ending,
                {each.delegation for each in before.subnets if each.state is SubnetState.BOUND}
                if before
                else (),
            )
        )
        if before:
            _write(moved_lines(before.subnets, view.subnets))
        self._log_changes(before, view, changes, outcome, new)
        self._decision, self._view = decision, view

    def _apply(self, changes: Changes) -> Outcome:
        seen = self._observer.seen
        outcome = apply(seen.routes, seen.policy, changes)
        seen.see_applied(changes, outcome)
        return outcome

    # What is told of it.

    def _log_look(self, look: Look) -> None:
        for complaint in look.complaints:
            _log.warning("lease file dropped", path=complaint.path, reason=complaint.reason)
        overfull = set(self._observer.seen.ledger.overfull)
        for uplink in overfull - self._overfull:
            reason = "more are reported at once than accept.at_most allows to accept, or to show as refused"
            _log.warning("delegations passed over", uplink=uplink or "unknown", reason=reason)
        self._overfull = overfull

    def _log_changes(
        self,
        before: View | None,
        after: View,
        changes: Changes,
        outcome: Outcome,
        new: Collection[Prefix] = (),
    ) -> None:
        """Log what was done, and see that what the kernel refused is tried again.

        Of the local routes that were present `new` ones came just before.
        """
        was, now = set(changes.present).difference(new), outcome.present
        known = before.subnets if before else ()
        _write(subnet_lines(known, after.subnets, addresses(now, was), addresses(was, now)))
        had, have = set(changes.addresses.present), set(outcome.own)
        _write(address_lines(known, after.subnets, have - had, had - have))
        _write(source_lines(changes.source, outcome.sources, self._observer.seen.links))
        for stray in changes.strays:
            _log.warning("stray", prefix=str(stray.prefix), reason="protocol 150, but no route that we make")
        # Somebody was faster than we: that brings an event of its own.
        serious = [each for each in outcome.refused if each.error not in _FASTER]
        if outcome.without_subtrees and not self._without_subtrees:
            self._without_subtrees = True
            _log.warning("source routes refused", reason=WITHOUT_SUBTREES)
        for error, group in groupby(sorted(serious, key=attrgetter("error")), attrgetter("error")):
            same = list(group)
            _log.warning("refused", example=str(same[0].prefix), count=len(same), reason=os.strerror(error))
        # With lo down no route can be; it coming up is an event. A stray may have stood where a route of
        # ours belongs.
        if changes.strays or any(each.error != errno.ENETDOWN for each in serious):
            self._observer.retry_later(Stale.PRESENT)
        else:
            self._observer.succeed()

    def _publish(self) -> None:
        """Have everybody know the View, also when there is no daemon any more."""
        view = self._view
        assert view
        if view != self._published:
            self._published = view
            if (text := printable(summary(view))) != self._status:
                self._status = text
                notify.tell(f"STATUS={text}")
            if self._publisher:
                self._publisher.publish(lambda: view_to_json(view))
        self._remember()

    def _remember(self) -> None:
        seen = self._observer.seen
        try:
            self._ledger_file.write(seen.ledger, seen.places, self._view)
            self._unwritten = None
        except OSError as error:
            if error.strerror != self._unwritten:
                self._unwritten = error.strerror
                path = str(self._ledger_file.path)
                _log.warning("ledger file not written: a restart forgets", path=path, reason=error.strerror)


def _write(lines: Iterable[Line]) -> None:
    for line in lines:
        (_log.warning if line.warning else _log.info)(line.event, **line.fields)
