"""`anyipctl watch`: what `status` shows, as it changes, a line for each change."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import select
import sys
from collections.abc import Collection, Sequence
from datetime import datetime

from structlog.processors import LogfmtRenderer

from anyipd import log, mainloop
from anyipd.ctl.look import LOOKED_ALONE, NOT_MAINTAINED, Seen, apart, see
from anyipd.decide.carve import unmatched
from anyipd.decide.ledger import KERNEL
from anyipd.follow.views import Views
from anyipd.kernel import lock
from anyipd.model import Prefix
from anyipd.narrate import delegation_lines, state_lines
from anyipd.view import View

LOOK_AGAIN = 2.0
"""Seconds between two looks at the configuration."""

_render = LogfmtRenderer()


def run(options: argparse.Namespace) -> None:
    """Print all that is, and then what becomes of it, until interrupted or nobody reads on."""
    log.configure()
    asyncio.run(_watch(options, see(options)))


async def _watch(options: argparse.Namespace, first: Seen) -> None:
    watching = asyncio.current_task()
    assert watching
    with select.epoll() as hung_up, contextlib.suppress(asyncio.CancelledError):
        with contextlib.suppress(PermissionError):  # a file, which is never hung up
            hung_up.register(sys.stdout.fileno(), 0)
        asyncio.get_running_loop().add_reader(hung_up.fileno(), watching.cancel)
        changes = _Changes(options)
        changes.remark(first.remarks)
        mainloop.must_not_end(asyncio.create_task(changes.remark_again_and_again()))
        async for view in Views(options.runtime_dir, first.view).follow():
            if view:
                changes.show(view)


class _Changes:
    """What was shown and said last."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._view: View | None = None
        self._remarks: Collection[str] = ()

    def show(self, view: View) -> None:
        """Print what has changed."""
        before, self._view = self._view, view
        known = {each.prefix: each for each in before.delegations} if before else {}

        def ending(prefix: Prefix) -> tuple[str, str]:
            gone = known[prefix]
            if gone.valid_until is not None and gone.valid_until <= view.time:
                return "expired", "its valid lifetime is over"
            if gone.source == KERNEL:
                return "withdrawn", "its discard route is gone"
            return "withdrawn", "the server, the client or the operator took it back"

        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        for line in (
            *delegation_lines(known.values(), view.delegations, view.time, ending, ()),
            *state_lines(before.subnets if before else (), view.subnets),
        ):
            fields = {"time": now, "event": line.event, **line.fields}
            print(json.dumps(fields) if self._options.json else _render(None, "", fields), flush=True)

    def remark(self, remarks: Sequence[str]) -> None:
        """Print what is remarkable for the first time."""
        for remark in remarks:
            if remark not in self._remarks:
                print(remark, file=sys.stderr)
        self._remarks = remarks

    async def remark_again_and_again(self) -> None:
        """Look at the configuration and for a daemon: no View tells of these."""
        while True:
            await asyncio.sleep(LOOK_AGAIN)
            if view := self._view:
                remarks = apart(self._options, view) if lock.holder() else [NOT_MAINTAINED, LOOKED_ALONE]
                self.remark([*remarks, *unmatched(view.policy, view.delegations)])
