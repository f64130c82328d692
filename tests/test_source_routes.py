"""Replies leave by the uplink of their prefix: with two providers that drop foreign sources, and a VPN."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from anyipd.decide.source_routes import MAX_ROUTERS
from anyipd.model import Prefix
from tests.lab.advertise import advertise, leave_router, take_router
from tests.lab.daemon import Daemon
from tests.lab.delegated import write_lease
from tests.lab.dhclient import Dhclient
from tests.lab.kea import Kea, Offer
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import ISP_LINK_LOCAL, Uplink
from tests.lab.networkd import Networkd
from tests.lab.pings import Pings
from tests.lab.probing import drop_at, probe

FIRST, SECOND, RENUMBERED = "2001:db8:100::/60", "2001:db8:200::/60", "2001:db8:300::/60"
WEB, OTHER, NEW = (Prefix.parse(each)._replace(length=64) for each in (FIRST, SECOND, RENUMBERED))
ANOTHER_ROUTER = "fe80::9"
INTERVAL = 0.005


def drop_foreign_sources(uplink: Uplink, *prefixes: str) -> None:
    """Do what RFC 2827 asks of every provider."""
    drop_at(uplink.isp, uplink.customer, f"ip6 saddr != {{ fe80::/10, {', '.join(prefixes)} }}")


def found(host: Namespace) -> list[str]:
    """Give our source routes, as short as `ip` can."""
    kinds = (f"-6 route show table main proto 150 type {kind}" for kind in ("unicast", "unreachable"))
    lines = (line for each in kinds for line in host.ip(each).splitlines())
    routes = [line.removeprefix("unreachable ").replace(" pref medium", "").split() for line in lines]
    return sorted(" ".join(words[1:]) for words in routes if words[:2] == ["default", "from"])


@pytest.fixture
def second(lab: Callable[[str], Namespace], uplink: Uplink) -> Uplink:
    """Another uplink, of another provider; the default route by it comes behind the first's."""
    return Uplink(lab("isp2"), uplink.host, "uplink2", "2001:db8:fffe::1", metric=2048)


@pytest.fixture
def delegated(daemon: Daemon, uplink: Uplink, second: Uplink) -> Daemon:
    """With a prefix of each provider, which takes no other source."""
    for number, (each, prefix) in enumerate([(uplink, FIRST), (second, SECOND)]):
        each.route(Prefix.parse(prefix))
        drop_foreign_sources(each, prefix)
        write_lease(
            daemon.runtime, str(number), prefix=prefix, uplink=each.interface, iaid=f"00:00:00:0{number}"
        )
    daemon.start()
    return daemon


def test_what_happens_to_one_of_two_uplinks_nobody_notices_on_the_other(
    daemon: Daemon, uplink: Uplink, second: Uplink, tmp_path: Path
) -> None:
    """Its prefix is renumbered, its router replaced, its line cut off. Real servers and clients."""
    host = daemon.namespace
    host.sysctl("net.ipv6.ip_nonlocal_bind", 1)
    host.ip("-6 route flush default")
    keas = []
    for each, prefixes in ((uplink, [FIRST]), (second, [SECOND, RENUMBERED])):
        folder = tmp_path / each.interface
        folder.mkdir()
        each.isp.sysctl("net.ipv6.conf.all.forwarding", 1)
        each.route(*map(Prefix.parse, prefixes))
        drop_foreign_sources(each, *prefixes)
        take_router(each)
        keas.append(Kea(each.isp, each.customer, folder))
        keas[-1].start(Offer.parse(prefixes[0]), renew=1, rebind=2000)
        Dhclient(host, each.interface, folder, daemon.runtime).start()
    daemon.start()
    wait_until(lambda: len(found(host)) == 2)
    with Pings(uplink, [WEB], INTERVAL) as steady:
        with Pings(second, [OTHER], INTERVAL) as pings:
            second.isp.ip(f"addr add {ANOTHER_ROUTER}/64 dev {second.customer} nodad")
            take_router(second, ANOTHER_ROUTER)
            leave_router(second)
            wait_until(lambda: any(ANOTHER_ROUTER in route for route in found(host)))
            second.isp.ip(f"addr delete {ISP_LINK_LOCAL}/64 dev {second.customer}")
            keas[1].offer(Offer.parse(RENUMBERED), renew=1, rebind=2000)
            wait_until(lambda: any(RENUMBERED in route for route in found(host)))
        assert second.answers(NEW) == 8
        second.isp.ip(f"link set {second.customer} down")
        time.sleep(0.2)
        second.isp.ip(f"link set {second.customer} up")
        second.isp.ip(f"addr add {ANOTHER_ROUTER}/64 dev {second.customer} nodad")
        second.route(Prefix.parse(SECOND), Prefix.parse(RENUMBERED))
        wait_until(lambda: second.answers(NEW) == 8)
        with Pings(second, [NEW], INTERVAL) as again:
            time.sleep(0.3)
    assert [each.lost()[0] for each in (steady, again)] == [0, 0]
    # What Kea takes back is unbound at once.
    assert pings.lost_before_the_last_answer()[0] == 0
    probe(daemon, code=0)


def way(source: str, router: str = ISP_LINK_LOCAL, link: str = "uplink2", metric: int = 1024) -> str:
    """Write a source route as `found` gives it."""
    return f"from {source} via {router} dev {link} metric {metric}"


def test_an_uplink_that_is_gone_altogether_comes_back(
    delegated: Daemon, uplink: Uplink, second: Uplink
) -> None:
    """As between two PPP sessions: preferred again, it must not take the replies of the other."""
    host = delegated.namespace
    host.ip(f"-6 route add default via {ISP_LINK_LOCAL} dev {second.interface} metric 512")
    wait_until(lambda: found(host) == [way(FIRST, link="uplink")])
    with Pings(uplink, [WEB], 0.001) as pings:
        for _ in range(3):
            host.ip(f"link delete {second.interface}")
            wait_until(lambda: "uplink2" not in host.ip("-6 route show default"))
            time.sleep(0.1)
            assert found(host) == [way(FIRST, link="uplink")]
            Uplink(second.isp, host, second.interface, "2001:db8:fffe::2", metric=512)
            second.isp.ip("addr delete 2001:db8:fffe::2/128 dev lo")
            time.sleep(0.1)
    assert pings.lost()[0] == 0
    second.route(Prefix.parse(SECOND))
    assert second.answers(OTHER) == 8


@pytest.mark.parametrize(
    ("defaults", "expected"),
    [
        (["via fe80::1 dev uplink2 metric 2048"], [way(SECOND)]),
        (["via fe80::1 dev uplink2"], [way(FIRST, link="uplink"), way(SECOND)]),  # the kernel takes either
        (["via fe80::1 dev uplink2 metric 7"], [way(FIRST, link="uplink")]),
        (["dev uplink2 metric 2048"], [f"from {SECOND} dev uplink2 metric 1024"]),  # as a PPP link has it
        (
            ["via 2001:db8:9::9 dev uplink2 onlink metric 2048"],
            [f"from {SECOND} via 2001:db8:9::9 dev uplink2 metric 1024 onlink"],
        ),
        (
            ["metric 7 nexthop via fe80::1 dev uplink nexthop via fe80::1 dev uplink2"],
            [way(FIRST, link="uplink"), way(SECOND)],
        ),
        (["nhid 7 metric 2048"], [way(SECOND)]),
        (
            ["via fe80::8 dev uplink2 metric 2048", "via fe80::9 dev uplink2 metric 2049 pref high"],
            [way(SECOND, "fe80::8"), way(SECOND, "fe80::9", metric=1025)],
        ),
        (["via fe80::1 dev uplink2 table 77"], []),
        (["via fe80::1 dev uplink2 metric 2048 proto 150"], []),  # a stray, and removed
        ([f"from {FIRST} via fe80::1 dev uplink2 metric 7"], []),
    ],
)  # fmt: skip
def test_which_default_routes_make_which_source_routes(
    delegated: Daemon, second: Uplink, defaults: list[str], expected: list[str]
) -> None:
    """The first uplink has one of metric 1024. Each is seen by its event, and once more by reading all."""
    host = delegated.namespace
    host.ip(f"-6 route delete default dev {second.interface}")
    # The second one may be preferred once it is back.
    wait_until(lambda: found(host) == [way(FIRST, link="uplink")])
    if "nhid" in defaults[0]:
        host.ip("-6 nexthop add id 7 via fe80::1 dev uplink2")
    for each in defaults:
        host.ip(f"-6 route append default {each}")
    expected = expected or [way(FIRST, link="uplink")]
    wait_until(lambda: found(host) == expected)
    delegated.reload()
    assert found(host) == expected


def test_where_an_event_does_not_say_all_the_table_does(delegated: Daemon, second: Uplink) -> None:
    """One of several next hops went; or one of several routes of a metric, for one that replaced it."""
    host, link = delegated.namespace, second.interface
    host.ip(f"-6 route append default via {ISP_LINK_LOCAL} dev {link}")
    wait_until(lambda: found(host) == [way(FIRST, link="uplink"), way(SECOND)])
    host.ip(f"-6 route delete default via {ISP_LINK_LOCAL} dev uplink metric 1024")
    wait_until(lambda: found(host) == [way(SECOND)])
    host.ip(f"-6 route flush default dev {link} metric 1024")
    host.ip(f"-6 route add default via {ISP_LINK_LOCAL} dev uplink")
    host.ip(f"-6 route append default dev {link}")
    wait_until(lambda: len(found(host)) == 3)
    host.ip(f"-6 route replace default via {ANOTHER_ROUTER} dev uplink")
    wait_until(lambda: found(host)[0] == way(FIRST, ANOTHER_ROUTER, link="uplink"))
    assert len(found(host)) == 3


def test_the_router_that_answers_is_used(delegated: Daemon, second: Uplink) -> None:
    """The kernel takes the next one where it does not reach the first, as it does by default routes."""
    host = delegated.namespace
    second.isp.ip(f"addr add {ANOTHER_ROUTER}/64 dev {second.customer} nodad")
    host.ip(f"-6 route add default via {ANOTHER_ROUTER} dev {second.interface} metric 3000")
    wait_until(lambda: len(found(host)) == 2)
    second.isp.ip(f"addr delete {ISP_LINK_LOCAL}/64 dev {second.customer}")
    host.ip(f"-6 neigh flush dev {second.interface}")
    wait_until(lambda: second.answers(OTHER) == 8)


@pytest.mark.parametrize("choice", ["auto", "always", "never"])
def test_beside_a_full_tunnel_vpn_auto_adds_nothing(daemon: Daemon, uplink: Uplink, choice: str) -> None:
    """Whoever has all packets go through a VPN does not want some to go beside it. `always` does."""
    host = daemon.namespace
    uplink.route(Prefix.parse(FIRST))
    daemon.configure(f"source_routes: {choice}")
    write_lease(daemon.runtime, prefix=FIRST)
    daemon.start()
    host.ip("tuntap add vpn mode tun")
    host.ip("link set vpn up")
    expected = [way(FIRST, link="uplink")] if choice == "always" else []
    monitor = RouteMonitor(host, daemon.log.parent)
    host.ip("-6 route add default dev vpn metric 50")
    host.ip("-6 route add ::/1 dev vpn")
    host.ip("-6 route delete ::/1 dev vpn")
    daemon.reload()
    assert found(host) == expected
    assert [line for line in monitor.changes() if "proto 150" in line] == []
    assert uplink.answers(WEB) == (8 if choice == "always" else 0)


def test_a_host_with_one_uplink_has_none(daemon: Daemon, uplink: Uplink) -> None:
    write_lease(daemon.runtime, prefix=FIRST)
    daemon.start()
    assert found(uplink.host) == []


def test_a_prefix_around_anothers_addresses_has_none(delegated: Daemon, uplink: Uplink) -> None:
    """Else whoever delegates it would draw off what is sent from them."""
    host = delegated.namespace
    address = "2001:db8:200:f::2"
    host.ip(f"addr add {address}/64 dev {uplink.interface}")
    wait_until(lambda: found(host) == [])
    host.ip(f"addr delete {address}/64 dev {uplink.interface}")
    wait_until(lambda: found(host) == [way(SECOND)])
    host.ip("link add lan type veth peer name other")  # as a client numbers it out of the prefix
    host.ip(f"addr add {address}/64 dev lan")
    delegated.reload()
    assert found(host) == [way(SECOND)]
    delegated.configure(f"static: [{address}/128]")
    delegated.reload()
    assert found(host) == []


def test_whoever_joins_in_takes_no_replies_over(delegated: Daemon, uplink: Uplink, second: Uplink) -> None:
    """The preferred uplink's server delegates the other's prefix as well. A dead router is passed over."""
    host = delegated.namespace
    host.ip(f"-6 route add default via {ISP_LINK_LOCAL} dev {second.interface} metric 512")
    wait_until(lambda: found(host) == [way(FIRST, link="uplink")])
    write_lease(delegated.runtime, "joins", prefix=FIRST, uplink=second.interface, iaid="00:00:00:09")
    time.sleep(0.5)
    assert found(host) == [way(FIRST, link="uplink")]
    assert uplink.answers(WEB) == 8
    uplink.isp.ip(f"addr delete {ISP_LINK_LOCAL}/64 dev {uplink.customer}")
    host.ip(f"-6 neigh flush dev {uplink.interface}")
    host.sysctl("net.ipv6.ip_nonlocal_bind", 1)

    def link_of_replies() -> str:
        host.run("ping", "-c1", "-W1", "-I", "2001:db8:100::1", second.address, check=False)
        return str(host.ip_json(f"-6 route get {second.address} from 2001:db8:100::1")[0]["dev"])

    wait_until(lambda: link_of_replies() == second.interface)


def test_the_host_itself_leaves_with_an_address_of_the_uplink_that_it_leaves_by(
    delegated: Daemon, uplink: Uplink, second: Uplink
) -> None:
    """With an address in each prefix, and none on the uplinks."""
    host, outside = delegated.namespace, "2600::1"
    for each in (uplink, second):
        each.isp.ip(f"addr add {outside}/128 dev lo nodad")
    delegated.configure('subnets: [{name: web, id: 0, address: "::1"}]')
    delegated.reload()

    def reaches_outside() -> bool:
        return host.run("ping", "-c1", "-W1", outside, check=False).returncode == 0

    def source() -> str:
        return str(host.ip_json(f"-6 route get {outside}")[0]["prefsrc"])

    wait_until(lambda: source() == "2001:db8:100::1")
    assert reaches_outside()
    host.ip(f"-6 route add default via {ISP_LINK_LOCAL} dev {second.interface} metric 512")
    wait_until(lambda: source() == "2001:db8:200::1")
    assert reaches_outside()
    host.ip(f"-6 route delete default dev {second.interface} metric 512")
    wait_until(lambda: source() == "2001:db8:100::1")
    assert reaches_outside()


def test_always_lets_nothing_leave_elsewhere(daemon: Daemon, second: Uplink) -> None:
    host = daemon.namespace
    daemon.configure("source_routes: always")
    write_lease(daemon.runtime, prefix=SECOND, uplink=second.interface)
    daemon.start()
    assert found(host) == [way(SECOND)]
    host.ip(f"-6 route delete default dev {second.interface}")
    wait_until(lambda: found(host) == [f"from {SECOND} dev lo metric 4096"])
    host.ip(f"link delete {second.interface}")
    wait_until(lambda: "uplink2" not in host.ip("link show"))
    daemon.reload()
    assert found(host) == [f"from {SECOND} dev lo metric 4096"]
    daemon.configure("source_routes: never")
    daemon.reload()
    assert found(host) == []


def test_a_restart_changes_nothing_and_removes_what_a_crash_left(delegated: Daemon, second: Uplink) -> None:
    host = delegated.namespace
    host.ip(f"-6 rule add from {FIRST} lookup 77")
    foreign = [f"from {each} via fe80::1 dev uplink2 proto static metric 1024" for each in (FIRST, NEW)]
    for each in foreign:
        host.ip(f"-6 route add default {each}")
    before = host.ip("-6 route show table main"), host.ip("-6 rule")
    monitor = RouteMonitor(host, delegated.log.parent)
    delegated.kill()
    leftover = f"from 2001:db8:beef::/60 via fe80::1 dev {second.interface} metric 1024"
    host.ip(f"-6 route add default {leftover} proto 150")
    delegated.start()
    assert found(host) == [way(SECOND)]
    changes = [line for line in monitor.changes() if "Deleted" in line or "proto 150" in line]
    assert len(changes) == 2, changes  # the leftover's coming and going
    assert (host.ip("-6 route show table main"), host.ip("-6 rule")) == before


def test_what_somebody_removed_is_restored(delegated: Daemon) -> None:
    host = delegated.namespace
    monitor = RouteMonitor(host, delegated.log.parent)
    for count in range(1, 4):
        host.ip(f"-6 route delete default {way(SECOND)}")
        wait_until(lambda: found(host) == [way(SECOND)])
        changes = [line for line in monitor.changes() if "default from" in line]
        assert len(changes) == 2 * count, changes


def test_what_took_the_place_of_one_is_somebody_elses(delegated: Daemon, second: Uplink) -> None:
    """It is neither changed nor removed, and when it goes ours is back."""
    host, link = delegated.namespace, second.interface
    host.ip(f"-6 route add default via {ISP_LINK_LOCAL} dev {link} metric 3000")
    host.ip(f"-6 route delete default dev {link} metric 2048")
    wait_until(lambda: found(host) == [way(SECOND)])
    foreign = f"default from {SECOND} via fe80::77 dev {link} proto static metric 1024"
    host.ip(f"-6 route replace {foreign}")
    host.ip(f"-6 route replace default via {ANOTHER_ROUTER} dev {link} metric 3000")
    time.sleep(0.5)
    assert foreign in host.ip("-6 route show table main")
    host.ip(f"-6 route delete {foreign}")
    wait_until(lambda: found(host) == [way(SECOND, ANOTHER_ROUTER)])


def test_what_joined_one_is_somebody_elses(delegated: Daemon, second: Uplink) -> None:
    """To the kernel both are one route of several next hops then, of the protocol of the first."""
    host, link = delegated.namespace, second.interface
    foreign = f"default from {SECOND} via fe80::77 dev {link} proto static metric 1024"
    host.ip(f"-6 route append {foreign}")
    for _ in range(2):
        time.sleep(0.3)
        routes = host.ip("-6 route show table main")
        assert "via fe80::77" in routes
        delegated.reload()
    host.ip(f"-6 route delete {foreign}")
    wait_until(lambda: found(host) == [way(SECOND)])
    delegated.terminate()
    host.ip(f"-6 route append {foreign}")
    delegated.control("flush")
    assert foreign in host.ip("-6 route show table main")


def test_networkd_removes_foreign_routes_and_they_are_back(
    delegated: Daemon, uplink: Uplink, second: Uplink, tmp_path: Path
) -> None:
    """As it does when it configures a link anew; the link's default route is another one then."""
    host = delegated.namespace
    host.ip(f"-6 route add default via {ISP_LINK_LOCAL} dev {second.interface} metric 512")
    wait_until(lambda: found(host) == [way(FIRST, link="uplink")])
    monitor = RouteMonitor(host, tmp_path)
    networkd = Networkd(host, uplink.interface, tmp_path)
    networkd.start()
    wait_until(lambda: f"src: {FIRST}" in networkd.log.read_text())
    networkd.reload("UseHostname=no", "UseHostname=yes")
    wait_until(lambda: any(f"Deleted default from {FIRST}" in line for line in monitor.changes()))
    wait_until(lambda: found(host) == [way(FIRST, link="uplink")])
    wait_until(lambda: uplink.answers(WEB) == 8)


def test_flush_removes_them_and_plan_tells(delegated: Daemon) -> None:
    delegated.terminate()
    delegated.control("flush")
    assert found(delegated.namespace) == []
    planned = json.loads(delegated.control("plan", "--json", check=False).stdout)["routes"]
    assert [each["prefix"] for each in planned if each["type"] == "source"] == [SECOND]


def test_a_kernel_that_takes_none_is_told_of_once(daemon: Daemon, second: Uplink) -> None:
    """One without CONFIG_IPV6_SUBTREES says EINVAL, as this one does of a router that is the host itself."""
    host, router = daemon.namespace, "2001:db8:9::9"
    host.ip(f"-6 route add default via {router} dev {second.interface} onlink metric 3000")
    host.ip(f"-6 route delete default dev {second.interface} metric 2048")
    host.ip(f"addr add {router}/128 dev lo nodad")
    write_lease(daemon.runtime, prefix=SECOND, uplink=second.interface)
    daemon.start()
    for _ in range(2):
        daemon.reload()
    told = [line for line in daemon.log.read_text().splitlines() if "source routes refused" in line]
    assert len(told) == 1
    assert "level=warning" in told[0]
    assert "CONFIG_IPV6_SUBTREES" in told[0]


@pytest.mark.alone  # all namespaces share the kernel's table of neighbours, and each router takes a place
def test_a_router_that_advertises_itself_by_many_addresses(
    delegated: Daemon, uplink: Uplink, second: Uplink
) -> None:
    """What that costs is bounded, and no other uplink notices."""
    host = delegated.namespace
    routers = [f"fe80::f00d:{number:x}" for number in range(500)]

    def advertised(*, lifetime: int) -> bool:
        advertise(second, routers, lifetime)  # and once more, where the line was too busy
        count = len(host.ip_json("-6 route show default proto ra"))
        return count == 2 + (len(routers) if lifetime else 0)

    host.ip("-6 route flush default")
    for each in (uplink, second):
        take_router(each)
    wait_until(lambda: len(found(host)) == 2)
    with Pings(uplink, [WEB], INTERVAL) as pings:
        wait_until(lambda: advertised(lifetime=1800))
        wait_until(lambda: len(found(host)) == 1 + MAX_ROUTERS)
        wait_until(lambda: advertised(lifetime=0))
        wait_until(lambda: found(host) == [way(FIRST, link="uplink"), way(SECOND)])
    assert pings.lost()[0] == 0
