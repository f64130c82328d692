"""Where the daemon listens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "io.anyipd"
"""Of the socket, in the runtime directory."""

_MAX_PATH = 107  # sun_path in unix(7), less its NUL


@contextmanager
def address(path: Path) -> Iterator[str]:
    """Give the address of the socket at `path`, which may be longer than addresses are."""
    if len(os.fsencode(path)) <= _MAX_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
