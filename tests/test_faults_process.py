"""Faults around the process: killed at any moment, twice at once, without descriptors, without a log."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anyipd.model import Prefix
from tests.lab.daemon import Daemon
from tests.lab.delegated import bound, delegate, subnets, write_lease
from tests.lab.namespace import wait_until
from tests.lab.network import Uplink
from tests.lab.pings import Pings

DELEGATED = "2001:db8:a::/48"
OTHER = "2001:db8:b::/48"
WANTED = subnets(DELEGATED, 16)
POLICY = "subnets: [{name: some, count: 16}]"
DESCRIPTORS = 64


def test_a_service_manager_that_does_not_listen_holds_nothing_up(daemon: Daemon) -> None:
    daemon.configure(POLICY)
    delegate(daemon.namespace, DELEGATED)
    daemon.start()
    for _ in range(15):  # a datagram socket takes ten (net.unix.max_dgram_qlen)
        since = len(daemon.lines())
        daemon.running.send_signal(signal.SIGHUP)
        daemon.wait_for("event=reloaded", since=since)
    daemon.namespace.ip("-6 route flush proto 150 table local")
    wait_until(lambda: bound(daemon.namespace) == WANTED)


@pytest.mark.long
def test_a_crash_at_any_moment_of_a_renumbering_is_survived(
    uplink: Uplink, daemon: Daemon, pytestconfig: pytest.Config
) -> None:
    """`--crashes` says how many. What is not renumbered answers all the time."""
    host = daemon.namespace
    daemon.configure("subnets: [{name: many, count: 256}, {name: kept, id: 0x7fff}]")
    prefixes, steady = [DELEGATED, OTHER], "2001:db8:c::/48"
    unchanged = {"2001:db8:c:7fff::/64"} | subnets(steady, 256)
    delegate(host, steady)
    delegate(host, prefixes[0])
    daemon.start()
    uplink.route(Prefix.parse(steady))
    asked = [Prefix.parse(each) for each in sorted(unchanged)[::32]]
    with Pings(uplink, asked, 0.02) as pings:
        for crash in range(pytestconfig.getoption("crashes")):
            old, new = prefixes[crash % 2], prefixes[(crash + 1) % 2]
            delegate(host, new)
            host.ip(f"-6 route delete unreachable {old} dev lo proto dhcp")
            time.sleep(random.uniform(0, 0.02))
            daemon.kill()
            assert unchanged <= bound(host)
            daemon.start()
            prefix = new.replace("::/48", ":7fff::/64")
            assert bound(host) == unchanged | subnets(new, 256) | {prefix}
    lost, sent = pings.lost()
    assert lost == 0, f"{lost} of {sent}"


def test_of_two_started_at_once_one_goes_on(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "twin").mkdir()
    delegate(daemon.namespace, DELEGATED)
    daemon.configure(POLICY)
    with Daemon(daemon.namespace, tmp_path / "twin", POLICY, forked=True) as twin:
        both = [daemon, twin]
        for each in both:
            each.launch()
        wait_until(lambda: any(each.running.poll() is not None for each in both), 20)
        [refused] = [each for each in both if each.running.poll() is not None]
        [goes_on] = [each for each in both if each is not refused]
        assert refused.running.returncode == 69
        assert f"pid {goes_on.running.pid}" in refused.log.read_text()
        goes_on.wait_for_ready(20)
        assert bound(daemon.namespace) == WANTED


def test_without_descriptors_it_goes_on_with_those_it_has(daemon: Daemon) -> None:
    """What needs one is refused and told; leases that cannot be read again are not forgotten."""
    host = daemon.namespace
    daemon.configure(POLICY)
    write_lease(daemon.runtime, prefix=DELEGATED)
    daemon.start()
    time.sleep(0.5)  # the descriptor that said READY=1 is closed a moment later
    used = {int(each.name) for each in Path(f"/proc/{daemon.running.pid}/fd").iterdir()}
    lowest_free = min(set(range(DESCRIPTORS)) - used)
    resource.prlimit(daemon.running.pid, resource.RLIMIT_NOFILE, (lowest_free, DESCRIPTORS))
    write_lease(daemon.runtime, "two", prefix=OTHER)
    daemon.wait_for("Too many open files")
    # A reload cannot even tell systemd: nothing to wait for but the refusal.
    daemon.running.send_signal(1)
    daemon.wait_for("the old configuration stays in force")
    host.ip("-6 route flush proto 150 table local")
    wait_until(lambda: bound(host) == WANTED)
    # Whoever asks who it is cannot be received, and knows it all the same.
    second = host.run(*daemon.command(), check=False, env=daemon.environment())
    assert f"(pid {daemon.running.pid})" in second.stderr
    before = time_used(daemon)
    time.sleep(0.5)
    assert time_used(daemon) - before < 0.2
    resource.prlimit(daemon.running.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    wait_until(lambda: bound(host) == WANTED | subnets(OTHER, 16), 10)


def time_used(daemon: Daemon) -> float:
    """Give the CPU seconds that it has used so far."""
    fields = Path(f"/proc/{daemon.running.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_with_stderr(daemon: Daemon, stderr: int) -> subprocess.Popen[str]:
    daemon.configure(POLICY)
    delegate(daemon.namespace, DELEGATED)
    daemon.process = daemon.namespace.popen(*daemon.command(), stderr=stderr, env=daemon.environment())
    return daemon.process


def works_and_ends_well(daemon: Daemon) -> None:
    daemon.wait_for_ready(20)
    host = daemon.namespace
    assert bound(host) == WANTED
    delegate(host, OTHER)
    wait_until(lambda: bound(host) == WANTED | subnets(OTHER, 16))
    assert daemon.terminate() == 0


def test_a_full_disk_under_the_log_costs_lines_alone(daemon: Daemon, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "full", disk], check=True)
    try:
        (disk / "log").write_bytes(bytes(4096))
        with (disk / "log").open("a") as log:
            run_with_stderr(daemon, log.fileno())
        works_and_ends_well(daemon)
        assert (disk / "log").stat().st_size == 4096
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_with_stderr_closed(daemon: Daemon) -> None:
    daemon.within = ["sh", "-c", 'exec "$@" 2>&-', "sh"]
    run_with_stderr(daemon, subprocess.DEVNULL)
    works_and_ends_well(daemon)


def test_where_nobody_can_say_which_boot_this_is(daemon: Daemon) -> None:
    """As by ProcSubset=pid in a unit of somebody's own."""
    hide = "mount -t tmpfs hidden /proc/sys/kernel/random"
    daemon.within = ["unshare", "--mount", "sh", "-c", f'{hide}; exec "$@"', "sh"]
    daemon.configure(POLICY)
    delegate(daemon.namespace, DELEGATED)
    daemon.launch()
    works_and_ends_well(daemon)


def test_a_reader_of_the_log_that_is_gone(daemon: Daemon) -> None:
    """As when journald crashed."""
    reader, writer = os.pipe()
    run_with_stderr(daemon, writer)
    os.close(writer)
    os.close(reader)
    works_and_ends_well(daemon)


def test_a_reader_of_the_log_that_hangs(daemon: Daemon) -> None:
    """As when journald is stopped: systemd holds its end open, and nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # As much as a pipe takes, and no more.
    while os.write(writer, bytes(1 << 20)) == 1 << 20:
        pass
    os.set_blocking(writer, True)
    try:
        run_with_stderr(daemon, writer)
        works_and_ends_well(daemon)
    finally:
        os.close(writer)
        os.close(reader)


def test_a_notify_socket_that_nobody_holds(daemon: Daemon) -> None:
    environment = {**daemon.environment(), "NOTIFY_SOCKET": "/run/nobody", "WATCHDOG_USEC": "200000"}
    daemon.configure(POLICY)
    delegate(daemon.namespace, DELEGATED)
    with daemon.log.open("w") as log:
        daemon.process = daemon.namespace.popen(
            sys.executable, *daemon.command()[1:], stderr=log, env=environment
        )
    daemon.wait_for("ready", 20)
    assert bound(daemon.namespace) == WANTED
    assert daemon.terminate() == 0
