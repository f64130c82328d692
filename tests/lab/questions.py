"""Questions without a pause from a host to its nameserver and others: which of them nobody answered."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Mapping
from contextlib import ExitStack, suppress

from tests.lab.background import Asking
from tests.lab.namespace import Namespace

PORT = 53
HEADER = struct.Struct("!HHHHHH")
RECURSION_DESIRED, ANSWER = 0x0100, 0x8180  # RFC 1035, 4.1.1
QUESTION = b"\7example\3org\0" + struct.pack("!HH", 28, 1)  # AAAA, IN

LAST_ANSWERS = 1.0
"""Seconds that the last answers may take."""


class Questions(Asking):
    """From `host` asks each of `servers` by DNS every `interval` seconds, each time from a new socket's view.

    `servers` are addresses and the namespaces that have them, where each is answered for. It does so in the
    background while its `with` block lasts.
    """

    def __init__(self, host: Namespace, servers: Mapping[str, Namespace], interval: float) -> None:
        super().__init__(interval, LAST_ANSWERS)
        self.servers = list(servers)
        self.asked: list[str] = []
        self.failed: dict[int, str] = {}
        self.unanswered: set[int] = set()
        self.open_sockets = ExitStack()
        self.answering = [self.open(namespace, address) for address, namespace in servers.items()]
        self.asking = self.open(host)

    def open(self, namespace: Namespace, address: str | None = None) -> socket.socket:
        with namespace.entered():
            opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        if address:
            opened.bind((address, PORT))
        return self.open_sockets.enter_context(opened)

    def close(self) -> None:
        self.open_sockets.close()

    def ask(self) -> None:
        for server in self.servers:
            self.send(server)

    def is_waiting(self) -> bool:
        return bool(self.unanswered - self.failed.keys())

    def send(self, server: str) -> None:
        number = len(self.asked)
        self.asked.append(server)
        self.unanswered.add(number)
        try:
            header = HEADER.pack(number & 0xFFFF, RECURSION_DESIRED, 1, 0, 0, 0)
            self.asking.sendto(header + QUESTION + struct.pack("!I", number), (server, PORT))
        except OSError as error:
            self.failed[number] = str(error)

    def receive(self, timeout: float) -> None:
        """Wait for something to come, answer what is a question, and take note of the answers."""
        readable, _, _ = select.select([*self.answering, self.asking], [], [], timeout)
        for sock in readable:
            message, sender = sock.recvfrom(512)
            if sock is self.asking:
                self.unanswered.discard(struct.unpack("!I", message[-4:])[0])
            else:
                number, _, *counts = HEADER.unpack_from(message)
                with suppress(OSError):  # no way back: no answer
                    sock.sendto(HEADER.pack(number, ANSWER, *counts) + message[HEADER.size :], sender)

    def lost(self) -> dict[str, int]:
        """Count the questions to each server that had no answer, where there are any, and once it is over."""
        lost = [self.asked[number] for number in self.unanswered]
        return {server: lost.count(server) for server in self.servers if server in lost}
