"""What goes on beside the answering: finding out what is to be answered for, and where.

It reads what the daemon reads, and the routes that the daemon left, by the same pass; it changes nothing,
and needs no daemon to run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import Any

import structlog

from anyipd import clock, notify, policy
from anyipd.decide.verdict import verdicts
from anyipd.kernel.monitor import Hint, Monitor, Stale
from anyipd.kernel.routes import Routes
from anyipd.kernel.wire import MalformedError
from anyipd.model import address_text
from anyipd.neighbour.link import Link, addresses
from anyipd.neighbour.spans import answered
from anyipd.observe import networkd
from anyipd.observe.lease_monitor import LeaseMonitor
from anyipd.policy import Policy, PolicyError
from anyipd.reconcile import Reconciler, in_slices

LONGEST_REST = 0.05
"""Seconds between passes at most while events keep coming; usually it is as long as the last pass."""

RETRY = 1.0
"""Seconds until a pass that failed is repeated."""

_log = structlog.get_logger()


class Service:
    """Everything that lives between two passes."""

    def __init__(self, config: Path, runtime_dir: Path, first_policy: Policy, routes: Routes) -> None:
        self._config = config
        self._reconciler = Reconciler(first_policy, runtime_dir, routes)
        self._monitor = Monitor()
        self._lease_monitor = LeaseMonitor(runtime_dir / "leases")
        self._alarm = clock.Alarm()
        self._links: dict[str, Link] = {}
        self._hint = Hint(Stale.ALL)
        self._woken = asyncio.Event()
        self._unforeseen: Exception | None = None
        self._asking: asyncio.Task[None] | None = None
        self._reload = self._ready = self._watchdog_waits = False

    async def run(self) -> None:
        """Answer until cancelled."""
        loop = asyncio.get_running_loop()
        self._watch()
        self._monitor.subscribe()
        loop.add_reader(self._monitor.fileno(), self._on_event)
        loop.add_reader(self._lease_monitor.fileno(), self._on_lease)
        loop.add_reader(self._alarm.fileno(), self._on_alarm)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        loop.set_exception_handler(self._on_unforeseen)
        threading.excepthook = lambda args: loop.call_soon_threadsafe(
            self._on_unforeseen, loop, {"exception": args.exc_value}
        )
        self._take_links()
        self._await_watchdog()
        while True:
            begun = loop.time()
            await self._pass()
            await asyncio.sleep(min(loop.time() - begun, LONGEST_REST))
            await self._woken.wait()
            if self._unforeseen:
                raise self._unforeseen

    def _on_unforeseen(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._unforeseen = context.get("exception", RuntimeError(context["message"]))
        self._woken.set()

    def _on_event(self) -> None:
        hint = self._monitor.read()
        for what in hint.malformed:
            _log.warning("event dropped", reason=what)
        self._look_at_links()
        if hint != Hint():
            self._look_again(hint)

    def _on_lease(self) -> None:
        if self._lease_monitor.read():
            self._look_again(Hint(Stale.LEASES))

    def _on_alarm(self) -> None:
        self._alarm.clear()
        self._look_again(Hint())

    def _on_hangup(self) -> None:
        self._reload = True
        self._look_again(Hint(Stale.ALL))

    def _on_watchdog(self) -> None:
        # Only a completed pass feeds the watchdog, so each of its turns is an audit as well.
        self._watchdog_waits = True
        self._look_again(Hint(Stale.ALL))

    def _await_watchdog(self) -> None:
        interval = notify.watchdog_interval()
        if interval:
            asyncio.get_running_loop().call_later(interval / 2, self._on_watchdog)

    def _look_again(self, hint: Hint) -> None:
        self._hint.add(hint)
        self._woken.set()

    async def _pass(self) -> None:
        self._woken.clear()
        reload, self._reload = self._reload, False
        if reload:
            notify.reloading()
            self._read_policy()
        try:
            await self._look()
        except (OSError, MalformedError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            _log.error("pass failed, will be repeated", reason=reason, after=RETRY)
            # The socket may hold answers to the past, and the observations are half new, half old.
            self._reconciler.routes.close()
            self._reconciler.routes = Routes()
            self._watch()
            asyncio.get_running_loop().call_later(RETRY, self._look_again, Hint(Stale.ALL))
            if reload:
                notify.tell("READY=1")
            return
        if reload or not self._ready:
            notify.tell("READY=1")
        if not self._ready:
            self._ready = True
            _log.info("ready", links=",".join(sorted(self._links)))
        if self._watchdog_waits:
            self._watchdog_waits = False
            notify.tell("WATCHDOG=1")
            self._await_watchdog()

    async def _look(self) -> None:
        """Find out what is to be answered for: the daemon's pass, but for the changes."""
        reconciler = self._reconciler
        hint, self._hint = self._hint, Hint()
        stale = reconciler.hear(hint)
        if Stale.PRESENT in stale or hint.lost:
            # What the daemon itself heard wakes nobody here, but its routes do.
            stale |= Stale.LEASES
        if Stale.LEASES in stale:
            self._lease_monitor.watch()
            self._ask_networkd()
        if not await in_slices(reconciler.look(stale, self._watch)):
            asyncio.get_running_loop().call_later(RETRY, self._look_again, Hint(Stale.LEASES))
        reconciler.complaints.clear()  # the daemon tells of them
        decision = reconciler.decide(clock.now())
        changes = await in_slices(reconciler.compare(decision, whole=False))
        self._alarm.set(decision.deadline)
        spans = answered(reconciler.policy, verdicts(decision.subnets, changes.local))
        for name, link in self._links.items():
            if link.spans != spans[name]:
                link.answer_for(spans[name])
                _tell(link)

    def _ask_networkd(self) -> None:
        """Ask beside the passes: it may take its time."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._hear_networkd())

    async def _hear_networkd(self) -> None:
        with contextlib.suppress(ValueError):  # the daemon tells of it
            said = await asyncio.to_thread(networkd.ask, clock.now())
            if self._reconciler.networkd.take(said, clock.now()):
                self._look_again(Hint(Stale.DISCARDS))

    def _read_policy(self) -> None:
        try:
            self._reconciler.policy = policy.read(self._config)
        except PolicyError as error:
            for line in error.lines:
                _log.error("refused", configuration=line)
            _log.error("the old configuration stays in force", configuration=str(self._config))
            return
        self._watch()
        _log.info("reloaded", configuration=str(self._config))
        self._take_links()

    def _take_links(self) -> None:
        """Listen on the links of the policy, and on no other."""
        wanted = self._reconciler.policy.links
        if not wanted:
            _log.warning("nothing to answer for: the policy names no neighbours")
        for name in self._links.keys() - wanted:
            self._links.pop(name).close()
        for name in sorted(wanted - self._links.keys()):
            self._links[name] = Link(name, asyncio.get_running_loop())
        self._look_at_links()

    def _look_at_links(self) -> None:
        assigned = list(addresses())
        for link in self._links.values():
            before = link.fault
            link.look(assigned)
            if link.fault != before:
                _tell(link)

    def _watch(self) -> None:
        reconciler = self._reconciler
        watched = [*reconciler.delegated, *(each.prefix for each in reconciler.policy.static)]
        self._monitor.watch(reconciler.routes.port, reconciler.policy.accept.protocols, watched)


def _tell(link: Link) -> None:
    bounds = link.spans.bounds
    if link.fault:
        _log.warning("silent", link=link.name, reason=link.fault)
    elif bounds:
        first, last = address_text(bounds[0]), address_text(bounds[-1] - 1)
        _log.info("answering", link=link.name, first=first, last=last)
    else:
        _log.info("silent", link=link.name, reason="no subnet is bound that is to be answered for there")
