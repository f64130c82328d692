"""The Views that a follower consumes: the daemon's, and without a daemon what is left of the last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from anyipd import clock, mainloop
from anyipd.kernel import lock
from anyipd.varlink.client import Client, UnansweredError
from anyipd.view import View
from anyipd.view_wire import view_from_json

RECONNECT = 0.5
"""Seconds between two attempts to reach the daemon."""

_log = structlog.get_logger()


class Views:
    """Yields what holds now, again each time that it changes: None while nothing is known.

    `last` is what to start with where no daemon can be asked. A subnet goes when its valid lifetime ends,
    whether there is a daemon or not.
    """

    def __init__(self, runtime_dir: Path, last: View | None) -> None:
        self._runtime_dir, self._view = runtime_dir, last
        self._alarm = clock.Alarm()
        self._woken = asyncio.Event()
        self._reason = ""

    async def follow(self) -> AsyncIterator[View | None]:
        """Yield them until cancelled; the first comes after the first attempt to reach the daemon."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._alarm.fileno(), self._woken.set)
        mainloop.must_not_end(asyncio.create_task(self._connect_again_and_again()))
        while True:
            await self._woken.wait()
            self._woken.clear()
            self._alarm.clear()
            if self._view:
                self._view = self._view.at(clock.now())
                self._alarm.set(self._view.next_end)
            yield self._view

    async def _connect_again_and_again(self) -> None:
        while True:
            try:
                client = await asyncio.to_thread(self._connect)
            except UnansweredError as error:
                self._lost(str(error))
            else:
                await self._read(client)
            self._woken.set()
            await asyncio.sleep(RECONNECT)

    def _connect(self) -> Client:
        # To connect to a socket unit would start a daemon that somebody stopped.
        if not lock.holder():
            raise UnansweredError("no daemon is running here")
        client = Client(self._runtime_dir)
        try:
            client.monitor()
        except UnansweredError:
            client.close()
            raise
        return client

    async def _read(self, client: Client) -> None:
        """Take in each View that comes, until the connection ends."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def on_readable() -> None:
            try:
                found = client.next_view(0)
                if found is not None:
                    self._view = view_from_json(found)
                    self._reason = ""
                    self._woken.set()
            except (UnansweredError, ValueError) as error:
                self._lost(str(error))
                ended.set()

        loop.add_reader(client.fileno(), on_readable)
        await ended.wait()
        loop.remove_reader(client.fileno())
        client.close()

    def _lost(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            _log.warning("no views from the daemon, the last one holds", reason=reason)
