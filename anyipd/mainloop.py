"""The event loop of a program that runs until it is stopped."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from anyipd import signals


def run(program: Coroutine[Any, Any, None]) -> None:
    """Run until SIGTERM or SIGINT.

    An unexpected exception ends it as well, raised in whatever callback, task or thread: systemd restarts us,
    and routes persist.
    """
    with suppress(asyncio.CancelledError):
        asyncio.run(_until_stopped(program))


async def _until_stopped(program: Coroutine[Any, Any, None]) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.create_task(program)
    unexpected: list[BaseException] = []

    def end(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        unexpected.append(context.get("exception") or RuntimeError(context["message"]))
        task.cancel()

    loop.set_exception_handler(end)
    threading.excepthook = lambda args: loop.call_soon_threadsafe(end, loop, {"exception": args.exc_value})
    for number in signals.STOPS:
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        if unexpected:
            raise unexpected[0] from None
        raise
    finally:
        signals.block_signals()


def must_not_end(task: asyncio.Task[None]) -> None:
    """Take a task's exception for an unexpected one."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.result()

    task.add_done_callback(ended)
