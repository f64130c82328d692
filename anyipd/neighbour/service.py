"""What goes on beside the answering: what each View says is to be answered for, and where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import structlog

from anyipd import notify
from anyipd.kernel.monitor import LINKS, Hint, Monitor
from anyipd.model import address_text
from anyipd.neighbour.link import Link, addresses
from anyipd.neighbour.spans import answered
from anyipd.view import View

_log = structlog.get_logger()


class Service:
    """The links that the View names, and what is to be answered for there."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._monitor = Monitor()
        self._view: View | None = None

    async def follow(self, views: AsyncIterator[View | None]) -> None:
        """Answer for what each View says, until cancelled; None changes nothing."""
        self._monitor.subscribe(LINKS)
        asyncio.get_running_loop().add_reader(self._monitor.fileno(), self._on_event)
        self._feed_watchdog()
        ready = False
        async for view in views:
            if view:
                self._apply(view)
            if not ready:
                ready = True
                notify.tell("READY=1")
                _log.info("ready", links=",".join(sorted(self._links)))

    def _apply(self, view: View) -> None:
        """Listen on the links of the policy, and on no other, and answer for what is bound and routed on."""
        wanted = answered(view.policy, view.subnets)
        if not wanted and (self._links or not self._view):
            _log.warning("nothing to answer for: the policy names no neighbours")
        self._view = view
        for name in self._links.keys() - wanted:
            self._links.pop(name).close()
        for name in sorted(wanted.keys() - self._links.keys()):
            self._links[name] = Link(name, asyncio.get_running_loop())
        self._look_at_links()
        for name, link in self._links.items():
            if link.answered != wanted[name]:
                link.answer_for(wanted[name])
                _log_state(link)

    def _feed_watchdog(self) -> None:
        """Show the service manager that the loop goes round."""
        interval = notify.watchdog_interval()
        if interval:
            notify.tell("WATCHDOG=1")
            asyncio.get_running_loop().call_later(interval / 2, self._feed_watchdog)

    def _on_event(self) -> None:
        if self._monitor.read() != Hint():
            self._look_at_links()

    def _look_at_links(self) -> None:
        assigned = list(addresses())
        for link in self._links.values():
            before = link.fault
            link.look(assigned)
            if link.fault != before:
                _log_state(link)


def _log_state(link: Link) -> None:
    bounds = link.answered.spans.bounds
    if link.fault:
        _log.warning("silent", link=link.name, reason=link.fault)
    elif bounds:
        first, last = address_text(bounds[0]), address_text(bounds[-1] - 1)
        _log.info("answering", link=link.name, first=first, last=last)
    else:
        _log.info("silent", link=link.name, reason="no subnet is to be answered for there now")
