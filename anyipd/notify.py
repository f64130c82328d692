"""What the service manager is told: sd_notify(3), by its documented protocol."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress


def tell(*assignments: str) -> None:
    """Send `READY=1` and the like to the service manager, if there is one.

    One that cannot be told is no reason to stop working: sd_notify(3) advises to ignore it. Nor is one
    that does not listen: a full queue would hold up a sender that waits.
    """
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with (
        suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.sendto("\n".join(assignments).encode(), socket.MSG_DONTWAIT, address)


def reloading() -> None:
    """Say that a reload begins; READY=1 ends it."""
    microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    tell("RELOADING=1", f"MONOTONIC_USEC={microseconds}")


def watchdog_interval() -> float | None:
    """Seconds within which the service manager wants a sign of life, None if it wants none."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    return microseconds / 1e6 or None
