"""What docs/SERVICES.md puts behind the host: containers, VPN peers, machines; and a second uplink."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from anyipd.model import Prefix
from tests.lab import machine as machines
from tests.lab.daemon import Daemon
from tests.lab.delegated import bound, write_lease
from tests.lab.docker import ALONE, Docker
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import ISP_LINK_LOCAL, Uplink
from tests.lab.programs import missing, need, services
from tests.lab.site import ASSIGNED, CONTAINERS, NAMESPACE, ONE, POLICY, RENTED, RENUMBERED, Site, examples

NETWORK = "The subnet `containers` for a network of Docker's"
WIREGUARD, LAPTOP = "/etc/wireguard/wg0.conf", "/etc/wireguard/wg0.conf on the laptop"
TAP = "An address of `machines` for the virtual machine behind tap0"
LINK = "The hole of the virtual machine on the uplink's own link"
DAEMON_JSON = '{"ipv6": true, "fixed-cidr-v6": "2001:db8:5:0:d::/80"}'

VIRTUAL, LINKED = "2001:db8:100:d::5", "2001:db8:5::5"

UP = """\
mkdir -p /run/wireguard
mount -t tmpfs wireguard /run/wireguard
wg-quick up "$0"
exec sleep infinity
"""
"""What starts a tunnel and keeps it; userspace implementations have a socket there."""


def answers(site: Site, *addresses: str, timeout: float = 3) -> bool:
    """Return whether each of these answers the ISP."""
    asked = {Prefix.parse(f"{address}/128").address for address in addresses}
    return site.uplink.answering(asked, timeout) == asked


@pytest.fixture
def linked(site: Site, neighbour: Daemon) -> Site:
    """A site for whose ISP all is on-link that has `neighbours:`, with anyipd-neighbour."""
    site.daemon.configure(examples()[POLICY] + examples()[ONE])
    site.daemon.reload()
    for prefix in (*(f"2001:db8:100:{number}::/64" for number in "def"), RENTED):
        site.isp.ip(f"-6 route replace {prefix} dev {site.uplink.customer}")
    neighbour.start()
    return site


def test_a_container_in_the_hosts_network(site: Site) -> None:
    site.web_server("unshare", "--pid", "--ipc", "--uts", "--mount", "--fork", "--kill-child")
    for address in site.random("web", 3):
        assert site.page(address) == "any"


def test_a_container_with_a_subnet_to_itself(site: Site, lab: Callable[[str], Namespace]) -> None:
    container = lab("shop")
    site.script(NAMESPACE)
    site.nginx(container, 'server { listen [::]:80; return 200 "shop\\n"; }')
    (web,) = site.random("web", 1)
    assert site.uplink.answers(CONTAINERS, 50, timeout=10) == 50
    assert site.page("2001:db8:100:f::cafe") == "shop"
    states = site.states()
    assert (states["web"], states["proxies"]) == ("bound", "bound")
    # A part of a bound subnet cannot be given away so.
    site.host.ip(f"-6 route add {web}/128 via fe80::2 dev shop")
    wait_until(lambda: site.states()["web"] == "conflict")


def test_containers_behind_an_on_link_subnet(linked: Site, lab: Callable[[str], Namespace]) -> None:
    lab("shop")
    linked.script(NAMESPACE)
    assert answers(linked, "2001:db8:100:f::1", "2001:db8:100:f::cafe", "2001:db8:100:f:1:2:3:4")


def test_docker_in_a_subnet_and_in_a_hole(linked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := machines.obstacle():
        missing(reason)
    with Docker(linked.host, examples()[DAEMON_JSON]) as docker:
        monkeypatch.setenv("DOCKER_HOST", docker.socket)
        linked.script(NETWORK)
        docker.serve("subnet", "--network", "shop")
        docker.serve("hole")
        subnet, hole = docker.address("subnet", "shop"), docker.address("hole", "bridge")
        assert CONTAINERS.covers(Prefix.parse(f"{subnet}/128"))
        assert Prefix.parse("2001:db8:5:0:d::/80").covers(Prefix.parse(f"{hole}/128"))
        wait_until(lambda: [linked.page(address) for address in (subnet, hole)] == ["docker", "docker"])
        assert answers(linked, "2001:db8:5::cafe", "2001:db8:5::ffff:ffff:ffff:ffff")
        assert not answers(linked, "2001:db8:5:0:d::dead")
        states = linked.states()
        assert (states["web"], states["rented"]) == ("bound", "bound")


@pytest.mark.parametrize("place", ["a subnet", "a hole"])
def test_a_wireguard_peer(linked: Site, lab: Callable[[str], Namespace], place: str) -> None:
    if not Path("/dev/net/tun").exists():
        missing("no /dev/net/tun")
    need("wg-quick", services())
    host, laptop = linked.host, lab("laptop")
    linked.isp.ip("link add laptop type veth peer name eth0 netns laptop")
    linked.isp.ip("addr add 2001:db8:fa::1/64 dev laptop nodad")
    linked.isp.ip("link set laptop up")
    linked.isp.sysctl("net.ipv6.conf.all.forwarding", 1)
    laptop.ip("addr add 2001:db8:fa::2/64 dev eth0 nodad")
    laptop.ip("link set eth0 up")
    laptop.ip("-6 route add default via 2001:db8:fa::1")
    host.sysctl("net.ipv6.conf.all.forwarding", 1)
    keys = {name: host.run("wg", "genkey", env=services()).stdout.strip() for name in ("HOST", "LAPTOP")}
    for namespace, name in (host, WIREGUARD), (laptop, LAPTOP):
        text = examples()[name]
        for owner, private in keys.items():
            public = host.run("wg", "pubkey", input=private, env=services()).stdout.strip()
            text = text.replace(f"{owner}_PRIVATE_KEY", private).replace(f"{owner}_PUBLIC_KEY", public)
        if place == "a hole":
            text = text.replace("2001:db8:100:e::1/64", "2001:db8:5:0:e::1/112")
            text = text.replace("2001:db8:100:e::2/128", "2001:db8:5:0:e::2/128")
        folder = linked.folder / namespace.name
        folder.mkdir()
        (folder / "wg0.conf").write_text(text)
        namespace.popen(*ALONE, "sh", "-ec", UP, folder / "wg0.conf", env=services())
    peer = "2001:db8:5:0:e::2" if place == "a hole" else "2001:db8:100:e::2"
    wait_until(lambda: answers(linked, peer, timeout=0.3))
    assert answers(linked, "2001:db8:100::1", "2001:db8:100::cafe", "2001:db8:5::cafe")
    linked.outside()
    # It answers as soon as its link is up; its default route comes later.
    wait_until(lambda: linked.get(f"http://[{linked.uplink.address}]/", by=laptop) == peer)


def machine(link: Namespace, there: Namespace, name: str, address: str) -> None:
    """Connect a virtual machine, its kernel `there`, by a link of this name."""
    link.ip(f"link add {name} type veth peer name eth0 netns {there.name}")
    link.ip(f"link set {name} up")
    there.ip(f"addr add {address}/128 dev eth0 nodad")
    there.ip("link set eth0 up")
    there.ip("-6 route add default via fe80::1 dev eth0")


def test_a_virtual_machine_behind_a_tap(linked: Site, lab: Callable[[str], Namespace]) -> None:
    """A veth in the tap's place: what is behind it is none of the host's business."""
    machine(linked.host, lab("machine"), "tap0", VIRTUAL)
    linked.script(TAP)
    assert answers(linked, VIRTUAL, "2001:db8:100::cafe")


def test_a_virtual_machine_on_the_link(linked: Site, lab: Callable[[str], Namespace]) -> None:
    isp, customer = linked.isp, linked.uplink.customer
    isp.ip(f"link set {customer} name port")
    isp.ip(f"link add {customer} type bridge")
    isp.ip(f"link set port master {customer}")
    isp.ip(f"addr add {ISP_LINK_LOCAL}/64 dev {customer} nodad")
    isp.ip(f"link set {customer} up")
    isp.ip(f"-6 route replace {RENTED} dev {customer}")
    linked.host.ip("-6 neigh flush dev uplink")
    virtual = lab("machine")
    machine(isp, virtual, "vm", LINKED)
    isp.ip(f"link set vm master {customer}")
    isp.sysctl("net.ipv6.conf.all.forwarding", 1)
    linked.script(LINK)
    assert answers(linked, LINKED, "2001:db8:5::cafe")
    [seen] = isp.ip_json(f"-6 neigh show to {LINKED} dev {customer}")
    assert seen["lladdr"] == virtual.ip_json("link show eth0")[0]["address"]
    assert linked.host.run("ping", "-c", "1", "-W", "5", LINKED, check=False).returncode == 0


def test_the_hosts_own_address(site: Site) -> None:
    site.outside()
    site.host.ip(f"addr delete {ASSIGNED}/128 dev uplink")
    assert site.get("http://www.example.org/", by=site.host) == "2001:db8:100::1"


FOREIGN = """\
table ip6 provider {{
    chain received {{
        type filter hook prerouting priority raw
        iifname "customer" ip6 saddr != {{ fe80::/10, {prefix} }} drop
    }}
}}
"""


@pytest.mark.parametrize("choice", ["auto", "always", "never"])
def test_two_uplinks(idle: Site, lab: Callable[[str], Namespace], choice: str) -> None:
    second = Uplink(lab("isp2"), idle.host, "uplink2", "2001:db8:ffff::2", 2048)
    idle.daemon.configure(f"{examples()[POLICY]}source_routes: {choice}\n")
    idle.daemon.reload()
    for uplink, prefix in (idle.uplink, "2001:db8:100::/60"), (second, RENUMBERED):
        uplink.route(Prefix.parse(prefix))
        uplink.isp.run("nft", "-f", "-", input=FOREIGN.format(prefix=prefix), env=services())
        write_lease(idle.daemon.runtime, uplink.interface, prefix=prefix, uplink=uplink.interface)
    wait_until(lambda: len(bound(idle.host)) == 4)
    assert idle.uplink.answers(Prefix.parse("2001:db8:100::/64")) == 8
    expected = 0 if choice == "never" else 8
    wait_until(lambda: second.answers(Prefix.parse("2001:db8:200::/64")) == expected)
