"""What the daemon is asked, and what it may answer: no request but a prefix, no answer but a policy."""

from __future__ import annotations

import asyncio
import os
import socket

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
        """Answer as if every other prefix were known."""
        self.forgotten.append(prefix)
        return len(self.forgotten) % 2 == 0


def run(data: bytes) -> None:
    """Ask it so, and take it for an answer."""
    daemon = Daemon()
    answer = asyncio.run(ask(daemon, data))
    if daemon.forgotten:
        [prefix] = daemon.forgotten
        assert prefix == prefix.masked()
        assert str(prefix).split("/")[1] in data.decode()
        assert answer in {b"forgotten", b"unknown"}
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


async def ask(daemon: Daemon, data: bytes) -> bytes:
    """Send it to a daemon that listens, and give what comes back before it hangs up."""
    loop = asyncio.get_running_loop()
    wrong: list[object] = []
    loop.set_exception_handler(lambda _, context: wrong.append(context))
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as caller:
        listening.bind(NAME)
        listening.listen()
        listening.settimeout(0)
        caller.settimeout(0)
        loop.add_reader(listening, Answers(listening, daemon).answer)
        await loop.sock_connect(caller, NAME)
        if data:
            await loop.sock_sendall(caller, data)
        caller.shutdown(socket.SHUT_WR)
        news = b""
        while more := await _receive(loop, caller):
            news += more
        loop.remove_reader(listening)
    assert not wrong, wrong
    assert news[:1] == b"\0"  # with it came the descriptor, which nobody takes here
    assert len(news) <= asking.MAX_REQUEST
    return news[1:]


async def _receive(loop: asyncio.AbstractEventLoop, caller: socket.socket) -> bytes:
    try:
        return await loop.sock_recv(caller, asking.MAX_REQUEST)
    except ConnectionResetError:  # there was more than it read
        return b""
