"""Reports from the field about other programs, each tried here with the real client where there is one.

A docstring names the projects and the kind of their reports.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.lab.daemon import Daemon
from tests.lab.dhclient import Dhclient
from tests.lab.exchange import Wire, reply, request
from tests.lab.kea import NO_PREFIX_AVAIL, Kea, Offer
from tests.lab.line import DHCPCD_10, NEW, OLD, Line, subnets
from tests.lab.namespace import wait_until
from tests.lab.network import Uplink

LISTENING = "listen: [uplink]\n"


@pytest.fixture
def line(uplink: Uplink, kea: Kea, daemon: Daemon, tmp_path: Path) -> Line:
    return Line(uplink, kea, daemon, tmp_path)


def states(daemon: Daemon) -> dict[str, str]:
    """Give the state of each delegation."""
    return {each["prefix"]: each["state"] for each in daemon.status()["delegations"]}


@pytest.mark.parametrize("name", ["dhclient", "dhcpcd", DHCPCD_10])
def test_the_same_prefix_again_right_after_it_was_taken_back(line: Line, name: str) -> None:
    """dhcpcd: after each reconnection the ISP answers with lifetimes of 0, and then delegates the same."""
    line.kea.start(Offer(OLD, 600, 600), renew=1, rebind=2)
    client = line.client(name)
    client.start()
    line.wait_until_bound(OLD)
    line.kea.offer(Offer(OLD, 0, 0), renew=0, rebind=0)
    line.wait_until_bound()
    line.kea.offer(Offer(OLD, 600, 600))
    line.wait_until_bound(OLD)
    line.wait_until_known(client)
    assert line.answers(OLD) == [8, 8, 8]
    assert line.end_of(OLD) > time.monotonic() + 500


def test_a_renewal_may_shorten_the_lifetime(line: Line) -> None:
    """OpenWrt: who delegates on what was delegated to it grants what is left of that."""
    line.kea.start(Offer(OLD, 600, 600), renew=1)
    line.client("dhclient").start()
    line.wait_until_bound(OLD)
    line.kea.offer(Offer(OLD, 6, 8))
    wait_until(lambda: (line.expires(subnets(OLD)[0]) or 999) - time.monotonic() < 10)
    end = line.end_of(OLD)
    line.kea.stop()
    line.assert_ends(OLD, end)


def test_each_ia_pd_may_be_renewed_in_a_message_of_its_own(uplink: Uplink, daemon: Daemon) -> None:
    """OPNsense's dhcp6c: a Reply says nothing of what another IAID was granted."""
    wire = Wire(uplink)
    daemon.configure(LISTENING)
    daemon.start()
    daemon.wait_for("listening")
    for number in range(4):
        iaid, prefix = (1, OLD) if number % 2 else (2, NEW)
        wire.ask(request(number))
        wire.answer(reply(str(prefix), number, iaid=iaid))
        time.sleep(0.4)  # longer than until what a Reply left out is judged
    assert states(daemon) == {str(OLD): "granted", str(NEW): "granted"}


@pytest.mark.parametrize(
    ("offer", "renew", "rebind"),
    [(Offer(OLD, 900, 900), 700, 300), (Offer(OLD, 900, 900, status=NO_PREFIX_AVAIL), 1, 2)],
    ids=["T1 after T2", "an error inside the prefix"],
)
def test_what_the_client_passes_over_is_no_grant_on_the_wire_either(
    line: Line, offer: Offer, renew: int, rebind: int
) -> None:
    """odhcp6c: timers in the wrong order, and a status code where it did not look for one."""
    line.daemon.configure(LISTENING)
    line.daemon.reload()
    line.kea.start(Offer(OLD, 600, 600), renew=1, rebind=2)
    nothing, folder = line.folder / "no-hook", line.folder / "silent"
    nothing.touch()
    folder.mkdir()
    dhclient = Dhclient(line.uplink.host, line.uplink.interface, folder, line.daemon.runtime, nothing)
    dhclient.start()
    line.daemon.wait_for("source=listen")
    dhclient.wait_until_bound()
    line.kea.offer(offer, renew=renew, rebind=rebind)
    before, calls = dhclient.log.read_text().count("Reply message"), len(dhclient.calls())
    wait_until(lambda: dhclient.log.read_text().count("Reply message") > before)
    time.sleep(0.5)
    assert [call["reason"] for call in dhclient.calls()[calls:] if call["reason"] != "RENEW6"] == []
    [delegation] = line.daemon.status()["delegations"]
    assert delegation["valid_lifetime"] <= 600


def test_a_whole_delegated_prefix_on_a_lan_is_reached(line: Line) -> None:
    """OpenThread's border router, dhcpcd: a discard route beats that to the delegated /64 by its metric.

    dhcpcd gives the route of a wireless LAN 3000 and more, and our discard route has 2048.
    """
    host, (delegated, *_) = line.uplink.host, subnets(OLD)
    host.pair("lan0", "lan-peer")
    line.kea.start(Offer(delegated))
    line.client("dhclient").start()
    wait_until(lambda: line.bound() == [str(delegated)])

    def route() -> str:
        found = host.run("ip", "-6", "route", "get", str(delegated).partition("/")[0] + "5", check=False)
        return found.stdout or found.stderr

    for _ in range(2):
        host.ip(f"-6 route add {delegated} dev lan0 proto dhcp metric 3004")
        wait_until(lambda: line.bound() == [] and " dev lan0 " in route())
        host.ip(f"-6 route delete {delegated} dev lan0 proto dhcp metric 3004")
        wait_until(lambda: line.bound() == [str(delegated)])
        wait_until(lambda: host.ip(f"-6 route show table main proto 150 type unreachable {delegated}"))


def test_what_another_link_of_the_same_name_is_delegated_supersedes(
    uplink: Uplink, kea: Kea, daemon: Daemon, tmp_path: Path
) -> None:
    """wl500g, dhcpcd: PPP reconnects as another link, with another IAID and prefix, and the old one stays."""
    nothing = tmp_path / "no-hook"
    nothing.touch()
    dhclient = Dhclient(uplink.host, uplink.interface, tmp_path, daemon.runtime, nothing)
    daemon.configure(LISTENING)
    daemon.start()
    kea.start(Offer(OLD))
    dhclient.start()
    daemon.wait_for(f"delegated prefix={OLD}")
    dhclient.wait_until_bound()
    kea.stop()
    dhclient.kill()
    dhclient.forget()
    before = len(daemon.lines())
    uplink.host.ip("link delete uplink")
    Uplink(uplink.isp, uplink.host, address="2001:db8:fffe::1")
    daemon.wait_for("listening uplink=uplink", since=before)
    kea.start(Offer(NEW))
    dhclient.start()
    daemon.wait_for(f"delegated prefix={NEW}")
    wait_until(lambda: states(daemon) == {str(OLD): "superseded", str(NEW): "granted"})
