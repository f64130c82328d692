"""Faults that others cause, at a size at which they hurt: floods, and crashes at any moment."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from anyipd.model import Prefix
from tests.lab.daemon import Daemon
from tests.lab.namespace import Namespace, wait_until

DELEGATED = "2001:db8:a::/48"
FLOOD = 100_000
"""Foreign routes added, and deleted again."""


def bound(host: Namespace) -> set[str]:
    return {route["dst"] for route in host.ip_json("-6 route show table local proto 150")}


def subnets(delegated: str, count: int) -> set[str]:
    first = Prefix.parse(delegated).address
    return {str(Prefix(first + (number << 64), 64)) for number in range(count)}


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.fixture
def running(daemon: Daemon) -> Daemon:
    daemon.configure("subnets: [{name: some, count: 16}]")
    daemon.namespace.ip(f"-6 route add unreachable {DELEGATED} dev lo proto dhcp")
    daemon.start()
    return daemon


def test_a_flood_of_foreign_routes_passes_by(running: Daemon, tmp_path: Path) -> None:
    host = running.namespace
    host.ip("link add uplink type veth peer name other")
    host.ip("link set uplink up")
    for verb in ("add", "delete"):
        routes = (
            f"route {verb} 2001:db9:{n >> 16:x}:{n & 0xFFFF:x}::/64 dev uplink proto static\n"
            for n in range(FLOOD)
        )
        (tmp_path / verb).write_text("".join(routes))
    time.sleep(0.5)
    before = cpu_ticks(running.running.pid)
    since = len(running.lines())
    host.run("ip", "-6", "-batch", tmp_path / "add")
    host.ip("-6 route delete local 2001:db8:a:7::/64 dev lo table local proto 150")
    wait_until(lambda: "2001:db8:a:7::/64" in bound(host), 0.5)
    host.run("ip", "-6", "-batch", tmp_path / "delete")
    # 200,000 changes in about two seconds: a quarter of a core would be 50 ticks.
    assert cpu_ticks(running.running.pid) - before < 10
    assert bound(host) == subnets(DELEGATED, 16)
    assert [line.split("event=")[1].split()[0] for line in running.lines()[since:]] == ["bound"]


def test_an_overrun_of_events_is_made_good(running: Daemon, tmp_path: Path) -> None:
    """Stopped, it cannot read; what it missed it finds by looking."""
    host = running.namespace
    running.running.send_signal(signal.SIGSTOP)
    for verb in ("add", "delete"):
        routes = (f"route {verb} 2001:db8:a:1000::{n:x} dev lo proto static\n" for n in range(40_000))
        (tmp_path / verb).write_text("".join(routes))
    host.run("ip", "-6", "-batch", tmp_path / "add")
    host.run("ip", "-6", "-batch", tmp_path / "delete")
    host.ip("-6 route flush proto 150 table local")
    running.running.send_signal(signal.SIGCONT)
    wait_until(lambda: bound(host) == subnets(DELEGATED, 16), 3)


def test_a_crash_at_any_moment_of_a_renumbering_is_survived(daemon: Daemon) -> None:
    host = daemon.namespace
    daemon.configure("subnets: [{name: many, count: 256}, {name: kept, id: 0x7fff}]")
    prefixes = ["2001:db8:a::/48", "2001:db8:b::/48"]
    host.ip("-6 route add unreachable 2001:db8:c::/48 dev lo proto dhcp")
    host.ip(f"-6 route add unreachable {prefixes[0]} dev lo proto dhcp")
    daemon.start()
    unchanged = {"2001:db8:c:7fff::/64"} | subnets("2001:db8:c::/48", 256)
    for crash in range(25):
        old, new = prefixes[crash % 2], prefixes[(crash + 1) % 2]
        host.ip(f"-6 route add unreachable {new} dev lo proto dhcp")
        host.ip(f"-6 route delete unreachable {old} dev lo proto dhcp")
        time.sleep(random.uniform(0, 0.004))
        daemon.kill()
        assert unchanged <= bound(host)
        daemon.start()
        prefix = new.replace("::/48", ":7fff::/64")
        assert bound(host) == unchanged | subnets(new, 256) | {prefix}
