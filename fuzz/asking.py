"""What the daemon is asked, and what it may answer: no request but a prefix, no answer but a policy."""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
from contextlib import suppress
from functools import cache

from pydantic import ValidationError

from anyipd import asking
from anyipd.answers import Answers
from anyipd.decide.carve import carve
from anyipd.decide.static import static_assigned
from anyipd.model import Delegation, DelegationState, Places, Prefix
from anyipd.policy import DEFAULT, InForce
from fuzz import json_tree
from fuzz.policy import DELEGATED

DICTIONARY = ("forget ", "2001:db8::/48", "::/0", "192.0.2.0/24", "policy", "configuration", "subnets")

NAME = f"\0fuzz-{os.getpid()}"

mutate = json_tree.mutate


class Daemon:
    """Takes note of what it is to forget."""

    def __init__(self) -> None:
        self.in_force = InForce(configuration="/etc/anyipd.yaml", policy=DEFAULT)
        self.forgotten: list[Prefix] = []

    def forget(self, prefix: Prefix) -> bool:
        """Answer as if every prefix of even length were known."""
        self.forgotten.append(prefix)
        return prefix.length % 2 == 0


class Server:
    """One daemon for all inputs: it keeps a descriptor for as long as it runs."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.wrong: list[object] = []
        self.loop.set_exception_handler(lambda _, context: self.wrong.append(context))
        self.daemon = Daemon()
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(NAME)
        self.listening.listen()
        self.listening.settimeout(0)
        self.loop.add_reader(self.listening, Answers(self.listening, self.daemon).answer)

    def close(self) -> None:
        """Give everything back."""
        self.loop.close()
        self.listening.close()

    def ask(self, data: bytes) -> bytes:
        """Send it, and give what comes back before the daemon hangs up."""
        news = self.loop.run_until_complete(self._talk(data))
        assert not self.wrong, self.wrong
        assert news[:1] == b"\0"  # with it came the descriptor, which nobody takes here
        assert len(news) <= asking.MAX_REQUEST
        return news[1:]

    async def _talk(self, data: bytes) -> bytes:
        news = b""
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(0)
            await self.loop.sock_connect(caller, NAME)
            if data:
                await self.loop.sock_sendall(caller, data)
            caller.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):  # there was more than it read
                while more := await self.loop.sock_recv(caller, asking.MAX_REQUEST):
                    news += more
        return news


@cache
def server() -> Server:
    """Start it once."""
    started = Server()
    atexit.register(started.close)
    return started


def run(data: bytes) -> None:
    """Ask the daemon so, and take it for an answer."""
    forgotten = server().daemon.forgotten
    forgotten.clear()
    answer = server().ask(data)
    if forgotten:
        [prefix] = forgotten
        assert prefix == prefix.masked()
        assert answer == (b"unknown" if prefix.length % 2 else b"forgotten")
    else:
        assert answer == b""
    try:
        told = InForce.model_validate_json(data)
    except ValidationError:
        return
    # What stands between entries was checked by who tells it: it may be nonsense, and nothing more.
    for prefix in DELEGATED:
        delegation = Delegation(prefix, "fuzz", DelegationState.GRANTED)
        carve(delegation, told.policy, static_assigned(told.policy), Places(), 0.0)
