"""What the dhclient hook tells: lease files and discard routes, made by real shells."""

import os
import re
import select
from pathlib import Path

import pytest

from anyipd.observe.lease_monitor import LeaseMonitor
from tests.lab.hook_caller import BOUND, KEYS, LEASE, PREFIX, RELEASE, Caller, discard


@pytest.mark.parametrize("reason", ["BOUND6", "RENEW6", "REBIND6"])
def test_a_delegated_prefix_gets_a_lease_file_and_a_discard_route(caller: Caller, reason: str) -> None:
    with Path("/proc/uptime").open() as uptime:
        earliest = float(uptime.read().split()[0])
    outcome = caller.run(BOUND | {"reason": reason})
    lease = outcome.lease()
    written = lease.pop("uptime")
    assert list(outcome.leases) == [LEASE]
    assert outcome.leases[LEASE].endswith("\n")
    assert lease == {
        "client": "dhclient",
        "prefix": PREFIX,
        "uplink": "eth0",
        "iaid": "62:9d:01:0a",
        "life_starts": "1700000000",
        "preferred_lifetime": "300",
        "valid_lifetime": "600",
    }
    assert [*lease, "uptime"] == KEYS
    assert re.fullmatch(r"\d+\.\d\d", written)
    assert earliest <= float(written) < earliest + 30
    assert outcome.routes == [discard()]
    assert (outcome.printed, outcome.errors) == ("", [])


@pytest.mark.parametrize("reason", ["RELEASE6", "EXPIRE6", "STOP6"])
def test_a_dead_prefix_loses_both(caller: Caller, reason: str) -> None:
    outcome = caller.run(BOUND, RELEASE | {"reason": reason})
    assert (outcome.leases, outcome.routes, outcome.errors) == ({}, [], [])


def test_a_valid_lifetime_of_zero_withdraws(caller: Caller) -> None:
    outcome = caller.run(BOUND, BOUND | {"reason": "RENEW6", "new_preferred_life": "0", "new_max_life": "0"})
    assert (outcome.leases, outcome.routes, outcome.errors) == ({}, [], [])


def test_what_was_withdrawn_is_not_brought_back_by_its_deprecation(caller: Caller) -> None:
    current = {k.replace("new_", "cur_"): v for k, v in BOUND.items()} | {"reason": "DEPREF6"}
    withdrawn = BOUND | {"reason": "RENEW6", "new_preferred_life": "0", "new_max_life": "0"}
    outcome = caller.run(BOUND, withdrawn, current | {"cur_preferred_life": "0", "cur_max_life": "0"})
    assert (outcome.leases, outcome.routes, outcome.errors) == ({}, [], [])


def test_a_renewal_rewrites_the_lease_file(caller: Caller) -> None:
    outcome = caller.run(BOUND, BOUND | {"reason": "RENEW6", "new_life_starts": "1700000150"})
    assert outcome.lease()["life_starts"] == "1700000150"
    assert outcome.routes == [discard()]


def test_an_infinite_lifetime_is_kept_as_a_number(caller: Caller) -> None:
    outcome = caller.run(BOUND | {"new_preferred_life": "4294967295", "new_max_life": "4294967295"})
    assert outcome.lease()["valid_lifetime"] == outcome.lease()["preferred_lifetime"] == "4294967295"


def test_a_deprecated_prefix_is_still_valid(caller: Caller) -> None:
    current = {k.replace("new_", "cur_"): v for k, v in BOUND.items()} | {"reason": "DEPREF6"}
    outcome = caller.run(BOUND, current | {"cur_life_starts": "1700000001", "cur_max_life": "700"})
    lease = outcome.lease()
    assert (lease["preferred_lifetime"], lease["valid_lifetime"]) == ("0", "700")
    assert lease["life_starts"] == "1700000001"
    assert outcome.routes == [discard()]


def test_a_second_prefix_does_not_touch_the_first(caller: Caller) -> None:
    other = BOUND | {"reason": "RENEW6", "old_ip6_prefix": PREFIX, "new_ip6_prefix": "2001:db8:200::/56"}
    outcome = caller.run(BOUND, other)
    assert set(outcome.leases) == {LEASE, "2001:db8:200::_56@eth0"}
    assert outcome.routes == [discard(), discard("2001:db8:200::/56")]


@pytest.mark.parametrize("options", ["-eu", "-f"])
def test_a_prefix_from_two_uplinks_stays_until_both_are_gone(caller: Caller, options: str) -> None:
    other = BOUND | {"interface": "eth0.7"}
    one = caller.run(BOUND, other, RELEASE, before=f"set {options}")
    assert list(one.leases) == ["2001:db8:100::_60@eth0.7"]
    assert one.lease("2001:db8:100::_60@eth0.7")["uplink"] == "eth0.7"
    assert (one.routes, one.errors) == ([discard()], [])
    none = caller.run(BOUND, other, RELEASE, RELEASE | {"interface": "eth0.7"})
    assert (none.leases, none.routes, none.errors) == ({}, [], [])


@pytest.mark.parametrize("reason", ["BOUND6", "RENEW6", "REBIND6", "DEPREF6", "EXPIRE6", "RELEASE6", "STOP6"])
def test_a_call_for_an_address_is_no_loss(caller: Caller, reason: str) -> None:
    address = {"reason": reason, "interface": "eth0", "new_ip6_address": "2001:db8::5", "new_max_life": "600"}
    outcome = caller.run(BOUND, address, before="set -eu")
    assert list(outcome.leases) == [LEASE]
    assert (outcome.routes, outcome.errors) == ([discard()], [])


@pytest.mark.parametrize(
    "reason", ["", "PREINIT6", "FAIL", "BOUND", "RENEW", "EXPIRE", "bound6", "BOUND6 ", "*"]
)
def test_other_reasons_do_nothing(caller: Caller, reason: str) -> None:
    outcome = caller.run(BOUND | {"reason": reason, "old_ip6_prefix": PREFIX})
    assert (outcome.printed, outcome.errors, outcome.routes, outcome.leases) == ("", [], [], {})


def test_no_reason_at_all_does_nothing(caller: Caller) -> None:
    outcome = caller.run({"interface": "eth0"}, before="set -eu")
    assert (outcome.printed, outcome.errors, outcome.routes) == ("", [], [])


NOWHERE_TO_WRITE = {
    "the runtime directory is a file": ": >run",
    "the directory is a file": "mkdir run && : >run/leases",
    "read-only": "mkdir -p run/leases && mount -t tmpfs -o ro test run/leases",
    "full": "mkdir -p run/leases && mount -t tmpfs -o size=4k test run/leases && printf %4096s >run/leases/x",
}


@pytest.mark.parametrize("obstacle", NOWHERE_TO_WRITE.values(), ids=NOWHERE_TO_WRITE)
def test_where_no_file_can_be_written_the_route_alone_tells(caller: Caller, obstacle: str) -> None:
    told = caller.run(BOUND, before=f"{obstacle}; set -eu", after="echo alive; find run -name '*@*'")
    *_, said = told.errors  # after what the shell may say
    assert said == f"anyipd hook: BOUND6: no lease file for {PREFIX}; lifetime unknown"
    assert len(told.errors) <= 2
    assert told.printed == "alive\n"
    assert told.routes == [discard(metric=1026)]


def test_such_a_route_is_withdrawn_too(caller: Caller) -> None:
    alone = caller.run(BOUND, RELEASE, before=NOWHERE_TO_WRITE["read-only"])
    assert alone.routes == []
    both = f"ip -6 route add unreachable {PREFIX} dev lo table main proto dhcp metric 1026"
    assert caller.run(BOUND, before=both).routes == [discard(), discard(metric=1026)]
    withdrawn = caller.run(RELEASE, before=both)
    assert (withdrawn.leases, withdrawn.routes, withdrawn.errors) == ({}, [], [])


def test_a_lease_that_cannot_be_rewritten_stays(caller: Caller) -> None:
    caller.run(BOUND)
    read_only = "mount --bind run run && mount -o remount,bind,ro run"
    outcome = caller.run(BOUND | {"new_life_starts": "1700000150"}, before=read_only)
    assert outcome.lease()["life_starts"] == "1700000000"
    assert outcome.routes == [discard(metric=1026)]


def test_the_lease_file_is_in_place_before_the_route_and_gone_before_it(caller: Caller) -> None:
    steps = re.compile(r"\+ (?:(?:exec )?(ln|mv -f|rm -f)|discard_route (replace|del)) ")
    trace = caller.run(BOUND, BOUND, RELEASE, before="set -x").errors
    assert [m[1] or m[2] for m in map(steps.search, trace) if m] == [
        *("ln", "replace", "rm -f"),  # what was linked has two names
        *("mv -f", "replace"),
        *("rm -f", "del", "del"),
    ]


def wakes(caller: Caller, call: dict[str, str]) -> bool:
    """Whether the call makes the daemon look at the lease files again."""
    caller.leases.mkdir(parents=True, exist_ok=True)
    monitor = LeaseMonitor(caller.leases)
    monitor.watch()
    caller.run(call)
    readable, _, _ = select.select([monitor], [], [], 0)
    os.close(monitor.fileno())
    return bool(readable)


@pytest.mark.parametrize("gone", [RELEASE, BOUND | {"new_max_life": "0"}])
def test_every_change_of_a_lease_wakes(caller: Caller, gone: dict[str, str]) -> None:
    assert wakes(caller, BOUND)
    assert wakes(caller, BOUND)
    assert not wakes(caller, RELEASE | {"old_ip6_prefix": "2001:db8:200::/56"})
    caller.run(BOUND | {"interface": "eth0.7"})
    assert wakes(caller, gone)
    assert wakes(caller, gone | {"interface": "eth0.7"})
    assert not wakes(caller, gone)


@pytest.mark.parametrize("present", ["", "1025", "1026"])
def test_a_delegation_is_an_event_of_the_kernel_too(caller: Caller, present: str) -> None:
    add = f"ip -6 route add unreachable {PREFIX} dev lo table main proto dhcp metric {present}"
    marker = "ip -6 route replace unreachable 2001:db8:ffff::/48 dev lo metric {0}; "
    begin = f"until grep -q 'metric 7' events; do {marker.format(7)} done"
    end = f"{marker.format(9)} until grep -q 'metric 9' events; do :; done; kill $monitor; wait $monitor || :"
    monitor = f"ip -6 monitor route >events & monitor=$!\n{begin}"
    caller.run(BOUND, before=f"{add if present else ''}\n{monitor}", after=end)
    assert PREFIX in (caller.directory / "events").read_text()


def test_only_its_own_route_is_removed(caller: Caller) -> None:
    others = "".join(
        f"ip -6 route add unreachable {PREFIX} dev lo table main proto {proto} metric {metric}\n"
        for proto, metric in (("dhcp", 1024), ("dhcp", 1001), ("150", 2048))
    )
    outcome = caller.run(BOUND, RELEASE, before=others)
    assert [route["metric"] for route in outcome.routes] == [1001, 1024, 2048]
