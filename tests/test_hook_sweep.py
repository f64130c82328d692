"""What the hooks clear up: lease files that ended, on the caller's link, at most once a minute."""

import os
import re
import time

import pytest

from tests.lab.hook_caller import BOUND, LEASE, PREFIX, RELEASE, STAMP, Caller, edit
from tests.lab.programs import need

OTHER = BOUND | {"new_ip6_prefix": "2001:db8:200::/56"}
OTHER_LEASE = "2001:db8:200::_56@eth0"
ENDED = {"uptime": "0.00", "valid_lifetime": "1"}


def test_what_ended_goes(caller: Caller) -> None:
    caller.run(BOUND)
    outcome = caller.run(OTHER, before=edit(**ENDED))
    assert (list(outcome.leases), outcome.errors) == ([OTHER_LEASE], [])


@pytest.mark.parametrize(
    "valid",
    ["4294967295", "999999999", "0", "", "08", "-1", "x", "1 1", "valid_lifetime", "$(touch executed)"],
)
def test_what_did_not_end_stays(caller: Caller, valid: str) -> None:
    caller.run(BOUND)
    # Of today: a tombstone goes after a day.
    written = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - 3600)
    outcome = caller.run(OTHER, before=edit(uptime=f"{written:.2f}", valid_lifetime=valid))
    assert (set(outcome.leases), outcome.errors) == ({LEASE, OTHER_LEASE}, [])
    assert list(caller.directory.iterdir()) == [caller.runtime_dir]


@pytest.mark.parametrize(
    ("uptime", "stays"), [("200000.00", True), ("115000.00", True), ("100000.00", False)]
)
def test_a_tombstone_stays_for_a_day(caller: Caller, uptime: str, stays: bool) -> None:  # noqa: FBT001  a column
    caller.run(RELEASE)
    long_up = [need("unshare"), "--time", "--boottime=200000", "--fork", *caller.shell]
    booted = time.clock_gettime(time.CLOCK_BOOTTIME)
    written = f"{float(uptime) + booted:.2f}"
    outcome = Caller(long_up, caller.directory).run(OTHER, before=edit(uptime=written))
    assert (LEASE in outcome.leases) is stays


def test_other_links_are_left_alone(caller: Caller) -> None:
    caller.run(BOUND)
    assert LEASE in caller.run(OTHER | {"interface": "eth1"}, before=edit(**ENDED)).leases
    assert LEASE in caller.run(OTHER | {"interface": "0"}, before=edit(**ENDED)).leases
    assert LEASE in caller.run(OTHER | {"interface": "*"}, before=edit(**ENDED)).leases
    assert LEASE not in caller.run(OTHER, before=edit(**ENDED)).leases


@pytest.mark.parametrize(("seconds", "goes"), [(0, False), (30, False), (61, True)])
def test_once_a_minute_is_enough(caller: Caller, seconds: int, goes: bool) -> None:  # noqa: FBT001  a column
    since = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    caller.run(BOUND)
    stamp = caller.leases / f"{STAMP}eth0"
    now = int(time.clock_gettime(time.CLOCK_BOOTTIME))
    assert since <= int(stamp.read_text()) <= now
    again = f"{edit(**ENDED)}; echo {now - seconds} >{stamp}"
    assert (LEASE not in caller.run(OTHER, before=again).leases) is goes


@pytest.mark.parametrize("stamp", ["", "99999999999", "x", "a[$(touch executed)]", "08", "1 2"])
def test_an_odd_stamp_holds_nothing_up(caller: Caller, stamp: str) -> None:
    caller.run(BOUND)
    odd = f"printf %s '{stamp}' >run/leases/{STAMP}eth0"
    outcome = caller.run(OTHER, before=f"{edit(**ENDED)}; {odd}")
    assert (list(outcome.leases), outcome.errors) == ([OTHER_LEASE], [])
    assert list(caller.directory.iterdir()) == [caller.runtime_dir]


def test_thousands_go_by_the_hundred(caller: Caller) -> None:
    """A server that delegates another prefix each time must not hold dhclient up for long."""
    lease = caller.run(BOUND).leases[LEASE]
    ended = re.sub("(?m)^uptime=.*", "uptime=0.00", lease.replace("valid_lifetime=600", "valid_lifetime=1"))
    for number in range(3_000):
        (caller.leases / f"2001:db8:f{number:03x}::_60@eth0").write_text(ended)
    (caller.leases / f"{STAMP}eth0").unlink()
    outcome = caller.run(OTHER, before="set -x")
    assert set(outcome.leases) == {LEASE, OTHER_LEASE}
    assert len([line for line in outcome.errors if re.match(r"\++ rm -f .*@eth0 ", line)]) == 30


def test_of_what_never_ends_the_latest_thousand_stay(caller: Caller) -> None:
    """A server may delegate another prefix with every Reply, each for ever: /run is memory."""
    lease = caller.run(BOUND).leases[LEASE].replace("valid_lifetime=600", "valid_lifetime=4294967295")
    forever = [f"2001:db8:f{number:03x}::_60@eth0" for number in range(1_234)]
    for age, name in enumerate(forever):
        (caller.leases / name).write_text(lease)
        os.utime(caller.leases / name, (1e9 - age, 1e9 - age))
    (caller.leases / f"{STAMP}eth0").unlink()
    (caller.leases / "2001:db8:e::_60@0eth0").write_text(lease)
    outcome = caller.run(OTHER)
    assert outcome.errors == []
    assert set(outcome.leases) == {LEASE, OTHER_LEASE, *forever[:998], "2001:db8:e::_60@0eth0"}


@pytest.mark.parametrize("prefix", [PREFIX, "2001:db8::53/128", "2000::/4"])
def test_what_explains_a_route_stays_while_that_stands(caller: Caller, prefix: str) -> None:
    (lease,) = caller.run(BOUND | {"new_ip6_prefix": prefix}).leases
    route = f"ip -6 route add unreachable {prefix} dev lo table main proto dhcp metric 1001"
    outcome = caller.run(OTHER, before=f"{edit(lease, **ENDED)}; {route}")
    assert (lease in outcome.leases, len(outcome.main)) == (True, 1)


@pytest.mark.parametrize(
    "route",
    [
        f"blackhole {PREFIX} dev lo proto dhcp",
        f"unreachable {PREFIX} dev lo proto static",
        f"unreachable {PREFIX} dev lo proto dhcp table 150",
        "unreachable 2001:db8:100::/61 dev lo proto dhcp",
    ],
)
def test_another_route_explains_nothing(caller: Caller, route: str) -> None:
    caller.run(BOUND)
    assert LEASE not in caller.run(OTHER, before=f"{edit(**ENDED)}; ip -6 route add {route}").leases


def test_all_stay_where_the_routes_cannot_be_read(caller: Caller) -> None:
    caller.run(BOUND)
    broken = "ip=$(command -v ip); printf '#!/bin/sh\\nexit 1' >no; chmod +x no; mount --bind no $ip"
    outcome = caller.run(OTHER, before=f"{edit(**ENDED)}; {broken}", after="umount $ip; rm no")
    assert set(outcome.leases) == {LEASE, OTHER_LEASE}
