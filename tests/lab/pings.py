"""Pings without a pause: what answered, from when, until when, and what was lost in between."""

from __future__ import annotations

import random
import select
import struct
import time
from collections.abc import Iterable

from anyipd.model import Prefix, address_text
from tests.lab.background import Asking
from tests.lab.network import ECHO_REPLY, ECHO_REQUEST, Uplink, open_pings

LAST_REPLIES = 2
"""Seconds that the last replies may take."""


class Pings(Asking):
    """From the ISP pings one random address of each of `prefixes` every `interval` seconds.

    It does so in the background while its `with` block lasts. Times are seconds of the wall clock.
    """

    def __init__(self, uplink: Uplink, prefixes: Iterable[Prefix], interval: float) -> None:
        super().__init__(interval, LAST_REPLIES)
        self.prefixes = list(prefixes)
        self.sent: list[Prefix] = []
        self.answered: dict[int, float] = {}
        self.identifier = random.getrandbits(16)
        with uplink.isp.entered():
            self.socket = open_pings(self.identifier)
        self.socket.bind((uplink.address, 0))

    def close(self) -> None:
        self.socket.close()

    def ask(self) -> None:
        for prefix in self.prefixes:
            self.send(prefix)

    def is_waiting(self) -> bool:
        return len(self.answered) < len(self.sent)

    def send(self, prefix: Prefix) -> None:
        address = random.randrange(prefix.address, prefix.end)
        request = struct.pack("!BBHHHI", ECHO_REQUEST, 0, 0, self.identifier, 0, len(self.sent))
        self.sent.append(prefix)
        self.socket.sendto(request, (address_text(address), 0))

    def receive(self, timeout: float) -> None:
        select.select([self.socket], [], [], timeout)
        while True:
            try:
                packet = self.socket.recv(2048)
            except BlockingIOError:
                return
            kind, _, _, identifier, _, number = struct.unpack_from("!BBHHHI", packet.ljust(12, b"\0"))
            if (kind, identifier) == (ECHO_REPLY, self.identifier):
                self.answered[number] = time.time()

    def first_answers(self) -> dict[Prefix, float]:
        """Give when each prefix answered first; one that did not is not in it."""
        first: dict[Prefix, float] = {}
        for number, answered in list(self.answered.items()):
            first.setdefault(self.sent[number], answered)
        return first

    def last_answers(self) -> dict[Prefix, float]:
        """Give when each prefix answered last, likewise."""
        return {self.sent[number]: answered for number, answered in list(self.answered.items())}

    def lost(self) -> tuple[int, int]:
        """Count the pings without an answer, and all pings, once the `with` block is left."""
        return len(self.sent) - len(self.answered), len(self.sent)

    def lost_before_the_last_answer(self) -> tuple[int, int]:
        """The same of those alone that were sent before their prefix answered for the last time."""
        last = {self.sent[number]: number for number in sorted(self.answered)}
        before = [number for number, prefix in enumerate(self.sent) if number <= last.get(prefix, -1)]
        return sum(number not in self.answered for number in before), len(before)
