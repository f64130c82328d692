"""Asking the daemon of this network namespace: which policy is in force, and requests.

By an abstract unix socket, whose name lives in the network namespace, as the routes do. It has no
permissions: where somebody else holds the name, the daemon cannot be asked. Whether there is one, the lock
alone says (kernel/lock.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import socket
import struct
import termios
from contextlib import suppress

ANSWER_TIMEOUT = 2.0
"""Seconds to wait for an answer; a daemon in the middle of a pass has a turn every few milliseconds."""

MAX_REQUEST = 256
"""Bytes of a request, and of what is answered."""

_NAME = "\0anyipd"
_USER = "anyipd"  # systemd/anyipd.sysusers
_UCRED = struct.Struct("=iII")
_TIMEVAL = struct.pack("ll", int(ANSWER_TIMEOUT), 0)


def listen() -> socket.socket | None:
    """Can be asked while the socket returned is open; None where somebody else holds the name."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listening.bind(_NAME)
        listening.listen()
    except OSError as error:
        listening.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return listening


def sealed(news: bytes) -> int:
    """Give the descriptor of a file that holds `news`, and that nobody can change."""
    descriptor = os.memfd_create("anyipd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(news)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def hand_over(caller: socket.socket, news: int) -> None:
    """Send `news` as a file, one for all: however long it is and slowly they read, it is there once."""
    socket.send_fds(caller, [b"\0"], [news])


def has_read(caller: socket.socket) -> bool:
    """Whether nothing that was sent waits at the other end.

    The kernel counts descriptors that do against those that we may have open (too_many_unix_fds in
    net/core/scm.c), also when our end is closed.
    """
    (waiting,) = struct.unpack("i", fcntl.ioctl(caller, termios.TIOCOUTQ, bytes(4)))
    return not waiting


def user(caller: socket.socket) -> int:
    """Return the uid of who is at the other end."""
    _, uid, _ = _UCRED.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)


def ask() -> bytes | None:
    """Give the daemon's news, None where it does not answer."""
    with _caller() as caller:
        try:
            if not _call(caller):
                return None
            _, found, _, _ = socket.recv_fds(caller, 1, 1)
        except (BlockingIOError, ConnectionError):
            return None
    for descriptor in found:
        try:
            return os.pread(descriptor, os.fstat(descriptor).st_size, 0)  # its position is everybody's
        finally:
            os.close(descriptor)
    return None


def request(text: str) -> str | None:
    """Have the daemon do something; return its answer, "" where it refuses, None where it does not answer."""
    with _caller() as caller:
        try:
            if not _call(caller):
                return None
            caller.sendall(text.encode())
            _, found, _, _ = socket.recv_fds(caller, 1, 1)
            for descriptor in found:
                os.close(descriptor)
            return caller.recv(MAX_REQUEST).decode(errors="replace")
        except BlockingIOError:
            return None
        except ConnectionError:
            return ""


def _caller() -> socket.socket:
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # Not settimeout(): a socket that does not block is refused by a full queue instead of waiting in it.
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        caller.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL)
    return caller


def _call(caller: socket.socket) -> bool:
    """Connect; say whether it is to somebody who may be the daemon: root, our own user or the service's."""
    try:
        caller.connect(_NAME)
    except ConnectionRefusedError:
        return False
    trusted = {0, os.geteuid()}
    with suppress(KeyError):
        trusted.add(pwd.getpwnam(_USER).pw_uid)
    return user(caller) in trusted
