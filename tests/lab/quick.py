"""Which tests `--quick` runs: the pure ones, and those that need this process and the kernel alone."""

from __future__ import annotations

import pytest

PROGRAMS = {"boot", "daemon", "installed", "isp", "package", "service", "uplink"}
"""Fixtures that start a program, build what is installed, or boot a machine."""


def is_quick(item: pytest.Item) -> bool:
    """Say whether `item` waits for no other program than those that it runs to their end."""
    used = set(getattr(item, "fixturenames", ()))
    if used & PROGRAMS or any(item.get_closest_marker(name) for name in ("alone", "long")):
        return False
    # Of all shells that run the hooks, the one that does on a Debian.
    parameters = (
        item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    )
    if any(parameters.get(name, "dash") != "dash" for name in ("caller", "shell")):
        return False
    # Who builds a lab and has no use for a host starts a whole program in it, such as the demo.
    return "lab" not in used or "host" in used
