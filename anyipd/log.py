"""The log on stderr: readable on a terminal, logfmt elsewhere, with priorities under systemd."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
from pathlib import Path
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

from anyipd.printable import printable

_PRIORITIES = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>"}  # sd-daemon(3)


def configure() -> None:
    """Set up structlog for this process."""
    if sys.stderr is None:  # started with it closed
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  until the end
    processors: list[structlog.typing.Processor] = [_escape, structlog.processors.add_log_level]
    if sys.stderr.isatty():
        processors += [
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(pad_event_to=12),
        ]
    elif "JOURNAL_STREAM" in os.environ:
        processors += [_logfmt(), _prioritized]
    else:
        processors += [structlog.processors.TimeStamper(fmt="iso", utc=False), _logfmt()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=_Stderr,
    )


class _Stderr:
    """Writes lines. A full disk, a reader that is gone or that hangs costs the lines, never the daemon."""

    def __init__(self, *_: Any) -> None:  # noqa: ANN401  what get_logger was given
        self._room = select.poll()
        self._room.register(sys.stderr, select.POLLOUT)

    def msg(self, line: str) -> None:
        """Write a line whole, of whatever level, if there is room for it now."""
        if self._room.poll(0):
            with contextlib.suppress(OSError):
                print(line, file=sys.stderr, flush=True)

    debug = info = warning = error = msg


def _escape(_: WrappedLogger, __: str, fields: EventDict) -> EventDict:
    return {key: printable(value) if isinstance(value, str) else value for key, value in fields.items()}


def _logfmt() -> structlog.processors.LogfmtRenderer:
    return structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], drop_missing=True)


def _prioritized(_: WrappedLogger, level: str, line: Any) -> str:  # noqa: ANN401  what the renderer before it made; structlog types steps by their first
    # One line is one journal entry, and its priority stands in front.
    return _PRIORITIES.get(level, "<6>") + str(line).replace("\n", " ")
