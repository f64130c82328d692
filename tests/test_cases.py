"""Cases from the field, each with the real client: CASES.md numbers them.

What must stay is never unbound, and what is over is gone at its deadline and does not come back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from anyipd.model import Prefix
from tests.lab.daemon import Daemon
from tests.lab.dhclient import Dhclient
from tests.lab.dhcpcd import Dhcpcd
from tests.lab.faketime import FakeClock
from tests.lab.kea import Kea, Offer
from tests.lab.line import (
    CLIENTS,
    DHCPCD_10,
    EARLY,
    NETWORKD_257,
    NEW,
    NEWER,
    OLD,
    Client,
    Line,
    subnets,
    tells_all,
    wanted,
)
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import Uplink
from tests.lab.networkd import Networkd
from tests.lab.pings import Pings

AROUND = Prefix(OLD.address, 56)
INTERVAL = 0.02


@pytest.fixture
def line(uplink: Uplink, kea: Kea, daemon: Daemon, tmp_path: Path) -> Line:
    return Line(uplink, kea, daemon, tmp_path)


@contextmanager
def undisturbed(line: Line, *delegated: Prefix) -> Iterator[None]:
    """See that meanwhile no route of these subnets is removed, and every ping is answered."""
    monitor = RouteMonitor(line.uplink.host, line.folder)
    prefixes = [subnet for prefix in delegated for subnet in subnets(prefix)]
    with Pings(line.uplink, prefixes, INTERVAL) as pings:
        yield
        gone = removed(monitor, *prefixes, *delegated)  # at once: what is over goes a moment later
    lost, sent = pings.lost()
    assert (lost, gone) == (0, []), f"of {sent}"


def removed(monitor: RouteMonitor, *prefixes: Prefix) -> list[str]:
    """Give the removals of anyipd's own local routes to any address of these prefixes, and to them."""
    changes = [each for each in monitor.changes() if each.startswith("Deleted ") and "proto 150" in each]
    return [
        each
        for each in changes
        for kind, prefix in [(each.split()[1], Prefix.parse(each.split()[2]))]
        if prefix in prefixes or (kind == "local" and any(map(prefix.overlaps, prefixes)))
    ]


def assert_stays(line: Line, *delegated: Prefix, seconds: float = 2.0) -> None:
    """See that nothing else is bound for some time."""
    since = time.monotonic()
    while time.monotonic() < since + seconds:
        assert line.bound() == wanted(*delegated)
        time.sleep(0.1)


def states(line: Line) -> dict[str, str]:
    """Give the state of each delegation."""
    return {each["prefix"]: each["state"] for each in line.daemon.status()["delegations"]}


def start(line: Line, client: Client) -> None:
    """Start a client and wait until all is known of what it was delegated."""
    client.start()
    line.wait_until_bound(OLD)
    line.wait_until_known(client)
    client.wait_until_bound()


@pytest.mark.parametrize("name", ["dhcpcd", DHCPCD_10])
def test_c1_a_persistent_dhcpcd_starts_again_and_is_delegated_another_prefix(line: Line, name: str) -> None:
    line.kea.start(Offer(OLD, 12, 14), renew=10, rebind=11)
    dhcpcd = line.client(name)
    start(line, dhcpcd)
    end = line.end_of(OLD)
    dhcpcd.stop()
    line.kea.offer(Offer(NEW, 8, 10), renew=1, rebind=5)
    with undisturbed(line, OLD):
        dhcpcd.start()
        line.wait_until_bound(OLD, NEW)
        wait_until(lambda: states(line)[str(OLD)] == "superseded")
    with undisturbed(line, NEW):
        assert time.monotonic() < end - EARLY
        time.sleep(end - EARLY - time.monotonic())
    line.assert_ends(OLD, end, NEW)
    assert_stays(line, NEW, seconds=3)  # a renewal or two


@pytest.mark.parametrize("name", ["networkd", NETWORKD_257])
def test_c2_networkd_is_killed_and_its_server_is_gone(line: Line, name: str) -> None:
    line.kea.start(Offer(OLD, 12, 14), renew=10, rebind=11)
    networkd = line.client(name)
    start(line, networkd)
    end = line.end_of(OLD)
    line.kea.stop()
    networkd.kill()
    networkd.start()
    line.assert_ends(OLD, end)
    # 252 leaves its route for ever, 257 takes away what it did not add since it started.
    assert (OLD in discarded(line)) == (name == "networkd")
    assert_stays(line, seconds=4)


def discarded(line: Line) -> list[Prefix]:
    """Give what has a client's discard route."""
    found = line.uplink.host.ip_json("-6 route show table main type unreachable proto dhcp")
    return [Prefix.parse(each["dst"]) for each in found]


@pytest.mark.parametrize("how", ["renew", "restart"])
@pytest.mark.parametrize("name", [*CLIENTS, *NEWER])
def test_c3_a_prefix_inside_the_one_before(line: Line, name: str, how: str) -> None:
    """Both bind the same subnets, and these go when the inner prefix ends."""
    # A Renew that meets Kea as it reloads is lost: the Rebind comes long before the end.
    renew, rebind = (1, 3) if how == "renew" else (5, 6)
    line.kea.start(Offer(AROUND, 6, 8), renew=renew, rebind=rebind)
    client = line.client(name)
    start(line, client)
    with undisturbed(line, OLD):
        # The server is gone before the inner one is renewed, and after the end of the one around.
        line.kea.offer(Offer(OLD, 12, 14), renew=11, rebind=12)
        if how == "restart":
            client.kill()
            client.start()
        line.daemon.wait_for(f"prefix={OLD}", 10)
        wait_until(lambda: holders(line) == {str(OLD)}, 15)
        # Some seconds later: no grant of the one around is awaited any more, and none of the inner one.
        line.kea.stop()
        end = line.end_of(OLD)
        time.sleep(max(end - EARLY - time.monotonic(), 0))
    line.assert_ends(OLD, end)
    assert_stays(line)


@pytest.mark.parametrize("how", ["renew", "restart"])
def test_c3_what_lies_outside_the_inner_prefix_stays(line: Line, how: str) -> None:
    line.daemon.configure("subnets: [{name: far, id: 0x20}, {name: web, id: 0}, {name: shop, id: 5}]")
    line.daemon.reload()
    renew, rebind = (1, 3) if how == "renew" else (7, 8)  # as above
    line.kea.start(Offer(AROUND, 8, 10), renew=renew, rebind=rebind)
    dhclient = line.client("dhclient")
    dhclient.start()
    far, web, shop = (Prefix(OLD.address + (number << 64), 64) for number in (0x20, 0, 5))
    all_of_it = sorted(map(str, (far, web, shop)))
    wait_until(lambda: line.bound() == all_of_it)
    dhclient.wait_until_bound()
    monitor = RouteMonitor(line.uplink.host, line.folder)
    line.uplink.route(AROUND)
    with Pings(line.uplink, [far, web, shop], INTERVAL) as pings:
        line.kea.offer(Offer(OLD), renew=1000)
        if how == "restart":
            dhclient.kill()
            dhclient.start()
        wait_until(lambda: states(line).get(str(AROUND)) == "superseded")
        time.sleep(1)
        assert line.bound() == all_of_it
    lost, sent = pings.lost()
    assert (lost, removed(monitor, far, web, shop, AROUND)) == (0, []), f"of {sent}"
    wait_until(lambda: line.bound() == sorted(map(str, (web, shop))), 12)


def holders(line: Line) -> set[str]:
    """Give the delegations whose subnets are bound."""
    return {each["delegation"] for each in line.daemon.status()["subnets"] if each["state"] == "bound"}


def test_c4_a_discard_route_inside_a_leased_prefix(line: Line) -> None:
    delegated = Prefix(OLD.address, 62)
    line.kea.start(Offer(delegated, 9, 11), renew=8, rebind=9)
    dhclient = line.client("dhclient")
    start(line, dhclient)
    end = line.end_of(delegated)
    line.kea.stop()
    with undisturbed(line, OLD):
        for subnet in subnets(OLD)[1], Prefix(OLD.address + (3 << 64), 64):
            line.uplink.host.ip(f"-6 route add unreachable {subnet} dev lo proto dhcp metric 1001")
        assert_stays(line, OLD)
        assert list(states(line)) == [str(delegated)]
    line.assert_ends(OLD, end)
    assert_stays(line)


def test_c5_a_dhclient_in_another_network(
    lab: Callable[[str], Namespace], daemon: Daemon, tmp_path: Path, host: Namespace
) -> None:
    """It has the hook and /run of the host's."""
    isp, guest = lab("other-isp"), lab("guest")
    uplink = Uplink(isp, guest)
    Kea(isp, uplink.customer, tmp_path).start(Offer(OLD))
    daemon.start()
    dhclient = Dhclient(guest, uplink.interface, tmp_path, daemon.runtime)
    dhclient.start()
    dhclient.wait_until_bound()
    assert list((daemon.runtime / "leases").glob("2*"))
    time.sleep(1)
    daemon.reload()
    assert daemon.status() == {"delegations": [], "subnets": []}
    assert host.ip("-6 route show table local proto 150") == ""


def test_c6_the_uplink_gets_another_name(line: Line) -> None:
    host = line.uplink.host
    line.daemon.configure(
        "subnets: [{name: web, id: 0, uplink: wan}, {name: a, id: 1, uplink: uplink}, {name: b, id: 2}]"
    )
    line.daemon.reload()
    line.kea.start(Offer(OLD, 50, 60))
    dhclient = line.client("dhclient")
    dhclient.start()
    wait_until(lambda: line.bound() == [str(subnet) for subnet in subnets(OLD)[1:]])
    dhclient.kill()
    host.ip("link set uplink down")
    host.ip("link set uplink name wan")
    host.ip("link set wan up")
    line.uplink.interface = "wan"
    line.connect()
    line.kea.offer(Offer(OLD))
    folder = line.folder / "wan"
    folder.mkdir()
    renamed = Dhclient(host, "wan", folder, line.daemon.runtime)
    renamed.start()
    line.wait_until_bound(OLD)
    [delegation] = line.daemon.status()["delegations"]
    assert (delegation["uplink"], delegation["state"]) == ("wan", "granted")
    assert delegation["valid_lifetime"] > 7100
    line.daemon.kill()
    for subnet in subnets(OLD):
        expires = line.expires(subnet)
        assert expires
        assert expires - time.monotonic() > 7100


def test_c7_a_dhcpcd_that_only_the_wire_tells_of(line: Line) -> None:
    line.daemon.configure(f"{line.daemon.configuration.read_text()}\nlisten: [uplink]")
    line.daemon.reload()
    line.kea.start(Offer(OLD, 6, 8), renew=5, rebind=6)
    folder = line.folder / "dhcpcd"
    folder.mkdir()
    dhcpcd = Dhcpcd(line.uplink.host, line.uplink.interface, folder, line.daemon.runtime, hook=None)
    dhcpcd.start()
    line.daemon.wait_for("source=listen")
    dhcpcd.wait_until_bound()
    wait_until(lambda: OLD in discarded(line))
    end = line.end_of(OLD)
    dhcpcd.kill()
    line.assert_ends(OLD, end)
    assert OLD in discarded(line)
    assert_stays(line)
    assert line.daemon.status()["delegations"] == []


@pytest.mark.parametrize("name", [*CLIENTS, *NEWER])
def test_c8_the_client_is_killed_and_its_lease_lost(line: Line, name: str) -> None:
    line.kea.start(Offer(OLD, 8, 10), renew=7, rebind=8)
    client = line.client(name)
    start(line, client)
    end = line.end_of(OLD)
    client.kill()
    if not isinstance(client, Networkd):
        client.forget()
    line.kea.offer(Offer(NEW))
    with undisturbed(line, OLD):
        client.start()
        line.wait_until_bound(OLD, NEW)
        time.sleep(1)
    if tells_all(client):
        wait_until(lambda: states(line) == {str(OLD): "superseded", str(NEW): "granted"})
        for subnet in ([], ["web"], ["proxies-1"]):
            picked = line.daemon.control("random", "-n", "50", *subnet).stdout.split()
            assert all(NEW.covers(Prefix.parse(address)) for address in picked)
        assert OLD.covers(Prefix.parse(line.daemon.control("random", str(OLD)).stdout.strip()))
    line.assert_ends(OLD, end, NEW)
    assert_stays(line, NEW)


def test_c9_dhcpcd_gives_up_when_t2_is_over(line: Line) -> None:
    """As 9.4 does; 10 asks on."""
    line.kea.start(Offer(OLD, 600, 600), renew=1, rebind=2)
    dhcpcd = line.client("dhcpcd")
    assert isinstance(dhcpcd, Dhcpcd)
    start(line, dhcpcd)
    line.kea.stop()
    with undisturbed(line, OLD):
        wait_until(lambda: any(call["reason"] == "EXPIRE6" for call in dhcpcd.calls()), 40)
        time.sleep(1)
    assert 540 < line.end_of(OLD) - time.monotonic() < 600


def test_c10_the_wall_clock_steps_under_dhclient(line: Line) -> None:
    """Ten years on: the hook is called for what is over, and for the same prefix as if it were new."""
    line.kea.start(Offer(OLD), renew=2)
    dhclient, clock = line.client("dhclient"), FakeClock(line.folder)
    assert isinstance(dhclient, Dhclient)
    dhclient.start(**clock.environment)
    line.wait_until_bound(OLD)
    line.wait_until_known(dhclient)
    before = int(dhclient.wait_for("BOUND6")["new_life_starts"])
    known = len(dhclient.calls())
    with undisturbed(line, OLD):
        clock.ahead("10y")
        dhclient.wait_for("EXPIRE6", OLD, since=known)
        after = int(dhclient.wait_for("BOUND6", OLD, since=known)["new_life_starts"])
        time.sleep(1)
    assert after - before > 9 * 365 * 24 * 3600
    assert states(line) == {str(OLD): "granted"}
    assert 7100 < line.end_of(OLD) - time.monotonic() < 7200


@pytest.mark.parametrize("name", ["dhcpcd", "networkd", *NEWER])
def test_c11_no_carrier_for_three_seconds(line: Line, name: str) -> None:
    line.kea.start(Offer(OLD))
    client = line.client(name)
    start(line, client)
    monitor = RouteMonitor(line.uplink.host, line.folder)
    line.uplink.isp.ip(f"link set {line.uplink.customer} down")
    wait_until(lambda: OLD not in discarded(line))  # the client has taken it back
    assert_stays(line, OLD, seconds=3)
    line.uplink.isp.ip(f"link set {line.uplink.customer} up")
    line.connect()
    line.daemon.wait_for("renewed")
    time.sleep(1)
    assert removed(monitor, *subnets(OLD)) == []
    assert line.answers(OLD) == [8, 8, 8]
    assert states(line) == {str(OLD): "granted"}


@pytest.mark.parametrize("name", ["dhcpcd", DHCPCD_10])
def test_c12_a_lan_in_the_prefix_has_no_carrier_for_three_seconds(line: Line, name: str) -> None:
    """dhcpcd gives it the first /64, and takes its address away while it has no carrier."""
    host = line.uplink.host
    line.daemon.configure("")
    line.daemon.reload()
    for command in ("link add lan0 type veth peer name port", "link set lan0 up", "link set port up"):
        host.ip(command)
    line.kea.start(Offer(OLD))
    dhcpcd = line.client(name)
    assert isinstance(dhcpcd, Dhcpcd)
    settings = dhcpcd.configuration.read_text()
    dhcpcd.configuration.write_text(settings.replace("ia_pd 1 -", "ia_pd 1 lan0/0/64/1"))
    dhcpcd.start()
    first, second = map(str, subnets(OLD)[:2])
    has_address = partial(host.ip, "-6 -oneline addr show dev lan0 scope global")
    wait_until(lambda: first[:-4] in has_address())
    wait_until(lambda: line.bound() == [second])
    monitor = RouteMonitor(host, line.folder)
    host.ip("link set port down")
    wait_until(lambda: not has_address())
    time.sleep(3)
    host.ip("link set port up")
    wait_until(lambda: first[:-4] in has_address())
    time.sleep(0.5)
    assert line.bound() == [second]
    assert removed(monitor, subnets(OLD)[1]) == []


@pytest.mark.parametrize("name", [*CLIENTS, *NEWER])
def test_no_carrier_past_the_end_of_the_valid_lifetime(line: Line, name: str) -> None:
    line.kea.start(Offer(OLD, 10, 12), renew=8, rebind=9)
    client = line.client(name)
    start(line, client)
    end = line.end_of(OLD)
    line.uplink.isp.ip(f"link set {line.uplink.customer} down")
    line.assert_ends(OLD, end)
    assert states(line) == {}
    line.uplink.isp.ip(f"link set {line.uplink.customer} up")
    line.connect()
    line.wait_until_bound(OLD, timeout=30)


@pytest.mark.parametrize("name", ["networkd", NETWORKD_257])
def test_networkd_stops_its_client(line: Line, name: str) -> None:
    """252 does not say that it had one."""
    line.kea.start(Offer(OLD))
    networkd = line.client(name)
    assert isinstance(networkd, Networkd)
    start(line, networkd)
    networkd.reload("DHCP=ipv6", "DHCP=no")
    wait_until(lambda: OLD not in discarded(line))
    if name == NETWORKD_257:
        line.wait_until_bound()
        line.daemon.wait_for("withdrawn")
    else:
        assert_stays(line, OLD, seconds=3)
    networkd.reload("DHCP=no", "DHCP=ipv6")
    networkd.wait_until_bound(2)
    line.wait_until_bound(OLD)
    assert_stays(line, OLD)


def test_s9_a_release_while_a_renewal_is_held_up(line: Line) -> None:
    """A slow exit hook before ours."""
    line.kea.start(Offer(OLD), renew=1)
    dhclient = line.client("dhclient")
    assert isinstance(dhclient, Dhclient)
    begun, go, ended = (line.folder / name for name in ("begun", "go", "ended"))
    dhclient.exit_hooks.joinpath("a-slow").write_text(
        f'case $reason in RENEW6) : >"{begun}"; n=0\n'
        f'until [ -e "{go}" ] || [ $((n += 1)) -gt 300 ]; do sleep 0.1; done; : >"{ended}" ;; esac\n'
    )
    start(line, dhclient)
    wait_until(begun.exists)
    dhclient.release()
    line.wait_until_bound()
    assert not ended.exists()
    go.touch()
    wait_until(ended.exists)
    dhclient.wait_for("RENEW6")
    assert_stays(line)
    assert line.daemon.status() == {"delegations": [], "subnets": []}


def test_o2_our_discard_route_stays_while_dhcpcd_renews(line: Line) -> None:
    line.kea.start(Offer(OLD), renew=1)
    dhcpcd = line.client("dhcpcd")
    assert isinstance(dhcpcd, Dhcpcd)
    start(line, dhcpcd)
    wait_until(lambda: OLD in discarded(line))

    def is_ours() -> bool:
        """Take the client's route away until ours is there first: it renews each second, and is no slower."""
        host = line.uplink.host
        if host.ip(f"-6 route show table main type unreachable proto dhcp {OLD}"):
            host.ip(f"-6 route delete unreachable {OLD} proto dhcp metric 1001")
        return bool(host.ip(f"-6 route show table main type unreachable proto 150 {OLD}"))

    wait_until(is_ours)
    since = len(dhcpcd.calls())
    with undisturbed(line, OLD):
        wait_until(lambda: sum(call["reason"] == "RENEW6" for call in dhcpcd.calls()[since:]) >= 3)
