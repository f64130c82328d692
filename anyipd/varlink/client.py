"""Asking the daemon of this network namespace: its View, each new one, and to do something.

Every step has its time limit. What another user says, or the daemon of another network namespace, is none.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from pathlib import Path
from typing import Self

from anyipd import here
from anyipd.varlink import peer
from anyipd.varlink.address import NAME, address
from anyipd.varlink.message import (
    INTERFACE,
    MAX_REPLY,
    Call,
    Json,
    Messages,
    ProtocolError,
    VarlinkError,
    encode_call,
    parse_reply,
)

ANSWER_TIMEOUT = 2.0
"""Seconds to wait for an answer; a daemon in the middle of a pass has a turn every few milliseconds."""

_PIECE = 256 * 1024
_TIMEVAL = struct.Struct("ll")


class UnansweredError(Exception):
    """There is no answer to believe; it says why."""


class Client:
    """A connection to the daemon that listens in `runtime_dir`; an answer may take `timeout` seconds.

    To make one, and whatever it does, raises UnansweredError where there is no answer.
    """

    def __init__(self, runtime_dir: Path, timeout: float = ANSWER_TIMEOUT) -> None:
        self._timeout = timeout
        self._messages = Messages(MAX_REPLY)
        self._whole_by: float | None = None
        self._network_namespace = here.network_namespace()
        self._socket = _connect(runtime_dir / NAME, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor that turns readable where `next_view` has something to read."""
        return self._socket.fileno()

    def describe(self) -> Json:
        """Return the current View."""
        self._send(Call(f"{INTERFACE}.Describe"))
        return self._view(self._answer())

    def monitor(self) -> None:
        """Have the current View sent, and then each new one; no other call can follow."""
        self._send(Call(f"{INTERFACE}.Monitor", more=True))

    def next_view(self, timeout: float | None) -> Json | None:
        """Return the newest View that came since, or the first that comes; None if `timeout` seconds pass."""
        newest = None
        message = self._message(timeout)
        while message is not None:
            newest = self._view(message)
            message = self._message(0)
        return newest

    def forget(self, prefix: str) -> None:
        """End a delegation. Raises VarlinkError where there is none, or where this user may not."""
        self._command("Forget", prefix=prefix)

    def reload(self) -> None:
        """Have the configuration read again. Raises VarlinkError where it is bad, or this user may not."""
        self._command("Reload")

    def _command(self, method: str, **parameters: object) -> None:
        parameters["network_namespace"] = self._network_namespace
        self._send(Call(f"{INTERFACE}.{method}", parameters))
        try:
            _parse(self._answer())
        except VarlinkError as error:
            if error.name == f"{INTERFACE}.OtherNetworkNamespace":
                raise _of_another_network_namespace() from None
            raise

    def _send(self, call: Call) -> None:
        self._socket.settimeout(self._timeout)
        try:
            self._socket.sendall(encode_call(call))
        except OSError as error:
            raise UnansweredError(error.strerror or "it reads nothing") from None

    def _answer(self) -> bytes:
        message = self._message(self._timeout)
        if message is None:
            raise UnansweredError(f"no answer within {self._timeout:g} s")
        return message

    def _message(self, timeout: float | None) -> bytes | None:
        """Return the next message; None if `timeout` seconds pass before it begins or goes on."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (message := self._messages.take()) is None:
            limits = [each for each in (deadline, self._whole_by) if each is not None]
            if not self._wait(min(limits) if limits else None):
                if self._whole_by is not None and time.monotonic() >= self._whole_by:
                    raise UnansweredError("an answer that has no end")
                return None
            self._receive()
        self._whole_by = None
        self._note_part()
        return message

    def _wait(self, until: float | None) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(None if until is None else max(0.0, until - time.monotonic()) * 1000))

    def _receive(self) -> None:
        try:
            data = self._socket.recv(min(_PIECE, self._messages.room), socket.MSG_DONTWAIT)
            self._messages.feed(data)
        except BlockingIOError:
            return
        except OSError as error:
            raise UnansweredError(error.strerror or str(error)) from None
        except ProtocolError as error:
            raise UnansweredError(str(error)) from None
        if not data:
            raise UnansweredError("it ended the connection")
        self._note_part()

    def _note_part(self) -> None:
        if self._messages.holds_any and self._whole_by is None:
            self._whole_by = time.monotonic() + self._timeout

    def _view(self, message: bytes) -> Json:
        try:
            view = _parse(message).get("view")
        except VarlinkError as error:
            raise UnansweredError(f"it answers {error.name}") from None
        if not isinstance(view, dict):
            raise UnansweredError("an answer without a View")
        if view.get("network_namespace") != self._network_namespace:
            raise _of_another_network_namespace()
        return view


def _connect(path: Path, timeout: float) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # Not settimeout(): a socket that does not block is refused by a full queue instead of waiting in it.
    seconds, fraction = divmod(timeout, 1)
    timeval = _TIMEVAL.pack(int(seconds), int(fraction * 1_000_000))
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
    try:
        with address(path) as found:
            connected.connect(found)
        user = peer.uid(connected)
    except OSError as error:
        connected.close()
        raise UnansweredError(f"{path}: {error.strerror or error}") from None
    if not peer.may_be_the_daemon(user):
        connected.close()
        raise UnansweredError(f"user {user} listens at {path}")
    return connected


def _parse(message: bytes) -> Json:
    try:
        return parse_reply(message).parameters
    except ProtocolError as error:
        raise UnansweredError(str(error)) from None


def _of_another_network_namespace() -> UnansweredError:
    return UnansweredError("it is the daemon of another network namespace")
