"""Who is at the other end of a socket."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from contextlib import suppress

ROOT = 0
USER = "anyipd"
"""The service's (systemd/anyipd.sysusers)."""

_NOBODY = 65534
"""Whoever has no number in this user namespace: all of them share this one (user_namespaces(7))."""

_UCRED = struct.Struct("=iII")


def uid(connected: socket.socket) -> int:
    """Return the user that connected, or that listens: of whom called listen(2)."""
    _, found, _ = _UCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(found)


def may_command(user: int) -> bool:
    """Say whether a user may have the daemon, which this process is, do something."""
    return user in {ROOT, os.geteuid()} - {_NOBODY}


def may_be_the_daemon(user: int) -> bool:
    """Say whether to believe what a user says about this host's network."""
    with suppress(KeyError):
        if user == pwd.getpwnam(USER).pw_uid:
            return True
    return may_command(user)
