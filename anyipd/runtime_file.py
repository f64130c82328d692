"""Files in the runtime directory: written whole and for everybody, read without trust in who wrote them.

Some of its directories are the daemon's own user's. Whoever took that over may leave there what a program of
root's, or the next daemon, would wait for or follow.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path


def read(path: str | Path, most: int) -> tuple[bytes, float]:
    """Return the first bytes of a file, `most` of them, and its time stamp on the wall clock.

    Raises ValueError where it is no regular file, and OSError.
    """
    # Neither a symlink nor a FIFO may lead us astray or hold us up.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is not a regular file")
        return os.read(descriptor, most), status.st_mtime
    finally:
        os.close(descriptor)


def write(path: Path, parts: Iterable[bytes]) -> None:
    """Put a file in its place, whole, and make its directory where that is missing.

    Everybody may read both, whatever the umask is. Raises OSError.
    """
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir()
        path.parent.chmod(0o755)
    new = path.with_name(f".{path.name}")
    new.unlink(missing_ok=True)
    try:
        with new.open("xb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.writelines(parts)
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
