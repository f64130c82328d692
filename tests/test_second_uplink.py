"""S4: whoever runs the DHCPv6 server of a second uplink takes nothing of what the first one delegated."""

from __future__ import annotations

import time
from typing import Any

import pytest

from anyipd.decide.ledger import MAX_ENDED
from tests.lab.daemon import Daemon
from tests.lab.delegated import PREFIX, bound, subnets, take_back, write_lease
from tests.lab.namespace import Namespace, wait_until
from tests.lab.uplinks import UPLINKS, Uplinks

FIRST, SECOND, _ = UPLINKS
BOUND = subnets(PREFIX, 1)
ENDLESS: dict[str, Any] = {"valid_lifetime": 0xFFFFFFFF, "preferred_lifetime": 0xFFFFFFFF}
SETTLED = "2001:db8:5e77::/60"


@pytest.fixture
def attacked(daemon: Daemon) -> Namespace:
    """A host with two uplinks, on the first of which a prefix was delegated."""
    host = daemon.namespace
    Uplinks(host)
    write_lease(daemon.runtime, "first", uplink=FIRST)
    daemon.start()
    assert bound(host) == BOUND
    return host


def attack(daemon: Daemon, name: str = "second", **lease: Any) -> None:  # noqa: ANN401  as write_lease
    """Have the second uplink's server delegate something, infinitely."""
    write_lease(daemon.runtime, name, uplink=SECOND, iaid="00:00:00:02", **(ENDLESS | lease))


def settle(daemon: Daemon, host: Namespace) -> None:
    """Wait until the daemon has taken in all that was written before."""
    write_lease(daemon.runtime, "settled", uplink=SECOND, iaid="00:00:00:03", prefix=SETTLED)
    wait_until(lambda: bound(host) & subnets(SETTLED, 1))


def test_it_excludes_nothing_of_a_prefix_of_the_first(daemon: Daemon, attacked: Namespace) -> None:
    attack(daemon, client="dhcpcd", prefix=PREFIX, exclude="2001:db8:100::/61")
    settle(daemon, attacked)
    assert bound(attacked) == BOUND | subnets(SETTLED, 1)


@pytest.mark.parametrize("overlapping", ["2001:db8::/33", "2001:db8:100::/64"])
def test_who_joins_in_a_prefix_displaces_it_by_no_other(
    daemon: Daemon, attacked: Namespace, overlapping: str
) -> None:
    attack(daemon, "same", prefix=PREFIX)
    settle(daemon, attacked)
    attack(daemon, prefix=overlapping)
    daemon.wait_for(f"overlaps {PREFIX}, which was delegated before on {FIRST}")
    assert bound(attacked) == BOUND | subnets(SETTLED, 1)


def test_what_the_first_superseded_is_not_taken_over_either(daemon: Daemon, attacked: Namespace) -> None:
    """Nor what it left out for a moment, between two calls of its client's hook."""
    write_lease(daemon.runtime, "renumbered", prefix="2001:db8:200::/60", uplink=FIRST)
    attack(daemon, prefix="2001:db8::/33")
    daemon.wait_for("superseded")
    settle(daemon, attacked)
    assert bound(attacked) == BOUND | subnets("2001:db8:200::/60", 1) | subnets(SETTLED, 1)
    assert f"lost prefix={PREFIX}" not in daemon.log.read_text()
    assert "unbound" not in daemon.log.read_text()


def test_what_it_takes_back_brings_no_dead_prefix_of_the_first_back(
    daemon: Daemon, attacked: Namespace
) -> None:
    """A dhcpcd that is gone left its discard route behind; what ended is known to have ended."""
    dead = "2001:db8:dead::/60"
    attacked.ip(f"-6 route add unreachable {dead} dev lo proto dhcp metric 1001")
    write_lease(daemon.runtime, "dead", prefix=dead, uplink=FIRST, preferred_lifetime=1, valid_lifetime=1)
    wait_until(lambda: bound(attacked) > BOUND)
    wait_until(lambda: bound(attacked) == BOUND)
    for number in range(MAX_ENDED + 10):
        take_back(daemon.runtime, f"{number}", prefix=f"2001:db8:f{number:03x}::/60", uplink=SECOND)
    settle(daemon, attacked)
    time.sleep(0.5)  # nothing is to happen
    assert bound(attacked) == BOUND | subnets(SETTLED, 1)
