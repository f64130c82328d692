"""Many subnets are few routes, and no packet is lost by what comes and goes in their middle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from anyipd.kernel.routes import Routes
from anyipd.model import Prefix, address_text
from anyipd.varlink.client import Client
from tests.lab.daemon import Daemon
from tests.lab.delegated import (
    OURS,
    delegate,
    destinations,
    holder,
    take_away,
    take_back,
    touched,
    write_lease,
)
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import Uplink
from tests.lab.pings import Pings

DELEGATED, OTHER = Prefix.parse("2001:db8:a::/48"), Prefix.parse("2001:db8:b::/48")
POLICY = "subnets: [{name: all, count: all}]"
MIDDLE = Prefix.parse("2001:db8:a:8000::/64")
NEIGHBOURS = [Prefix.parse(f"2001:db8:a:{number}::/64") for number in ("0", "7fff", "8001", "8002", "ffff")]
INTERVAL = 0.01
"""Seconds between two pings of a subnet."""

SETTLED = 5
"""Seconds that anything here may take."""


@pytest.fixture
def running(uplink: Uplink, daemon: Daemon) -> Daemon:
    """All of a /48 is bound, with a lifetime."""
    uplink.route(DELEGATED, OTHER)
    daemon.configure(POLICY)
    write_lease(daemon.runtime, prefix=DELEGATED)
    daemon.start()
    assert destinations(daemon.namespace) == [str(DELEGATED)]
    return daemon


def is_all_but(host: Namespace, *subnets: Prefix) -> bool:
    """Whether all of DELEGATED is bound but these, each address by one route."""
    found = [Prefix.parse(each) for each in destinations(host)]
    overlaps = any(each.overlaps(subnet) for each in found for subnet in subnets)
    return not overlaps and sum(each.size for each in (*found, *subnets)) == DELEGATED.size


@contextmanager
def nothing_lost(uplink: Uplink, prefixes: list[Prefix] = NEIGHBOURS) -> Iterator[None]:
    with Pings(uplink, prefixes, INTERVAL) as pings:
        time.sleep(0.1)
        yield
        time.sleep(0.1)
    lost, sent = pings.lost()
    assert (lost, sent >= 10 * len(prefixes)) == (0, True)


def test_a_48_is_one_route(running: Daemon, uplink: Uplink) -> None:
    (route,) = running.namespace.ip_json(OURS)
    contract = {"type": "local", "dev": "lo", "metric": 1024}
    assert contract.items() <= route.items()
    assert 1990 <= route["expires"] <= 2000
    assert uplink.answers(DELEGATED, 32) == 32
    assert "all-0 ... all-65535" in running.control("status").stdout
    (line,) = [line for line in running.lines() if "event=bound" in line]
    assert "subnet=all-0" in line
    assert "count=65536" in line


def test_it_is_renewed_whole(running: Daemon, uplink: Uplink, tmp_path: Path) -> None:
    monitor = RouteMonitor(running.namespace, tmp_path)
    with nothing_lost(uplink):
        write_lease(running.runtime, prefix=DELEGATED, preferred_lifetime=3000, valid_lifetime=4000)
        wait_until(lambda: running.namespace.ip_json(OURS)[0]["expires"] > 3900, SETTLED)
    (change,) = [line for line in monitor.changes() if "table local proto 150" in line]
    assert change.startswith(f"local {DELEGATED} ")


def test_it_is_renumbered_whole(running: Daemon, uplink: Uplink) -> None:
    new = [Prefix(each.address + OTHER.address - DELEGATED.address, 64) for each in NEIGHBOURS]
    write_lease(running.runtime, "two", prefix=OTHER)
    wait_until(lambda: str(OTHER) in destinations(running.namespace), SETTLED)
    assert destinations(running.namespace) == [str(DELEGATED), str(OTHER)]
    with nothing_lost(uplink, new):
        take_back(running.runtime, prefix=DELEGATED)
        wait_until(lambda: destinations(running.namespace) == [str(OTHER)], SETTLED)
    take_back(running.runtime, "two", prefix=OTHER)
    wait_until(lambda: not destinations(running.namespace), SETTLED)


@pytest.mark.parametrize("fault", ["-6 route flush table local proto 150", "taken away", "link set lo down"])
def test_it_is_restored_whole(running: Daemon, uplink: Uplink, fault: str) -> None:
    host = running.namespace
    if fault == "taken away":
        take_away(host, MIDDLE)
    else:
        host.ip(fault)
    host.ip("link set lo up")
    wait_until(lambda: destinations(host) == [str(DELEGATED)], SETTLED)
    assert uplink.answers(DELEGATED, 32) == 32
    assert host.ip_json(OURS)[0]["expires"] > 1900


def lan(host: Namespace) -> None:
    host.pair("lan", "lan-peer")


def by_an_address(host: Namespace, subnet: Prefix) -> Callable[[], object]:
    lan(host)
    host.ip(f"addr add {address_text(subnet.address + 1)}/64 dev lan nodad")
    return lambda: host.ip("link delete lan")


def by_a_route(host: Namespace, subnet: Prefix) -> Callable[[], object]:
    lan(host)
    host.ip(f"-6 route add {subnet} dev lan proto static")
    return lambda: host.ip(f"-6 route delete {subnet} dev lan")


def by_a_local_route(host: Namespace, subnet: Prefix) -> Callable[[], object]:
    route = f"local {subnet} dev lo table local proto static metric 1024"
    host.ip(f"-6 route add {route}")
    return lambda: host.ip(f"-6 route delete {route}")


@pytest.mark.parametrize("obstruct", [by_an_address, by_a_route, by_a_local_route])
def test_an_obstacle_in_the_middle_comes_and_goes(
    running: Daemon,
    uplink: Uplink,
    tmp_path: Path,
    obstruct: Callable[[Namespace, Prefix], Callable[[], object]],
) -> None:
    """Its subnet is nobody else's, and no other loses a packet."""
    host = running.namespace
    monitor = RouteMonitor(host, tmp_path)
    with nothing_lost(uplink):
        end = obstruct(host, MIDDLE)
        wait_until(lambda: is_all_but(host, MIDDLE), SETTLED)
        assert len(destinations(host)) == 16  # a half, a quarter, and so on
        conflict = [each for each in running.status()["subnets"] if each["state"] == "conflict"]
        assert [each["prefix"] for each in conflict] == (
            [str(MIDDLE)] if obstruct is by_a_local_route else []
        )
        end()
        if obstruct is by_a_local_route:  # else `all` leaves it alone for a minute
            wait_until(lambda: destinations(host) == [str(DELEGATED)], SETTLED)
    assert touched([str(DELEGATED)], monitor.changes()) == {str(MIDDLE)}


def test_a_pinned_count_is_whole_again_when_the_lan_is_gone(
    daemon: Daemon, uplink: Uplink, tmp_path: Path
) -> None:
    host, prefix = daemon.namespace, Prefix.parse("2001:db8:a:8000::/60")
    daemon.configure("subnets: [{name: some, id: 0x8000, count: 16}]")
    write_lease(daemon.runtime, prefix=DELEGATED)
    daemon.start()
    uplink.route(DELEGATED)
    assert destinations(host) == [str(prefix)]
    monitor = RouteMonitor(host, tmp_path)
    others = [Prefix(prefix.address + (number << 64), 64) for number in (1, 2, 3, 15)]
    with nothing_lost(uplink, others):
        for _ in range(5):
            end = by_an_address(host, MIDDLE)
            wait_until(lambda: len(destinations(host)) == 4, SETTLED)
            end()
            wait_until(lambda: destinations(host) == [str(prefix)], SETTLED)
    assert touched([str(prefix)], monitor.changes()) == {str(MIDDLE)}


def test_a_foreign_route_in_its_place_splits_it(running: Daemon, uplink: Uplink) -> None:
    """It is the owner's, whatever it does there, and no subnet is without a route of ours by it."""
    host = running.namespace
    foreign = f"unreachable {DELEGATED} dev lo table local proto static metric 1024"
    halves = ["2001:db8:a::/49", "2001:db8:a:8000::/49"]
    host.ip(f"-6 route replace {foreign}")
    wait_until(lambda: destinations(host) == halves, SETTLED)
    assert {each["state"] for each in running.status()["subnets"]} == {"bound"}
    assert uplink.answers(DELEGATED, 32) == 32
    with nothing_lost(uplink):
        host.ip(f"-6 route delete {foreign}")
        wait_until(lambda: destinations(host) == [str(DELEGATED)], SETTLED)


def test_a_foreign_route_beside_ours_changes_nothing(running: Daemon, tmp_path: Path) -> None:
    """With the same destination and metric, by another link: ours is there, so it is in nobody's way."""
    host = running.namespace
    lan(host)
    monitor = RouteMonitor(host, tmp_path)
    host.ip(f"-6 route append local {DELEGATED} dev lan table local proto static metric 1024")
    running.reload()
    assert destinations(host) == [str(DELEGATED)]
    assert {each["state"] for each in running.status()["subnets"]} == {"bound"}
    assert not [line for line in monitor.changes() if "table local proto 150" in line]


def test_a_foreign_route_to_many_of_its_subnets_does_not_win(running: Daemon, uplink: Uplink) -> None:
    host, many = running.namespace, Prefix.parse("2001:db8:a:8000::/60")
    host.ip(f"-6 route add unreachable {many} dev lo table local proto static metric 1024")
    wait_until(lambda: len(destinations(host)) > 1, SETTLED)
    wait_until(lambda: is_all_but(host), SETTLED)
    assert holder(host, MIDDLE) == "2001:db8:a:8000::/61"
    assert uplink.answers(many, 32) == 32


def test_our_own_address_inside_is_no_obstacle(running: Daemon, tmp_path: Path) -> None:
    host = running.namespace
    monitor = RouteMonitor(host, tmp_path)
    host.ip("addr add 2001:db8:a:8000::1/128 dev lo nodad")
    host.ip("-6 route add local 2001:db8:a:8000::2 dev lo table local proto static metric 1024")
    running.reload()
    assert destinations(host) == [str(DELEGATED)]
    assert not [line for line in monitor.changes() if "table local proto 150" in line]


@pytest.mark.parametrize("count", [16, 65_536])
def test_routes_of_the_release_before_are_replaced(
    uplink: Uplink, daemon: Daemon, tmp_path: Path, count: int
) -> None:
    """0.1.0 had one a subnet."""
    host, length = daemon.namespace, 128 - (count << 64).bit_length() + 1
    whole = DELEGATED._replace(length=length)
    uplink.route(whole)
    daemon.configure(POLICY)
    write_lease(daemon.runtime, prefix=whole)
    before = [Prefix(whole.address + (number << 64), 64) for number in range(count)]
    with host.entered(), closing(Routes()) as hands:
        hands.add_local(dict.fromkeys(before, 2000.0), 0)
    assert len(destinations(host)) == count
    monitor = RouteMonitor(host, tmp_path)
    with nothing_lost(uplink, [before[number] for number in (0, 1, count // 2, count - 1)]):
        daemon.launch()
        daemon.wait_for_ready(60)
        assert destinations(host) == [str(whole)]
    added, *removed = [line for line in monitor.changes() if "table local proto 150" in line]
    assert added.startswith(f"local {whole} ")
    # Of so many events `ip` may lose some.
    assert removed
    assert all(line.startswith("Deleted ") for line in removed)
    assert not [line for line in daemon.lines() if "bound" in line.partition("event=")[2]]


def test_65536_subnets_cost_what_16_cost(uplink: Uplink, daemon: Daemon) -> None:
    """In memory, and in what is said to whoever asks."""

    def costs() -> dict[str, int]:
        with daemon.namespace.entered(), Client(daemon.runtime) as client:
            view = len(json.dumps(client.describe()))
        status = {words: len(daemon.control("status", *words.split()).stdout) for words in ("", "--json")}
        fields = Path(f"/proc/{daemon.running.pid}/status").read_text()
        return {"view": view, "resident": int(fields.split("VmRSS:")[1].split()[0]), **status}

    uplink.route(DELEGATED)
    daemon.configure("subnets: [{name: all, count: 16}]")
    write_lease(daemon.runtime, prefix=DELEGATED)
    daemon.start()
    assert destinations(daemon.namespace) == ["2001:db8:a::/60"]
    of_few = costs()
    daemon.configure(POLICY)
    daemon.reload()
    wait_until(lambda: destinations(daemon.namespace) == [str(DELEGATED)], SETTLED)
    of_all = costs()
    assert all(of_all[each] <= 1.2 * of_few[each] for each in of_few)


def test_an_ipv4_prefix_is_one_route_too(daemon: Daemon) -> None:
    host = daemon.namespace
    daemon.configure("static: [198.18.0.0/15]")
    daemon.start()
    shown = "-4 route show table local proto 150"
    assert [each["dst"] for each in host.ip_json(shown)] == ["198.18.0.0/15"]
    # Not as long as its prefix, so not in its place.
    host.ip("-4 route add local 198.18.7.0/24 dev lo table local proto static metric 1024")
    daemon.reload()
    assert [each["dst"] for each in host.ip_json(shown)] == ["198.18.0.0/15"]


def test_a_route_of_another_delegation_is_not_shared(daemon: Daemon) -> None:
    """Each ends by its own deadline."""
    host = daemon.namespace
    daemon.configure(POLICY)
    for number, prefix in enumerate(("2001:db8:a::/57", "2001:db8:a:80::/57")):
        delegate(host, prefix)
        write_lease(
            daemon.runtime, str(number), prefix=prefix, iaid=f"0{number}", valid_lifetime=2000 + number
        )
    daemon.start()
    assert destinations(host) == ["2001:db8:a::/57", "2001:db8:a:80::/57"]
