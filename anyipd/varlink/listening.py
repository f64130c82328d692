"""The socket that the daemon listens on: the service manager's, or its own in the runtime directory."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from anyipd.varlink.address import NAME, address

MAX_WAITING = 64
"""Connections that wait to be accepted, as in systemd/anyipd.socket. One more waits too, if it can block.

Few, since a crowd keeps as many in front of everybody else.
"""

_FIRST_PASSED = 3
_PASSED_AS = "varlink"  # FileDescriptorName= in systemd/anyipd.socket
_FOR_ALL = 0o111
"""The umask that leaves a socket, which nobody executes, to everybody."""

_FLAGS = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK


@dataclass(frozen=True)
class Listening:
    """A socket that listens; with its path and inode, if its name is ours to take away."""

    socket: socket.socket
    path: Path | None = None
    inode: int = 0

    def close(self) -> None:
        """Listen no more."""
        self.socket.close()
        if self.path:
            with suppress(OSError):
                if self.path.stat().st_ino == self.inode:
                    self.path.unlink()


def listen(runtime_dir: Path) -> Listening | None:
    """Listen; None where another process has the name. Raises OSError where that cannot be."""
    passed = _passed()
    return Listening(passed) if passed else _listen_at(runtime_dir / NAME)


def _passed() -> socket.socket | None:
    """Return the socket that the service manager passed: sd_listen_fds(3), by its documented protocol."""
    pid, count, names = (os.environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return None
    found = None
    for number, name in enumerate(names.split(":")[: int(count)], _FIRST_PASSED):
        os.set_inheritable(number, False)  # noqa: FBT003  its only form
        if name == _PASSED_AS:
            found = socket.socket(fileno=number)
            found.settimeout(0)
    return found


def _listen_at(path: Path) -> Listening | None:
    listening = socket.socket(socket.AF_UNIX, _FLAGS)
    try:
        if not _bind(listening, path) and not (_is_left_over(path) and _bind(listening, path)):
            listening.close()
            return None
        inode = path.stat().st_ino
        listening.listen(MAX_WAITING)
    except OSError:
        listening.close()
        raise
    return Listening(listening, path, inode)


def _bind(listening: socket.socket, path: Path) -> bool:
    # Not chmod(2), which follows a link that somebody else may have put there.
    mask = os.umask(_FOR_ALL)
    try:
        with address(path) as found:
            listening.bind(found)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    finally:
        os.umask(mask)
    return True


def _is_left_over(path: Path) -> bool:
    """Say whether nobody listens at a socket any more, and take it away then.

    Two that start at once may both do so: one of them has the name then, as with any other order.
    """
    if not stat.S_ISSOCK(path.lstat().st_mode):
        return False
    with socket.socket(socket.AF_UNIX, _FLAGS) as caller, address(path) as found:
        if caller.connect_ex(found) != errno.ECONNREFUSED:
            return False
    path.unlink()
    return True
