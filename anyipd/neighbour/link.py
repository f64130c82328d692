"""A link on which solicitations are heard and answered: an AF_PACKET socket with a filter of its own.

See packet(7). The kernel itself neither answers for AnyIP addresses nor joins their solicited-node groups,
so the socket asks for all multicast.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock, Thread
from typing import NamedTuple

from anyipd.kernel import bpf
from anyipd.kernel.lookup import Lookup
from anyipd.neighbour.answerer import ANNOUNCE_PACE, Answerer
from anyipd.neighbour.message import ADVERTISEMENT, ICMPV6_UNFORWARDED, SOLICITATION
from anyipd.neighbour.spans import Answered
from anyipd.printable import is_utf8

_ETH_P_IPV6 = 0x86DD
_ARPHRD_ETHER = 1
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_MR_ALLMULTI = 1, 2
_PACKET_MREQ = struct.Struct("=iHH8x")  # interface, type, no address
_LARGEST = 2048  # bytes of a frame that is looked at; what is cut off makes it malformed
_LONGEST_WAIT = struct.pack("ll", 60, 0)  # struct timeval

_NEXT_HEADER_AND_HOP_LIMIT, _TYPE_AND_CODE = 20, 54  # offsets into the frame

FILTER = bpf.assemble(
    [
        (bpf.LD_BYTE, 0, 0, bpf.PACKET_TYPE),
        # So the kernel calls also what bears the tag of a VLAN that has no interface here.
        *bpf.drop_if(socket.PACKET_OTHERHOST),
        *bpf.drop_if(socket.PACKET_OUTGOING),
        (bpf.LD_HALF, 0, 0, _NEXT_HEADER_AND_HOP_LIMIT),
        *bpf.drop_unless(ICMPV6_UNFORWARDED),
        (bpf.LD_HALF, 0, 0, _TYPE_AND_CODE),
        *bpf.accept_if(SOLICITATION),
        *bpf.accept_if(ADVERTISEMENT),
        bpf.DROP,
    ]
)
"""Pass solicitations and advertisements that came in here, as they were on the wire."""

_TENTATIVE, _DAD_FAILED = 0x40, 0x08  # IFA_F_TENTATIVE, IFA_F_DADFAILED in linux/if_addr.h
_LINK_LOCAL = 0xFE80 >> 6  # the first ten bits


class Address(NamedTuple):
    """An IPv6 address of a link; `usable` is one that no other node turned out to have."""

    link: str
    address: int
    usable: bool


def addresses() -> Iterator[Address]:
    """Read the addresses of all links."""
    # The name of a link is bytes to the kernel, not always text.
    for line in Path("/proc/self/net/if_inet6").read_bytes().splitlines():
        address, _, _, _, flags, link = line.split()
        yield Address(os.fsdecode(link), int(address, 16), not int(flags, 16) & (_TENTATIVE | _DAD_FAILED))


class Ear:
    """A socket on an interface, and a thread that does nothing but wait there: no wake-up costs less.

    That thread asks `answerer` what to send in return for a frame, and holds `lock` meanwhile. Raises OSError
    where there is no such interface.
    """

    def __init__(self, index: int, link: str, answerer: Answerer, lock: Lock) -> None:
        self.index = index
        self._answerer, self._lock = answerer, lock
        self._closed = False
        # Without a protocol it receives nothing until all is set.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        try:
            # The buffer stays as small as it is: who waits in a long line has asked again meanwhile.
            bpf.attach(self._socket, FILTER)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _LONGEST_WAIT)
            self._socket.setsockopt(
                _SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_MREQ.pack(index, _PACKET_MR_ALLMULTI, 0)
            )
            self._socket.bind((link, _ETH_P_IPV6))
            self._lookup = Lookup(index)
        except OSError:
            self._socket.close()
            raise
        Thread(target=self._listen, name=link, daemon=True).start()

    @property
    def link_layer(self) -> bytes:
        """The address of the interface on Ethernet."""
        address: bytes = self._socket.getsockname()[4]
        return address

    @property
    def is_ethernet(self) -> bool:
        """Whether the interface is Ethernet or like it."""
        return bool(self._socket.getsockname()[3] == _ARPHRD_ETHER)

    def close(self) -> None:
        """Hear nothing more. The thread ends when its wait does."""
        self._closed = True
        bpf.attach(self._socket, bpf.assemble([bpf.DROP]))

    def leads_elsewhere(self, address: int) -> bool:
        """Say whether a packet to an address that comes in here would go on by another link."""
        return not self._closed and self._lookup.leads_elsewhere(address)

    def say(self, frame: bytes) -> None:
        """Send a frame. Where there is no room, or the link is down, it is lost: who asked will ask again."""
        with contextlib.suppress(OSError):
            self._socket.send(frame, socket.MSG_DONTWAIT)

    def _listen(self) -> None:
        receive, send = self._socket.recv, self._socket.send
        answer, lock, clock = self._answerer.answer, self._lock, time.monotonic
        with self._socket, contextlib.closing(self._lookup):
            while not self._closed:
                try:
                    frame = receive(_LARGEST)
                except OSError:  # the wait ended, or the link went down or away: the kernel tells by an event
                    continue
                with lock:
                    frames = () if self._closed else answer(frame, clock())
                try:
                    for each in frames:
                        send(each, socket.MSG_DONTWAIT)
                except OSError:  # as in `say`
                    continue


class Link:
    """One interface, by its name: it may come, go, change its addresses, and come back as another.

    `fault` says why nothing is answered there, None where nothing is wrong. What is not in return for a frame
    is sent by timers of `loop`.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.fault: str | None = None
        self.answered = Answered()
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._answered: tuple[Answered, frozenset[int]] = Answered(), frozenset()
        self._answerer = Answerer(self._leads_elsewhere)
        self._lock = Lock()  # over the answerer
        self._ear: Ear | None = None
        self._speaks_as: tuple[bytes, int] | None = None

    def look(self, assigned: Iterable[Address]) -> None:
        """See what has become of the interface; `assigned` are the addresses of all."""
        mine = [each for each in assigned if each.link == self.name]
        self._answer_for(self.answered, frozenset(each.address for each in mine))
        sources = [each.address for each in mine if each.usable and each.address >> 118 == _LINK_LOCAL]
        self.fault = self._listen() or (None if sources else "it has no link-local address to speak from")
        speaks_as = (self._ear.link_layer, sources[0]) if self._ear and not self.fault else None
        if speaks_as == self._speaks_as:
            return
        self._speaks_as = speaks_as
        with self._lock:
            if speaks_as:
                self._answerer.speak_as(*speaks_as, time.monotonic())
            else:
                self._answerer.fall_silent()
        self._announce_later()

    def answer_for(self, answered: Answered) -> None:
        """Answer for these addresses from now on."""
        self.answered = answered
        self._answer_for(answered, self._answered[1])

    def _answer_for(self, answered: Answered, own: frozenset[int]) -> None:
        if (answered, own) != self._answered:
            self._answered = answered, own
            with self._lock:
                self._answerer.answer_for(answered, own, time.monotonic())
            self._announce_later()

    def _leads_elsewhere(self, address: int) -> bool:
        return bool(self._ear and self._ear.leads_elsewhere(address))

    def _listen(self) -> str | None:
        """Have an ear on the interface that has the name now; say what is wrong with it."""
        try:
            index = socket.if_nametoindex(self.name)
            name = socket.if_indextoname(index)
        except OSError:
            self.close()
            return "there is no such link"
        if not is_utf8(name):  # ours is an alternative name of it
            self.close()
            return "its name is not UTF-8"
        if self._ear and self._ear.index != index:
            self.close()
        if not self._ear:
            try:
                self._ear = Ear(index, self.name, self._answerer, self._lock)
            except OSError as error:  # it went this moment
                return error.strerror
        return None if self._ear.is_ethernet else "it is no Ethernet"

    def close(self) -> None:
        """Answer no more."""
        if self._ear:
            self._ear.close()
        self._ear = None

    def _announce_later(self) -> None:
        self._timer = self._timer or self._loop.call_later(ANNOUNCE_PACE, self._announce)

    def _announce(self) -> None:
        """Send one of the frames that nobody asked for."""
        self._timer = None
        with self._lock:
            frame = self._answerer.announcement(time.monotonic())
        if frame and self._ear:
            self._ear.say(frame)
            self._announce_later()
