"""Where this process is: which boot of the machine, and which network namespace."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def boot() -> str:
    """Return the kernel's ID of this boot (random(4)): a /run may survive a reboot, and hold its times."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def network_namespace() -> int:
    """Return the inode of the network namespace, the same for everybody inside (namespaces(7))."""
    return Path("/proc/self/ns/net").stat().st_ino
