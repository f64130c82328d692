"""One daemon a network namespace, by a name that ends with its holder.

Abstract unix sockets live in the network namespace, so the claim holds exactly where two daemons
would fight over one table, whatever their files and mounts are.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import socket
import struct
from contextlib import suppress

PATIENCE = 2.0
"""Seconds to wait for an answer; a daemon in the middle of a pass has a turn every few milliseconds."""

MAX_REQUEST = 256
"""Bytes of a request, and of what is answered."""

_NAME = "\0anyipd"
_USER = "anyipd"  # systemd/anyipd.sysusers
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


def sealed(news: bytes) -> int:
    """Give the descriptor of a file that holds `news`, and that nobody can change."""
    descriptor = os.memfd_create("anyipd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(news)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def answer(claimed: socket.socket, news: int) -> socket.socket | None:
    """Receive somebody who asks who we are, which the kernel has told them already, and hand `news` over.

    As a file, one for all: however long it is, however many ask and however slowly they read, it is there
    once, and nobody waits for them here. Returns the connection, for its owner to close, where a request of
    root's or our own user's may follow.
    """
    caller, _ = claimed.accept()
    caller.settimeout(0)
    with suppress(OSError):
        socket.send_fds(caller, [b"\0"], [news])
        if _peer(caller)[1] in {0, os.geteuid()}:
            return caller
    caller.close()
    return None


def holder() -> str | None:
    """Say which process holds this network namespace, None if none of those that may does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as caller:
        pid = _call(caller)
    if pid is None:
        return None
    return f"pid {pid}" if pid else "pid unknown, in another pid namespace"


def ask() -> bytes | None:
    """Give the holder's news, None where there is no holder or it does not answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as caller:
        if _call(caller) is None:
            return None
        caller.settimeout(PATIENCE)
        try:
            _, found, _, _ = socket.recv_fds(caller, 1, 1)
        except (TimeoutError, ConnectionResetError):
            return None
    for descriptor in found:
        try:
            return os.pread(descriptor, os.fstat(descriptor).st_size, 0)  # its position is everybody's
        finally:
            os.close(descriptor)
    return None


def request(text: str) -> str | None:
    """Have the holder do something; return its answer, "" for none, None where there is no holder."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as caller:
        if _call(caller) is None:
            return None
        caller.settimeout(PATIENCE)
        with suppress(TimeoutError, ConnectionError):
            caller.sendall(text.encode())
            _, found, _, _ = socket.recv_fds(caller, 1, 1)
            for descriptor in found:
                os.close(descriptor)
            return caller.recv(MAX_REQUEST).decode(errors="replace")
        return ""


def _peer(caller: socket.socket) -> tuple[int, int]:
    """Return pid and uid of who is at the other end."""
    pid, uid, _ = _UCRED.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(pid), int(uid)


def _call(caller: socket.socket) -> int | None:
    """Connect to the holder; give its pid, 0 where that is not known, None where nobody holds the name.

    Neither does a user who is not root, the caller's own or the service's.
    """
    caller.settimeout(0)
    try:
        caller.connect(_NAME)
    except (ConnectionRefusedError, BlockingIOError):
        return None
    pid, uid = _peer(caller)
    trusted = {0, os.geteuid()}
    with suppress(KeyError):
        trusted.add(pwd.getpwnam(_USER).pw_uid)
    return pid if uid in trusted else None
