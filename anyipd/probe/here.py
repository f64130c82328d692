"""What this host itself does with its addresses: does it answer, can a program bind, is a port open."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Sequence

_ECHO = {socket.AF_INET6: (socket.IPPROTO_ICMPV6, 128), socket.AF_INET: (socket.IPPROTO_ICMP, 8)}
_REQUEST = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number

PATIENCE = 1.0
"""Seconds that this host has to answer itself."""


def family(address: str) -> socket.AddressFamily:
    """Tell IPv4 from IPv6."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def echoes(addresses: Sequence[str]) -> dict[str, float]:
    """Send an Echo Request to each of `addresses`, of one family; give the seconds until each answered.

    An answer that comes from another address is none. Raises PermissionError where the kernel lets
    this user have no ICMP socket (ping_group_range in icmp(7)).
    """
    kind = family(addresses[0])
    answered: dict[str, float] = {}
    with _icmp_socket(kind) as sock:
        sent: dict[str, float] = {}
        for number, address in enumerate(addresses):
            sent[address] = time.monotonic()
            try:
                sock.sendto(_request(kind, number), (address, 0))
            except OSError:
                continue  # a firewall forbids it: no answer
            _take(sock, sent, answered)
        deadline = time.monotonic() + PATIENCE
        while len(answered) < len(sent) and (left := deadline - time.monotonic()) > 0:
            select.select([sock], [], [], left)
            _take(sock, sent, answered)
    return answered


def _icmp_socket(kind: socket.AddressFamily) -> socket.socket:
    protocol, _ = _ECHO[kind]
    flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    try:
        return socket.socket(kind, socket.SOCK_DGRAM | flags, protocol)
    except PermissionError:
        return socket.socket(kind, socket.SOCK_RAW | flags, protocol)


def _request(kind: socket.AddressFamily, number: int) -> bytes:
    head = _REQUEST.pack(_ECHO[kind][1], 0, 0, os.getpid() & 0xFFFF, number & 0xFFFF)
    # The kernel sums up what it sends for ICMPv6 and by datagram sockets, but not for raw ones of IPv4.
    total = sum(struct.unpack("!4H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:2] + struct.pack("!H", ~total & 0xFFFF) + head[4:]


def _take(sock: socket.socket, sent: dict[str, float], answered: dict[str, float]) -> None:
    while True:
        try:
            packet, (source, *_) = sock.recvfrom(2048)
        except BlockingIOError:
            return
        if sock.family == socket.AF_INET and sock.type == socket.SOCK_RAW:
            packet = packet[(packet[0] & 0xF) * 4 :]
        if packet[0] in {0, 129} and source in sent:
            answered.setdefault(source, time.monotonic() - sent[source])


def bind_error(address: str) -> str | None:
    """Say why a program that asks for nothing special cannot bind to `address`, None if it can."""
    with socket.socket(family(address), socket.SOCK_STREAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError as error:
            return os.strerror(error.errno or 0)
    return None


def tcp(address: str, port: int) -> str:
    """Say what becomes of a TCP connection from this host: `open`, `closed` or `no answer`."""
    with socket.socket(family(address), socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        try:
            sock.connect((address, port))
        except ConnectionRefusedError:
            return "closed"
        except TimeoutError:
            return "no answer"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, "error")
    return "open"
