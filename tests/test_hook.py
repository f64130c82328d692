"""What the dhclient hook tells: lease files and messages over netlink, written by real shells."""

import os
import re
import select
import time

import pytest

from anyipd import here
from anyipd.observe.lease_monitor import LeaseMonitor
from tests.lab.hook_caller import BOUND, KEYS, LEASE, PREFIX, RELEASE, Caller, Outcome, discard, edit


@pytest.mark.parametrize("reason", ["BOUND6", "RENEW6", "REBIND6"])
def test_a_delegated_prefix_gets_a_lease_file_and_a_message(caller: Caller, reason: str) -> None:
    earliest = time.clock_gettime(time.CLOCK_BOOTTIME) - 0.02  # hundredths, cut off
    outcome = caller.run(BOUND | {"reason": reason}, after="readlink /proc/self/ns/net")
    lease = outcome.lease()
    written, netns, boot = (lease.pop(key) for key in ("uptime", "netns", "boot"))
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
        "reason": reason,
        "pid": "4711",
    }
    assert [line.split("=")[0] for line in outcome.leases[LEASE].splitlines()] == KEYS
    assert outcome.printed == f"net:[{netns}]\n"
    assert here.plain_boot(boot) == here.boot()
    assert re.fullmatch(r"\d+\.\d\d", written)
    assert earliest <= float(written) < earliest + 30
    assert (outcome.routes, outcome.main) == ([discard()], [])
    assert outcome.errors == []


@pytest.mark.parametrize("prefix", ["2000::/4", "64:ff9b::/96", "2001:db8::53/128"])
def test_no_prefix_changes_any_routing(caller: Caller, prefix: str) -> None:
    """S1: what a server delegates is a proposal."""
    outcome = caller.run(BOUND | {"new_ip6_prefix": prefix}, BOUND | {"new_ip6_prefix": prefix})
    assert (len(outcome.routes), outcome.main) == (1, [])


def taken_back(outcome: Outcome, name: str = LEASE) -> dict[str, str]:
    """See that nothing is left but a tombstone, and give that."""
    assert (list(outcome.leases), outcome.routes, outcome.main, outcome.errors) == ([name], [], [], [])
    lease = outcome.lease(name)
    assert (lease["preferred_lifetime"], lease["valid_lifetime"]) == ("0", "0")
    return lease


def test_what_is_given_back_leaves_a_tombstone(caller: Caller) -> None:
    earliest = int(time.time())
    lease = taken_back(caller.run(BOUND, RELEASE))
    assert lease["reason"] == "RELEASE6"
    assert earliest <= int(lease["life_starts"]) < earliest + 30


@pytest.mark.parametrize("reason", ["EXPIRE6", "STOP6"])
def test_a_client_that_gives_up_takes_nothing_back(caller: Caller, reason: str) -> None:
    outcome = caller.run(BOUND, RELEASE | {"reason": reason})
    assert (outcome.lease()["valid_lifetime"], outcome.lease()["reason"]) == ("600", "BOUND6")
    assert (outcome.routes, outcome.errors) == ([discard()], [])


def test_a_valid_lifetime_of_zero_withdraws(caller: Caller) -> None:
    withdrawn = BOUND | {"reason": "RENEW6", "new_preferred_life": "0", "new_max_life": "0"}
    lease = taken_back(caller.run(BOUND, withdrawn))
    assert (lease["reason"], lease["life_starts"]) == ("RENEW6", BOUND["new_life_starts"])


def test_what_was_withdrawn_is_not_brought_back_by_its_deprecation(caller: Caller) -> None:
    current = {k.replace("new_", "cur_"): v for k, v in BOUND.items()} | {"reason": "DEPREF6"}
    withdrawn = BOUND | {"reason": "RENEW6", "new_preferred_life": "0", "new_max_life": "0"}
    taken_back(caller.run(BOUND, withdrawn, current | {"cur_preferred_life": "0", "cur_max_life": "0"}))


@pytest.mark.parametrize("seconds", [-1000, -1, 0])
def test_a_renewal_that_was_held_up_comes_too_late(caller: Caller, seconds: int) -> None:
    """S9: a slow hook before ours holds a RENEW6 up, and meanwhile the prefix is given back."""
    released = int(caller.run(RELEASE).lease()["life_starts"])
    late = BOUND | {"new_life_starts": str(released + seconds)}
    for reason in ("RENEW6", "REBIND6"):
        assert taken_back(caller.run(late | {"reason": reason}))["reason"] == "RELEASE6"


@pytest.mark.parametrize(("reason", "seconds"), [("BOUND6", 0), ("BOUND6", 1), ("RENEW6", 1)])
def test_what_is_granted_after_a_release_counts(caller: Caller, reason: str, seconds: int) -> None:
    released = int(caller.run(RELEASE).lease()["life_starts"])
    granted = caller.run(BOUND | {"reason": reason, "new_life_starts": str(released + seconds)})
    assert granted.lease()["valid_lifetime"] == "600"
    assert granted.routes == [discard()]


@pytest.mark.parametrize("reason", ["BOUND6", "RENEW6"])
@pytest.mark.parametrize("back", [100, 1_000_000])
def test_a_clock_set_back_after_a_release_hides_no_grant(caller: Caller, reason: str, back: int) -> None:
    """What starts before the release by the wall clock comes after it by CLOCK_BOOTTIME."""
    released = int(caller.run(RELEASE).lease()["life_starts"])
    before_the_step = edit(life_starts=str(released + back))
    granted = BOUND | {"reason": reason, "new_life_starts": str(released)}
    assert caller.run(granted, before=before_the_step).lease()["valid_lifetime"] == "600"


@pytest.mark.parametrize("life_starts", ["", "08", "$(touch executed)", "1700000000"])
def test_only_a_later_tombstone_holds_a_renewal_up(caller: Caller, life_starts: str) -> None:
    caller.run(RELEASE)
    renewed = BOUND | {"reason": "RENEW6", "new_life_starts": "1700000001"}
    outcome = caller.run(renewed, before=edit(life_starts=life_starts))
    assert (outcome.lease()["valid_lifetime"], outcome.errors) == ("600", [])
    assert list(caller.directory.iterdir()) == [caller.runtime_dir]


def test_a_renewal_rewrites_the_lease_file(caller: Caller) -> None:
    outcome = caller.run(BOUND, BOUND | {"reason": "RENEW6", "new_life_starts": "1700000150"})
    assert outcome.lease()["life_starts"] == "1700000150"
    assert outcome.routes == [discard()]


def test_an_infinite_lifetime_is_kept_as_a_number(caller: Caller) -> None:
    outcome = caller.run(BOUND | {"new_preferred_life": "4294967295", "new_max_life": "4294967295"})
    assert outcome.lease()["valid_lifetime"] == outcome.lease()["preferred_lifetime"] == "4294967295"


def test_a_deprecation_says_nothing_new(caller: Caller) -> None:
    """It comes by the client's own clock (C10); the lease file says until when a prefix is preferred."""
    current = {k.replace("new_", "cur_"): v for k, v in BOUND.items()} | {"reason": "DEPREF6"}
    outcome = caller.run(BOUND, current | {"cur_life_starts": "1700000001", "cur_max_life": "700"})
    assert (outcome.lease()["preferred_lifetime"], outcome.lease()["life_starts"]) == ("300", "1700000000")
    assert outcome.routes == [discard()]


def test_a_second_prefix_does_not_touch_the_first(caller: Caller) -> None:
    other = BOUND | {"reason": "RENEW6", "old_ip6_prefix": PREFIX, "new_ip6_prefix": "2001:db8:200::/56"}
    outcome = caller.run(BOUND, other)
    assert set(outcome.leases) == {LEASE, "2001:db8:200::_56@eth0"}
    assert outcome.routes == [discard(), discard("2001:db8:200::/56")]


@pytest.mark.parametrize("options", ["-eu", "-f"])
def test_a_prefix_from_two_uplinks_is_two_leases(caller: Caller, options: str) -> None:
    other = BOUND | {"interface": "eth0.7"}
    one = caller.run(BOUND, other, RELEASE, before=f"set {options}")
    assert one.lease()["valid_lifetime"] == "0"
    assert one.lease("2001:db8:100::_60@eth0.7")["uplink"] == "eth0.7"
    assert one.lease("2001:db8:100::_60@eth0.7")["valid_lifetime"] == "600"
    assert one.errors == []


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
def test_where_no_file_can_be_written_the_message_alone_tells(caller: Caller, obstacle: str) -> None:
    told = caller.run(BOUND, before=f"{obstacle}; set -eu", after="echo alive; find run -name '*@*'")
    assert f"anyipd hook: BOUND6: no lease file for {PREFIX}" in told.errors  # beside what the shell says
    assert len(told.errors) <= 3
    assert told.printed == "alive\n"
    assert (told.routes, told.main) == ([discard(metric=1026)], [])


@pytest.mark.parametrize("reason", ["RENEW6", "REBIND6"])
def test_no_such_message_tells_of_a_prefix_that_the_reply_left_out(caller: Caller, reason: str) -> None:
    """dhclient calls for it all the same, with when it was granted last."""
    left_out = BOUND | {"reason": reason, "old_life_starts": BOUND["new_life_starts"]}
    told = caller.run(left_out, before=NOWHERE_TO_WRITE["read-only"])
    assert f"anyipd hook: {reason}: no lease file for {PREFIX}" in told.errors
    assert told.routes == [discard()]
    renewed = left_out | {"new_life_starts": "1700000150"}
    told = caller.run(renewed, before=NOWHERE_TO_WRITE["read-only"])
    assert discard(metric=1026) in told.routes


@pytest.mark.parametrize("reason", ["RELEASE6", "EXPIRE6", "STOP6"])
def test_such_a_message_is_taken_back_too(caller: Caller, reason: str) -> None:
    """Nothing else says for how long the prefix is valid."""
    gone = RELEASE | {"reason": reason}
    assert caller.run(BOUND, gone, before=NOWHERE_TO_WRITE["read-only"]).routes == []
    both = f"ip -6 route add unreachable {PREFIX} dev lo table 150 proto dhcp metric 1026"
    assert caller.run(BOUND, before=both).routes == [discard(), discard(metric=1026)]
    assert caller.run(gone, before=both).routes == []


def test_a_lease_that_cannot_be_rewritten_stays(caller: Caller) -> None:
    caller.run(BOUND)
    read_only = "mount --bind run run && mount -o remount,bind,ro run"
    outcome = caller.run(BOUND | {"new_life_starts": "1700000150"}, before=read_only)
    assert outcome.lease()["life_starts"] == "1700000000"
    assert outcome.routes == [discard(metric=1026)]


def test_the_lease_file_is_in_place_before_the_message(caller: Caller) -> None:
    steps = re.compile(r"\+ (?:(?:exec )?(ln|mv -f|rm -f)|message (replace|del)) ")
    trace = caller.run(BOUND, BOUND, RELEASE, before="set -x").errors
    assert [m[1] or m[2] for m in map(steps.search, trace) if m] == [
        *("ln", "replace", "rm -f"),  # what was linked has two names
        *("mv -f", "replace"),
        "mv -f",  # behind it what the shell says is thrown away
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
    caller.run(BOUND | {"interface": "eth0.7"})
    assert wakes(caller, gone)
    assert wakes(caller, gone | {"interface": "eth0.7"})
    assert not wakes(caller, gone | {"reason": "STOP6", "old_ip6_prefix": PREFIX})


@pytest.mark.parametrize("present", ["", "1025", "1026"])
def test_a_delegation_is_an_event_of_the_kernel_too(caller: Caller, present: str) -> None:
    add = f"ip -6 route add unreachable {PREFIX} dev lo table 150 proto dhcp metric {present}"
    marker = "ip -6 route replace unreachable 2001:db8:ffff::/48 dev lo metric {0}; "
    begin = f"until grep -q 'metric 7' events; do {marker.format(7)} done"
    end = f"{marker.format(9)} until grep -q 'metric 9' events; do :; done; kill $monitor; wait $monitor || :"
    monitor = f"ip -6 monitor route >events & monitor=$!\n{begin}"
    caller.run(BOUND, before=f"{add if present else ''}\n{monitor}", after=end)
    assert PREFIX in (caller.directory / "events").read_text()


def test_only_its_own_message_is_removed(caller: Caller) -> None:
    others = "".join(
        f"ip -6 route add unreachable {PREFIX} dev lo table {table} proto {proto} metric {metric}\n"
        for table, proto, metric in ((150, "dhcp", 1024), ("main", "dhcp", 1025), ("main", "150", 2048))
    )
    outcome = caller.run(BOUND, RELEASE, before=others)
    assert [route["metric"] for route in outcome.routes] == [1024]
    assert [route["metric"] for route in outcome.main] == [1025, 2048]
