"""The firewall of docs/SERVICES.md, with everything else of that page in place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from anyipd.model import Prefix, address_text
from tests.lab.daemon import Daemon
from tests.lab.delegated import bound
from tests.lab.namespace import Namespace
from tests.lab.network import HOST_LINK_LOCAL
from tests.lab.site import (
    ASSIGNED,
    CONTAINERS,
    CURL,
    NAMESPACE,
    ONE,
    POLICY,
    PROXIES,
    RENTED,
    RENUMBERED,
    WEB,
    Site,
    examples,
)


@pytest.fixture
def guarded(site: Site) -> Site:
    """A site with the document's web server and, then, its firewall."""
    site.web_server()
    for address in ("2001:db8:100::1:2:3", "2001:db8:100:1::1:2:3"):
        assert [site.page(address, port) for port in (80, 443)] == ["any"] * 2
    site.load_firewall()
    return site


def test_the_firewall_opens_one_port_of_one_subnet(guarded: Site) -> None:
    guarded.delegate(RENUMBERED)
    # All at once: a TCP on the same machine takes a second to hear that it is refused.
    with ThreadPoolExecutor() as pool:
        for delegated in ("2001:db8:100", "2001:db8:200"):
            web, proxies = f"{delegated}::1:2:3", f"{delegated}:1::1:2:3"
            asked = [(web, 443), (web, 80), (proxies, 443), (proxies, 80)]
            assert list(pool.map(lambda each: guarded.page(*each), asked)) == ["any", None, None, None]


HOLE = Prefix.parse("2001:db8:5:0:d::/80")


def corners(subnet: Prefix) -> list[str]:
    """Give the first, a middle and the last address. The kernel takes the first for anycast."""
    return [address_text(each) for each in (subnet.address, subnet.address + 0x123456789, subnet.end - 1)]


def test_the_firewall_holds_at_the_edges_of_every_bound_subnet(
    site: Site, lab: Callable[[str], Namespace]
) -> None:
    """With holes, an address of the host's own and what is routed on beside them."""
    shop = lab("shop")
    site.script(NAMESPACE)
    shop.ip(f"-6 route add local {HOLE} dev lo")
    site.host.ip(f"-6 route add {HOLE} via fe80::2 dev shop")
    site.uplink.route(RENTED)
    site.daemon.configure(examples()[POLICY] + examples()[ONE])
    site.daemon.reload()
    site.web_server()
    site.nginx(site.host, 'server { listen [::]:22; return 200 "ssh\\n"; }', url="http://[::1]:22/")
    both = "server { listen [::]:22; listen [::]:443; return 200 behind; }"
    site.nginx(shop, both, url="http://[::1]:22/")
    site.delegate(RENUMBERED)
    subnets = sorted({each for each in map(Prefix.parse, bound(site.host)) if each.length == 64})
    assert len(subnets) == 5
    open_subnets = {WEB, Prefix.parse("2001:db8:200::/64"), RENTED}
    # A host that forwards takes no TCP to the first address.
    asked = [(subnet, address) for subnet in subnets for address in corners(subnet)]
    asked.append((WEB, "2001:db8:100::1"))
    closed = {address_text(subnet.address) for subnet in subnets}
    behind = [*corners(CONTAINERS), *corners(HOLE)]

    def pages(port: int, addresses: Iterable[str]) -> list[str | None]:
        # All at once: a TCP on the same machine takes a second to hear that it is refused.
        with ThreadPoolExecutor() as pool:
            return list(pool.map(lambda address: site.page(address, port), addresses))

    def ours(port: int) -> list[str | None]:
        return pages(port, [address for _, address in asked if address not in closed])

    assert set(ours(22)) == {"ssh"}
    assert set(ours(443)) == {"any"}
    site.load_firewall()
    taken = [subnet in open_subnets for subnet, address in asked if address not in closed]
    assert ours(22) == [None] * len(taken)
    assert ours(443) == ["any" if accepted else None for accepted in taken]
    assert pages(22, closed) == [None] * len(closed)
    assert [pages(port, behind) for port in (22, 443)] == [["behind"] * len(behind)] * 2
    assert site.page(ASSIGNED, 22) == "ssh"
    addresses = {
        Prefix.parse(f"{address}/128").address for address in (*behind, *(each for _, each in asked))
    }
    assert site.uplink.answering(addresses, timeout=5) == addresses


def test_the_firewall_harms_no_neighbour_discovery(site: Site, neighbour: Daemon) -> None:
    site.daemon.configure(examples()[POLICY].replace("id: 0,", "id: 0, neighbours: [uplink],"))
    site.daemon.reload()
    neighbour.start()
    site.load_firewall()
    customer = site.uplink.customer
    site.isp.ip(f"-6 route replace {WEB} dev {customer}")
    site.isp.ip(f"addr add 2001:db8:50::1/64 dev {customer} nodad")
    site.isp.ip(f"-6 route replace {ASSIGNED}/128 dev {customer}")
    # The router asks again after a second, then by unicast, which comes to the firewall.
    for key, value in ("base_reachable_time_ms", 500), ("delay_first_probe_time", 1):
        site.isp.sysctl(f"net.ipv6.neigh.{customer}.{key}", value)
    addresses = {Prefix.parse(f"{address}/128").address for address in (*corners(WEB), ASSIGNED)}
    for _ in range(8):
        assert site.uplink.answering(addresses, timeout=5) == addresses
        time.sleep(0.5)
    states = {each["dst"]: each["state"] for each in site.isp.ip_json(f"-6 neigh show dev {customer}")}
    assert not [state for state in states.values() if {"FAILED", "INCOMPLETE"} & set(state)]


def test_the_firewall_leaves_the_hosts_own_addresses_alone(guarded: Site) -> None:
    guarded.isp.ip(f"-6 neigh flush dev {guarded.uplink.customer}")
    guarded.host.ip("-6 neigh flush dev uplink")
    assert guarded.page(ASSIGNED) == "any"
    assert guarded.page(f"{HOST_LINK_LOCAL}%{guarded.uplink.customer}") == "any"
    assert guarded.get("http://[2001:db8:100::1:2:3]/", by=guarded.host) == "any"
    elsewhere = "2001:db8:50::3"
    guarded.host.ip(f"addr add {elsewhere}/128 dev lo")
    guarded.uplink.route(Prefix.parse(f"{elsewhere}/128"))
    assert guarded.page(elsewhere) is None


def test_the_firewall_lets_replies_and_icmpv6_in(guarded: Site, lab: Callable[[str], Namespace]) -> None:
    assert guarded.uplink.answers(WEB, 20, timeout=10) == 20
    assert guarded.uplink.answers(PROXIES, 20, timeout=10) == 20
    guarded.outside()
    guarded.allow_nonlocal_bind()
    assert PROXIES.covers(Prefix.parse(guarded.script(CURL).stdout.strip()))
    # A link on the way that takes less than either end says: Packet Too Big goes to an AnyIP address.
    far = lab("far")
    guarded.isp.sysctl("net.ipv6.conf.all.forwarding", 1)
    guarded.isp.ip("link add far type veth peer name uplink netns far")
    guarded.isp.ip("addr add 2001:db8:fa::1/64 dev far nodad")
    guarded.isp.ip("link set far up mtu 1280")
    far.ip("addr add 2001:db8:fa::2/64 dev uplink nodad")
    far.ip("link set uplink up")
    far.ip("-6 route add default via 2001:db8:fa::1")
    page = guarded.get("http://[2001:db8:100::1:2:3]:443/large", by=far)
    assert page is not None
    assert len(page) == 1_000_000


def test_ipv4_needs_no_sysctl_and_is_closed_too(site: Site) -> None:
    site.daemon.configure(f"{examples()[POLICY]}static: [192.0.2.0/24]\n")
    site.daemon.reload()
    site.isp.ip("addr add 198.51.100.1/24 dev customer")
    site.host.ip("addr add 198.51.100.2/24 dev uplink")
    site.isp.ip("route add 192.0.2.0/24 via 198.51.100.2")
    assigned, anyip = "http://198.51.100.2/", "http://192.0.2.7/"
    servers = (
        f'server {{ listen {address}:80; return 200 "v4\\n"; }}' for address in ("198.51.100.2", "192.0.2.7")
    )
    site.nginx(site.host, "\n".join(servers), url=anyip)
    assert [site.get(assigned), site.get(anyip)] == ["v4", "v4"]
    site.load_firewall()
    assert [site.get(assigned), site.get(anyip)] == ["v4", None]
