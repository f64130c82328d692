"""What signals do to a program that runs until it is stopped, before and after its event loop."""

from __future__ import annotations

import os
import signal

STOPS = (signal.SIGTERM, signal.SIGINT)


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
