"""What a delegation must not take over: addresses behind a VPN, and this host's nameserver. A real kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.daemon import Daemon
from tests.lab.delegated import PREFIX, bound, delegate, subnets, write_lease
from tests.lab.mounts import with_mounts
from tests.lab.namespace import Namespace, wait_until

BOUND = subnets(PREFIX, 1)
AROUND = "2001:db8::/32"


def discarded(host: Namespace) -> bool:
    return bool(host.ip("-6 route show table main proto 150"))


@pytest.fixture
def vpn(daemon: Daemon) -> Namespace:
    """A host with a link to a VPN, up, beside its uplink."""
    host = daemon.namespace
    for name in ("tun0", "uplink"):
        host.pair(name, f"{name}-end")
    return host


def reason(daemon: Daemon) -> str | None:
    [delegation] = daemon.status()["delegations"]
    assert (delegation["reason"] is None) == (delegation["state"] != "refused")
    return None if delegation["reason"] is None else str(delegation["reason"])


def start_beside(daemon: Daemon, vpn: Namespace, route: str, first: str) -> None:
    """Start it with a prefix delegated and a route of the VPN's, which was there `first`, or comes later."""
    if first == "route":
        vpn.ip(f"-6 route add {route}")
    write_lease(daemon.runtime, uplink="uplink")
    daemon.start()
    if first == "lease":
        assert (bound(vpn), discarded(vpn)) == (BOUND, True)
        vpn.ip(f"-6 route add {route}")


@pytest.mark.parametrize("first", ["route", "lease"])
def test_a_prefix_behind_a_vpn_is_left_to_it(daemon: Daemon, vpn: Namespace, first: str) -> None:
    start_beside(daemon, vpn, f"{AROUND} dev tun0 proto static", first)
    if first == "lease":
        wait_until(lambda: not bound(vpn))
    wait_until(lambda: not discarded(vpn))
    assert bound(vpn) == set()
    assert reason(daemon) == f"{AROUND} is routed to tun0, and this is a part of it"
    assert sum("is routed to tun0" in line for line in daemon.lines()) == 1
    vpn.ip("link set tun0 down")
    wait_until(lambda: bound(vpn) == BOUND and discarded(vpn))
    assert reason(daemon) is None


RULES = {
    52: [  # Tailscale's
        "pref 5210 fwmark 0x80000/0xff0000 lookup main",
        "pref 5250 fwmark 0x80000/0xff0000 unreachable",
        "pref 5270 lookup 52",
    ],
    51820: ["pref 32765 not fwmark 0xca6c lookup 51820"],  # wg-quick's
    220: ["pref 220 lookup 220"],  # strongSwan's
    77: [],  # somebody's whose rule comes later
}
"""Tables that VPNs have their routes in, and the rules that look these up."""


@pytest.mark.parametrize("table", RULES)
@pytest.mark.parametrize("first", ["route", "lease"])
def test_a_vpn_may_have_a_table_of_its_own(daemon: Daemon, vpn: Namespace, first: str, table: int) -> None:
    for rule in RULES[table]:
        vpn.ip(f"-6 rule add {rule}")
    route = f"{AROUND} dev tun0 proto static table {table}"
    start_beside(daemon, vpn, route, first)
    if first == "lease":
        wait_until(lambda: not bound(vpn))
    wait_until(lambda: not discarded(vpn))
    assert bound(vpn) == set()
    assert reason(daemon) == f"{AROUND} is routed to tun0 in table {table}, and this is a part of it"
    if RULES[table]:
        assert "dev tun0" in vpn.ip("-6 route get 2001:db8:100::7")
    daemon.reload()
    assert (bound(vpn), discarded(vpn)) == (set(), False)
    vpn.ip(f"-6 route delete {route}")
    wait_until(lambda: bound(vpn) == BOUND and discarded(vpn))
    assert reason(daemon) is None


@pytest.mark.parametrize(
    ("route", "free"),
    [
        (PREFIX, set()),
        ("2001:db8:100::/63", {"2001:db8:100:2::/64"}),
        ("2001:db8:100::7/128", {"2001:db8:100:1::/64"}),
    ],
    ids=["the same", "inside", "a host"],
)
@pytest.mark.parametrize("first", ["route", "lease"])
def test_what_a_vpn_has_of_a_delegated_prefix_is_not_bound(
    daemon: Daemon, vpn: Namespace, first: str, route: str, free: set[str]
) -> None:
    """Else a server would delegate just that, or a little more."""
    vpn.ip("-6 rule add pref 5270 lookup 52")
    start_beside(daemon, vpn, f"{route} dev tun0 table 52", first)
    wait_until(lambda: bound(vpn) == free)
    wait_until(lambda: discarded(vpn) == bool(free))
    assert "dev tun0" in vpn.ip("-6 route get 2001:db8:100::7")


@pytest.mark.parametrize(
    "routes",
    [
        ["default via fe80::1 dev uplink", f"{AROUND} via fe80::1 dev uplink"],  # the uplink's own table
        ["default via fe80::1 dev tun0"],  # another uplink's
        ["::/0 dev tun0", "2000::/3 dev tun0 metric 7"],  # a VPN for everything
        ["unreachable 2001:db8::/32", "throw 2001:db8:100::/48"],
        ["2001:db8:200::/48 dev tun0"],  # a VPN for something else
    ],
)
def test_what_other_tables_have_is_mostly_no_vpn(daemon: Daemon, vpn: Namespace, routes: list[str]) -> None:
    write_lease(daemon.runtime, uplink="uplink")
    daemon.start()
    for rule in ("from 2001:db8:100::/60 lookup 101", "not fwmark 0xca6c lookup 51820"):
        vpn.ip(f"-6 rule add {rule}")
    for route in routes:
        for table in (101, 51820):
            vpn.ip(f"-6 route add {route} table {table}")
    # What comes behind them is heard behind them.
    vpn.ip("-6 route add 2001:db8:100::/64 dev tun0 table 101")
    wait_until(lambda: bound(vpn) == {"2001:db8:100:1::/64"})
    vpn.ip("-6 route delete 2001:db8:100::/64 dev tun0 table 101")
    daemon.reload()
    assert (bound(vpn), discarded(vpn)) == ({"2001:db8:100:1::/64"}, True)
    assert "refused" not in daemon.log.read_text()


def test_a_route_by_the_uplink_itself_is_no_vpn(daemon: Daemon, vpn: Namespace) -> None:
    write_lease(daemon.runtime, uplink="uplink")
    daemon.start()
    vpn.ip(f"-6 route add {AROUND} via fe80::1 dev uplink proto ra")
    vpn.ip("-6 route add 2000::/3 dev tun0 proto static")  # as a default route is
    vpn.ip(f"-6 route add unreachable {AROUND} proto static metric 2000")
    daemon.reload()
    assert bound(vpn) == BOUND


def test_a_prefix_without_an_uplink_is_left_to_the_vpn_too(daemon: Daemon, vpn: Namespace) -> None:
    vpn.ip(f"-6 route add {AROUND} dev tun0 proto static")
    delegate(vpn)
    daemon.start()
    assert bound(vpn) == set()
    vpn.ip(f"-6 route delete {AROUND} dev tun0 proto static")
    wait_until(lambda: bound(vpn) == BOUND)


@pytest.mark.parametrize("unassigned", ["unreachable", "none"])
def test_the_nameserver_is_not_cut_off(
    daemon: Daemon, vpn: Namespace, tmp_path: Path, unassigned: str
) -> None:
    """Also where the prefix is not discarded, its subnet is left to it."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 2001:db8:100::53\n")
    daemon.within = with_mounts({"/etc/resolv.conf": resolv_conf})
    daemon.configure(f"unassigned: {unassigned}")
    vpn.ip("-6 route add default dev uplink")
    write_lease(daemon.runtime, uplink="uplink")
    daemon.start()
    if unassigned == "none":
        assert bound(vpn) == {"2001:db8:100:1::/64"}
    else:
        assert (bound(vpn), discarded(vpn)) == (set(), False)
        daemon.wait_for("holds the nameserver 2001:db8:100::53, which would be cut off")
        # Somebody's own link has it after all.
        vpn.ip("addr add 2001:db8:100::1/64 dev tun0 nodad")
        wait_until(lambda: bound(vpn) == {"2001:db8:100:1::/64"})
    assert "dev lo" not in vpn.ip("-6 route get 2001:db8:100::53")


def test_an_address_alone_reaches_no_nameserver(daemon: Daemon, vpn: Namespace, tmp_path: Path) -> None:
    """A router that wants all traffic itself: the host has an address of the /64, which is not on-link."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 2001:db8:100:1::53\n")
    daemon.within = with_mounts({"/etc/resolv.conf": resolv_conf})
    vpn.ip("-6 route add default dev uplink")
    vpn.ip("addr add 2001:db8:100:1::7/64 dev uplink nodad noprefixroute")
    write_lease(daemon.runtime, uplink="uplink")
    daemon.start()
    daemon.wait_for("holds the nameserver 2001:db8:100:1::53, which would be cut off")
    assert "dev uplink" in vpn.ip("-6 route get 2001:db8:100:1::53")


def test_more_than_at_most_of_one_uplink_is_refused(daemon: Daemon, vpn: Namespace) -> None:
    daemon.configure("accept: {at_most: 2}")
    for number in range(3):
        write_lease(
            daemon.runtime,
            f"lease-{number}",
            prefix=f"2001:db8:{number + 1}00::/60",
            iaid=f"00:00:00:0{number}",
            uplink="uplink",
        )
    daemon.start()
    assert bound(vpn) == {"2001:db8:100::/64", "2001:db8:200::/64"}
    daemon.wait_for("is beyond accept.at_most, 2 of an uplink")
