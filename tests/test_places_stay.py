"""Places stay: what comes and goes beside a subnet does not move it, on a real kernel."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.lab.daemon import Daemon
from tests.lab.delegated import PREFIX, bound, subnets, write_lease
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import Namespace, wait_until

FIRST, SECOND, THIRD = (f"2001:db8:100{part}::/64" for part in ("", ":1", ":2"))


def lan(host: Namespace) -> None:
    """Give the first /64 to a LAN, as dhcpcd's `ia_pd 1 lan0/0/64/1` does."""
    host.pair("lan0", "port")
    lan_address(host)


def lan_address(host: Namespace) -> None:
    host.ip("addr add 2001:db8:100::1/64 dev lan0 nodad")


def shown(daemon: Daemon) -> set[str]:
    found = daemon.status()["subnets"]
    return {each["prefix"] for each in found if each["state"] == "bound"}


@pytest.fixture
def beside_a_lan(daemon: Daemon) -> Daemon:
    """A daemon whose default subnet found a LAN in the first place."""
    lan(daemon.namespace)
    write_lease(daemon.runtime)
    daemon.start()
    wait_until(lambda: bound(daemon.namespace) == {SECOND})
    return daemon


def test_a_lan_without_carrier_for_3_seconds_moves_nothing(beside_a_lan: Daemon, tmp_path: Path) -> None:
    host = beside_a_lan.namespace
    monitor = RouteMonitor(host, tmp_path)
    host.ip("link set port down")
    host.ip("addr flush dev lan0 scope global")  # as dhcpcd does when the carrier goes
    time.sleep(3)
    assert bound(host) == {SECOND}
    assert shown(beside_a_lan) == {SECOND}
    host.ip("link set port up")
    lan_address(host)
    time.sleep(0.5)
    assert [line for line in monitor.changes() if "proto 150" in line] == []


def test_a_restart_while_the_lan_is_away_moves_nothing(beside_a_lan: Daemon) -> None:
    host = beside_a_lan.namespace
    host.ip("link delete lan0")
    time.sleep(0.5)
    for end in (beside_a_lan.kill, beside_a_lan.terminate):
        end()
        assert shown(beside_a_lan) == {SECOND}  # without a daemon, by the file
        beside_a_lan.start()
        time.sleep(0.3)
        assert bound(host) == {SECOND}


def test_without_the_file_a_subnet_has_its_first_place_again(beside_a_lan: Daemon) -> None:
    host = beside_a_lan.namespace
    host.ip("link delete lan0")
    beside_a_lan.kill()
    for file in (beside_a_lan.runtime / "daemon").iterdir():
        file.unlink()
    beside_a_lan.start()
    wait_until(lambda: bound(host) == {FIRST})


def test_a_reload_that_adds_an_entry_before_moves_nothing(daemon: Daemon, tmp_path: Path) -> None:
    host = daemon.namespace
    daemon.configure("subnets: [{name: web}]")
    write_lease(daemon.runtime)
    daemon.start()
    wait_until(lambda: bound(host) == {FIRST})
    monitor = RouteMonitor(host, tmp_path)
    daemon.configure("subnets: [{name: new}, {name: web}]")
    planned = json.loads(daemon.control("plan", "--json").stdout)
    assert SECOND in json.dumps(planned)
    daemon.reload()
    wait_until(lambda: bound(host) == {FIRST, SECOND})
    assert not [line for line in monitor.changes() if f"{FIRST} " in line and "proto 150" in line]
    names = {each["name"]: each["prefix"] for each in daemon.status()["subnets"]}
    assert names == {"web": FIRST, "new": SECOND}


def test_a_subnet_that_gave_way_does_not_go_back(daemon: Daemon) -> None:
    host = daemon.namespace
    daemon.configure("subnets: [{name: proxies, count: 2}]")
    write_lease(daemon.runtime)
    daemon.start()
    wait_until(lambda: bound(host) == subnets(PREFIX, 2))
    lan(host)
    wait_until(lambda: bound(host) == {SECOND, THIRD})
    host.ip("link delete lan0")
    time.sleep(0.5)
    assert bound(host) == {SECOND, THIRD}
    names = {each["name"]: each["prefix"] for each in daemon.status()["subnets"]}
    assert names == {"proxies-0": THIRD, "proxies-1": SECOND}


def test_all_leaves_a_gap_while_a_link_flaps(daemon: Daemon) -> None:
    host = daemon.namespace
    daemon.configure("subnets: [{name: all, count: all}]")
    lan(host)
    write_lease(daemon.runtime)
    daemon.start()
    wait_until(lambda: bound(host) != set())
    before = bound(host)
    host.ip("link delete lan0")
    time.sleep(1)
    assert bound(host) == before


def test_a_prefix_taken_away_and_granted_again_has_its_places(beside_a_lan: Daemon) -> None:
    host = beside_a_lan.namespace
    write_lease(beside_a_lan.runtime, valid_lifetime=0, preferred_lifetime=0, reason="RELEASE6")
    wait_until(lambda: bound(host) == set())
    host.ip("link delete lan0")
    time.sleep(0.3)
    write_lease(beside_a_lan.runtime)
    wait_until(lambda: bound(host) == {SECOND})
