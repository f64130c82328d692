"""One daemon a network namespace: a lock that nobody can touch who may not change routes here.

Whoever holds it is a member of some multicast groups of NETLINK_USERSOCK, which every kernel has. To join one
takes CAP_NET_ADMIN over the network namespace (netlink_allowed in net/netlink/af_netlink.c): no ordinary user
can hold, fill or starve it. Everybody can see the members, and membership ends with its process.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from anyipd.kernel import wire

START_TIMEOUT = 1.0
"""Seconds in which another daemon that is just starting, too, gives way."""

_POLL = 0.01
_GROUPS = int.from_bytes(b"anyi")  # as a set of bits: nobody else joins just these
_USERSOCK, _SOCK_DIAG = 2, 4  # linux/netlink.h
_SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h
_REQUEST = struct.Struct("=BBHIIII")  # netlink_diag_req: family, protocol, -, inode, what to show, any cookie
_SHOW_GROUPS = 2  # linux/netlink_diag.h, as is the next one
_SOCKET = struct.Struct("=16x4xI8xI8x4xI")  # the header; port, inode; the only attribute, its first 32 groups
_RECEIVE = 1 << 16
_READINGS = 3


class HeldError(Exception):
    """Another daemon holds this network namespace; the text is that of `holder`."""


class Member(NamedTuple):
    """A socket that holds the lock: its port, and its inode in /proc/PID/fd."""

    port: int
    inode: int


def take() -> socket.socket:
    """Hold the lock for as long as the socket returned is open.

    Whoever goes on was seen alone after it had joined, so there are never two. Of some that start at once
    the one with the lowest port goes on, when the others are gone. Raises HeldError.
    """
    held = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _USERSOCK)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # anybody may send to it, and nobody reads
    held.bind((0, _GROUPS))
    own = Member(held.getsockname()[0], os.fstat(held.fileno()).st_ino)
    deadline = time.monotonic() + START_TIMEOUT
    while others := _members() - {own}:
        if min(others) < own or time.monotonic() > deadline:
            held.close()
            raise HeldError(_describe(min(others)))
        time.sleep(_POLL)
    return held


def holder() -> str | None:
    """Describe the process that holds the lock: its pid, where that can be known; None where none does."""
    members = _members()
    return _describe(min(members)) if members else None


def _members() -> set[Member]:
    try:
        return _asked()
    except OSError:  # a kernel without netlink_diag, or a process that may not use it
        return _read()


def _asked() -> set[Member]:
    """Ask the kernel.

    What strangers do does not hide a member: behind all sockets, by a walk that misses some where others go
    meanwhile, come the members of groups, in a list of their own (__netlink_diag_dump in net/netlink/diag.c).
    """
    any_cookie = 0xFFFFFFFF
    body = _REQUEST.pack(socket.AF_NETLINK, _USERSOCK, 0, 0, _SHOW_GROUPS, any_cookie, any_cookie)
    found, done = set(), False
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as asking:
        asking.send(wire.dump_request(_SOCK_DIAG_BY_FAMILY, body))
        while not done:
            chunk, done = wire.split_end(asking.recv(_RECEIVE))
            found |= members(chunk)
    return found


def members(chunk: bytes) -> set[Member]:
    """Find the members among the sockets that a part of a dump tells of. Raises MalformedError."""
    found = set()
    for start, _, end in wire.messages(chunk):
        if end - start < _SOCKET.size:  # it never joined a group
            continue
        port, inode, groups = _SOCKET.unpack_from(chunk, start)
        if groups == _GROUPS:
            found.add(Member(port, inode))
    return found


def _read() -> set[Member]:
    """Read the same in /proc, more than once: sockets that go between two pages of it hide others."""
    found = set()
    for _ in range(_READINGS):
        for line in Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]:
            _, protocol, port, groups, *_, inode = line.split()
            if int(protocol) == _USERSOCK and int(groups, 16) == _GROUPS:
                found.add(Member(int(port), int(inode)))
    return found


def _describe(member: Member) -> str:
    """Give the pid: the kernel takes it for the port where that is free, and the descriptor is the proof."""
    with suppress(OSError):
        for each in Path(f"/proc/{member.port}/fd").iterdir():
            if each.readlink() == Path(f"socket:[{member.inode}]"):
                return f"pid {member.port}"
    return "pid unknown"
