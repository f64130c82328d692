"""An NDP proxy: what is routed on to containers, VMs and peers, of a /64 that is on-link at the router."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator

import pytest

from anyipd.model import Prefix, address_text
from tests.lab.container import Container
from tests.lab.daemon import Daemon
from tests.lab.delegated import write_lease
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import Uplink
from tests.lab.solicitor import Solicitor

OLD, NEW = Prefix.parse("2001:db8:100::/60"), Prefix.parse("2001:db8:200::/60")
SHOP = Prefix.parse("2001:db8:100:f::/64")
RENTED = Prefix.parse("2001:db8:5::/64")
DELEGATED = "subnets: [{name: shop, id: 0xf, bind: false, neighbours: [uplink]}]\n"
STATIC = f"subnets: []\nstatic: [{{prefix: '{RENTED}', name: rented, bind: false, neighbours: [uplink]}}]\n"
HOLE = Prefix.parse("2001:db8:5::c:0:0:0/80")
BOUND = f"subnets: []\nstatic: [{{prefix: '{RENTED}', neighbours: [uplink], except: ['{HOLE}']}}]\n"
LINK_LOCAL = 0xFE80 << 112
CONTAINERS = 100


def text(prefix: Prefix, suffix: int) -> str:
    return address_text(prefix.address + suffix)


@pytest.fixture
def inside(uplink: Uplink, lab: Callable[[str], Namespace]) -> Container:
    return Container(lab, uplink.host, "inside")


@pytest.fixture
def router(uplink: Uplink) -> Iterator[Solicitor]:
    with Solicitor(uplink.isp, uplink.customer, LINK_LOCAL + 1) as opened:
        yield opened


def on_link(uplink: Uplink, *prefixes: Prefix) -> None:
    for prefix in prefixes:
        uplink.isp.ip(f"-6 route replace {prefix} dev {uplink.customer}")


def pings(uplink: Uplink, prefix: Prefix, *suffixes: int) -> bool:
    """Ping all of them from outside; say whether all answered."""
    asked = {prefix.address + each for each in suffixes}
    return any(uplink.answering(asked, 3) == asked for _ in range(3))  # the kernel gives up after three


def answered_for(router: Solicitor, targets: set[int], behind: int) -> set[int]:
    """Ask for them by hand, and then for one that is answered for: they were by then, or never are."""
    list(router.advertisements())
    for target in (*targets, behind):
        router.socket.send(router.solicitation(target))
    found = set[int]()

    def answered_behind() -> bool:
        found.update(router.answers())
        return behind in found

    wait_until(answered_behind)
    return found & targets


def test_h8_a_container_follows_the_prefix(
    uplink: Uplink, daemon: Daemon, neighbour: Daemon, inside: Container, router: Solicitor
) -> None:
    shop, moved = SHOP, SHOP._replace(address=SHOP.address + NEW.address - OLD.address)
    on_link(uplink, shop, moved)
    daemon.configure(DELEGATED)
    write_lease(daemon.runtime, prefix=str(OLD))
    daemon.start()
    neighbour.start()
    inside.give(text(shop, 0xC1))
    assert pings(uplink, shop, 0xC1)
    # The rest of it our own route discards.
    there, nobody = shop.address + 0xC1, shop.address + 5
    assert answered_for(router, {nobody}, there) == set()
    write_lease(daemon.runtime, "two", prefix=NEW, iaid="00:00:00:02")
    wait_until(lambda: len(daemon.status()["delegations"]) == 2)
    inside.give(text(moved, 0xC1))
    assert pings(uplink, moved, 0xC1)
    assert pings(uplink, shop, 0xC1)
    # Nor is what is routed on no more.
    uplink.host.ip(f"-6 route delete {text(shop, 0xC1)} dev inside")
    assert answered_for(router, {there}, moved.address + 0xC1) == set()


def test_a_static_prefix_that_is_on_link_here_too(
    uplink: Uplink, daemon: Daemon, neighbour: Daemon, inside: Container, router: Solicitor
) -> None:
    """A rented server: the gateway and other servers have addresses of the /64."""
    on_link(uplink, RENTED)
    uplink.isp.ip(f"addr add {text(RENTED, 1)}/128 dev {uplink.customer} nodad")
    uplink.host.ip(f"addr add {text(RENTED, 2)}/64 dev {uplink.interface} nodad")
    uplink.host.ip(f"-6 route add default via {text(RENTED, 1)} dev {uplink.interface} metric 1")
    inside.give(text(RENTED, 0xC1))
    inside.host.ip(f"addr add {text(RENTED, 0xD << 32 | 1)}/96 dev inside nodad")
    inside.host.ip(f"-6 route add unreachable {text(RENTED, 0xBAD)} dev lo")
    inside.host.ip(f"addr add {text(RENTED, 0xA)}/128 dev lo nodad")
    daemon.configure(STATIC)
    daemon.start()
    neighbour.start()
    network, bridge, container = (0xD << 32 | each for each in (0, 1, 0xC2))
    mine = {RENTED.address + each for each in (0xC1, network, bridge, container)}
    others = {RENTED.address + each for each in (1, 3, 0x1234, 0xBAD)}
    assert answered_for(router, mine | others, RENTED.address + 0xA) == mine
    inside.inside.ip(f"addr add {text(RENTED, container)}/128 dev eth0 nodad")
    assert pings(uplink, RENTED, 2, 0xC1, 0xA, bridge, container)


@pytest.mark.parametrize("way_out", ["default", "2000::/3"])
def test_a_way_out_is_nobody_behind_us(
    daemon: Daemon, neighbour: Daemon, inside: Container, router: Solicitor, way_out: str
) -> None:
    inside.host.ip(f"-6 route add {way_out} via fe80::2 dev inside metric 1")
    daemon.configure(STATIC)
    daemon.start()
    neighbour.start()
    inside.give(text(RENTED, 0xC1))
    assert answered_for(router, {RENTED.address + 5}, RENTED.address + 0xC1) == set()


@pytest.mark.usefixtures("inside")
def test_several_ways_lead_on(uplink: Uplink, daemon: Daemon, neighbour: Daemon, router: Solicitor) -> None:
    daemon.configure(STATIC)
    daemon.start()
    neighbour.start()
    hops = "nexthop via fe80::2 dev inside nexthop via {} dev {}"
    uplink.host.ip(f"-6 route add {text(RENTED, 5)} {hops.format('fe80::1', uplink.interface)}")
    uplink.host.ip(f"-6 route add {text(RENTED, 6)} {hops.format('fe80::3', 'inside')}")
    assert answered_for(router, {RENTED.address + 5}, RENTED.address + 6) == set()


def test_its_rules_count(
    uplink: Uplink, daemon: Daemon, neighbour: Daemon, inside: Container, router: Solicitor
) -> None:
    """A VPN's peers in a table of its own; to ask for routes takes no privilege."""
    neighbour.within = ["setpriv", "--bounding-set=-all,+net_raw", "--inh-caps=-all,+net_raw"]
    daemon.configure(STATIC)
    daemon.start()
    neighbour.start()
    inside.give(text(RENTED, 0xC1))
    peer, behind = RENTED.address + 5, RENTED.address + 0xC1
    uplink.host.ip(f"-6 route add {address_text(peer)} dev inside table 51820")
    assert answered_for(router, {peer}, behind) == set()
    uplink.host.ip(f"-6 rule add iif {uplink.interface} table 51820")
    assert answered_for(router, {peer}, behind) == {peer}


@pytest.mark.alone
def test_a_hundred_containers(
    uplink: Uplink, daemon: Daemon, neighbour: Daemon, lab: Callable[[str], Namespace], router: Solicitor
) -> None:
    """In a hole of a bound /64, with an address each; a flood for what is free there has no answer."""
    on_link(uplink, RENTED)
    daemon.configure(BOUND)
    daemon.start()
    neighbour.start()
    numbers = range(1, CONTAINERS + 1)
    for number in numbers:
        Container(lab, uplink.host, f"c{number}").give(text(HOLE, number))
    assert pings(uplink, HOLE, *numbers)
    flood = [random.randrange(HOLE.address + CONTAINERS + 1, HOLE.end) for _ in range(20_000)]
    router.answers()
    router.pelt([router.solicitation(each) for each in flood], 20_000)
    uplink.isp.ip(f"-6 neigh flush dev {uplink.customer}")
    assert pings(uplink, HOLE, *numbers)
    assert pings(uplink, RENTED, *(random.randrange(1 << 32) for _ in range(CONTAINERS)))
    assert not router.answers().keys() & set(flood)
    # What is in the hole is theirs alone, where it is at all.
    uplink.host.ip(f"-6 route delete {text(HOLE, 1)}")
    assert answered_for(router, {HOLE.address + 1}, HOLE.address + 2) == set()


def test_probe_says_what_is_routed_on(daemon: Daemon, inside: Container) -> None:
    daemon.configure(STATIC)
    daemon.start()
    inside.give(text(RENTED, 0xC1))

    def probed(target: str) -> str:
        done = daemon.control("probe", target, check=False)
        assert done.returncode == 1
        return done.stderr

    inside.host.sysctl("net.ipv6.conf.all.forwarding", 0)
    there = text(RENTED, 0xC1)
    assert f"{there} is routed on, and answered for on uplink" in probed(there)
    found = probed("rented")
    assert "rented is routed on: on uplink what a route leads on to is answered for" in found
    assert "net.ipv6.conf.all.forwarding is 0" in found
    daemon.configure(BOUND)
    daemon.reload()
    nobody = text(HOLE, 5)
    assert f"{nobody} is not answered for on uplink: no route leads on to it" in probed(nobody)


def test_what_is_missing_is_said(daemon: Daemon, uplink: Uplink) -> None:
    daemon.configure(STATIC)
    daemon.start()
    missing = "net.ipv6.conf.all.forwarding is 0, so nothing reaches what rented is routed on to"
    assert missing in daemon.control("check").stdout
    for command in ("plan", "status"):
        assert missing in daemon.control(command).stderr
    [subnet] = json.loads(daemon.control("status", "--json").stdout)["subnets"]
    assert (subnet["state"], subnet["reason"]) == ("reserved", "bind: false, answered for on uplink")
    uplink.host.sysctl("net.ipv6.conf.all.forwarding", 1)
    assert "forwarding" not in daemon.control("check").stdout
    for command in ("plan", "status"):
        assert "forwarding" not in daemon.control(command).stderr
