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
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        holder.bind(_NAME)
        holder.listen(1)
    except OSError as error:
        holder.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise AlreadyRunningError(_first()) from None
    return holder


def _first() -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as caller:
        caller.settimeout(0)
        try:
            caller.connect(_NAME)
        except OSError:
            return "pid unknown"
        pid, uid, _ = _UCRED.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if not pid:  # it lives in another pid namespace
        return "pid unknown"
    return f"pid {pid}" if uid in {0, os.geteuid()} else f"pid {pid} of user {uid}"
