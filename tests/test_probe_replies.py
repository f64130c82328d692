"""`anyipctl probe` where packets come in and replies do not arrive: broken for real, mended as it advises."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from anyipd.model import Prefix, address_text
from tests.lab import debian
from tests.lab.advertise import advertise
from tests.lab.daemon import Daemon
from tests.lab.delegated import write_lease
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import Uplink
from tests.lab.probing import drop_at, follow_advice, probe, start_routed

FIRST, SECOND, PRIVATE = "2001:db8:100::/60", "2001:db8:200::/60", "fd00:db8:200::/60"
RENTED, IPV4 = "2001:db8:5::/64", "192.0.2.0/24"
WEB, OTHER = Prefix.parse("2001:db8:100::/64"), Prefix.parse("2001:db8:200::/64")
POLICY = "{subnets: [{name: web}], source_routes: never}"


@pytest.fixture
def probed(daemon: Daemon, uplink: Uplink) -> Daemon:
    """With one prefix delegated on the one uplink, and programs that may bind."""
    return start_routed(daemon, uplink, FIRST, POLICY)


@pytest.fixture
def second(lab: Callable[[str], Namespace], probed: Daemon, uplink: Uplink) -> Uplink:
    """Another uplink, which delegated another prefix; the default route by it comes behind the first's."""
    other = Uplink(lab("isp2"), uplink.host, "uplink2", "2001:db8:fffe::1", metric=2048)
    other.isp.sysctl("net.ipv6.conf.all.forwarding", 1)
    other.route(Prefix.parse(SECOND))
    write_lease(probed.runtime, "two", prefix=SECOND, uplink=other.interface, iaid="00:00:00:02")
    wait_until(lambda: len(probed.status()["delegations"]) == 2)
    return other


def by_delegation(probed: Daemon, *words: str, code: int) -> dict[str, dict[str, Any]]:
    return {each["around"]["delegation"]: each for each in probe(probed, *words, code=code)}


def drop_foreign_sources(uplink: Uplink, prefix: str) -> None:
    """Do what RFC 2827 asks of every provider."""
    drop_at(uplink.isp, uplink.customer, f"ip6 saddr != {{ fe80::/10, {prefix} }}")


def connects(uplink: Uplink, prefix: Prefix) -> bool:
    """Whether the ISP comes through to TCP port 8080 of an address there."""
    with uplink.isp.entered():
        sock = socket.socket(socket.AF_INET6)
    with sock:
        sock.settimeout(1.5)
        sock.bind((uplink.address, 0))
        try:
            sock.connect((address_text(prefix.address + 5), 8080))
        except TimeoutError:
            return False
    return True


def test_h2_replies_that_leave_by_the_other_uplink(probed: Daemon, uplink: Uplink, second: Uplink) -> None:
    drop_foreign_sources(uplink, FIRST)
    drop_foreign_sources(second, SECOND)
    found = by_delegation(probed, code=1)
    assert found[FIRST]["verdict"]["good"]
    assert uplink.answers(WEB) == 8
    wrong = found[SECOND]
    assert second.answers(OTHER) == 0
    assert wrong["verdict"]["text"] == (
        f"Replies leave by uplink, not by uplink2, the uplink of {SECOND}: most providers drop "
        "foreign sources."
    )
    assert all(each["arrived"] and each["reply"]["links"] == ["uplink"] for each in wrong["findings"])
    assert wrong["verdict"]["next_step"] == f"ip -6 route add default from {SECOND} via fe80::1 dev uplink2"
    follow_advice(probed.namespace, wrong)
    assert second.answers(OTHER) == 8
    probe(probed, code=0)


def test_h2_pings_that_are_answered_where_tcp_is_not(probed: Daemon, uplink: Uplink, second: Uplink) -> None:
    """Of default routes with one metric an Echo Reply takes that by the link which it was asked by."""
    host = probed.namespace
    drop_foreign_sources(uplink, FIRST)
    drop_foreign_sources(second, SECOND)
    host.ip("-6 route flush default")
    advertise(uplink)
    wait_until(lambda: host.ip("-6 route show default").count("dev") == 1)
    advertise(second)
    wait_until(lambda: host.ip("-6 route show default").count("dev") == 2)
    with host.entered():
        server = socket.create_server(("::", 8080), family=socket.AF_INET6)
    with server:
        assert [each.answers(web) for each, web in ((uplink, WEB), (second, OTHER))] == [8, 8]
        assert connects(uplink, WEB)
        assert not connects(second, OTHER)
        found = by_delegation(probed, code=1)
        assert [found[each]["verdict"]["good"] for each in (FIRST, SECOND)] == [True, False]
        follow_advice(host, found[SECOND])
        assert connects(second, OTHER)
    probe(probed, code=0)


def test_h2_replies_that_leave_by_either_uplink(probed: Daemon, second: Uplink) -> None:
    hops = " ".join(f"nexthop via fe80::1 dev {each}" for each in ("uplink", second.interface))
    probed.namespace.ip("-6 route flush default")
    probed.namespace.ip(f"-6 route add default {hops}")
    for name, found in zip(("uplink", "uplink2"), by_delegation(probed, code=1).values(), strict=True):
        assert f"leave by uplink or uplink2, not by {name} alone, the uplink" in found["verdict"]["text"]


def test_an_uplink_whose_router_gives_no_default_route(probed: Daemon, second: Uplink) -> None:
    """And takes none from it, where that is why."""
    probed.namespace.ip(f"-6 route delete default dev {second.interface}")
    advice = by_delegation(probed, code=1)[SECOND]["verdict"]["next_step"]
    assert advice.endswith("should give a default route; there is none by uplink2")
    probed.namespace.sysctl(f"net.ipv6.conf.{second.interface}.forwarding", 1)
    advice = by_delegation(probed, code=1)[SECOND]["verdict"]["next_step"]
    assert advice.startswith("sysctl net.ipv6.conf.uplink2.accept_ra=2, ")


def test_a_prefix_of_both_uplinks(probed: Daemon, uplink: Uplink, second: Uplink) -> None:
    """Either will do."""
    uplink.route(Prefix.parse(SECOND))
    write_lease(probed.runtime, "three", prefix=SECOND, uplink=uplink.interface, iaid="00:00:00:03")
    probed.reload()
    assert set(by_delegation(probed, code=0)[SECOND]["around"]["uplinks"]) == {"uplink", second.interface}


def test_a_private_prefix_has_no_outside_to_reply_to(probed: Daemon, second: Uplink) -> None:
    """Where its other ends are is not known: the default route says nothing of it."""
    second.route(Prefix.parse(PRIVATE))
    write_lease(probed.runtime, "three", prefix=PRIVATE, uplink=second.interface, iaid="00:00:00:03")
    probed.reload()
    [found] = probe(probed, PRIVATE, code=0)
    assert found["verdict"]["text"].startswith("All answer, and packets for ")
    assert [each["reply"] for each in found["findings"]] == [None] * 3


def test_a_static_prefix_has_the_uplinks_that_its_neighbours_name(
    probed: Daemon, uplink: Uplink, second: Uplink
) -> None:
    """Without any nobody knows its uplink, and the router that replies go to is asked."""
    uplink.route(Prefix.parse(RENTED))
    probed.configure(f"static: [{RENTED}]")
    probed.reload()
    [found] = probe(probed, RENTED, code=0)
    assert (found["around"]["uplinks"], found["around"]["uplink"]) == ([], "uplink")
    probed.configure(f"static: [{{prefix: {RENTED}, neighbours: [{second.interface}]}}]")
    probed.reload()
    [found] = probe(probed, RENTED, code=1)
    assert "leave by uplink, not by uplink2" in found["verdict"]["text"]


def test_a_static_prefix_with_a_rule_of_its_own(probed: Daemon, second: Uplink) -> None:
    """The router that the rule leads its replies to is the one to ask."""
    second.route(Prefix.parse(RENTED))
    probed.namespace.ip(f"-6 route add default via fe80::1 dev {second.interface} table 100")
    probed.namespace.ip(f"-6 rule add from {RENTED} lookup 100")
    probed.configure(f"static: [{RENTED}]")
    probed.reload()
    [found] = probe(probed, RENTED, code=0)
    assert found["around"]["uplink"] == second.interface


VPNS = {
    "rules": [  # as wg-quick has them
        "route add default dev vpn table 51820",
        "rule add not fwmark 51820 table 51820",
        "rule add table main suppress_prefixlength 0",
    ],
    "halves": ["route add ::/1 dev vpn", "route add 8000::/1 dev vpn"],  # as OpenVPN does
}


@pytest.mark.parametrize("kind", VPNS)
def test_h3_replies_that_leave_by_a_vpn(probed: Daemon, uplink: Uplink, kind: str) -> None:
    host = probed.namespace
    host.pair("vpn", "away")
    for each in VPNS[kind]:
        host.ip(f"-6 {each}")
    [found] = probe(probed, code=1)
    assert uplink.answers(WEB) == 0
    rule = " by table 51820, as a rule has it (ip -6 rule)" if kind == "rules" else ""
    assert f"Replies leave by vpn{rule}, not by uplink, the uplink of" in found["verdict"]["text"]
    follow_advice(host, found)
    assert uplink.answers(WEB) == 8
    probe(probed, code=0)


def test_h5_a_host_that_forwards_and_takes_no_advertisement(probed: Daemon, uplink: Uplink) -> None:
    host = probed.namespace
    host.ip("-6 route delete default")

    def has_default_route() -> bool:
        return "default" in host.ip("-6 route show proto ra")

    advertise(uplink)
    wait_until(has_default_route)
    host.sysctl("net.ipv6.conf.all.forwarding", 1)
    advertise(uplink)
    [found] = probe(probed, code=1)
    assert not has_default_route()
    assert uplink.answers(WEB) == 0
    assert found["verdict"]["text"] == (
        "Replies do not leave this host: there is no default route, for this host forwards (forwarding=1), "
        "and so takes no Router Advertisements on uplink (accept_ra=1)."
    )
    follow_advice(host, found)
    advertise(uplink)
    wait_until(has_default_route)
    probe(probed, code=0)
    assert uplink.answers(WEB) == 8


@pytest.mark.parametrize("reject", ["unreachable", "prohibit", "blackhole"])
def test_a_route_that_rejects_replies(probed: Daemon, reject: str) -> None:
    probed.namespace.ip(f"-6 route add {reject} default from {FIRST} dev lo metric 1")
    [found] = probe(probed, code=1)
    assert "Replies do not leave this host: a route rejects it (" in found["verdict"]["text"]
    assert "ip -6 route show default" in found["verdict"]["next_step"]


def on_link(uplink: Uplink) -> None:
    uplink.unroute(Prefix.parse(FIRST))
    uplink.isp.ip(f"-6 route add {WEB} dev {uplink.customer}")


def test_h9_a_router_that_drops_the_answer(probed: Daemon, neighbour: Daemon, uplink: Uplink) -> None:
    probed.configure("subnets: [{name: web, neighbours: [uplink]}]")
    probed.reload()
    neighbour.start()
    on_link(uplink)
    assert uplink.answers(WEB, timeout=5) == 8
    drop_at(uplink.isp, uplink.customer, "icmpv6 type nd-neighbor-advert")
    uplink.isp.ip(f"-6 neigh flush dev {uplink.customer}")
    assert uplink.answers(WEB) == 0
    [found] = probe(probed, code=1)
    assert found["verdict"]["text"].startswith("Asked, answered, nothing came. The router fe80::1 takes")
    source = found["findings"][0]["advertised"]
    assert found["verdict"]["next_step"].startswith(f"have it accept Neighbor Advertisements from {source}")


def test_h9_a_router_that_drops_what_comes_from_link_local_addresses(probed: Daemon, uplink: Uplink) -> None:
    """It says nothing at all, and replies find no way to it."""
    drop_at(
        uplink.isp,
        uplink.customer,
        "ip6 saddr fe80::/10 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }",
    )
    probed.namespace.ip("-6 neigh flush dev uplink")
    [found] = probe(probed, code=1)
    assert (
        found["verdict"]["text"] == "The router fe80::1 does not answer on uplink, so no reply leaves by it."
    )
    assert "fe80::/10" in found["verdict"]["next_step"]
    assert found["around"]["unasked"] == "the router fe80::1 does not answer on the link"


@pytest.fixture
def ipv4(probed: Daemon, uplink: Uplink) -> Daemon:
    """With a static IPv4 prefix, whose router is at 198.51.100.1."""
    uplink.isp.ip(f"addr add 198.51.100.1/24 dev {uplink.customer}")
    uplink.host.ip(f"addr add 198.51.100.2/24 dev {uplink.interface}")
    uplink.host.ip("route add default via 198.51.100.1")
    uplink.isp.sysctl("net.ipv4.ip_forward", 1)
    probed.configure(f"static: [{IPV4}]")
    probed.reload()
    return probed


def ping(uplink: Uplink) -> bool:
    command = ["ping", "-c1", "-W1", "-I198.51.100.1", "192.0.2.77"]
    return uplink.isp.run(*command, check=False, env=debian.environment()).returncode == 0


@pytest.mark.parametrize("scope", ["all", "uplink"])
def test_h11_a_host_that_ignores_arp(ipv4: Daemon, uplink: Uplink, scope: str) -> None:
    uplink.isp.ip(f"route add {IPV4} dev {uplink.customer}")
    ipv4.namespace.sysctl(f"net.ipv4.conf.{scope}.arp_ignore", 1)
    [found] = probe(ipv4, IPV4, code=1)
    assert not ping(uplink)
    assert found["verdict"]["text"] == (
        f"The router 198.51.100.1 takes {IPV4} for on-link: it asks who has any of them by ARP, and "
        "arp_ignore=1 keeps this host from answering."
    )
    follow_advice(ipv4.namespace, found)
    wait_until(lambda: ping(uplink))  # its router asks once a second
    probe(ipv4, IPV4, code=0)


def test_h11_where_the_prefix_is_routed_here_nobody_asks_by_arp(ipv4: Daemon, uplink: Uplink) -> None:
    uplink.isp.ip(f"route add {IPV4} via 198.51.100.2")
    ipv4.namespace.sysctl("net.ipv4.conf.all.arp_ignore", 1)
    [found] = probe(ipv4, IPV4, code=0)
    assert ping(uplink)
    assert (
        found["verdict"]["text"] == "Nobody outside was asked: that is done for IPv6 alone. Here all answer."
    )


def test_ipv4_without_a_default_route(ipv4: Daemon) -> None:
    ipv4.namespace.ip("route delete default")
    [found] = probe(ipv4, IPV4, code=1)
    assert found["verdict"]["text"] == "Replies do not leave this host: there is no default route."
    assert "look at ip route show default" in found["verdict"]["next_step"]


def test_who_may_not_ask_says_so(probed: Daemon) -> None:
    host = probed.namespace
    host.run("sysctl", "-w", "net.ipv4.ping_group_range=0 2147483647", env=debian.environment())
    unprivileged = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", "--"]
    command = [*unprivileged, sys.executable, "-m", "anyipd.ctl", "probe", *probed.files]
    printed = host.run(*command, env=probed.environment()).stdout
    assert "Nobody outside was asked: that takes CAP_NET_RAW; run it as root. Here all answer." in printed
