"""Static prefixes: bound always, IPv4 and IPv6, with no DHCP server involved."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from anyipd import policy
from anyipd.model import Prefix
from tests.lab.daemon import Daemon, awakenings
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import Uplink

V4, V6 = Prefix.parse("192.168.0.0/24"), Prefix.parse("2001:db8:100::/64")
"""The examples of the article that made AnyIP known."""

POLICY = f"""
subnets: []
static:
  - {V4}
  - {{prefix: "{V6}", name: article}}
"""
DHCP = "unreachable 2001:db8:200::/60 dev lo proto dhcp"


def bound(host: Namespace) -> set[str]:
    return {
        route["dst"]
        for family in ("-4", "-6")
        for route in host.ip_json(f"{family} route show table local proto 150")
    }


@pytest.fixture
def running(daemon: Daemon) -> Daemon:
    daemon.configure(POLICY)
    daemon.start()
    assert bound(daemon.namespace) == {str(V4), str(V6)}
    return daemon


@pytest.mark.usefixtures("running")
def test_every_address_answers(uplink: Uplink) -> None:
    uplink.route(V6)
    assert uplink.answers(V6, 100) == 100
    uplink.isp.ip("addr add 198.51.100.1/24 dev customer")
    uplink.host.ip("addr add 198.51.100.2/24 dev uplink")
    uplink.isp.ip(f"route add {V4} via 198.51.100.2")
    for address in ("192.168.0.1", "192.168.0.77", "192.168.0.255"):
        assert uplink.isp.run("ping", "-c1", "-W2", address).returncode == 0


def test_routes_are_as_the_contract_says(running: Daemon) -> None:
    host = running.namespace
    for route in (
        *host.ip_json("-4 route show table local proto 150"),
        *host.ip_json("-6 route show table local proto 150"),
    ):
        assert (route["type"], route["dev"], route["metric"]) == ("local", "lo", 1024)
        assert "expires" not in route


def test_a_restart_changes_no_route(running: Daemon, tmp_path: Path) -> None:
    monitor = RouteMonitor(running.namespace, tmp_path)
    running.terminate()
    running.start()
    assert monitor.changes() == []
    running.kill()
    running.start()
    assert monitor.changes() == []
    assert bound(running.namespace) == {str(V4), str(V6)}


@pytest.mark.parametrize(
    "fault",
    [
        f"-4 route delete local {V4} dev lo table local proto 150 metric 1024",
        "-4 route flush table local proto 150",
        f"-6 route delete local {V6} dev lo table local proto 150",
        "link set lo down",
    ],
)
def test_what_was_removed_comes_back(running: Daemon, fault: str) -> None:
    running.namespace.ip(fault)
    if fault.endswith("down"):
        running.namespace.ip("link set lo up")
    wait_until(lambda: bound(running.namespace) == {str(V4), str(V6)}, 2)


def test_lo_may_lose_its_last_ipv4_address(running: Daemon) -> None:
    running.namespace.ip("-4 addr flush dev lo")
    wait_until(lambda: bound(running.namespace) == {str(V4), str(V6)}, 2)


@pytest.mark.parametrize(("family", "prefix"), [("-4", V4), ("-6", V6)])
def test_a_foreign_route_in_its_place_is_left_alone(running: Daemon, family: str, prefix: Prefix) -> None:
    host = running.namespace
    foreign = f"local {prefix} dev lo table local proto static metric 1024"
    host.ip(f"{family} route replace {foreign}")
    wait_until(lambda: "conflict" in {each["state"] for each in running.status()["subnets"]}, 2)
    assert host.ip_json(f"{family} route show table local proto static")
    host.ip(f"{family} route delete {foreign}")
    wait_until(lambda: bound(host) == {str(V4), str(V6)}, 2)


def test_a_stray_of_ours_goes(running: Daemon) -> None:
    running.namespace.ip("-4 route add local 198.51.100.0/24 dev lo table local proto 150")
    wait_until(lambda: bound(running.namespace) == {str(V4), str(V6)}, 2)


def test_others_ipv4_does_not_wake_it(running: Daemon) -> None:
    pid = running.running.pid
    running.status()

    def rests() -> bool:
        before = awakenings(pid)
        time.sleep(0.2)
        return awakenings(pid) == before

    running.namespace.ip("link set lo up")
    wait_until(rests)  # it still has to see whoever asked it leave
    before = awakenings(pid)
    running.namespace.ip("-4 addr add 203.0.113.1/24 dev lo")
    running.namespace.ip("-4 route add 203.0.113.128/25 dev lo")
    running.namespace.ip("-4 route add local 198.51.100.0/24 dev lo table local proto static")
    time.sleep(0.2)
    assert awakenings(pid) == before


def test_a_reload_changes_what_differs(running: Daemon) -> None:
    running.configure("static: [198.51.100.0/25]")
    running.reload()
    assert bound(running.namespace) == {"198.51.100.0/25"}
    assert [line for line in running.lines() if "event=unbound" in line and f"prefix={V4}" in line]
    running.configure("")
    running.reload()
    assert bound(running.namespace) == set()


def test_status_names_them(running: Daemon) -> None:
    seen = running.status()
    assert seen["delegations"] == []
    assert {
        (each["name"], each["prefix"], each["delegation"], each["state"]) for each in seen["subnets"]
    } == {
        (str(V4), str(V4), None, "bound"),
        ("article", str(V6), None, "bound"),
    }
    assert "article" in running.control("status").stdout


def test_random_addresses(running: Daemon) -> None:
    for words, prefix in (([str(V4)], V4), (["192.168.0.0/16"], V4), (["article"], V6), ([str(V6)], V6)):
        printed = running.control("random", *words, "-n", "20").stdout.split()
        assert len(printed) == 20
        assert all(prefix.covers(Prefix.parse(address)) for address in printed)


def test_delegated_subnets_keep_clear_of_them(daemon: Daemon) -> None:
    daemon.configure("subnets: [{name: automatic}, {name: pinned, id: 0}]\nstatic: ['2001:db8:200::/64']\n")
    daemon.namespace.ip(f"-6 route add {DHCP}")
    daemon.start()
    assert bound(daemon.namespace) == {"2001:db8:200::/64", "2001:db8:200:1::/64"}
    (pinned,) = [each for each in daemon.status()["subnets"] if each["name"] == "pinned"]
    assert (pinned["state"], pinned["reason"]) == ("conflict", "2001:db8:200::/64 is static")
    daemon.configure("subnets: [{name: automatic, id: 1}, {name: pinned, id: 0}]")
    daemon.reload()
    assert bound(daemon.namespace) == {"2001:db8:200::/64", "2001:db8:200:1::/64"}


def test_any_length() -> None:
    lengths = {8: "10.0.0.0/8", 32: "192.0.2.1", 128: "2001:db8::1", 48: "2001:db8:1::/48"}
    found = policy.parse(f"static: [{', '.join(repr(each) for each in lengths.values())}]", "test")
    assert [each.prefix.length for each in found.static] == list(lengths)


def test_flush(running: Daemon) -> None:
    running.terminate()
    assert running.control("flush").stdout == "removed 2 routes\n"
    assert bound(running.namespace) == set()
