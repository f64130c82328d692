"""A hostile DHCPv6 server against a real client: what it delegates costs the host nothing that it has.

A real Kea delegates whatever an attacker may like, one attack after the other, to a host that is delegated
a prefix, asks a nameserver and reaches a VPN by other links: see tests/lab/siege.py. All of that goes on
without one lost packet, and when the attacker is gone nothing of his is left. CASES.md has the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from anyipd.model import Prefix
from tests.lab.daemon import Daemon
from tests.lab.kea import Kea
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import Uplink
from tests.lab.siege import CLIENTS, GOOD, NAMESERVER, VPN, Siege, bound_of, lease_file


@dataclass(frozen=True)
class Attack:
    """A Reply that delegates `prefixes`, and what the daemon says of the last of them."""

    case: str
    prefixes: list[Prefix]
    says: str


INCUMBENT = f"overlaps {GOOD}, which was delegated before on good"
ATTACKS = [
    Attack("S2", [Prefix.parse("2001::/20")], "a /20 is shorter than accept.shortest, /32"),
    Attack("S3", [Prefix.parse("2001:db8:4700::/56")], f"{VPN} is routed to tun0, and this is a part of it"),
    Attack("S4, around", [Prefix.parse("2001:db8:100::/48")], INCUMBENT),
    Attack("S4, equal, and inside", [GOOD, Prefix.parse("2001:db8:100::/60")], INCUMBENT),
]

NAMESERVERS = Prefix.parse("2001:db8:ff00::/56")
CUT_OFF = f"holds the nameserver {NAMESERVER}, which would be cut off"
OWN_ROUTE = "2001:db8:ff00::/64 is routed to good"

MANY = [Prefix.parse(f"2001:db8:{0x8000 + number:x}::/60") for number in range(40)]
"""As many as one Ethernet frame holds: of fragments `listen:` hears nothing."""

RIGHT = Prefix.parse("2001:db8:200::/60")
"""What an honest server on the same uplink delegates."""


@pytest.fixture(params=CLIENTS)
def siege(
    request: pytest.FixtureRequest,
    uplink: Uplink,
    kea: Kea,
    daemon: Daemon,
    lab: Callable[[str], Namespace],
) -> Siege:
    return Siege(uplink, kea, daemon, lab, request.param)


@pytest.mark.long
def test_a_hostile_server_takes_nothing(siege: Siege) -> None:
    if siege.client_discards:
        siege.keep_routes()
    with siege.undisturbed():
        for attack in ATTACKS:
            siege.delegate(*attack.prefixes)
            siege.wait_for(attack.says)
            assert siege.has_what_it_had(), attack.case
        siege.delegate(NAMESERVERS)
        if siege.client_discards:  # of what holds a route to a nameserver that alone is left to it
            siege.wait_for(OWN_ROUTE)
        else:
            siege.wait_for(CUT_OFF)
            assert siege.has_what_it_had()
        siege.delegate(*MANY)
        siege.wait_for("delegations passed over")
        siege.leave()
        wait_until(siege.has_what_it_had)
        wait_until(lambda: siege.messages() == {GOOD})
        if siege.client_name == "listen":  # its files are the daemon's own to clear up
            wait_until(lambda: siege.files() == {lease_file(GOOD, "good")})
        # An honest server comes, and the client starts anew.
        siege.remove_what_client_left()
        siege.delegate(RIGHT, valid=600)
        wait_until(lambda: siege.bound() == bound_of(GOOD) | bound_of(RIGHT), 30)
        hook, told = siege.client_name in {"dhclient", "dhcpcd"}, siege.client_name != "networkd"
        wait_until(lambda: siege.messages() == {GOOD, *([RIGHT] if hook else [])})
        files = {lease_file(GOOD, "good"), *([lease_file(RIGHT, "uplink")] if told else [])}
        wait_until(lambda: siege.files_after_sweep() == files)
        assert siege.discarded() <= {GOOD, RIGHT}
        known = siege.daemon.status()["delegations"]
        assert {each["prefix"] for each in known} == {str(GOOD), str(RIGHT)}
