"""The programs' entry points: they settle what signals do, and only then import the program.

Importing takes a fifth of a second. Until then Python answers SIGINT with a traceback, and SIGTERM and SIGHUP
kill. Imports nothing else of ours by itself.
"""

from __future__ import annotations

import os
import signal

STOPS = (signal.SIGTERM, signal.SIGINT)


def anyipd() -> None:
    """Run `anyipd`."""
    take_signals()
    from anyipd.__main__ import main  # noqa: PLC0415  see above

    main()


def anyipctl() -> None:
    """Run `anyipctl`. An interrupt ends it as it ends any program."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from anyipd.ctl.__main__ import main  # noqa: PLC0415  see above

    main()


def anyipd_neighbour() -> None:
    """Run `anyipd-neighbour`."""
    take_signals()
    from anyipd.neighbour.__main__ import main  # noqa: PLC0415  see above

    main()


def take_signals() -> None:
    """Exit with 0 at SIGTERM and SIGINT, and ignore SIGHUP, for as long as no event loop handles them."""
    for number in STOPS:
        signal.signal(number, lambda *_: os._exit(0))
    # What a reload would read is about to be read anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def block_signals() -> None:
    """Let no further signal change how a program ends that is ending already.

    The event loop and then the interpreter give the handlers back before the process is gone.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPS, signal.SIGHUP})
