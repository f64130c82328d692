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


def claim() -> socket.socket:
    """Hold the name for as long as the socket returned is open. Raises AlreadyRunningError."""
    claimed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        claimed.bind(_NAME)
        claimed.listen(1)
    except OSError as error:
        claimed.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise AlreadyRunningError(holder() or "pid unknown") from None
    return claimed


def holder() -> str | None:
    """Say who holds this network namespace, None if nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as caller:
        caller.settimeout(0)
        try:
            caller.connect(_NAME)
        except BlockingIOError:  # its queue is full of others who ask
            return "pid unknown"
        except ConnectionRefusedError:
            return None
        pid, uid, _ = _UCRED.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if not pid:  # it lives in another pid namespace
        return "pid unknown"
    return f"pid {pid}" if uid in {0, os.geteuid()} else f"pid {pid} of user {uid}"
