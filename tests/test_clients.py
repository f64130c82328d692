"""Every DHCPv6 client in the same scenarios: what it is delegated answers, for as long as it lasts."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from anyipd.model import Prefix
from tests.lab.daemon import Daemon
from tests.lab.dhclient import Dhclient
from tests.lab.dhcpd import Dhcpd
from tests.lab.kea import Kea, Offer
from tests.lab.line import CLIENTS, NEW, OLD, Client, Line, subnets, tells_all
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import wait_until
from tests.lab.network import Uplink
from tests.lab.networkd import Networkd
from tests.lab.pings import Pings

INTERVAL = 0.01


@pytest.fixture
def line(uplink: Uplink, kea: Kea, daemon: Daemon, tmp_path: Path) -> Line:
    return Line(uplink, kea, daemon, tmp_path)


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, line: Line) -> Client:
    return line.client(request.param)


def test_bind(line: Line, client: Client) -> None:
    line.kea.start(Offer(OLD))
    client.start()
    line.wait_until_bound(OLD)
    assert line.answers(OLD) == [8, 8, 8]
    line.wait_until_known(client)
    (delegation,) = line.daemon.status()["delegations"]
    assert 7100 < delegation["valid_lifetime"] <= 7200
    assert delegation["state"] == "granted"
    assert delegation["uplink"] == ("uplink" if tells_all(client) else None)


def test_bind_by_isc_dhcpd(line: Line, client: Client) -> None:
    server = Dhcpd(line.uplink.isp, line.uplink.customer, line.folder)
    server.start(Offer(OLD))
    client.start()
    line.wait_until_bound(OLD)
    assert line.answers(OLD) == [8, 8, 8]
    line.wait_until_known(client)


def test_renew(line: Line, client: Client, tmp_path: Path) -> None:
    line.kea.start(Offer(OLD, 20, 30), renew=2, rebind=15)
    client.start()
    line.wait_until_bound(OLD)
    line.wait_until_known(client)
    monitor = RouteMonitor(line.uplink.host, tmp_path)
    with Pings(line.uplink, subnets(OLD), INTERVAL) as pings:
        line.daemon.wait_for("renewed", 30, since=len(line.daemon.lines()))
    assert pings.lost()[0] == 0
    assert [change for change in monitor.changes() if "Deleted" in change] == []
    line.wait_until_bound(OLD)


def test_renumber(line: Line, client: Client) -> None:
    line.kea.start(Offer(OLD, 6, 8), renew=1, rebind=5)
    client.start()
    line.wait_until_bound(OLD)
    line.kea.offer(Offer(OLD, 0, 0), Offer(NEW), renew=1, rebind=5)
    # networkd 252 passes over a lifetime of zero: what it takes back so lasts for what it was told before.
    line.wait_until_bound(NEW, timeout=40)
    assert line.answers(NEW) == [8, 8, 8]
    assert line.uplink.answers(subnets(OLD)[0], timeout=0.2) == 0


def test_expiry(line: Line, client: Client) -> None:
    """However early the client gives up: dhcpcd does when T2 is over."""
    line.kea.start(Offer(OLD, 3, 6), renew=1, rebind=2)
    client.start()
    line.wait_until_bound(OLD)
    line.wait_until_known(client)
    line.kea.stop()
    end = line.end_of(OLD)
    line.assert_ends(OLD, end)


def test_expiry_with_the_client_killed(line: Line, client: Client) -> None:
    line.kea.start(Offer(OLD, 4, 6))
    client.start()
    line.wait_until_bound(OLD)
    line.wait_until_known(client)
    end = line.end_of(OLD)
    client.kill()
    assert line.answers(OLD) == [8, 8, 8]
    line.assert_ends(OLD, end)


def test_stop(line: Line, client: Client) -> None:
    """It takes nothing back, `dhclient -x` neither."""
    line.kea.start(Offer(OLD, 6, 8), renew=5, rebind=6)
    client.start()
    line.wait_until_bound(OLD)
    line.wait_until_known(client)
    client.wait_until_bound()
    end = line.end_of(OLD)
    client.stop()
    assert line.answers(OLD) == [8, 8, 8]
    line.assert_ends(OLD, end)


@pytest.mark.parametrize("name", ["dhclient", "dhcpcd"])  # networkd 252 never gives back
def test_release(line: Line, name: str) -> None:
    client = line.client(name)
    assert not isinstance(client, Networkd)
    line.kea.start(Offer(OLD))
    client.start()
    line.wait_until_bound(OLD)
    line.wait_until_known(client)
    client.wait_until_bound()
    client.release()
    line.daemon.wait_for("withdrawn")
    line.wait_until_bound()
    assert line.daemon.status() == {"delegations": [], "subnets": []}


def test_a_delegated_64(line: Line, client: Client) -> None:
    line.kea.start(Offer(subnets(OLD)[0]))
    client.start()
    client.wait_until_bound()
    if tells_all(client):
        wait_until(lambda: line.bound() == [str(subnets(OLD)[0])], 20)
        assert line.uplink.answers(subnets(OLD)[0]) == 8
    else:
        assert line.daemon.status()["delegations"] == []


def test_what_dhcpcd_knows_to_be_excluded_is_not_bound(line: Line) -> None:
    line.kea.start(Offer(OLD), renew=1, rebind=500)
    line.client("dhcpcd").start()
    line.wait_until_bound(OLD)
    # Not from the start: of dhcpcd 9.4 Kea 2.2 takes no request that names an excluded prefix.
    line.kea.offer(Offer(OLD, exclude=subnets(OLD)[1]), renew=1, rebind=500)
    moved = Prefix(OLD.address + (3 << 64), 64)
    wanted = sorted(map(str, [subnets(OLD)[0], subnets(OLD)[2], moved]))
    wait_until(lambda: line.bound() == wanted, 30)


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in CLIENTS for b in CLIENTS if a != b])
def test_another_client_takes_over(line: Line, first: str, second: str) -> None:
    line.kea.start(Offer(OLD, 4, 6), renew=2, rebind=3)
    before, after = line.client(first), line.client(second)
    before.start()
    line.wait_until_bound(OLD)
    line.wait_until_known(before)
    with Pings(line.uplink, subnets(OLD), INTERVAL) as pings:
        # dhclient by SIGTERM, which its hook does not hear of.
        before.terminate() if isinstance(before, Dhclient) else before.stop()
        after.start()
        after.wait_until_bound()
        time.sleep(6.5)  # past the end of what the first was told
    lost, sent = pings.lost()
    assert (lost, line.bound()) == (0, sorted(map(str, subnets(OLD)))), f"of {sent}"


@pytest.mark.parametrize("how", ["restart", "kill", "slow"])
def test_networkd_starts_anew(line: Line, how: str) -> None:
    line.kea.start(Offer(OLD, 20, 24), renew=15, rebind=18)
    networkd = line.client("networkd")
    assert isinstance(networkd, Networkd)
    networkd.start()
    line.wait_until_bound(OLD)
    line.wait_until_known(networkd)
    routes = line.routes()
    with Pings(line.uplink, subnets(OLD), INTERVAL) as pings:
        if how == "kill":
            networkd.kill()
            networkd.start()
        elif how == "restart":
            networkd.restart()
        else:
            line.kea.process.send_signal(signal.SIGSTOP)
            networkd.restart()
            time.sleep(5)  # it is there, and says nothing of the prefix
            line.kea.process.send_signal(signal.SIGCONT)
        networkd.wait_until_bound(2)
        time.sleep(2)
    lost, sent = pings.lost()
    assert lost == 0, f"of {sent}"
    wait_until(lambda: line.routes() == routes)
