"""One daemon a network namespace, by a name that ends with its holder.

Abstract unix sockets live in the network namespace, so the claim holds exactly where two daemons
would fight over one table, whatever their files and mounts are.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

_NAME = "\0anyipd"
_UCRED = struct.Struct("=iII")


class AlreadyRunningError(Exception):
    """Another daemon holds this network namespace; the text says which, where that can be known."""


def claim() -> socket.socket | None:
    """Hold the name for as long as the socket returned is open.

    Raises AlreadyRunningError. None says that the name is taken by somebody who cannot be a daemon of
    ours: abstract names have no permissions, and nobody is to keep us from starting.
    """
    claimed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        claimed.bind(_NAME)
        claimed.listen()
    except OSError as error:
        claimed.close()
        if error.errno != errno.EADDRINUSE:
            raise
        found = holder()
        if found is None:
            return None
        raise AlreadyRunningError(found) from None
    return claimed


def answer(claimed: socket.socket) -> None:
    """Receive somebody who asks who we are; the kernel has told them already."""
    claimed.accept()[0].close()


def holder() -> str | None:
    """Say which process of root or of our own user holds this network namespace, None if none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as caller:
        caller.settimeout(0)
        try:
            caller.connect(_NAME)
        except (ConnectionRefusedError, BlockingIOError):
            return None
        pid, uid, _ = _UCRED.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid not in {0, os.geteuid()}:
        return None
    return f"pid {pid}" if pid else "pid unknown, in another pid namespace"
