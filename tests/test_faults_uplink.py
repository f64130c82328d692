"""Faults of uplinks, and of what came in by them: links that flap and go, delegations that collide."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.lab.daemon import Daemon
from tests.lab.delegated import (
    PREFIX,
    bound,
    delegate,
    destinations,
    subnets,
    take_back,
    touched,
    write_lease,
)
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import wait_until

WANTED = subnets(PREFIX, 3)
ON_LINK = "2001:db8:100:1::/64"
ADDRESS = "2001:db8:100:1::5/64"


@pytest.fixture
def running(daemon: Daemon) -> Daemon:
    """With a lease from `uplink`, of which one /64 is on-link there."""
    host = daemon.namespace
    plug_in(daemon)
    daemon.configure("subnets: [{name: some, id: 0, count: 3}]")
    write_lease(daemon.runtime)
    daemon.start()
    assert bound(host) == WANTED - {ON_LINK}
    return daemon


def plug_in(daemon: Daemon) -> None:
    host = daemon.namespace
    host.ip("link add uplink type veth peer name other")
    host.ip("link set other up")
    host.ip("link set uplink up")
    host.ip(f"addr add {ADDRESS} dev uplink nodad")


def changes_of_ours(monitor: RouteMonitor) -> list[str]:
    return [line for line in monitor.changes() if "proto 150" in line and "table local" in line]


def test_an_uplink_that_flaps(running: Daemon, tmp_path: Path) -> None:
    """Its lease stays what it was, and the address that it keeps without carrier stays on-link."""
    host = running.namespace
    before, monitor = destinations(host), RouteMonitor(host, tmp_path)
    for _ in range(20):
        host.ip("link set other down")
        host.ip("link set other up")
    running.reload()
    assert changes_of_ours(monitor) == []
    # Down, a link loses its addresses; what is no longer in use is bound, until they return.
    host.ip("link set uplink down")
    wait_until(lambda: bound(host) == WANTED)
    host.ip("link set uplink up")
    host.ip(f"addr add {ADDRESS} dev uplink nodad")
    wait_until(lambda: bound(host) == WANTED - {ON_LINK})
    assert touched(before, monitor.changes()) == {ON_LINK}


def test_an_uplink_that_is_renamed(running: Daemon, tmp_path: Path) -> None:
    """A lease keeps the name under which it was granted; an on-link prefix is told with the new one."""
    host = running.namespace
    monitor = RouteMonitor(host, tmp_path)
    host.ip("link set uplink name wan0")
    running.reload()
    assert changes_of_ours(monitor) == []
    reasons = {each["reason"] for each in running.status()["subnets"]}
    assert f"{ON_LINK} is on-link at wan0" in reasons
    [delegation] = running.status()["delegations"]
    assert delegation["uplink"] == "uplink"


def test_an_uplink_that_is_removed_and_returns(running: Daemon, tmp_path: Path) -> None:
    host = running.namespace
    before, monitor = destinations(host), RouteMonitor(host, tmp_path)
    for _ in range(3):
        host.ip("link delete uplink")
        wait_until(lambda: bound(host) == WANTED)
        plug_in(running)
        wait_until(lambda: bound(host) == WANTED - {ON_LINK})
    assert touched(before, monitor.changes()) == {ON_LINK}


@pytest.fixture
def plain(daemon: Daemon) -> Daemon:
    daemon.configure("subnets: [{name: some, count: 3}]")
    return daemon


def test_the_same_prefix_from_two_uplinks(plain: Daemon, tmp_path: Path) -> None:
    """It is one delegation, which lasts until both are gone."""
    host = plain.namespace
    for link in ("first", "second"):
        host.ip(f"link add {link} type veth peer name {link}-far")
    write_lease(plain.runtime, "first", uplink="first", iaid="00:00:00:01")
    write_lease(plain.runtime, "second", uplink="second", iaid="00:00:00:02")
    plain.start()
    monitor = RouteMonitor(host, tmp_path)
    assert len(plain.status()["delegations"]) == 1
    take_back(plain.runtime, "first", uplink="first")
    wait_until(lambda: [each["uplink"] for each in plain.status()["delegations"]] == ["second"])
    write_lease(plain.runtime, "first", uplink="first", iaid="00:00:00:01", valid_lifetime=5000)
    plain.wait_for("event=renewed")
    wait_until(lambda: [each["uplink"] for each in plain.status()["delegations"]] == ["second"])
    plain.reload()
    # Lifetimes may be renewed in place; nothing was removed.
    assert not [line for line in changes_of_ours(monitor) if line.startswith("Deleted")]
    take_back(plain.runtime, "first", uplink="first")
    take_back(plain.runtime, "second", uplink="second")
    wait_until(lambda: bound(host) == set())


def test_overlapping_delegations(plain: Daemon) -> None:
    """On one uplink the later one is carved, whatever it is granted for; when it goes, the other."""
    host = plain.namespace
    inner, outer = "2001:db8:100:8::/61", PREFIX
    write_lease(plain.runtime, "outer", prefix=outer, iaid="00:00:00:01", valid_lifetime=5000)
    time.sleep(0.02)  # the hook counts hundredths
    write_lease(plain.runtime, "inner", prefix=inner, iaid="00:00:00:02")
    plain.start()
    assert bound(host) == subnets(inner, 3)
    assert inner in plain.wait_for("event=refused")
    write_lease(plain.runtime, "outer", prefix=outer, iaid="00:00:00:01", valid_lifetime=9000)
    plain.reload()
    assert bound(host) == subnets(inner, 3)
    delegate(host, "2001:db8:200::/60")
    wait_until(lambda: bound(host) == subnets(inner, 3) | subnets("2001:db8:200::/60", 3))
    take_back(plain.runtime, "inner", prefix=inner)
    wait_until(lambda: bound(host) == subnets(outer, 3) | subnets("2001:db8:200::/60", 3))
    take_back(plain.runtime, "outer", prefix=outer)
    wait_until(lambda: bound(host) == subnets("2001:db8:200::/60", 3))


def test_what_a_lease_told_does_not_live_on_in_a_fallen_route(daemon: Daemon) -> None:
    """Its client's discard route went with `lo`. When the lease goes, that is not to mean anything either."""
    host = daemon.namespace
    daemon.start()
    host.ip(f"-6 route add unreachable {PREFIX} dev lo proto dhcp metric 1001")
    write_lease(daemon.runtime, client="dhcpcd", preferred_lifetime=1, valid_lifetime=8)
    daemon.wait_for("source=dhcpcd")
    host.ip("link set lo down")
    host.ip("link set lo up")
    wait_until(lambda: bound(host) == subnets(PREFIX, 1))
    daemon.wait_for("event=expired")
    wait_until(lambda: bound(host) == set())
