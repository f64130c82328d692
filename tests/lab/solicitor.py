"""A router that asks for addresses as fast as one likes, and counts who answers when."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, Self

from anyipd.neighbour.message import Advertiser
from tests.lab.namespace import Namespace, wait_until

RETRANS_TIMER = 1.0
"""Seconds (RFC 4861, 10)."""

_ETH_P_IPV6 = 0x86DD
_ADVERTISEMENT = b"\x88\0"  # type and code
_SO_TIMESTAMPNS, _SO_RCVBUFFORCE = 35, 33
_TIMESPEC = struct.Struct("=qq")
_ENOUGH = 1 << 28  # bytes of the receive buffer: nothing is to be lost here


class Answer(NamedTuple):
    """When an address was answered for: seconds of the wall clock; and the frame."""

    target: int
    at: float
    frame: bytes


class Solicitor:
    """A packet socket on a link of a namespace, that speaks from `source`. A `with` block closes it."""

    def __init__(self, namespace: Namespace, link: str, source: int) -> None:
        with namespace.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ENOUGH)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        with namespace.entered():
            self.socket.bind((link, _ETH_P_IPV6))
        self.link_layer: bytes = self.socket.getsockname()[4]
        self.source = source
        self._writer = Advertiser(self.link_layer, source)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def solicitation(self, target: int) -> bytes:
        """Write the frame that asks for an address."""
        return self._writer.solicit(target)

    def ask(self, targets: Iterable[int], timeout: float = 2.0) -> dict[int, Answer]:
        """Ask for addresses one behind the other, and give the answers, until all are there or time is up."""
        asked = set(targets)
        found: dict[int, Answer] = {}
        for number, target in enumerate(asked):
            self.socket.send(self.solicitation(target))
            if number % 64 == 0:
                found |= self.answers()
        deadline = time.monotonic() + timeout
        in_time = True
        while asked - found.keys() and in_time:
            in_time = time.monotonic() < deadline  # what came meanwhile is taken all the same
            time.sleep(0.005)
            found |= self.answers()
        return {target: answer for target, answer in found.items() if target in asked}

    def hear_of(self, targets: AbstractSet[int]) -> list[Answer]:
        """Take advertisements until there is one of each of `targets`, which were asked for; give them all.

        What is missing is asked for again each second, as a router does: full buffers and tables lose some.
        """
        found: list[Answer] = []
        asked = time.monotonic()

        def all_came() -> bool:
            nonlocal asked
            found.extend(self.advertisements())
            missing = targets - {each.target for each in found}
            if missing and time.monotonic() > asked + RETRANS_TIMER:
                asked = time.monotonic()
                for target in missing:
                    self.socket.send(self.solicitation(target))
            return not missing

        wait_until(all_came)
        return found

    def answers(self) -> dict[int, Answer]:
        """Take all advertisements that came so far; of an address the first counts."""
        found: dict[int, Answer] = {}
        for answer in self.advertisements():
            found.setdefault(answer.target, answer)
        return found

    def advertisements(self) -> Iterator[Answer]:
        """Take all advertisements that came so far."""
        while True:
            try:
                frame, ancillary, _, address = self.socket.recvmsg(
                    2048, socket.CMSG_SPACE(_TIMESPEC.size), socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return
            if address[2] != socket.PACKET_OUTGOING and frame[54:56] == _ADVERTISEMENT and len(frame) > 77:
                seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
                target = int.from_bytes(frame[62:78])
                yield Answer(target, seconds + nanoseconds / 1e9, frame)

    def pelt(self, frames: Sequence[bytes], rate: float) -> list[float]:
        """Send frames at so many a second, evenly; give when each was sent, on the wall clock."""
        sent: list[float] = []
        begun = time.perf_counter()
        for number, frame in enumerate(frames):
            while time.perf_counter() - begun < number / rate:
                pass
            sent.append(time.time())
            self.socket.send(frame)
        return sent
