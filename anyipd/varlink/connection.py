"""One connection at the daemon's end: what came and is no whole message yet, and what is to be sent.

It takes no descriptors: without room for them the kernel closes them, and says so.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress

from anyipd.varlink.message import MAX_CALL, Messages, ProtocolError
from anyipd.varlink.publication import Publication

SEND_BUFFER = 32 * 1024
"""Bytes that the kernel may keep for one who does not read; it doubles them, for what it needs itself."""


class Connection:
    """A socket that is connected to somebody, and from here on does not block."""

    def __init__(self, connected: socket.socket, user: int) -> None:
        connected.settimeout(0)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._socket, self.user = connected, user
        self.messages = Messages(MAX_CALL)
        self.monitors = self.lacks_newest = False
        self.sending: Publication | None = None
        """The View that has begun to be sent, while its end was not."""
        self._unsent = memoryview(b"")
        self.awaited = select.EPOLLIN
        """What is waited for, and was said to the kernel."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    @property
    def is_sending(self) -> bool:
        """Whether what was said last is not sent to its end."""
        return bool(self._unsent)

    @property
    def to_await(self) -> int:
        """What to wait for. While there is something to send, nothing more is read."""
        busy = self.is_sending or self.lacks_newest or self.messages.has_whole
        if self.monitors:  # nothing is to come but its end
            return select.EPOLLIN | (select.EPOLLOUT if busy else 0)
        return select.EPOLLOUT if busy else select.EPOLLIN

    def receive(self, room: memoryview) -> None:
        """Take in what came. Raises EOFError at its end, ProtocolError where it may not be, and OSError."""
        try:
            size, _, flags, _ = self._socket.recvmsg_into([room[: self.messages.room]])
        except BlockingIOError:
            return
        if flags & socket.MSG_CTRUNC:
            raise ProtocolError("a message with descriptors")
        if not size:
            raise EOFError
        if self.monitors:
            raise ProtocolError("a call while Monitor goes on")
        self.messages.feed(room[:size])

    def send(self, message: bytes, view: Publication | None = None) -> None:
        """Send a message, which may be that of a View, as far as there is room. Raises OSError."""
        self._unsent, self.sending = memoryview(message), view
        self.send_rest()

    def send_rest(self) -> None:
        """Send what is not sent yet. Raises OSError."""
        with suppress(BlockingIOError):
            self._unsent = self._unsent[self._socket.send(self._unsent, socket.MSG_NOSIGNAL) :]
        if not self._unsent:
            self._unsent, self.sending = memoryview(b""), None  # what was sent need not be kept

    def close(self) -> None:
        """End it."""
        self._socket.close()
