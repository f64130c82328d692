"""Wake, pass, sleep: what has the daemon look again and again, and `anyipd-neighbour` beside it.

Reasons to look are an event in the kernel, a lease file, the end of a lifetime, a signal, and the
watchdog's turn. All lead to the same pass; they only differ in which observations it must make anew.
"""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from anyipd import clock, notify, policy
from anyipd.decide.ledger import Ledger
from anyipd.kernel.monitor import Hint, Monitor, Stale
from anyipd.kernel.routes import Routes
from anyipd.ledger_file import LedgerFile
from anyipd.model import Places, Prefix
from anyipd.observe.lease_monitor import LeaseMonitor
from anyipd.policy import Policy, PolicyError
from anyipd.reconcile import Reconciler

LONGEST_REST = 0.05
"""Seconds between passes at most while events keep coming; usually it is as long as the last pass."""

SECOND_LOOK, LAST_LOOK = 0.1, 60.0
"""Seconds until foreign routes that a look lacked are looked for again: the second time, and after many."""

_log = structlog.get_logger()


class Passes(ABC):
    """Everything that lives between two passes."""

    def __init__(self, config: Path, runtime_dir: Path, first_policy: Policy, routes: Routes) -> None:
        self._config = config
        self._ledger_file = LedgerFile(runtime_dir)
        self._reconciler = Reconciler(first_policy, runtime_dir, routes, *self._read_ledger())
        self._monitor = Monitor()
        self._lease_monitor = LeaseMonitor(runtime_dir / "leases")
        self._reconciler.arriving = self._lease_monitor.written
        self._alarm = clock.Alarm()
        self._hint = Hint(Stale.ALL)
        self._woken = asyncio.Event()
        self._unforeseen: BaseException | None = None
        self._reload = self._ready = self._watchdog_waits = False
        self._doubt: asyncio.TimerHandle | None = None
        self._doubt_pause = SECOND_LOOK

    @abstractmethod
    async def _begin(self) -> None:
        """Get ready for the first pass."""

    @abstractmethod
    def _hear(self, hint: Hint) -> None:
        """Take in what events of the kernel say."""

    @abstractmethod
    async def _look(self) -> bool:
        """Make a pass; say whether it came to its end."""

    @abstractmethod
    def _tell_ready(self) -> None:
        """Tell of the first pass that came to its end."""

    @abstractmethod
    def _take_policy(self) -> None:
        """Do at once what another policy asks for besides a pass."""

    def _read_ledger(self) -> tuple[Ledger, Mapping[Prefix, Places]]:
        try:
            return self._ledger_file.read()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            _log.warning("ledger file dropped", path=str(self._ledger_file.path), reason=reason)
            return Ledger(), {}

    async def run(self) -> None:
        """Look again and again until cancelled."""
        loop = asyncio.get_running_loop()
        self._watch()
        self._monitor.subscribe()
        loop.add_reader(self._monitor.fileno(), self._on_event)
        loop.add_reader(self._lease_monitor.fileno(), self._on_lease)
        loop.add_reader(self._alarm.fileno(), self._on_alarm)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        loop.set_exception_handler(self._on_unforeseen)
        self._await_watchdog()
        await self._begin()
        while True:
            begun = loop.time()
            await self._pass()
            await asyncio.sleep(min(loop.time() - begun, LONGEST_REST))
            await self._woken.wait()
            if self._unforeseen:
                raise self._unforeseen

    def _on_unforeseen(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # What nobody foresaw ends the process: the service manager starts it anew, and no route goes by that.
        self._unforeseen = context.get("exception", RuntimeError(context["message"]))
        self._woken.set()

    def _on_event(self) -> None:
        hint = self._monitor.read()
        for what in hint.malformed:
            _log.warning("event dropped", reason=what)
        self._hear(hint)

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

    def _await_second_look(self) -> None:
        if not self._reconciler.in_doubt:
            self._doubt_pause = SECOND_LOOK
        elif not self._doubt:
            self._doubt = asyncio.get_running_loop().call_later(self._doubt_pause, self._on_doubt)
            self._doubt_pause = min(2 * self._doubt_pause, LAST_LOOK)

    def _on_doubt(self) -> None:
        self._doubt = None
        if self._reconciler.in_doubt:  # else events have said it since
            self._look_again(Hint(Stale.ROUTES))

    def _look_again(self, hint: Hint) -> None:
        self._hint.add(hint)
        self._woken.set()

    async def _pass(self) -> None:
        self._woken.clear()
        # A signal that comes from here on is for the next pass.
        reload, self._reload = self._reload, False
        if reload:
            notify.reloading()
            self._read_policy()
        completed = await self._look()
        self._await_second_look()
        if completed and not self._ready:
            self._ready = True
            notify.tell("READY=1")
            self._tell_ready()
        elif reload:
            notify.tell("READY=1")
        if completed and self._watchdog_waits:
            self._watchdog_waits = False
            notify.tell("WATCHDOG=1")
            self._await_watchdog()

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
        self._take_policy()

    def _watch(self) -> None:
        self._reconciler.set_filter(self._monitor)
