"""The witness of the chaos run: what was said on the wire of each delegation, and what is bound of it.

It knows nothing of faults, policies or clients. A prefix is valid for as long as the last Reply said that
granted it; a valid lifetime of 0 or a Release ends it at once. Until then nothing that is bound of it may
go, but for what a fault itself removes; behind it nothing may stay.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from collections.abc import Iterator

from anyipd.model import Prefix
from tests.lab.background import Background
from tests.lab.delegated import OURS, covered
from tests.lab.namespace import Namespace, wait_until
from tests.lab.windows import Windows

INTERVAL = 0.1
"""Seconds between two looks at the kernel's table. The probes see what is shorter."""

EARLY = 0.5
"""Seconds before the end of a valid lifetime in which it may be over: the wire is read now and then."""

LATE = 1.0 + 0.3
"""Seconds after it at which nothing may be bound any more. dhclient says when a lease began in whole seconds,
and each counts until its end; the rest is for a busy machine."""

ETH_P_ALL, UDP = 3, 17
IPV6_HEADER, UDP_HEADER, MESSAGE_HEADER = 40, 8, 4  # octets
SERVER_PORT = 547
REQUEST, RENEW, REBIND, REPLY, RELEASE = 3, 5, 6, 7, 8  # RFC 8415, 7.3
IA_PD, IAPREFIX = 25, 26  # RFC 8415, 21.21 and 21.22


def bound(host: Namespace) -> dict[Prefix, float]:
    """Give each /64 that a route of ours in table local holds, by iproute2's word, and for how long still.

    That is in whole seconds. The kernel lists a route for up to 30 s after it lets nothing by it any more.
    """
    return {
        subnet: route.get("expires", math.inf)
        for route in host.ip_json(OURS)
        for subnet in covered([Prefix.parse(route["dst"])])
    }


def options(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the options of a message or of an option, by code."""
    while octets:
        code, length = struct.unpack_from("!HH", octets)
        yield code, octets[4 : 4 + length]
        octets = octets[4 + length :]


def delegated(message: bytes) -> Iterator[tuple[Prefix, int]]:
    """Give each prefix in a DHCPv6 message, and its valid lifetime in seconds."""
    for code, association in options(message[MESSAGE_HEADER:]):
        if code == IA_PD:
            for inner, content in options(association[12:]):
                if inner == IAPREFIX:
                    _, valid, length, address = struct.unpack_from("!IIB16s", content)
                    yield Prefix(int.from_bytes(address), length), valid


class Witness(Background):
    """Hears and looks in the background while its `with` block lasts; `unbinding` are the faults' windows."""

    def __init__(self, host: Namespace, unbinding: Windows) -> None:
        super().__init__()
        self.host, self.unbinding = host, unbinding
        self.ends: dict[Prefix, float] = {}
        """When each prefix that was ever delegated ends. It is replaced and never changed in place."""
        self.wrong: list[tuple[float, str]] = []
        self.late: set[Prefix] = set()
        self.looks = 0
        self.asked: set[bytes] = set()
        self.seen: set[Prefix] = set()
        self.seen_at = time.monotonic()
        with host.entered():
            # All links, whatever becomes of them; only this kind sees what the host itself sends.
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self.socket.settimeout(0)

    def close(self) -> None:
        self.socket.close()

    def run(self) -> None:
        while not self.ended.wait(INTERVAL):
            self.look()

    def hear(self) -> None:
        """Take in what was said since."""
        while True:
            try:
                packet = self.socket.recv(2048)
            except BlockingIOError:
                return
            payload = packet[IPV6_HEADER + UDP_HEADER :]
            if packet[0] >> 4 == 6 and packet[6] == UDP and payload:
                ports = struct.unpack_from("!HH", packet, IPV6_HEADER)
                if SERVER_PORT in ports:
                    self.take(payload)

    def take(self, message: bytes) -> None:
        """Take in a DHCPv6 message. A Reply to a Release grants nothing, whatever is in it."""
        kind, transaction, now = message[0], message[1:MESSAGE_HEADER], time.monotonic()
        if kind in {REQUEST, RENEW, REBIND}:
            self.asked.add(transaction)
        elif kind == RELEASE:
            self.ends = self.ends | {prefix: now for prefix, _ in delegated(message)}
        elif kind == REPLY and transaction in self.asked:
            self.ends = self.ends | {prefix: now + valid for prefix, valid in delegated(message)}

    def end(self, subnet: Prefix) -> float | None:
        """Give when the last delegation that holds a subnet ends; None where none ever held it."""
        return max((end for prefix, end in self.ends.items() if prefix.covers(subnet)), default=None)

    def has_just_ended(self, subnet: Prefix, now: float) -> bool:
        """Whether a delegation that holds a subnet ended since the last look, as by a word that took it back.

        Where another one around it goes on, the subnet need not be that one's.
        """
        return any(
            self.seen_at - LATE < end < now + EARLY
            for prefix, end in self.ends.items()
            if prefix.covers(subnet)
        )

    def look(self) -> None:
        """Look at what is bound, and judge it by what was said."""
        begun = time.monotonic()
        found = bound(self.host)
        # Heard after the look: what was taken back because of a message is judged by that.
        self.hear()
        now = time.monotonic()
        for subnet, left in found.items():
            end = self.end(subnet)
            if left > 0 and end is not None and begun > end + LATE and subnet not in self.late:
                self.late.add(subnet)
                self.tell(f"{subnet} bound {begun - end:.1f} s past its valid lifetime")
        # What is listed with 0 seconds may answer still, or not any more.
        present = {subnet for subnet, left in found.items() if left >= 0}
        for subnet in self.seen - present:
            end = self.end(subnet)
            if end is None or now > end - EARLY or self.has_just_ended(subnet, now):
                continue
            if not self.unbinding.excuse(subnet, self.seen_at, now):
                self.tell(f"{subnet} unbound {end - now:.1f} s before its valid lifetime is over")
        self.seen, self.seen_at = present, begun
        self.looks += 1

    def wait_for_look(self) -> None:
        """Wait until a look is over that began after this call."""
        seen = self.looks
        wait_until(lambda: self.looks >= seen + 2, 30)

    def tell(self, what: str) -> None:
        """Note when something wrong was seen, and what."""
        self.wrong.append((time.monotonic(), what))
