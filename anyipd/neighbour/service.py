"""What goes on beside the answering: finding out what is to be answered for, and where.

It reads what the daemon reads, and the routes that the daemon left, by the same pass; it changes nothing,
and needs no daemon to run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from pathlib import Path

import structlog

from anyipd import clock
from anyipd.decide.verdict import verdicts
from anyipd.kernel.monitor import Hint, Stale
from anyipd.kernel.routes import Routes
from anyipd.kernel.wire import MalformedError
from anyipd.model import address_text
from anyipd.neighbour.link import Link, addresses
from anyipd.neighbour.spans import answered
from anyipd.observe import networkd
from anyipd.passes import Passes
from anyipd.policy import Policy
from anyipd.reconcile import in_slices

RETRY = 1.0
"""Seconds until a pass that failed is repeated."""

_log = structlog.get_logger()


class Service(Passes):
    """What answering adds to passes: links, and what is to be answered for there."""

    def __init__(self, config: Path, runtime_dir: Path, first_policy: Policy, routes: Routes) -> None:
        super().__init__(config, runtime_dir, first_policy, routes)
        self._links: dict[str, Link] = {}
        self._asking: asyncio.Task[None] | None = None

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        threading.excepthook = lambda args: loop.call_soon_threadsafe(
            self._on_unforeseen, loop, {"exception": args.exc_value}
        )
        self._take_policy()
        # Before the first pass: what only networkd knows of may be about to lose its discard route.
        await self._hear_networkd()

    def _hear(self, hint: Hint) -> None:
        self._look_at_links()
        if hint != Hint():
            self._look_again(hint)

    def _tell_ready(self) -> None:
        _log.info("ready", links=",".join(sorted(self._links)))

    async def _look(self) -> bool:
        try:
            await self._find_out()
        except (OSError, MalformedError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            _log.error("pass failed, will be repeated", reason=reason, after=RETRY)
            self._reconciler.reopen()
            self._watch()
            asyncio.get_running_loop().call_later(RETRY, self._look_again, Hint(Stale.ALL))
            return False
        return True

    async def _find_out(self) -> None:
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
        reconciler.remember(decision)
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
        with contextlib.suppress(ValueError, TimeoutError):  # the daemon tells of it
            said = await asyncio.to_thread(networkd.ask, clock.now())
            if self._reconciler.networkd.take(said):
                self._look_again(Hint(Stale.DISCARDS))

    def _take_policy(self) -> None:
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


def _tell(link: Link) -> None:
    bounds = link.spans.bounds
    if link.fault:
        _log.warning("silent", link=link.name, reason=link.fault)
    elif bounds:
        first, last = address_text(bounds[0]), address_text(bounds[-1] - 1)
        _log.info("answering", link=link.name, first=first, last=last)
    else:
        _log.info("silent", link=link.name, reason="no subnet is bound that is to be answered for there")
