"""What is in use inside static prefixes, on the real kernel: the host's router, and others."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from anyipd import policy
from anyipd.decide.ledger import Ledger
from anyipd.kernel import wire
from anyipd.kernel.monitor import Hint, News, Stale
from anyipd.kernel.wire import Hop, Route
from anyipd.model import Prefix
from anyipd.observations import Observations
from tests.lab.container import Container
from tests.lab.daemon import Daemon
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import Uplink

POLICY = "{subnets: [], static: [{prefix: 192.0.2.0/24, name: rented}]}"
ROUTER, OTHER = "192.0.2.1", "192.0.2.254"


@pytest.fixture
def host(uplink: Uplink) -> Namespace:
    """The host has an address of the prefix on its uplink; its router has two."""
    uplink.isp.ip(f"addr add {ROUTER}/24 dev customer")
    uplink.isp.ip(f"addr add {OTHER}/24 dev customer")
    uplink.isp.ip("addr add 203.0.113.1/32 dev lo")
    uplink.host.ip("addr add 192.0.2.2/24 dev uplink")
    return uplink.host


def is_local(host: Namespace, address: str) -> bool:
    return bool(host.ip_json(f"route get {address}")[0]["dev"] == "lo")


def reaches_outside(host: Namespace) -> bool:
    return host.run("ping", "-c1", "-W2", "203.0.113.1", check=False).returncode == 0


def subnet(daemon: Daemon) -> dict[str, object]:
    [found] = daemon.status()["subnets"]
    assert isinstance(found, dict)
    return found


def test_the_gateway_is_left_out_by_itself(daemon: Daemon, host: Namespace) -> None:
    """H13: and by whatever route it is one, and when it changes."""
    host.ip(f"route add default via {ROUTER}")
    daemon.configure(POLICY)
    daemon.start()
    assert not is_local(host, ROUTER)
    assert is_local(host, OTHER)
    assert is_local(host, "192.0.2.77")
    assert reaches_outside(host)
    assert subnet(daemon)["except"] == [f"{ROUTER}/32"]
    assert subnet(daemon)["state"] == "bound"
    assert not host.ip_json("route show type unreachable")
    # As DHCP clients do it: without the link the kernel takes lo for it, where the address is local so far.
    host.ip(f"route replace default via {OTHER} dev uplink")
    wait_until(lambda: not is_local(host, OTHER) and is_local(host, ROUTER))
    assert reaches_outside(host)
    # While it is away nobody takes its place.
    host.ip("route delete default")
    host.ip("route add default dev uplink metric 7")
    wait_until(lambda: "except" in subnet(daemon))
    assert not is_local(host, OTHER)
    for words in (
        f"10.1.0.0/16 nexthop via {ROUTER} dev uplink nexthop via 192.0.2.3 dev uplink",
        f"10.2.0.0/16 via {ROUTER} dev uplink",
        f"10.3.0.0/16 via {ROUTER} dev uplink table 77",
    ):
        host.ip(f"route add {words}")
        wait_until(lambda: not is_local(host, ROUTER))
        host.ip(f"route delete {words}")
        host.ip("route delete default metric 7")
        host.ip(f"route add default via {OTHER} dev uplink metric 7")
        wait_until(lambda: is_local(host, ROUTER))
    host.ip("nexthop add id 7 via 192.0.2.9 dev uplink")
    host.ip("route add 10.4.0.0/16 nhid 7")
    wait_until(lambda: not is_local(host, "192.0.2.9"))


def test_the_gateway_of_ipv6_is_left_out_as_well(daemon: Daemon, uplink: Uplink) -> None:
    host = uplink.host
    uplink.isp.ip("addr add 2001:db8:5::1/64 dev customer nodad")
    host.ip("addr add 2001:db8:5::2/64 dev uplink nodad")
    host.ip("-6 route replace default via 2001:db8:5::1 metric 1024")
    daemon.configure("{subnets: [], static: ['2001:db8:5::/64']}")
    daemon.start()
    assert host.ip_json("-6 route get 2001:db8:5::1")[0]["dev"] == "uplink"
    assert host.ip_json("-6 route get 2001:db8:5::3")[0]["dev"] == "lo"
    assert host.run("ping", "-c1", "-W2", uplink.address).returncode == 0
    assert subnet(daemon)["except"] == ["2001:db8:5::1/128"]
    assert not host.ip_json("-6 route show type unreachable")
    host.ip("-6 route add default via 2001:db8:5::7 metric 2000")
    wait_until(lambda: host.ip_json("-6 route get 2001:db8:5::7")[0]["dev"] == "uplink")


def test_addresses_in_use_are_warned_of(
    daemon: Daemon, host: Namespace, lab: Callable[[str], Namespace]
) -> None:
    """O9: neighbours that the kernel knows of as the prefix is to be bound."""
    host.ip("neigh replace 192.0.2.9 lladdr 02:00:00:00:00:09 dev uplink nud reachable")
    host.ip("neigh replace 192.0.2.1 lladdr 02:00:00:00:00:01 dev uplink nud reachable")
    host.ip(f"route add default via {ROUTER}")
    daemon.configure(POLICY)
    daemon.start()
    reason = (
        "in use, and cut off by this: 192.0.2.9/32 (a neighbour at uplink); "
        '`except: ["192.0.2.9/32"]` leaves that out'
    )
    assert (subnet(daemon)["state"], subnet(daemon)["reason"]) == ("bound", reason)
    assert "level=warning" in daemon.wait_for('event="in use" subnet=rented')
    Container(lab, host).give("192.0.2.128/28")
    wait_until(lambda: "192.0.2.128/28 (routed to br0)" in str(subnet(daemon)["reason"]))
    daemon.configure(POLICY.replace("name", "except: [192.0.2.9, 192.0.2.128/25], name"))
    daemon.reload()
    assert subnet(daemon)["reason"] is None


@pytest.mark.parametrize(
    ("router", "replaced", "due"),
    [("fe80::1", False, False), ("fe80::1", True, True), ("2001:db8:5::1", False, True)],
)
def test_a_default_route_of_ipv6_is_a_reason_to_look_where_its_router_is_inside(
    lab: Callable[[str], Namespace], tmp_path: Path, router: str, *, replaced: bool, due: bool
) -> None:
    """Else whoever sends Router Advertisements has all tables read, again and again."""
    found = policy.parse("static: ['2001:db8:5::/64', 192.0.2.0/24]", "test")
    with lab("host").entered():
        seen = Observations(tmp_path / "anyipd.yaml", found, tmp_path, Ledger(), {})
    hop = Hop(7, Prefix.parse(router).address)
    default = Route(
        Prefix(0, 0), wire.TABLE_MAIN, 9, wire.UNICAST, 1024, 7, gateway=True, ticks=0, hops=(hop,)
    )
    for came in (True, False):
        news = News(default, came, replaced=came and replaced)
        assert (Stale.STATIC in seen.hear(Hint(news=[news]))) is (due and (came or not replaced))
    for each in (seen.routes, seen.monitor):
        each.close()


def test_a_container_bridge_inside_an_on_link_prefix_is_warned_of(daemon: Daemon, uplink: Uplink) -> None:
    """H6."""
    host = uplink.host
    host.ip("addr add 2001:db8:5::2/64 dev uplink nodad")
    daemon.configure("{subnets: [], static: [{prefix: '2001:db8:5::/64', neighbours: [uplink]}]}")
    daemon.start()
    assert (subnet(daemon)["state"], subnet(daemon)["reason"]) == ("bound", None)
    host.ip("link add br0 type veth peer name other")
    host.ip("link set br0 up")
    host.ip("addr add 2001:db8:5:0:a::1/80 dev br0 nodad")
    hint = (
        "in use, and cut off by this: 2001:db8:5:0:a::/80 (on-link at br0); "
        '`except: ["2001:db8:5:0:a::/80"]` leaves that out'
    )
    wait_until(lambda: subnet(daemon)["reason"] == hint)
    assert subnet(daemon)["state"] == "bound"
    holes = "except: ['2001:db8:5:0:a::/80', '2001:db8:5::9']"
    daemon.configure(f"{{subnets: [], static: [{{prefix: '2001:db8:5::/64', {holes}}}]}}")
    daemon.reload()
    assert subnet(daemon)["reason"] is None
    assert host.ip_json("-6 route get 2001:db8:5:0:a::7")[0]["dev"] == "br0"
    # A peer on the link is reached on the link: no discard route wins over that.
    assert host.ip_json("-6 route get 2001:db8:5::9")[0]["dev"] == "uplink"


def test_after_a_boot_it_waits_for_the_gateway(daemon: Daemon, host: Namespace) -> None:
    """H13: networks are configured later than daemons start."""
    uptime = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    daemon.within = ["unshare", "--time", "--fork", "--kill-child", "--boottime", str(2 - uptime)]
    daemon.configure(POLICY)
    daemon.start()
    assert not is_local(host, ROUTER)
    assert not host.ip_json("route show table local proto 150")
    host.ip(f"route add default via {ROUTER}")
    wait_until(lambda: is_local(host, "192.0.2.77"))
    assert not is_local(host, ROUTER)
    # Who knows the gateway by now waits no more, so a link that flaps in the first minute unbinds nothing.
    host.ip("route delete default")
    host.ip("route add 10.1.0.0/16 dev uplink")
    time.sleep(0.5)
    assert is_local(host, "192.0.2.77")
    assert not is_local(host, ROUTER)
