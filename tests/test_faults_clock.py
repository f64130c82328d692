"""Faults of clocks and of lifetimes: suspend, a wall clock that steps, and granted nonsense."""

from __future__ import annotations

import contextlib
import re
import time

import pytest

from tests.lab.daemon import Daemon
from tests.lab.delegated import PREFIX, bound, subnets, write_lease
from tests.lab.namespace import Namespace, wait_until

WANTED = subnets(PREFIX, 2)
SUSPENDED = 1_000_000
"""Seconds by which CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC."""
YEAR = 365 * 86400
INFINITE = 0xFFFFFFFF


@pytest.fixture
def started(daemon: Daemon) -> Daemon:
    (daemon.runtime / "leases").mkdir()
    daemon.configure("subnets: [{name: some, count: 2}]")
    daemon.start()
    return daemon


def uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def expires(host: Namespace) -> set[int]:
    routes = host.ip("-6 route show table local proto 150")
    return {int(seconds) for seconds in re.findall(r"expires (\d+)sec", routes)}


def test_after_a_suspend_lifetimes_end_on_time(daemon: Daemon) -> None:
    """In a time namespace, CLOCK_BOOTTIME is as after twelve days of suspend."""
    daemon.within = ["unshare", "--time", "--boottime", str(SUSPENDED), "--fork", "--kill-child"]
    daemon.configure("subnets: [{name: some, count: 2}]")
    written = round(uptime(), 2)  # as the file says it
    write_lease(
        daemon.runtime,
        uptime=f"{written + SUSPENDED:.2f}",
        preferred_lifetime=3,
        valid_lifetime=6,
    )
    daemon.start()
    assert bound(daemon.namespace) == WANTED
    assert max(expires(daemon.namespace)) <= 7
    daemon.wait_for("deprecated", 10)
    assert uptime() >= written + 3
    wait_until(lambda: bound(daemon.namespace) == set(), 10)
    assert uptime() >= written + 6
    daemon.wait_for("expired")


@pytest.mark.parametrize("step", [-30 * YEAR, 30 * YEAR])
def test_a_step_of_the_wall_clock_changes_no_lifetime(started: Daemon, step: int) -> None:
    """After it, the file's time stamp and what it says are years off, both alike."""
    then = int(time.time()) - step
    write_lease(started.runtime, modified=then + 0.5, life_starts=then)
    wait_until(lambda: bound(started.namespace) == WANTED)
    for again in (started.reload, started.kill, started.start):
        again()
        [delegation] = started.status()["delegations"]
        assert 1900 < delegation["valid_lifetime"] <= 2001
        assert bound(started.namespace) == WANTED
        assert all(1900 < seconds <= 2001 for seconds in expires(started.namespace))
    write_lease(
        started.runtime, modified=then + 9.5, life_starts=then + 9, preferred_lifetime=0, valid_lifetime=0
    )
    wait_until(lambda: bound(started.namespace) == set())


@pytest.mark.parametrize(
    ("preferred", "valid", "state"),
    [
        (0, 1000, "deprecated"),
        (1000, 1000, "granted"),
        (0, INFINITE, "deprecated"),
        (INFINITE, INFINITE, "granted"),
        (INFINITE - 1, INFINITE - 1, "granted"),
    ],
)
def test_lifetimes_at_the_edge(started: Daemon, preferred: int, valid: int, state: str) -> None:
    write_lease(started.runtime, preferred_lifetime=preferred, valid_lifetime=valid)
    wait_until(lambda: bound(started.namespace) == WANTED)
    [delegation] = started.status()["delegations"]
    assert delegation["state"] == state
    if valid == INFINITE:
        assert expires(started.namespace) == set()
    else:
        # An hour: what a slow machine may need. The kernel caps the longest.
        assert all(min(valid, 1 << 24) - 3600 < seconds for seconds in expires(started.namespace))
        assert expires(started.namespace)


def test_a_lifetime_of_a_second(started: Daemon) -> None:
    def was_bound() -> bool:
        """Say whether it was; where the machine took longer than the lease lasts, nothing is."""
        write_lease(started.runtime, preferred_lifetime=1, valid_lifetime=1)
        with contextlib.suppress(TimeoutError):
            return bool(started.wait_for("event=bound", 2))
        return False

    wait_until(was_bound)
    started.wait_for("event=expired", 10)
    wait_until(lambda: bound(started.namespace) == set())


def test_a_lifetime_of_zero_withdraws(started: Daemon) -> None:
    write_lease(started.runtime)
    wait_until(lambda: bound(started.namespace) == WANTED)
    write_lease(started.runtime, preferred_lifetime=0, valid_lifetime=0, life_starts=int(time.time()) - 2)
    wait_until(lambda: bound(started.namespace) == set())


def test_preferred_above_valid_is_dropped(started: Daemon) -> None:
    write_lease(started.runtime, preferred_lifetime=1001, valid_lifetime=1000)
    assert "preferred lifetime 1001 is longer" in started.wait_for("lease file dropped")
    assert bound(started.namespace) == set()
