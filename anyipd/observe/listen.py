"""Listening to DHCPv6 on uplinks, for clients that tell nobody: what the wire says they were told.

Packet sockets, which take CAP_NET_RAW. In: the requests that this host sends and the Replies that it
gets. Out: what became of delegated prefixes.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from anyipd.kernel import bpf
from anyipd.observe.dhcpv6 import MalformedError, parse
from anyipd.observe.exchange import Exchanges, Told
from anyipd.observe.packet import is_intact, packet_filter, payload

MOST_PACKETS = 64
"""Read at once, so that a flood leaves the loop its turns."""

NO_PRIVILEGE = "CAP_NET_RAW is missing: listen.conf gives it to the service, see anyipd.yaml(5)"

_LARGEST = 1 << 16
_ETH_P_ALL = 3  # linux/if_ether.h
_SOL_PACKET, _PACKET_AUXDATA = 263, 8  # linux/socket.h, linux/if_packet.h
_AUXDATA = struct.Struct("=I16x")  # tpacket_auxdata, of which its status
_TP_STATUS_CSUMNOTREADY = 8

_NOT_ALLOWED = {errno.EPERM, errno.EAFNOSUPPORT}  # the second where RestrictAddressFamilies= has its way


class DeafError(Exception):
    """There can be no listening; the message says why, and what would help."""


@dataclass(slots=True)
class Heard:
    """What came in. `malformed` are uplinks and what was wrong there, if not said before."""

    told: list[Told] = field(default_factory=list)
    malformed: list[tuple[str, str]] = field(default_factory=list)


class Listener:
    """Sockets on the uplinks that are there, and one descriptor that is readable when any of them is."""

    def __init__(self) -> None:
        self._sockets: dict[str, socket.socket] = {}
        self._readable = select.epoll()
        self._exchanges = Exchanges()
        self._complained: set[tuple[str, str]] = set()

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._readable.fileno()

    @property
    def uplinks(self) -> set[str]:
        """Where it listens."""
        return set(self._sockets)

    def follow(self, uplinks: Sequence[str]) -> list[str]:
        """Listen on the links that bear these names now, and on no other; give the new ones.

        Raises DeafError.
        """
        for name, old in list(self._sockets.items()):
            # The name of its link by now: that may have been renamed, or be gone.
            if name not in uplinks or _link(old) != name:
                del self._sockets[name]
                old.close()
        new = []
        for name in uplinks:
            if name not in self._sockets and (sock := _open(name)):
                self._readable.register(sock, select.EPOLLIN)
                self._sockets[name] = sock
                new.append(name)
        return new

    def read(self, now: float) -> Heard:
        """Take in some packets that are there; `now` is CLOCK_BOOTTIME."""
        heard = Heard()
        for name, sock in self._sockets.items():
            for packet, outgoing, summed in _packets(sock):
                try:
                    if summed and not is_intact(packet):
                        continue
                    message = parse(payload(packet))
                except MalformedError as error:
                    complaint = name, str(error)
                    heard.malformed += {complaint} - self._complained
                    self._complained.add(complaint)
                    continue
                take = self._exchanges.sent if outgoing else self._exchanges.received
                heard.told += take(name, message, now)
        return heard


def _open(name: str) -> socket.socket | None:
    """Open a socket on a link, if it is there. Raises DeafError."""
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    except OSError as error:
        if error.errno in _NOT_ALLOWED:
            raise DeafError(NO_PRIVILEGE) from None
        raise DeafError(os.strerror(error.errno or 0)) from None
    try:
        bpf.attach(sock, packet_filter())
        sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        # Only from here on it gets packets. What is sent is shown to those alone that ask for all protocols.
        sock.bind((name, _ETH_P_ALL))
    except OSError as error:
        sock.close()
        if error.errno == errno.ENODEV:
            return None
        raise DeafError(os.strerror(error.errno or 0)) from None
    if _link(sock) != name:  # an alternative name, see ip-link(8): leases and links bear the other
        sock.close()
        return None
    return sock


def _link(sock: socket.socket) -> str | None:
    """Name the link of a socket; None where its name is not text, as none of ours is."""
    try:
        return str(sock.getsockname()[0])
    except UnicodeDecodeError:
        return None


def _packets(sock: socket.socket) -> Iterator[tuple[bytes, bool, bool]]:
    """Give packets, whether this host sent them, and whether their checksum is in place."""
    for _ in range(MOST_PACKETS):
        try:
            packet, told, _, address = sock.recvmsg(_LARGEST, socket.CMSG_SPACE(_AUXDATA.size))
        except (BlockingIOError, UnicodeDecodeError):  # renamed to what is not text, it is ours no more
            return
        except OSError as error:
            if error.errno != errno.ENETDOWN:  # said once: it listens on when the link comes up
                raise
            continue
        outgoing = address[2] == socket.PACKET_OUTGOING
        if outgoing and address[4] != sock.getsockname()[4]:
            continue  # of a guest: its macvlan or bridge port sends by this link, too
        status = next((_AUXDATA.unpack(data)[0] for _, _, data in told), 0)
        # What the interface is to add it to has none yet, nor has what crosses no wire at all.
        yield packet, outgoing, not status & _TP_STATUS_CSUMNOTREADY
