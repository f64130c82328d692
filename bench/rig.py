"""What is measured, and by which witness: a daemon in a namespace of its own, and a clock beside it."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from anyipd.kernel import bpf
from anyipd.kernel.routes import Routes, local_route
from anyipd.model import Prefix
from tests.lab.daemon import Daemon
from tests.lab.delegated import OURS, next_second
from tests.lab.dhclient import HOOK
from tests.lab.namespace import Namespace, wait_until

WHOLE = 65_536
"""The /64s of a /48."""

OLD, NEW = Prefix.parse("2001:db8:a::/48"), Prefix.parse("2001:db8:b::/48")

_T = TypeVar("_T")

_RTNLGRP_IPV6_ROUTE = 0x400
_SO_RCVBUFFORCE = 33


class Rig:
    """A namespace, a daemon to be started in it, and folders that go with them."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self.namespace, self.folder = namespace, folder
        self.daemon = Daemon(namespace, folder)

    def start(self, policy: str) -> None:
        """Start the daemon with a policy."""
        self.daemon.configure(policy)
        self.daemon.start()

    def delegate(self, prefix: Prefix) -> None:
        """Do what a DHCPv6 client does in the kernel with a delegated prefix."""
        self.namespace.ip(f"-6 route add unreachable {prefix} dev lo proto dhcp")

    def withdraw(self, prefix: Prefix) -> None:
        """Undo it."""
        self.namespace.ip(f"-6 route delete unreachable {prefix} dev lo proto dhcp")

    def batch(self, verb: str, prefix: Prefix, count: int) -> float:
        """Milliseconds that `ip -6 -batch` takes to add or delete so many /64s of a prefix."""
        file = self.folder / f"{verb}-{prefix.address:x}-{count}"
        if not file.exists():
            routes = (f"route {verb} local {subnet(prefix, n)} dev lo proto 150\n" for n in range(count))
            file.write_text("".join(routes))
        return timed(lambda: self.namespace.run("ip", "-6", "-batch", file))

    def flush(self) -> None:
        """Leave no route behind."""
        ours = "proto 150 table local", "proto 150 table main"
        for route in (*ours, "proto dhcp table main", "proto dhcp table 150"):
            self.namespace.run("ip", "-6", "route", "flush", *route.split(), check=False)

    def until_logged(self, change: Callable[[], object], event: str, timeout: float = 30.0) -> float:
        """Milliseconds from the start of `change` to the time stamp of the first log line of an event.

        The daemon says what it did when the kernel has done it, so this needs no listener that
        would slow both down.
        """
        size = self.daemon.log.stat().st_size
        begun = time.time()
        change()

        def stamp() -> str | None:
            with self.daemon.log.open() as log:
                log.seek(size)
                return next((line for line in log if f"event={event} " in line and line.endswith("\n")), None)

        line = wait_until(stamp, timeout)
        local = time.mktime(time.strptime(line[10:29], "%Y-%m-%dT%H:%M:%S")) + float(line[29:36])
        return (local - begun) * 1000

    def settled(self, count: int) -> None:
        """Wait until so many /64s have routes of ours."""
        wait_until(lambda: self.count() == count, 30)

    def count(self) -> int:
        """Count the /64s that our routes in table local hold."""
        return sum(1 << 64 - Prefix.parse(route["dst"]).length for route in self.namespace.ip_json(OURS))

    def memory(self) -> float:
        """Resident memory of the daemon in MB."""
        return resident(self.daemon.running.pid)

    def hook(self, reason: str, prefix: Prefix, valid: int = 7200) -> None:
        """Call our hook as dhclient-script does."""
        self.start_hook(reason, prefix, valid).wait()

    def take_back(self, *prefixes: Prefix) -> None:
        """Have all prefixes taken back and the tombstones cleared up: the next lease is a first one again."""
        for prefix in prefixes:
            self.hook("RELEASE6", prefix)
        self.settled(0)
        for tombstone in (self.daemon.runtime / "leases").iterdir():
            tombstone.unlink()

    def start_hook(
        self, reason: str, prefix: Prefix, valid: int = 7200, hook: Path = HOOK
    ) -> subprocess.Popen[bytes]:
        """Start our hook, or another in its place: sourced, as dhclient-script does with hooks."""
        which = "old" if reason == "RELEASE6" else "new"
        told = {
            "ip6_prefix": str(prefix),
            "iaid": (prefix.address >> 80 & 0xFFFFFFFF).to_bytes(4).hex(":"),
            "life_starts": str(next_second()),
            "preferred_life": str(valid // 2),
            "max_life": str(valid),
        }
        environment = {
            **self.daemon.environment(),
            "ANYIPD_RUNTIME_DIR": str(self.daemon.runtime),
            "reason": reason,
            "interface": "uplink",
            **{f"{which}_{name}": value for name, value in told.items()},
        }
        with self.namespace.entered():
            return subprocess.Popen(["dash", "-c", f". {hook}; :"], env=environment)


class Witness:
    """An event socket that tells when a certain subnet has a local route."""

    def __init__(self, namespace: Namespace) -> None:
        with namespace.entered():
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 28)
        self.socket.bind((0, _RTNLGRP_IPV6_ROUTE))
        self.socket.settimeout(60)

    def hear_of_alone(self, subnet: Prefix) -> None:
        """Have no event of another destination wake it: of many routes the last one counts."""
        first, second = (subnet.address >> shift & 0xFFFFFFFF for shift in (96, 64))
        program = [
            *((bpf.LD_WORD, 0, 0, 40), *bpf.drop_unless(first)),
            *((bpf.LD_WORD, 0, 0, 44), *bpf.accept_if(second)),
            bpf.DROP,
        ]
        bpf.attach(self.socket, bpf.assemble(program))

    def until_added(self, prefix: Prefix, change: Callable[[], _T]) -> tuple[float, _T]:
        """Milliseconds from `change` until a route over `prefix` was added to table local; its result."""
        begun = time.perf_counter()
        result = change()
        while True:
            event = self.socket.recv(4096)
            kind = struct.unpack_from("=H", event, 4)[0]
            added = Prefix(int.from_bytes(event[40:56]), event[17]) if event[17] else None
            if kind == 24 and event[20] == 255 and added and added.covers(prefix):
                return (time.perf_counter() - begun) * 1000, result


def remove(routes: Routes, prefix: Prefix) -> None:
    """Remove the route that binds a prefix, also when it came this moment.

    The kernel tells of a route some µs before it finds it for who wants it removed (fib6_add_rt2node in
    net/ipv6/ip6_fib.c sets RTN_RTINFO last).
    """
    wait_until(lambda: not routes.remove([local_route(prefix)]))


def resident(pid: int) -> float:
    """Resident memory of a process in MB."""
    line = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    )
    return int(line.split()[1]) / 1024


def cpu(pid: int) -> float:
    """Processor time of a process so far, in ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def subnet(delegated: Prefix, number: int) -> Prefix:
    """The /64 with this subnet ID."""
    return Prefix(delegated.address + (number << 64), 64)


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that `work` takes."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


@contextmanager
def rig(name: str) -> Iterator[Rig]:
    """Make a rig, and clear it away."""
    with TemporaryDirectory() as folder, Namespace(name) as namespace:
        made = Rig(namespace, Path(folder))
        with made.daemon:
            yield made
