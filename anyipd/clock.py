"""Time as lifetimes need it: CLOCK_BOOTTIME goes on in suspend and knows no steps of the wall clock."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time

from anyipd import libc
from anyipd.model import INFINITE

_TFD_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
_TFD_TIMER_ABSTIME = 1


def now() -> float:
    """Seconds since boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Alarm:
    """A file descriptor that turns readable at a set time, also when that passed during suspend.

    asyncio's own timers run on CLOCK_MONOTONIC, which stands still then. (timerfd_create(2) by
    ctypes: the os module has it from Python 3.13 on.)
    """

    def __init__(self) -> None:
        self._fd = libc.call("timerfd_create", time.CLOCK_BOOTTIME, _TFD_FLAGS)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._fd

    def set(self, deadline: float) -> None:
        """Wake at `deadline`, or never if it is INFINITE; forgets what was set before."""
        seconds, fraction = (0, 0.0) if deadline == INFINITE else divmod(deadline, 1)
        # struct itimerspec: interval, value; a value of zero would disarm
        spec = (ctypes.c_long * 4)(0, 0, int(seconds), int(fraction * 1e9))
        libc.call("timerfd_settime", self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None)

    def clear(self) -> None:
        """Take note of a wake-up."""
        # It may have been set anew between the wake-up and here.
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)
