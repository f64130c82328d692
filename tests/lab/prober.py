"""Probes without a pause to random addresses of all that is wanted, and what became of each of them.

A probe is an Echo Request from the ISP. It is lost if no answer came within PATIENCE, or if it could
not even be sent. Every subnet has its turn, in random order, before any has the next.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from anyipd.model import Prefix, address_text
from tests.lab.namespace import wait_until
from tests.lab.network import ECHO_REPLY, ECHO_REQUEST, Uplink, open_pings
from tests.lab.windows import Windows

PROBES = 6
INTERVAL = 0.02
"""So many probes every so many seconds."""

PATIENCE = 3.0
"""Seconds after which a probe without an answer is lost."""

Targets = Mapping[Prefix, Uplink]
"""Subnets that must answer, and behind which uplink."""


@dataclass(frozen=True)
class Probe:
    """One that waits for its answer; `begun` and `ended` are when it was given to the kernel."""

    subnet: Prefix
    address: str
    begun: float
    ended: float


@dataclass(frozen=True)
class Loss:
    """A probe that no window excuses; `error` says why it could not be sent."""

    probe: Probe
    error: str | None


class Prober:
    """Probes what `targets` gives, in the background while its `with` block lasts."""

    def __init__(self, uplinks: Sequence[Uplink], targets: Callable[[], Targets], windows: Windows) -> None:
        self.targets, self.windows = targets, windows
        self.sent = self.answered = self.lost_inside = self.rounds = 0
        self.lost_outside: list[Loss] = []
        self.waiting: dict[int, Probe] = {}
        self.heard: dict[Prefix, float] = {}
        self.turns: list[Prefix] = []
        self.identifier = random.getrandbits(16)
        self.sockets = {uplink: self.open(uplink) for uplink in uplinks}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def open(self, uplink: Uplink) -> socket.socket:
        with uplink.isp.entered():
            opened = open_pings(self.identifier)
        opened.bind((uplink.address, 0))
        return opened

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for each in self.sockets.values():
            each.close()

    def stop(self) -> None:
        """Send no more, and wait for the last answers."""
        self.ended.set()
        self.thread.join()

    def run(self) -> None:
        due = time.monotonic()
        while not self.ended.is_set():
            targets = self.targets()
            for _ in range(PROBES):
                self.probe(targets)
            self.rounds += 1
            due = max(due + INTERVAL, time.monotonic())
            while (left := due - time.monotonic()) > 0:
                self.receive(left)
            self.receive(0)
            self.give_up()
        while self.waiting:
            self.receive(0.1)
            self.give_up()

    def probe(self, targets: Targets) -> None:
        """Probe the subnet whose turn it is."""
        while True:
            if not self.turns:
                self.turns = random.sample(sorted(targets), len(targets))
            if not self.turns:
                return
            subnet = self.turns.pop()
            if subnet in targets:
                break
        address = address_text(random.randrange(subnet.address, subnet.end))
        number = self.sent
        self.sent += 1
        request = struct.pack("!BBHHHI", ECHO_REQUEST, 0, 0, self.identifier, 0, number)
        begun, error = time.monotonic(), None
        try:
            self.sockets[targets[subnet]].sendto(request, (address, 0))
        except OSError as failure:
            error = failure.strerror
        probe = Probe(subnet, address, begun, time.monotonic())
        if error:
            self.lose(probe, error)
        else:
            self.waiting[number] = probe

    def receive(self, timeout: float) -> None:
        """Wait for something to come, and take all that did."""
        ready, _, _ = select.select(list(self.sockets.values()), [], [], timeout)
        for each in ready:
            self.take(each)

    def take(self, ready: socket.socket) -> None:
        while True:
            try:
                packet = ready.recv(2048)
            except BlockingIOError:
                return
            kind, _, _, identifier, _, number = struct.unpack_from("!BBHHHI", packet.ljust(12, b"\0"))
            if (kind, identifier) == (ECHO_REPLY, self.identifier) and number in self.waiting:
                probe = self.waiting.pop(number)
                self.answered += 1
                self.heard[probe.subnet] = max(probe.begun, self.heard.get(probe.subnet, 0))

    def give_up(self) -> None:
        """Count as lost what has waited too long; the oldest come first."""
        late = time.monotonic() - PATIENCE
        for number, probe in list(self.waiting.items()):
            if probe.ended > late:
                return
            del self.waiting[number]
            self.lose(probe, None)

    def lose(self, probe: Probe, error: str | None) -> None:
        # A window opens before its fault, so whatever excuses this probe is known by now.
        if self.windows.excuse(probe.subnet, probe.begun, probe.ended):
            self.lost_inside += 1
        else:
            self.lost_outside.append(Loss(probe, error))

    def wait_for_round(self) -> None:
        """Wait until every probe that was begun before this call has its answer, or is lost.

        Where the ISP asks for an address first, that may take longer than a round.
        """
        seen, since = self.rounds, time.monotonic()
        wait_until(
            lambda: (
                self.rounds >= seen + 2 and all(each.begun > since for each in list(self.waiting.values()))
            ),
            30,
        )

    def wait_until_probed(self, subnet: Prefix) -> None:
        """Wait until a probe that this subnet gets from now on has waited too long for its answer."""
        since = time.monotonic()
        wait_until(
            lambda: any(
                loss.probe.subnet == subnet and loss.probe.begun > since for loss in list(self.lost_outside)
            ),
            30,
        )

    def all_heard(self, subnets: Sequence[Prefix], since: float) -> bool:
        """Whether each of these answered a probe that was sent after `since`."""
        return all(self.heard.get(subnet, 0) > since for subnet in subnets)
