"""Where this process is: which boot of the machine, and which network namespace."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


@cache
def boot() -> str:
    """Return the ID of this boot (random(4)), 32 digits: a /run may survive a reboot, and hold its times.

    The service manager says it where the daemon has a /proc of its own: see systemd/anyipd.service.
    """
    found = os.environ.get("ANYIPD_BOOT_ID") or Path("/proc/sys/kernel/random/boot_id").read_text()
    return plain_boot(found)


def plain_boot(text: str) -> str:
    """Return the ID of a boot without the dashes that some write it with."""
    return text.strip().replace("-", "")


def network_namespace() -> int:
    """Return the inode of the network namespace, the same for everybody inside (namespaces(7))."""
    return Path("/proc/self/ns/net").stat().st_ino
