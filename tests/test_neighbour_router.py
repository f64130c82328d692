"""What a router makes of our advertisements: one that filters them, and one whose cache is out of date."""

from __future__ import annotations

import time

from anyipd.model import address_text
from tests.lab.daemon import Daemon
from tests.lab.lan import SUBNET, Lan
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import ISP_LINK_LOCAL, Uplink
from tests.lab.probing import drop_at

POLICY = "subnets: []\nstatic: [{prefix: '2001:db8:5::/64', neighbours: [uplink]}]\n"


def link_layer(namespace: Namespace, link: str) -> str:
    (found,) = namespace.ip_json(f"link show dev {link}")
    return str(found["address"])


def test_h9_a_router_that_drops_what_comes_from_link_local_addresses(
    uplink: Uplink, daemon: Daemon, neighbour: Daemon
) -> None:
    """It would drop this host's own question for the way back, which somebody has to answer by hand there."""
    mac = link_layer(uplink.isp, uplink.customer)
    uplink.host.ip(f"-6 neigh replace {ISP_LINK_LOCAL} lladdr {mac} dev {uplink.interface} nud permanent")
    uplink.isp.ip(f"-6 route add {SUBNET} dev {uplink.customer}")
    drop_at(
        uplink.isp,
        uplink.customer,
        "ip6 saddr fe80::/10 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }",
    )
    daemon.configure(POLICY)
    daemon.start()
    neighbour.start()
    assert uplink.answers(SUBNET, timeout=5) == 8


def test_h10_a_node_takes_an_address_that_the_router_knows_as_ours(
    lan: Lan, daemon: Daemon, neighbour: Daemon
) -> None:
    """The router goes on to send it to us until it asks anew: by its timers, which are short here."""
    daemon.configure(POLICY)
    daemon.start()
    neighbour.start()
    for setting in ("base_reachable_time_ms", "retrans_time_ms"):
        lan.router.sysctl(f"net.ipv6.neigh.lan.{setting}", 200)
    lan.router.sysctl("net.ipv6.neigh.lan.delay_first_probe_time", 0)
    taken = SUBNET.address + 0x99
    ping = ("ping", "-c1", "-W1", "-I", "2001:db8:ffff::1", address_text(taken))
    wait_until(lambda: lan.router.run(*ping, check=False).returncode == 0)  # by such timers it soon gives up
    before = lan.reached()
    lan.other.sysctl("net.ipv6.conf.all.accept_dad", 1)
    lan.other.sysctl("net.ipv6.conf.other.accept_dad", 1)
    lan.other.ip(f"addr add {address_text(taken)}/128 dev other")

    def reached() -> bool:
        lan.router.run(*ping, check=False)
        return lan.reached() > before

    begun = time.monotonic()
    wait_until(reached)
    assert time.monotonic() < begun + 15
