"""The whole path: Kea delegates, dhclient tells the hook, anyipd binds, the ISP pings."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from anyipd.model import Prefix
from tests.lab.daemon import Daemon
from tests.lab.delegated import OURS, covered
from tests.lab.dhclient import Dhclient
from tests.lab.kea import Kea, Offer
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import Uplink

OLD, NEW = Prefix.parse("2001:db8:100::/60"), Prefix.parse("2001:db8:200::/60")
POLICY = """
subnets:
  - name: web
    id: 0
  - name: proxies
    count: 2
"""


def subnet(delegated: Prefix, number: int) -> Prefix:
    return Prefix(delegated.address + (number << 64), 64)


def bound(host: Namespace) -> list[str]:
    routes = host.ip_json(OURS)
    assert all((route["type"], route["dev"], route["metric"]) == ("local", "lo", 1024) for route in routes)
    return sorted(map(str, covered(Prefix.parse(route["dst"]) for route in routes)))


def expires(host: Namespace) -> list[int]:
    return [
        int(found)
        for found in re.findall(r"expires (\d+)sec", host.ip("-6 route show table local proto 150"))
    ]


@pytest.fixture
def routed(uplink: Uplink) -> Uplink:
    uplink.route(OLD, NEW)
    return uplink


def test_bind(routed: Uplink, kea: Kea, daemon: Daemon, dhclient: Dhclient) -> None:
    daemon.configure(POLICY)
    daemon.start()
    kea.start(Offer(OLD))
    dhclient.start()
    daemon.wait_for("bound subnet=web")
    assert bound(routed.host) == ["2001:db8:100:1::/64", "2001:db8:100:2::/64", "2001:db8:100::/64"]
    for number in range(3):
        assert routed.answers(subnet(OLD, number), 50) == 50
    assert routed.answers(subnet(OLD, 3), 5, timeout=0.2) == 0
    assert all(7190 < left <= 7201 for left in expires(routed.host))
    (delegation,) = daemon.status()["delegations"]
    assert 7190 < delegation.pop("valid_lifetime") <= 7200
    assert 3590 < delegation.pop("preferred_lifetime") <= 3600
    iaid = dhclient.wait_for("BOUND6")["new_iaid"]
    assert [int(part, 16) for part in delegation.pop("iaid").split(":")] == iaid_bytes(iaid)
    assert delegation.pop("reason") is None
    assert delegation == {"prefix": str(OLD), "source": "dhclient", "uplink": "uplink", "state": "granted"}
    assert {(each["name"], each["state"]) for each in daemon.status()["subnets"]} == {
        ("web", "bound"),
        ("proxies-0", "bound"),
        ("proxies-1", "bound"),
    }


def iaid_bytes(text: str) -> list[int]:
    if text.startswith('"'):
        return list(text.strip('"').encode())
    return [int(part, 16) for part in text.split(":")]


def test_unassigned_space_is_refused_by_the_host(
    routed: Uplink, kea: Kea, daemon: Daemon, dhclient: Dhclient
) -> None:
    daemon.configure(POLICY)
    daemon.start()
    kea.start(Offer(OLD))
    dhclient.start()
    daemon.wait_for("bound subnet=web")
    # Nobody restores it but us.
    routed.host.ip("link set lo down")
    routed.host.ip("link set lo up")
    wait_until(lambda: len(bound(routed.host)) == 3)
    (discard,) = wait_until(lambda: routed.host.ip_json("-6 route show type unreachable"))
    assert (discard["dst"], discard["protocol"], discard["metric"]) == (str(OLD), "150", 2048)
    dhclient.release()
    wait_until(lambda: not routed.host.ip_json("-6 route show type unreachable"))
    assert bound(routed.host) == []


def test_renew_changes_only_lifetimes(
    routed: Uplink, kea: Kea, daemon: Daemon, dhclient: Dhclient, tmp_path: Path
) -> None:
    daemon.configure(POLICY)
    daemon.start()
    kea.start(Offer(OLD, 20, 30), renew=2, rebind=15)
    dhclient.start()
    daemon.wait_for("bound subnet=proxies")  # the last line of that pass
    before = bound(routed.host)
    lines = len(daemon.lines())
    monitor = RouteMonitor(routed.host, tmp_path)
    daemon.wait_for("renewed", 10, since=lines)
    assert before == bound(routed.host)
    assert all(20 < left <= 31 for left in expires(routed.host))
    assert not [line for line in monitor.changes() if "Deleted" in line]
    assert {line.split("event=")[1].split()[0] for line in daemon.lines()[lines:]} == {"renewed"}


@pytest.mark.long
def test_renumber_with_overlap(routed: Uplink, kea: Kea, daemon: Daemon, dhclient: Dhclient) -> None:
    daemon.configure(POLICY)
    daemon.start()
    kea.start(Offer(OLD, 16, 18), renew=1, rebind=15)
    dhclient.start()
    daemon.wait_for("bound subnet=web")
    kea.offer(Offer(NEW), renew=1, rebind=15)
    # A Renew that reaches Kea while it reloads is lost, and repeated after ten seconds.
    daemon.wait_for(f"delegated prefix={NEW}", 15)
    wait_until(lambda: len(bound(routed.host)) == 6)
    assert routed.answers(subnet(OLD, 0)) == routed.answers(subnet(NEW, 0)) == 8
    assert f'reason="superseded by {NEW}"' in daemon.wait_for(f"superseded prefix={OLD}", 5)
    assert [each["state"] for each in daemon.status()["delegations"]] == ["superseded", "granted"]
    assert routed.answers(subnet(OLD, 0)) == 8
    daemon.wait_for(f"unbound subnet=web prefix={subnet(OLD, 0)}", 20)
    assert routed.answers(subnet(OLD, 0), timeout=0.2) == 0
    assert routed.answers(subnet(NEW, 0)) == 8


def test_zero_lifetime_withdraws_at_once(
    routed: Uplink, kea: Kea, daemon: Daemon, dhclient: Dhclient
) -> None:
    daemon.configure(POLICY)
    daemon.start()
    kea.start(Offer(OLD), renew=1, rebind=5)
    dhclient.start()
    daemon.wait_for("bound subnet=web")
    kea.offer(Offer(OLD, 0, 0), Offer(NEW), renew=1, rebind=5)
    daemon.wait_for(f"withdrawn prefix={OLD}", 15)
    daemon.wait_for(f"bound subnet=web prefix={subnet(NEW, 0)}", 10)
    assert bound(routed.host) == ["2001:db8:200:1::/64", "2001:db8:200:2::/64", "2001:db8:200::/64"]
    assert [each["prefix"] for each in daemon.status()["delegations"]] == [str(NEW)]


def test_expiry_with_a_dead_client(routed: Uplink, kea: Kea, daemon: Daemon, dhclient: Dhclient) -> None:
    daemon.configure(POLICY)
    daemon.start()
    kea.start(Offer(OLD, 2, 7))
    dhclient.start()
    daemon.wait_for("bound subnet=web")
    dhclient.kill()
    daemon.wait_for("deprecated")
    assert routed.answers(subnet(OLD, 0)) == 8
    daemon.wait_for("expired")
    daemon.wait_for("unbound subnet=web")
    assert bound(routed.host) == []
    assert routed.answers(subnet(OLD, 0), timeout=0.2) == 0
    assert daemon.status() == {"delegations": [], "subnets": []}
    assert "warning" in daemon.wait_for("event=expired")


def test_the_kernel_unbinds_when_daemon_and_client_are_dead(
    routed: Uplink, kea: Kea, daemon: Daemon, dhclient: Dhclient
) -> None:
    daemon.configure(POLICY)
    daemon.start()
    kea.start(Offer(OLD, 4, 6))
    dhclient.start()
    daemon.wait_for("bound subnet=web")
    dhclient.kill()
    daemon.kill()
    assert routed.answers(subnet(OLD, 0)) == 8
    wait_until(lambda: routed.answers(subnet(OLD, 0), timeout=0.2) == 0)


def test_the_client_gives_the_prefix_back(
    routed: Uplink, kea: Kea, daemon: Daemon, dhclient: Dhclient
) -> None:
    daemon.configure(POLICY)
    daemon.start()
    kea.start(Offer(OLD))
    dhclient.start()
    daemon.wait_for("bound subnet=web")
    dhclient.release()
    daemon.wait_for("withdrawn")
    assert bound(routed.host) == []
    assert daemon.status() == {"delegations": [], "subnets": []}


def test_a_client_that_stops_takes_nothing_back(
    routed: Uplink, kea: Kea, daemon: Daemon, dhclient: Dhclient
) -> None:
    daemon.configure(POLICY)
    daemon.start()
    kea.start(Offer(OLD, 5, 7))
    dhclient.start()
    daemon.wait_for("bound subnet=web")
    dhclient.stop()
    assert routed.answers(subnet(OLD, 0)) == 8
    daemon.wait_for("unbound subnet=web")
    assert "its valid lifetime is over" in daemon.wait_for("event=expired")


def test_two_prefixes_in_one_ia(routed: Uplink, kea: Kea, daemon: Daemon, dhclient: Dhclient) -> None:
    daemon.configure(POLICY)
    daemon.start()
    kea.start(Offer(OLD), Offer(NEW))
    dhclient.start()
    wait_until(lambda: len(bound(routed.host)) == 6)
    assert routed.answers(subnet(OLD, 1)) == routed.answers(subnet(NEW, 1)) == 8


@dataclass(frozen=True)
class Line:
    """Everything on one uplink: Kea behind it, dhclient on it."""

    uplink: Uplink
    kea: Kea
    dhclient: Dhclient


@pytest.fixture
def first(routed: Uplink, kea: Kea, dhclient: Dhclient) -> Line:
    return Line(routed, kea, dhclient)


@pytest.fixture
def second(lab: Callable[[str], Namespace], first: Line, daemon: Daemon, tmp_path: Path) -> Line:
    folder = tmp_path / "second"
    folder.mkdir()
    uplink = Uplink(
        lab("isp2"), first.uplink.host, interface="eth1.7", address="2001:db8:fffe::1", metric=2048
    )
    uplink.route(NEW)
    kea = Kea(uplink.isp, uplink.customer, folder)
    return Line(uplink, kea, Dhclient(uplink.host, uplink.interface, folder, daemon.runtime))


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (48, {"web": "2001:db8:100::/64", "last": "2001:db8:100:ff::/64"}),
        (56, {"web": "2001:db8:100::/64", "last": "2001:db8:100:ff::/64"}),
        (60, {"web": "2001:db8:100::/64", "last": None}),
        (64, {"web": "2001:db8:100::/64", "last": None}),
        (72, {}),
    ],
)
def test_delegated_lengths(first: Line, daemon: Daemon, length: int, expected: dict[str, str | None]) -> None:
    delegated = Prefix(OLD.address, length)
    uplink = first.uplink
    uplink.route(delegated)
    daemon.configure("subnets: [{name: web}, {name: last, id: 0xff}]")
    daemon.start()
    first.kea.start(Offer(delegated))
    first.dhclient.start()
    daemon.wait_for(f"prefix={delegated}")
    wait_until(lambda: len(bound(uplink.host)) == sum(prefix is not None for prefix in expected.values()))
    for prefix in expected.values():
        assert prefix is None or uplink.answers(Prefix.parse(prefix)) == 8
    seen = daemon.status()
    assert {each["name"]: each["prefix"] for each in seen["subnets"]} == expected
    assert {each["state"] for each in seen["subnets"] if each["prefix"] is None} <= {"without room"}
    assert seen["delegations"][0]["state"] == ("refused" if length == 72 else "granted")
    assert sum("without room" in line or "refused" in line for line in daemon.lines()) == (length >= 60)


def test_two_uplinks(first: Line, second: Line, daemon: Daemon) -> None:
    host = first.uplink.host
    daemon.configure("subnets: [{name: any}, {name: lab, uplink: eth1.7, length: 62}]")
    daemon.start()
    first.kea.start(Offer(OLD))
    second.kea.start(Offer(NEW))
    first.dhclient.start()
    second.dhclient.start()
    lab = [str(subnet(NEW, number)) for number in range(4, 8)]
    wait_until(lambda: len(bound(host)) == 6, 10)
    assert bound(host) == ["2001:db8:100::/64", *lab, "2001:db8:200::/64"]
    assert first.uplink.answers(subnet(OLD, 0)) == 8
    assert {each["uplink"] for each in daemon.status()["delegations"]} == {"uplink", "eth1.7"}
    second.dhclient.release()
    daemon.wait_for(f"withdrawn prefix={NEW}")
    assert bound(host) == ["2001:db8:100::/64"]


def test_a_crash_costs_no_answer_and_no_route(first: Line, daemon: Daemon, tmp_path: Path) -> None:
    daemon.configure(POLICY)
    daemon.start()
    first.kea.start(Offer(OLD, 40, 60), renew=20, rebind=30)
    first.dhclient.start()
    daemon.wait_for("bound subnet=web")
    # The last that the hook does. Before its first route there is no such table to show.
    wait_until(lambda: " table 150 " in first.uplink.host.ip("-6 route show table all"))
    monitor = RouteMonitor(first.uplink.host, tmp_path)
    daemon.kill()
    assert first.uplink.answers(subnet(OLD, 0), 50) == 50
    time.sleep(1.2)
    daemon.start()
    assert first.uplink.answers(subnet(OLD, 0), 50) == 50
    assert monitor.changes() == []
