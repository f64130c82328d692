"""The onlooker of the chaos run: what anyipd changed that is not its own, as `ip monitor` would see it.

The kernel says with each change of an address, a route or a rule which netlink socket asked for it. What
one of the daemon's asked for must be of protocol 150; and whoever asked, the bait stays: addresses, routes
and rules of others beside ours, that nothing else touches. Of an IPv6 address it does not say who asked.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from tests.lab.background import Background
from tests.lab.local_routes import messages
from tests.lab.namespace import Namespace

PROTOCOL = 150
MESSAGES = 150
"""The table of the hooks' messages: the daemon removes those of leases that ended."""

GROUPS = (5, 7, 8, 9, 11, 19)  # linux/rtnetlink.h: addresses, routes and rules, of IPv4 and IPv6
SO_RCVBUFFORCE, BUFFER = 33, 64 << 20
"""Octets: more than the floods of the chaos run are."""

NEW, DELETED = {20, 24, 32}, {21, 25, 33}  # linux/rtnetlink.h: RTM_{NEW,DEL}{ADDR,ROUTE,RULE}
PID_BITS = (1 << 22) - 1
"""A process's port is its pid, or has it in these bits: the kernel's first choice, and pyroute2's."""

BAIT = (
    "addr add 2001:db8:ba17::1/64 dev {link} nodad",
    "addr add 198.18.186.23/32 dev {link}",
    "-6 rule add pref 1017 from 2001:db8:ba17::/48 lookup 1017",
    "rule add pref 1017 from 198.18.186.23 lookup 1017",
    "-6 route add 2001:db8:ba17:1::/64 dev {link} proto static",
    "-6 route add 2001:db8:ba17:2::/64 dev {link} proto static table 1017",
    "-6 route add local 2001:db8:ba17:3::/64 dev {link} proto static table local metric 1024",
    "-6 route add default from 2001:db8:ba17::/48 dev {link} proto static metric 1024",
    "route add 198.18.0.0/24 from 198.18.186.23 dev {link} proto static table 1017",
)
"""For `ip`: a thing of each kind that anyipd has something to do with, on a link that stays up."""

BAIT_BYTES = re.compile(re.escape(b"\x20\x01\x0d\xb8\xba\x17") + b"|" + re.escape(b"\xc6\x12\xba\x17"))


def lay_bait(host: Namespace, link: str) -> None:
    """Put the bait into place."""
    for words in BAIT:
        host.ip(words.format(link=link))


class Onlooker(Background):
    """Listens in `host` while its `with` block lasts; `daemon` gives the pid of the running daemon, if any.

    The ports are those of the process that runs now: they come again, as pids do.
    """

    def __init__(self, host: Namespace, daemon: Callable[[], int | None]) -> None:
        super().__init__()
        self.host, self.daemon = host, daemon
        self.touched: list[tuple[float, str]] = []
        """When something was touched that is not anyipd's, and what."""
        self.changes = 0
        """What the daemon changed."""
        self.overruns = 0
        self.seen: set[tuple[int, int]] = set()
        with host.entered():
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            self.socket.bind((0, sum(1 << group - 1 for group in GROUPS)))
        with contextlib.suppress(PermissionError):  # in a user namespace
            self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)

    def close(self) -> None:
        self.socket.close()

    def run(self) -> None:
        while not self.ended.is_set():
            if select.select([self.socket], [], [], 0.1)[0]:
                self.take()

    def take(self) -> None:
        """Take in what comes with the next message."""
        try:
            packet = self.socket.recv(1 << 16)
        except OSError:  # ENOBUFS
            self.overruns += 1
            return
        for kind, _, port, message in messages(packet):
            mine = self.is_daemons(port)
            self.changes += mine
            if mine and not is_ours(message):
                self.note(f"the daemon {described(message)}")
            elif kind in DELETED and BAIT_BYTES.search(message):
                self.note(f"port {port:#x} {described(message)}")

    def is_daemons(self, port: int) -> bool:
        """Whether a port is the running daemon's."""
        pid = self.daemon()
        if not pid or not port:
            return False
        if port >> 31 and (pid, port) not in self.seen:
            self.seen = {(pid, each) for each in ports(pid)}
        return port & PID_BITS == pid or (pid, port) in self.seen

    def note(self, what: str) -> None:
        self.touched.append((time.monotonic(), what))


def ports(pid: int) -> set[int]:
    """Return the ports of a process's rtnetlink sockets; none when it has ended."""
    try:
        inodes = {file.readlink().name for file in Path(f"/proc/{pid}/fd").iterdir()}
        lines = Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:]
    except FileNotFoundError:
        return set()
    sockets = [line.split() for line in lines]
    return {int(port) for _, _, port, *_, inode in sockets if f"socket:[{inode}]" in inodes}


def is_ours(message: bytes) -> bool:
    """Whether a message tells of something of protocol 150, or of a hook's message."""
    [parsed] = MarshalRtnl().parse(message)
    if parsed["header"]["type"] in {20, 21}:
        return bool(parsed.get_attr("IFA_PROTO") == PROTOCOL)
    return bool(parsed.get("proto") == PROTOCOL or parsed.get("table") == MESSAGES)


def described(message: bytes) -> str:
    """Return what a message tells of."""
    [parsed] = MarshalRtnl().parse(message)
    attributes = {name: value for name, value in parsed["attrs"] if isinstance(value, int | str)}
    verb = "added" if parsed["header"]["type"] in NEW else "removed"
    return f"{verb} {parsed['event']}, protocol {parsed.get('proto')}: {attributes}"
