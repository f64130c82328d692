"""What those get who ask the daemon: the policy in force; and of root and its own user it takes requests."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from contextlib import suppress
from typing import Protocol

from anyipd import asking
from anyipd.model import Prefix
from anyipd.policy import InForce

MAX_CONNECTIONS = 64
MAX_OF_A_USER = 16
"""At once; root's are not counted. What is over that is closed unanswered."""

UNTIL_DESCRIPTORS = 1.0
"""Seconds until somebody who could not be received is again."""


class Asked(Protocol):
    """What of the daemon may be asked for."""

    @property
    def in_force(self) -> InForce:
        """The policy that it works by, and where that is from."""

    def forget(self, prefix: Prefix) -> bool:
        """End a delegation until it is granted again; say whether there was one."""


class Answers:
    """Who is connected, and the file for all of them; a flood waits its turn, a connection at a time."""

    def __init__(self, listening: socket.socket, daemon: Asked) -> None:
        self._listening, self._daemon = listening, daemon
        self._in_force: InForce | None = None
        self._news: int | None = None
        self._users: dict[socket.socket, int] = {}
        self._timers: dict[socket.socket, asyncio.TimerHandle] = {}

    def answer(self) -> None:
        """Answer whoever is next."""
        loop = asyncio.get_running_loop()
        try:
            news = self._current()
            caller, _ = self._listening.accept()
        except OSError:
            # No descriptor is left. Who asks can stay in line.
            loop.remove_reader(self._listening)
            loop.call_later(UNTIL_DESCRIPTORS, loop.add_reader, self._listening, self.answer)
            return
        caller.settimeout(0)
        uid = asking.user(caller)
        if self._is_full(uid):
            caller.close()
            return
        try:
            asking.hand_over(caller, news)
        except OSError:
            caller.close()
            return
        self._users[caller] = uid
        self._timers[caller] = loop.call_later(asking.ANSWER_TIMEOUT, self._end_idle, caller)
        loop.add_reader(caller, self._on_request, caller)

    def _is_full(self, uid: int) -> bool:
        others = Counter(each for each in self._users.values() if each)
        return uid != 0 and (others[uid] >= MAX_OF_A_USER or others.total() >= MAX_CONNECTIONS)

    def _on_request(self, caller: socket.socket) -> None:
        with suppress(OSError, ValueError):
            verb, _, text = caller.recv(asking.MAX_REQUEST).decode().strip().partition(" ")
            if verb == "forget" and self._users[caller] in {0, os.geteuid()}:
                known = self._daemon.forget(Prefix.parse(text))
                caller.send(b"forgotten" if known else b"unknown")
        self._close(caller)

    def _end_idle(self, caller: socket.socket) -> None:
        if asking.has_read(caller):
            self._close(caller)
        else:  # what waits there is counted against us, closed or not
            loop = asyncio.get_running_loop()
            self._timers[caller] = loop.call_later(asking.ANSWER_TIMEOUT, self._end_idle, caller)

    def _close(self, caller: socket.socket) -> None:
        del self._users[caller]
        self._timers.pop(caller).cancel()
        asyncio.get_running_loop().remove_reader(caller)
        caller.close()

    def _current(self) -> int:
        in_force = self._daemon.in_force
        if self._news is None or in_force != self._in_force:
            news = asking.sealed(in_force.model_dump_json().encode())
            if self._news is not None:
                os.close(self._news)
            self._news, self._in_force = news, in_force
        return self._news
