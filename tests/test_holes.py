"""Holes (`except:`): parts of bound subnets are left to other routes, on the real kernel."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from anyipd.model import Prefix
from tests.lab.container import Container
from tests.lab.daemon import Daemon
from tests.lab.delegated import bound, delegate, take_away, take_back, write_lease
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import Uplink

OLD, NEW = "2001:db8:100::/60", "2001:db8:200::/60"
SUBNET = "2001:db8:100::/64"
POLICY = """
subnets:
  - {name: web, id: 0, except: ["::5/128", "::a:0:0/96"]}
"""
HOLES = {"2001:db8:100::5", "2001:db8:100::a:0:0/96"}
MOVED = {"2001:db8:200::5", "2001:db8:200::a:0:0/96"}


def ours(host: Namespace, words: str) -> set[str]:
    """Give the destinations of our IPv6 routes that these words of `ip` are true of."""
    return {route["dst"] for route in host.ip_json(f"-6 route show {words} proto 150")}


def throws(host: Namespace) -> set[str]:
    return ours(host, "table local type throw")


def discards(host: Namespace) -> set[str]:
    return {prefix for prefix in ours(host, "table main type unreachable") if prefix not in {OLD, NEW}}


def answers(uplink: Uplink, address: str, timeout: float = 5) -> bool:
    return bool(uplink.answering([int(ip_address(address))], timeout))


@pytest.fixture
def running(daemon: Daemon, host: Namespace) -> Daemon:
    delegate(host)
    daemon.configure(POLICY)
    daemon.start()
    assert throws(host) == HOLES
    return daemon


def test_routes_are_as_the_contract_says(running: Daemon) -> None:
    host = running.namespace
    assert bound(host) == {SUBNET}
    for route in host.ip_json("-6 route show table local type throw proto 150"):
        assert (route["dev"], route["metric"]) == ("lo", 1024)
    for route in host.ip_json("-6 route show table main type unreachable proto 150"):
        assert (route["dev"], route["metric"]) == ("lo", 2048)
    assert discards(host) == HOLES
    [subnet] = running.status()["subnets"]
    assert (subnet["state"], subnet["reason"]) == ("bound", None)
    assert subnet["except"] == ["::5/128", "::a:0:0/96"]
    assert "except ::5/128, ::a:0:0/96" in running.control("status").stdout


def test_a_container_has_its_address_and_the_host_all_others(
    running: Daemon, uplink: Uplink, lab: Callable[[str], Namespace]
) -> None:
    uplink.route(Prefix.parse(OLD))
    Container(lab, uplink.host).give("2001:db8:100::5")
    assert answers(uplink, "2001:db8:100::5")
    assert uplink.host.ip_json("-6 route get 2001:db8:100::5")[0]["dev"] == "br0"
    assert answers(uplink, "2001:db8:100::6")
    # Nobody is in the other hole: the sender hears so, and nothing loops.
    ping = ("ping", "-c1", "-W2", "-I", uplink.address, "2001:db8:100::a:0:1")
    wait_until(lambda: "unreachable" in uplink.isp.run(*ping, check=False).stdout)
    assert running.status()["subnets"][0]["state"] == "bound"


def test_a_container_behind_an_on_link_prefix_is_answered_for(
    daemon: Daemon, neighbour: Daemon, uplink: Uplink, lab: Callable[[str], Namespace]
) -> None:
    """Nobody else is: a hole that is not routed on may be a peer's on the link."""
    uplink.isp.ip("-6 route add 2001:db8:5::/64 dev customer")
    Container(lab, uplink.host).give("2001:db8:5::5")
    holes = "except: ['2001:db8:5::5', '2001:db8:5::9']"
    daemon.configure(f"static: [{{prefix: '2001:db8:5::/64', neighbours: [uplink], {holes}}}]")
    daemon.start()
    neighbour.start()
    assert answers(uplink, "2001:db8:5::5")
    assert answers(uplink, "2001:db8:5::6")
    assert not answers(uplink, "2001:db8:5::9", 0.5)
    entry = {each["dst"]: each["state"] for each in uplink.isp.ip_json("-6 neigh show dev customer")}
    assert entry["2001:db8:5::5"] == entry["2001:db8:5::6"] == ["REACHABLE"]
    assert entry["2001:db8:5::9"] in (["INCOMPLETE"], ["FAILED"])


def test_a_restart_changes_no_route(running: Daemon, tmp_path: Path) -> None:
    monitor = RouteMonitor(running.namespace, tmp_path)
    running.terminate()
    running.start()
    running.kill()
    running.start()
    assert monitor.changes() == []


def test_a_removed_hole_is_back_at_once(running: Daemon) -> None:
    host = running.namespace
    for fault in (
        "-6 route delete throw 2001:db8:100::5 dev lo table local",
        "-6 route delete unreachable 2001:db8:100::5 dev lo table main proto 150",
        "-6 route flush table local type throw",
    ):
        host.ip(fault)
        wait_until(lambda: throws(host) == discards(host) == HOLES)
    take_away(host, SUBNET)
    wait_until(lambda: bound(host) == {SUBNET})
    host.ip("link set lo down")
    host.ip("link set lo up")
    wait_until(lambda: throws(host) == HOLES and bound(host) == {SUBNET})


def test_a_hole_that_is_not_wanted_goes(running: Daemon) -> None:
    host = running.namespace
    host.ip("-6 route add throw 2001:db8:100::7 dev lo table local proto 150 metric 1024")
    wait_until(lambda: throws(host) == HOLES)
    running.configure(POLICY.replace(', "::a:0:0/96"', ""))
    running.reload()
    assert throws(host) == discards(host) == {"2001:db8:100::5"}
    running.configure("subnets: [{name: web, id: 0}]")
    running.reload()
    assert throws(host) == discards(host) == set()
    assert bound(host) == {SUBNET}
    running.configure(POLICY)
    running.reload()
    assert throws(host) == discards(host) == HOLES
    running.wait_for('event=holes subnet=web prefix=2001:db8:100::/64 except="::5/128, ::a:0:0/96"')


def test_plan_shows_what_becomes_of_holes(running: Daemon) -> None:
    running.configure(
        POLICY.replace('"::5/128", ', "") + "static: [{prefix: 192.0.2.0/31, except: [192.0.2.1]}]"
    )
    rows = [line.split() for line in running.control("plan").stdout.splitlines()]
    assert ["add", "local", "192.0.2.0/32", "192.0.2.0/31"] in rows
    assert ["add", "discard", "192.0.2.1/32", "192.0.2.0/31"] in rows
    assert ["remove", "throw", "2001:db8:100::5/128", "web"] in rows
    assert ["remove", "discard", "2001:db8:100::5/128", "web"] in rows
    running.reload()
    assert "nothing to change" in running.control("plan").stdout


def test_no_hole_is_answered_for_even_for_a_moment(daemon: Daemon, host: Namespace, tmp_path: Path) -> None:
    daemon.configure(POLICY)
    write_lease(daemon.runtime, prefix=OLD)
    monitor = RouteMonitor(host, tmp_path)
    daemon.start()
    write_lease(daemon.runtime, "two", prefix=NEW)
    wait_until(lambda: throws(host) == HOLES | MOVED)
    take_back(daemon.runtime, prefix=OLD)
    wait_until(lambda: throws(host) == discards(host) == MOVED)
    changes = [
        ["Deleted"] * line.startswith("Deleted") + line.removeprefix("Deleted ").split()[:2]
        for line in monitor.changes()
        if OLD not in line and NEW not in line
    ]
    kinds = [(" ".join(change[:-1]), change[-1].startswith("2001:db8:100:")) for change in changes]
    assert kinds == [
        *[("throw", True)] * 2,
        *[("unreachable", True)] * 2,
        ("local", True),
        *[("throw", False)] * 2,
        *[("unreachable", False)] * 2,
        ("local", False),
        ("Deleted local", True),
        *[("Deleted throw", True)] * 2,
        *[("Deleted unreachable", True)] * 2,
    ]


def test_random_addresses_avoid_holes(daemon: Daemon, host: Namespace) -> None:
    delegate(host)
    daemon.configure('subnets: [{name: web, id: 0, length: 125, except: ["::4/126"]}]')
    daemon.start()
    free = {f"2001:db8:100::{i or ''}" for i in range(4)}
    for words in ([], ["web"], ["2001:db8:100::/125"]):
        assert set(daemon.control("random", "-n99", *words).stdout.split()) == free
    daemon.terminate()
    assert set(daemon.control("random", "-n99").stdout.split()) == free


@pytest.mark.parametrize("entry", ["{name: web, id: 0}", "{name: web, length: 60}"])
def test_a_conflict_by_a_longer_route_hints_at_except(daemon: Daemon, host: Namespace, entry: str) -> None:
    """H7: pinned and automatic, and the hint is followed."""
    delegate(host)
    host.pair("br0", "other")
    daemon.configure(f"subnets: [{entry}]")
    daemon.start()
    host.ip("-6 route add 2001:db8:100::5/128 dev br0")
    hint = '2001:db8:100::5/128 is routed to br0; `except: ["::5/128"]` keeps the rest'
    wait_until(lambda: hint in str(daemon.status()["subnets"][0]["reason"]))
    wait_until(lambda: not bound(host))
    daemon.configure(f"subnets: [{entry[:-1]}, except: ['::5/128']}}]")
    daemon.reload()
    assert throws(host) == {"2001:db8:100::5"}
    assert SUBNET in bound(host)


@pytest.mark.parametrize("rule", [False, True])
def test_ipv4_is_bound_around_its_holes(
    daemon: Daemon, uplink: Uplink, lab: Callable[[str], Namespace], *, rule: bool
) -> None:
    """H11: without `ip rule`s and with one, which change what the kernel looks up first."""
    host, isp = uplink.host, uplink.isp
    isp.ip("addr add 198.51.100.1/24 dev customer")
    host.ip("addr add 198.51.100.2/24 dev uplink")
    host.ip("route add default via 198.51.100.1")
    isp.ip("route add 192.0.2.0/24 via 198.51.100.2")
    Container(lab, host).give("192.0.2.5")
    if rule:
        host.ip("rule add to 203.0.113.0/24 lookup main")
    daemon.configure("{subnets: [], static: [{prefix: 192.0.2.0/24, except: [192.0.2.5, 192.0.2.128/26]}]}")
    daemon.start()

    def pinged(address: str) -> str:
        return isp.run("ping", "-c1", "-W2", address, check=False).stdout

    assert "ttl=64" in pinged("192.0.2.4")
    assert "ttl=64" in pinged("192.0.2.200")
    assert "ttl=63" in pinged("192.0.2.5")
    wait_until(lambda: "Unreachable" in pinged("192.0.2.130"))
    [subnet] = daemon.status()["subnets"]
    assert (subnet["state"], subnet["except"]) == ("bound", ["192.0.2.5/32", "192.0.2.128/26"])
    assert not host.ip_json("route show table local type throw")
    assert {route["dst"] for route in host.ip_json("route show type unreachable proto 150")} == {
        "192.0.2.5",
        "192.0.2.128/26",
    }
    host.ip("route delete unreachable 192.0.2.128/26")
    wait_until(lambda: "Unreachable" in pinged("192.0.2.130"))
    daemon.configure("{subnets: [], static: [192.0.2.0/24]}")
    daemon.reload()
    assert [route["dst"] for route in host.ip_json("route show table all proto 150")] == ["192.0.2.0/24"]
