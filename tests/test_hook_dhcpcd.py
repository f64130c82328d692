"""The dhcpcd hook: what it tells, what it refuses, and what it leaves in its caller's shell."""

import re
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyipd import here
from anyipd.model import Prefix
from tests.lab.dhclient import HOOK as DHCLIENT_HOOK
from tests.lab.dhcpcd import HOOK
from tests.lab.hook_caller import KEYS as DHCLIENT_KEYS
from tests.lab.hook_caller import LEASE, PREFIX, SHELLS, Caller, discard, shell_command
from tests.test_hook import NOWHERE_TO_WRITE
from tests.test_hook_hostile import near

OTHER = "2001:db8:200::_56@eth0"
KEYS = [key for key in DHCLIENT_KEYS if key != "life_starts"]
"""dhcpcd does not say when a lifetime began."""

IA, SECOND_IA = "dhcp6_ia_pd1", "dhcp6_ia_pd2"


def prefix(
    which: str, ia: str, number: int, text: str, lifetimes: tuple[int, int] = (300, 600)
) -> dict[str, str]:
    """Give the variables that dhcpcd has for a prefix."""
    name = f"{which}_{ia}_prefix{number}"
    address, _, length = text.partition("/")
    preferred, valid = lifetimes
    return {
        name: address,
        f"{name}_length": length,
        f"{name}_pltime": str(preferred),
        f"{name}_vltime": str(valid),
    }


BOUND = {
    "reason": "BOUND6",
    "interface": "eth0",
    "protocol": "dhcp6",
    f"new_{IA}_iaid": "629d010a",
    f"new_{IA}_t1": "150",
    **prefix("new", IA, 1, PREFIX),
}
RELEASE = {
    "reason": "RELEASE6",
    "interface": "eth0",
    f"old_{IA}_iaid": "629d010a",
    **prefix("old", IA, 1, PREFIX),
}


@pytest.fixture(params=SHELLS)
def caller(request: pytest.FixtureRequest, tmp_path: Path) -> Caller:
    """A caller of the dhcpcd hook, in each shell that may be somebody's /bin/sh."""
    return Caller(shell_command(request.param), tmp_path, HOOK)


@pytest.mark.parametrize("reason", ["BOUND6", "RENEW6", "REBIND6", "REBOOT6"])
def test_a_delegated_prefix_gets_a_lease_file(caller: Caller, reason: str) -> None:
    since = time.clock_gettime(time.CLOCK_BOOTTIME)
    outcome = caller.run(BOUND | {"reason": reason, "pid": "4711"}, after="readlink /proc/self/ns/net")
    lease = outcome.lease()
    written, netns, boot = (lease.pop(key) for key in ("uptime", "netns", "boot"))
    assert list(outcome.leases) == [LEASE]
    assert lease == {
        "client": "dhcpcd",
        "prefix": PREFIX,
        "uplink": "eth0",
        "iaid": "62:9d:01:0a",
        "preferred_lifetime": "300",
        "valid_lifetime": "600",
        "reason": reason,
        "pid": "4711",
    }
    assert [line.split("=")[0] for line in outcome.leases[LEASE].splitlines()] == KEYS
    assert outcome.printed == f"net:[{netns}]\n"
    assert here.plain_boot(boot) == here.boot()
    assert since - 0.02 <= float(written) < since + 30  # hundredths, cut off
    assert (outcome.routes, outcome.main, outcome.errors) == ([discard()], [], [])


def test_every_prefix_of_every_ia_is_told(caller: Caller) -> None:
    second = {f"new_{SECOND_IA}_iaid": "00000002", **prefix("new", SECOND_IA, 1, "2001:db8:300::/64", (7, 8))}
    outcome = caller.run(BOUND | prefix("new", IA, 2, "2001:db8:200::/56") | second, before="set -eu")
    third = "2001:db8:300::_64@eth0"
    assert set(outcome.leases) == {LEASE, OTHER, third}
    assert (outcome.lease(third)["iaid"], outcome.lease(third)["valid_lifetime"]) == ("00:00:00:02", "8")
    assert len({outcome.lease(name)["uptime"] for name in outcome.leases}) == 1  # of one Reply


def test_a_malformed_one_does_not_stand_in_the_way_of_others(caller: Caller) -> None:
    outcome = caller.run(BOUND | prefix("new", IA, 2, "2001:db8:200::/56") | {f"new_{IA}_prefix1": "../x"})
    assert list(outcome.leases) == [OTHER]
    assert outcome.errors == [f'anyipd hook: BOUND6: new_{IA}_prefix1 is "../x/60"; nothing done']


def test_what_is_given_back_leaves_a_tombstone(caller: Caller) -> None:
    # It also says that the discard route, which dhcpcd may leave, means nothing.
    outcome = caller.run(BOUND, RELEASE)
    lease = outcome.lease()
    assert (lease["client"], lease["preferred_lifetime"], lease["valid_lifetime"]) == ("dhcpcd", "0", "0")
    assert (lease["reason"], lease["iaid"], outcome.routes) == ("RELEASE6", "62:9d:01:0a", [])


@pytest.mark.parametrize("reason", ["EXPIRE6", "STOP6"])
def test_a_client_that_gives_up_takes_nothing_back(caller: Caller, reason: str) -> None:
    outcome = caller.run(BOUND, RELEASE | {"reason": reason})
    assert (outcome.lease()["valid_lifetime"], outcome.lease()["reason"]) == ("600", "BOUND6")
    assert (outcome.routes, outcome.errors) == ([discard()], [])


def test_a_valid_lifetime_of_zero_withdraws(caller: Caller) -> None:
    other = prefix("new", IA, 2, "2001:db8:200::/56")
    outcome = caller.run(BOUND, BOUND | prefix("new", IA, 1, PREFIX, (0, 0)) | other | {"reason": "RENEW6"})
    assert set(outcome.leases) == {LEASE, OTHER}
    assert (outcome.lease()["valid_lifetime"], outcome.lease(OTHER)["valid_lifetime"]) == ("0", "600")
    assert (outcome.routes, outcome.errors) == ([discard("2001:db8:200::/56")], [])


def age(change: str) -> str:
    """Give the command that makes a lease long over, and says something else of it."""
    edit = f"s/^uptime=.*/uptime=0.00/; s/lifetime=.*/lifetime=1/; {change}"
    return f"sed -i '{edit}' run/leases/{LEASE}; rm -f run/leases/.swept*"


def test_what_a_reply_leaves_out_stays_for_its_lifetime(caller: Caller) -> None:
    left_out = {"reason": "RENEW6", f"old_{IA}_iaid": "629d010a"} | prefix("old", IA, 1, PREFIX)
    renewed = BOUND | prefix("new", IA, 1, "2001:db8:200::/56") | left_out
    assert set(caller.run(BOUND, renewed).leases) == {LEASE, OTHER}
    assert set(caller.run(renewed, before=age("")).leases) == {OTHER}


def test_only_expired_leases_of_this_link_are_cleared_up(caller: Caller) -> None:
    caller.run(BOUND)
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    tombstone = age(f"s/^valid_lifetime=.*/valid_lifetime=0/; s/^uptime=.*/uptime={now:.2f}/")
    outcome = caller.run(BOUND | prefix("new", IA, 1, "2001:db8:200::/56"), before=tombstone)
    assert set(outcome.leases) == {LEASE, OTHER}
    elsewhere = BOUND | {"interface": "eth1"} | prefix("new", IA, 1, "2001:db8:300::/56")
    assert caller.run(elsewhere, before=age("")).lease()["uptime"] == "0.00"


def test_a_step_of_the_wall_clock_forgets_nothing(caller: Caller) -> None:
    caller.run(BOUND)
    stepped = f"touch -d @1000000000 run/leases/{LEASE}; rm -f run/leases/.swept*"
    outcome = caller.run(BOUND | prefix("new", IA, 1, "2001:db8:200::/56"), before=stepped)
    assert set(outcome.leases) == {LEASE, OTHER}


@pytest.mark.parametrize(
    ("delegated", "length", "subnet", "excluded"),
    [
        ("2001:db8:100::/60", "64", "f0", "2001:db8:100:f::/64"),
        ("2001:db8:100::/60", "64", "00", "2001:db8:100::/64"),
        ("2001:db8:100:10::/60", "61", "80", "2001:db8:100:18::/61"),
        ("2001:db8:100::/48", "64", "abcd", "2001:db8:100:abcd::/64"),
        ("2001:db8::/32", "64", "12345678", "2001:db8:1234:5678::/64"),
        ("2001:db8:100::/56", "65", "ff80", "2001:db8:100:ff:8000::/65"),
        ("2001:d00::/24", "64", "0000000001", "2001:d00:0:1::/64"),
        ("::/0", "48", "20010db80001", "2001:db8:1::/48"),
        ("1:2:3:4:5:6:7:0/112", "128", "0001", "1:2:3:4:5:6:7:1/128"),
        ("::1:0/112", "128", "ffff", "::1:ffff/128"),
    ],
)
def test_what_is_excluded_is_told(
    caller: Caller, delegated: str, length: str, subnet: str, excluded: str
) -> None:
    name = f"new_{IA}_prefix1_pd_exclude"
    told = {f"{name}_prefix_len": length, f"{name}_subnetID": subnet}
    outcome = caller.run(BOUND | prefix("new", IA, 1, delegated) | told, before="set -eu")
    (lease,) = (outcome.lease(name) for name in outcome.leases)
    assert [*lease] == [*KEYS, "exclude"]
    assert Prefix.parse(lease["exclude"]) == Prefix.parse(excluded)


@pytest.mark.parametrize(
    ("length", "subnet"),
    [
        ("60", "00"),
        ("129", "f0"),
        ("064", "f0"),
        ("-1", "f0"),
        ("x", "f0"),
        ("64", ""),
        ("64", "f"),
        ("64", "f000"),
        ("64", "F0"),
        ("64", "$(touch executed)"),
        ("64\n", "f0"),
        ("120", "00000000000000"),
    ],
)
def test_any_other_exclusion_is_left_out(caller: Caller, length: str, subnet: str) -> None:
    name = f"new_{IA}_prefix1_pd_exclude"
    outcome = caller.run(BOUND | {f"{name}_prefix_len": length, f"{name}_subnetID": subnet})
    assert [*outcome.lease()] == KEYS
    assert (outcome.errors, list(caller.directory.iterdir())) == ([], [caller.runtime_dir])


@pytest.mark.parametrize("iaid", ["629d01", "629d010a0b", "629D010A", "62:9d:01:0a", "$(touch x)", "x\ny"])
def test_any_other_iaid_is_left_out(caller: Caller, iaid: str) -> None:
    assert caller.run(BOUND | {f"new_{IA}_iaid": iaid}).lease()["iaid"] == ""


@pytest.mark.parametrize(
    ("variable", "value", "shown"),
    [
        ("interface", "a/b", "a/b"),
        ("interface", "eth0 1", "eth0 1"),
        (f"new_{IA}_prefix1", "$(touch executed)::", "$(touch executed)::/60"),
        (f"new_{IA}_prefix1", "::\n", "::?/60"),
        (f"new_{IA}_prefix1_length", "129", f"{PREFIX[:-3]}/129"),
        (f"new_{IA}_prefix1_length", "", f"{PREFIX[:-3]}/"),
        (f"new_{IA}_prefix1_pltime", "a[$(touch executed)]", "a[$(touch executed)]"),
        (f"new_{IA}_prefix1_vltime", "4294967296", "4294967296"),
        (f"new_{IA}_prefix1_vltime", "0600", "0600"),
        (f"new_{IA}_prefix1_vltime", "", ""),
    ],
)
def test_a_malformed_value_is_refused(caller: Caller, variable: str, value: str, shown: str) -> None:
    outcome = caller.run(BOUND | {variable: value}, before="set -eu")
    name = variable.removesuffix("_length")
    assert outcome.errors == [f'anyipd hook: BOUND6: {name} is "{shown}"; nothing done']
    assert (outcome.printed, outcome.leases, list(caller.directory.iterdir())) == ("", {}, [])


@pytest.mark.parametrize(
    "reason", ["PREINIT", "CARRIER", "BOUND", "ROUTERADVERT", "DELEGATED6", "STOPPED", ""]
)
def test_other_reasons_do_nothing(caller: Caller, reason: str) -> None:
    outcome = caller.run(BOUND | {"reason": reason})
    assert (outcome.printed, outcome.errors, outcome.leases) == ("", [], {})


@pytest.mark.parametrize("reason", ["BOUND6", "RELEASE6"])
def test_a_call_for_an_address_changes_nothing(caller: Caller, reason: str) -> None:
    address = {"reason": reason, "interface": "eth0", "new_dhcp6_ia_na1_iaid": "00000001"}
    assert list(caller.run(BOUND, address, before="set -eu").leases) == [LEASE]


@pytest.mark.parametrize("obstacle", NOWHERE_TO_WRITE.values(), ids=NOWHERE_TO_WRITE)
def test_where_no_file_can_be_written_it_says_so(caller: Caller, obstacle: str) -> None:
    told = caller.run(BOUND, before=f"{obstacle}; set -eu", after="echo alive; find run -name '*@*'")
    assert f"anyipd hook: BOUND6: no lease file for {PREFIX}" in told.errors
    assert told.printed == "alive\n"
    assert (told.routes, told.main) == ([discard(metric=1026)], [])


@pytest.mark.parametrize(
    "env", [BOUND, RELEASE, BOUND | {"interface": "/"}], ids=["bound", "release", "refused"]
)
@pytest.mark.parametrize("options", ["", "-eu", "-Cf"])
def test_nothing_is_left_behind_in_the_caller(caller: Caller, env: dict[str, str], options: str) -> None:
    outcome, before, after = caller.run_watched(
        env, before=f"IFS=:; umask 027; set {options} --", after="echo status:$?", function="report"
    )
    assert after == before
    assert outcome.printed == "status:0\n"


@pytest.mark.parametrize(
    "before",
    [
        "set -eu",
        "set -f",
        "set -C",
        "IFS=/:0123456789abcdef",
        "unset IFS PATH",
        "PATH=/nonexistent:.",
        "umask 777",
        "prefix=x; leases=/x; lease=../x; which=old; length=1; value=x; ia=x; i=7; exclude=x; valid=1",
        "set -eu; set -- a b c",
    ],
)
def test_the_caller_may_be_strange(caller: Caller, before: str) -> None:
    outcome = caller.run(BOUND, before=before)
    assert (outcome.printed, outcome.errors, [*outcome.lease()]) == ("", [], KEYS)


def test_both_hooks_check_in_the_same_words() -> None:
    function = re.compile(r"^        (\w+)\(\) \{.*?^        \}$", re.DOTALL | re.MULTILINE)
    ours, dhclients = (
        {found[1]: found[0] for found in function.finditer(hook.read_text())}
        for hook in (HOOK, DHCLIENT_HOOK)
    )
    common = {
        "refuse",
        "check_prefix",
        "check_interface",
        "check_number",
        "check_lifetime",
        "find_inode",
        "message",
        "look_around",
        "publish",
        "report",
        "read_lease",
        "sweep",
        "keep_latest",
    }
    assert ours.keys() & dhclients.keys() == common
    assert {name: ours[name] for name in common} == {name: dhclients[name] for name in common}


HOSTILE = st.fixed_dictionaries(
    {
        "reason": st.sampled_from([b"BOUND6", b"RENEW6", b"EXPIRE6", b"RELEASE6"]) | near("BOUND6"),
        "interface": near("eth0"),
        **{
            f"{which}_{IA}_{name}": near(valid)
            for which in ("new", "old")
            for name, valid in (
                ("iaid", "629d010a"),
                ("prefix1", PREFIX.removesuffix("/60")),
                ("prefix1_length", "60"),
                ("prefix1_pltime", "300"),
                ("prefix1_vltime", "600"),
                ("prefix1_pd_exclude_prefix_len", "64"),
                ("prefix1_pd_exclude_subnetID", "f0"),
            )
        },
    }
)


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=60, deadline=None)
@given(env=HOSTILE)
def test_no_environment_does_harm(shell: str, env: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        caller = Caller(shell_command(shell), Path(directory), HOOK)
        outcome = caller.run(env, before="set -eu")
        assert (outcome.printed, outcome.main) == ("", [])
        caller.assert_only_leases(outcome, env["interface"])
        for name, content in outcome.leases.items():
            lease = outcome.lease(name)
            assert [line.split("=")[0] for line in content.splitlines()][: len(KEYS)] == KEYS
            Prefix.parse_with_host(lease["prefix"])
            Prefix.parse_with_host(lease.get("exclude", "::/0"))
