"""The dhclient hook, sourced by real shells in network namespaces of their own."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

HOOK = Path(__file__).parent.parent / "dhclient-hooks" / "anyipd"
PREFIX = "2001:db8:100::/60"
LEASE = "2001:db8:100::_60@eth0"
KEYS = [
    "client",
    "prefix",
    "uplink",
    "iaid",
    "life_starts",
    "preferred_lifetime",
    "valid_lifetime",
    "uptime",
]
BOUND = {
    "reason": "BOUND6",
    "interface": "eth0",
    "pid": "4711",
    "new_ip6_prefix": PREFIX,
    "new_iaid": "62:9d:01:0a",
    "new_life_starts": "1700000000",
    "new_preferred_life": "300",
    "new_max_life": "600",
    "new_starts": "1700000000",
    "new_renew": "150",
    "new_rebind": "240",
}
RELEASE = {"reason": "RELEASE6", "interface": "eth0", "old_ip6_prefix": PREFIX}
SHELLS = {
    "dash": ["dash"],
    "bash": ["bash"],
    "bash-as-sh": ["bash", "--posix"],
    "busybox": ["busybox", "sh"],
}


@dataclass(frozen=True)
class Outcome:
    printed: str
    errors: list[str]
    routes: list[dict[str, object]]
    leases: dict[str, str]

    def lease(self, name: str = LEASE) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.leases[name].splitlines())


@dataclass(frozen=True)
class Caller:
    """A dhclient-script of a few lines, in a directory and in network namespaces of its own."""

    shell: list[str]
    directory: Path

    @property
    def runtime_dir(self) -> Path:
        return self.directory / "run"

    def run(
        self,
        env: Mapping[str, str | bytes],
        *further: Mapping[str, str],
        before: str = "",
        after: str = "",
        runtime_dir: Path | None = None,
    ) -> Outcome:
        """Source the hook with `env`, then again for each of `further`."""
        again = "".join(
            f"( unset {' '.join(env)}; "
            + "".join(f"export {k}={shlex.quote(v)}; " for k, v in call.items())
            + f". {HOOK}; )\n"
            for call in further
        )
        script = (
            f"{before}\n. {HOOK}\n{again}{after}\n"
            f"echo --routes--\nexec {shutil.which('ip')} -json -6 route show table main\n"
        )
        environment: dict[str, str | bytes] = {
            "PATH": os.environ["PATH"],
            "ANYIPD_RUNTIME_DIR": str(runtime_dir or self.runtime_dir),
            **env,
        }
        done = subprocess.run(
            in_namespace([*self.shell, "-c", script]),
            env=environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=True,
        )
        printed, _, routes = done.stdout.decode().partition("--routes--\n")
        leases = self.runtime_dir / "leases"
        return Outcome(
            printed,
            done.stderr.decode(errors="backslashreplace").splitlines(),
            json.loads(routes),
            {file.name: file.read_text() for file in leases.iterdir()} if leases.is_dir() else {},
        )


def in_namespace(command: list[str]) -> list[str]:
    return [
        "unshare",
        "--map-root-user",
        "--net",
        "sh",
        "-c",
        'ip link set lo up && exec "$@"',
        "sh",
        *command,
    ]


def shell_command(name: str) -> list[str]:
    """Find a shell; where it is missing, skip on a laptop and fail in CI."""
    command = SHELLS[name]
    if shutil.which(command[0]) is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"{command[0]} is not installed")
    return command


@pytest.fixture(params=SHELLS)
def caller(request: pytest.FixtureRequest, tmp_path: Path) -> Caller:
    return Caller(shell_command(request.param), tmp_path)


def discard(prefix: str = PREFIX) -> dict[str, object]:
    return {
        "type": "unreachable",
        "dst": prefix,
        "dev": "lo",
        "protocol": "dhcp",
        "metric": 1025,
        "flags": [],
        "pref": "medium",
    }


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


@pytest.mark.parametrize(
    "iaid",
    [
        "62:9d:01:0a",
        "a:0:1:ff",
        '"eth0"',
        '"$(i"',
        '"`id"',
        '"\\n%"',
        '""""',
        '"    "',
        '"/../"',
        '"0123456789abcdef"',
    ],
)
def test_a_well_formed_iaid_is_kept_as_it_is(caller: Caller, iaid: str) -> None:
    outcome = caller.run(BOUND | {"new_iaid": iaid})
    assert outcome.lease()["iaid"] == iaid
    assert outcome.errors == []


@pytest.mark.parametrize(
    "iaid",
    [
        "",
        '"',
        '"ab\nc"',
        '"ab\rc"',
        '"ab\x7fc"',
        '"café"',
        '"0123456789abcdefg"',
        "eth0",
        '"eth0',
        "$(touch executed)",
        "`touch executed`",
        "62:9d:01",
        "62:9d:01:0a:0b",
        "62:9d:01:0ab",
        "62::01:0a",
        ":9d:01:0a",
        "62:9d:01:",
        "62:9D:01:0A",
        "62:9d:01:0a\nvalid_lifetime=1",
    ],
)
def test_any_other_iaid_is_left_out(caller: Caller, iaid: str) -> None:
    outcome = caller.run(BOUND | {"new_iaid": iaid})
    assert outcome.lease()["iaid"] == ""
    assert [line.split("=")[0] for line in outcome.leases[LEASE].splitlines()] == KEYS
    assert list(caller.directory.iterdir()) == [caller.runtime_dir]


def test_an_absent_iaid_is_left_out(caller: Caller) -> None:
    without = {k: v for k, v in BOUND.items() if k != "new_iaid"}
    assert caller.run(without, before="set -eu").lease()["iaid"] == ""


@pytest.mark.parametrize(
    "prefix",
    ["::/0", "::1/128", "fd00::/8", "1:2:3:4:5:6:7:8/128", "2001:db8::2:3:4:5:6/128", "1::3:4:5:6:7:8/128"],
)
def test_every_way_to_write_a_prefix_is_taken(caller: Caller, prefix: str) -> None:
    outcome = caller.run(BOUND | {"new_ip6_prefix": prefix})
    assert outcome.errors == []
    assert [file.replace("_", "/") for file in outcome.leases] == [f"{prefix}@eth0"]
    assert len(outcome.routes) == 1


@pytest.mark.parametrize(
    "prefix",
    [
        "2001:db8:100::",
        "2001:db8:100::/",
        "/60",
        "60",
        "/",
        "2001:db8:100::/129",
        "2001:db8:100::/060",
        "2001:db8:100::/-1",
        "2001:db8:100::/6 0",
        "2001:db8:100::/60/60",
        "2001:DB8:100::/60",
        "2001:db8::100::/60",
        "2001:db8:::/60",
        ":2001::/60",
        "2001::1:/60",
        ":/60",
        "1:2/60",
        "1:2:3:4:5:6:7/60",
        "1:2:3:4:5:6:7:8:9/60",
        "::1:2:3:4:5:6:7:8/60",
        "20010::/60",
        "::ffff:192.0.2.0/120",
        "192.0.2.0/24",
        "default",
        "2001:db8:100::/60\n",
        "2001:db8:100::/60\nvalid_lifetime=1",
        "2001:db8:100::/60 metric 1",
        "../../etc::/60",
        "$(touch executed)::/60",
        "2001:db8:*::/60",
        "\x1b[31m::/60",
    ],
)
def test_a_malformed_prefix_is_refused(caller: Caller, prefix: str) -> None:
    refused(caller, "new_ip6_prefix", prefix)


@pytest.mark.parametrize(
    "interface",
    [
        "",
        ".",
        "..",
        "a/b",
        "../../x",
        "eth0 1",
        "eth0\t",
        "eth0\n",
        "eth0\x01",
        "é",
        "é" * 50,
        "sixteen-letters-",
    ],
)
def test_a_malformed_interface_is_refused(caller: Caller, interface: str) -> None:
    refused(caller, "interface", interface)


@pytest.mark.parametrize("variable", ["new_preferred_life", "new_max_life", "new_life_starts"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "-1",
        "+1",
        "1.5",
        "0x10",
        "1e3",
        "1 2",
        "1\n2",
        "\u0661",
        "a[$(touch executed)]",
        "infinity",
        "9" * 30,
    ],
)
def test_a_malformed_number_is_refused(caller: Caller, variable: str, value: str) -> None:
    refused(caller, variable, value)


@pytest.mark.parametrize("variable", ["new_preferred_life", "new_max_life"])
@pytest.mark.parametrize("value", ["4294967296", "9999999999", "00000000001"])
def test_a_lifetime_of_more_than_32_bits_is_refused(caller: Caller, variable: str, value: str) -> None:
    refused(caller, variable, value)


@pytest.mark.parametrize("variable", ["interface", "new_max_life", "new_preferred_life", "new_life_starts"])
def test_an_absent_variable_is_refused(caller: Caller, variable: str) -> None:
    outcome = caller.run({k: v for k, v in BOUND.items() if k != variable}, before="set -eu")
    assert outcome.errors == [f'anyipd hook: BOUND6: {variable} is ""; nothing done']
    assert (outcome.routes, outcome.leases) == ([], {})


@pytest.mark.parametrize("variable", ["old_ip6_prefix", "interface"])
def test_a_malformed_withdrawal_withdraws_nothing(caller: Caller, variable: str) -> None:
    outcome = caller.run(BOUND, RELEASE | {variable: "../x"})
    assert outcome.errors == [f'anyipd hook: RELEASE6: {variable} is "../x"; nothing done']
    assert list(outcome.leases) == [LEASE]
    assert outcome.routes == [discard()]


def refused(caller: Caller, variable: str, value: str) -> None:
    outcome = caller.run(BOUND | {"LC_ALL": "C.UTF-8", variable: value})
    shown = "".join(chr(b) if 0x20 <= b < 0x7F else "?" for b in value.encode()[:80])
    assert outcome.errors == [f'anyipd hook: BOUND6: {variable} is "{shown}"; nothing done']
    assert (outcome.printed, outcome.routes, outcome.leases) == ("", [], {})
    assert list(caller.directory.iterdir()) == []


def test_the_files_are_readable_for_an_unprivileged_daemon(caller: Caller) -> None:
    caller.run(BOUND, before="umask 077")
    leases = caller.runtime_dir / "leases"
    modes = {
        path.name: oct(path.stat().st_mode & 0o777) for path in (caller.runtime_dir, leases, leases / LEASE)
    }
    assert modes == {"run": "0o755", "leases": "0o755", LEASE: "0o644"}


def test_a_crashed_predecessor_is_written_over(caller: Caller) -> None:
    leftover = f"mkdir -p run/leases; echo half >run/leases/.{LEASE}.$$; set -C"
    outcome = caller.run(BOUND, before=leftover)
    assert list(outcome.leases) == [LEASE]
    assert outcome.lease()["client"] == "dhclient"


@pytest.mark.parametrize("obstacle", ["runtime directory", "leases"])
def test_where_no_file_can_be_written_the_route_still_tells(caller: Caller, obstacle: str) -> None:
    place = caller.directory / "taken" if obstacle == "runtime directory" else caller.directory
    taken = place if obstacle == "runtime directory" else place / "leases"
    taken.write_text("not a directory")
    outcome = caller.run(BOUND, before="set -eu", after="echo alive", runtime_dir=place)
    assert len(outcome.errors) == 1
    assert "mkdir" in outcome.errors[0]
    assert outcome.printed == "alive\n"
    assert outcome.routes == [discard()]


def test_a_failure_of_ip_is_one_line(caller: Caller) -> None:
    powerless = Caller(["setpriv", "--bounding-set=-net_admin", *caller.shell], caller.directory)
    bound = powerless.run(BOUND, before="set -eu", after="echo alive")
    assert bound.errors == ["RTNETLINK answers: Operation not permitted"]
    assert (bound.printed, list(bound.leases)) == ("alive\n", [LEASE])
    gone = powerless.run(RELEASE, before="set -eu", after="echo alive")
    assert gone.errors == ["RTNETLINK answers: Operation not permitted"]
    assert (gone.printed, gone.leases) == ("alive\n", {})


@pytest.mark.parametrize(
    ("env", "further"),
    [
        (BOUND, ()),
        (RELEASE, ()),
        (BOUND | {"new_max_life": "x"}, ()),
        (BOUND, (RELEASE,)),
        ({"reason": "STOP"}, ()),
    ],
    ids=["bound", "release", "refused", "both", "other"],
)
@pytest.mark.parametrize("options", ["", "-eu", "-Cf"])
def test_nothing_is_left_behind_in_the_caller(
    caller: Caller, env: dict[str, str], further: tuple[dict[str, str], ...], options: str
) -> None:
    state = "set; set +o; umask; pwd; command -v refuse || :; command -v withdrawn || :; trap"
    outcome = caller.run(
        env,
        *further,
        before=f"exit_status=2; IFS=:; umask 027; set {options} --; {{ {state}; }} >before",
        after=f"printf '%s\\n' status:$? $exit_status; {{ {state}; }} >after; unset IFS",
    )
    own = re.compile(r"(_|LINENO|PIPESTATUS|BASH_\w+|SECONDS|RANDOM|EPOCH\w+|FUNCNAME)=")
    before, after = (
        [line for line in (caller.directory / name).read_text().splitlines() if not own.match(line)]
        for name in ("before", "after")
    )
    assert after == before
    assert outcome.printed == "status:0\n2\n"


@pytest.mark.parametrize(
    "before",
    [
        "set -eu",
        "set -f",
        "set -C",
        "IFS=/:0123456789abcdef",
        "IFS=",
        "unset IFS PATH",
        "PATH=",
        "PATH=/nonexistent:.",
        "umask 777",
        "LC_ALL=C.UTF-8; export LC_ALL",
        "prefix=x; leases=/x; lease=../x; which=old; length=1; address=x; readonly exit_status=2",
        "set -eu; which=; export which; set -- a b c",
        "trap 'echo trapped' 0; trap - 0",
    ],
)
def test_the_caller_may_be_strange(caller: Caller, before: str) -> None:
    outcome = caller.run(BOUND, before=before)
    assert (outcome.printed, outcome.errors) == ("", [])
    assert outcome.lease()["uplink"] == "eth0"
    assert outcome.routes == [discard()]
    gone = caller.run(RELEASE, before=before)
    assert (gone.leases, gone.routes, gone.errors) == ({}, [], [])


def test_the_lease_file_is_in_place_before_the_route_and_gone_before_it(caller: Caller) -> None:
    steps = re.compile(r"\+ (?:(mv|rm) -f|discard_route (replace|del))\b")
    trace = caller.run(BOUND, RELEASE, before="set -x").errors
    assert [m[1] or m[2] for m in map(steps.search, trace) if m] == ["mv", "replace", "rm", "del"]


@pytest.mark.parametrize("call", [RELEASE, BOUND, BOUND | {"new_max_life": "0"}])
@pytest.mark.parametrize("present", [True, False])
def test_every_change_is_an_event(caller: Caller, call: dict[str, str], present: bool) -> None:  # noqa: FBT001  a parameter of the table
    add = f"ip -6 route add unreachable {PREFIX} dev lo table main proto dhcp metric 1025"
    assert PREFIX in events(caller, call, before=add if present else "")


def events(caller: Caller, call: dict[str, str], before: str) -> str:
    """What `ip monitor` shows of a call; routes of the test's own mark where it begins and ends."""
    marker = "ip -6 route replace unreachable 2001:db8:ffff::/48 dev lo metric {0}; "
    begin = f"until grep -q 'metric 7' events; do {marker.format(7)} done"
    end = f"{marker.format(9)} until grep -q 'metric 9' events; do :; done; kill $monitor; wait $monitor || :"
    caller.run(call, before=f"{before}\nip -6 monitor route >events & monitor=$!\n{begin}", after=end)
    return (caller.directory / "events").read_text()


def test_a_loss_on_one_of_two_uplinks_is_an_event(caller: Caller) -> None:
    other = f"mkdir -p run/leases; : >'run/leases/{LEASE}.7'"
    assert PREFIX in events(caller, RELEASE, before=other)


def test_only_its_own_route_is_removed(caller: Caller) -> None:
    others = "".join(
        f"ip -6 route add unreachable {PREFIX} dev lo table main proto {proto} metric {metric}\n"
        for proto, metric in (("dhcp", 1024), ("dhcp", 1001), ("150", 2048))
    )
    outcome = caller.run(BOUND, RELEASE, before=others)
    assert [route["metric"] for route in outcome.routes] == [1001, 1024, 2048]


def test_debians_dhclient_script_runs_it(tmp_path: Path) -> None:
    script = Path("/sbin/dhclient-script")
    if not script.exists():
        (pytest.fail if "CI" in os.environ else pytest.skip)("isc-dhcp-client is not installed")
    hooks, resolv_conf = tmp_path / "hooks", tmp_path / "resolv.conf"
    hooks.mkdir()
    shutil.copy(HOOK, hooks)
    resolv_conf.touch()
    again = " ".join(f"{name}={shlex.quote(value)}" for name, value in RELEASE.items())
    calls = (
        f"mount --bind {resolv_conf} /etc/resolv.conf\n"
        f"mount --bind {hooks} /etc/dhcp/dhclient-exit-hooks.d\n"
        f"{script} && ip -6 route show table main && ls {tmp_path}/run/leases\n"
        f"{again} {script} || echo status $?; ip -6 route show table main; ls {tmp_path}/run/leases\n"
    )
    done = subprocess.run(
        in_namespace(["unshare", "--mount", "sh", "-ec", calls]),
        env={"PATH": os.environ["PATH"], "ANYIPD_RUNTIME_DIR": str(tmp_path / "run"), **BOUND},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"unreachable {PREFIX} dev lo proto dhcp metric 1025 pref medium",
        LEASE,
        "status 2",  # the script's own, for a prefix: FACTS, dhclient 8
    ]


ENVIRONMENT_BYTES = st.binary(max_size=200).map(lambda value: value.replace(b"\0", b"\n"))
WORDS = st.sampled_from(
    [b"*", b"$(touch x)", b"`touch x`", b"../", b"\n", b"=", b"::", b"/60", b"0", b'"', b"\\", b"'"]
)
SHELL_LIKE = st.lists(WORDS, max_size=8).map(b"".join)


def near(valid: str) -> st.SearchStrategy[bytes]:
    """The valid value, the value with something put into it, or anything."""
    encoded = valid.encode()
    spliced = st.builds(
        lambda at, new: encoded[:at] + new + encoded[at:],
        st.integers(0, len(encoded)),
        WORDS | ENVIRONMENT_BYTES,
    )
    return st.just(encoded) | spliced | SHELL_LIKE | ENVIRONMENT_BYTES


HOSTILE = st.fixed_dictionaries(
    {
        "reason": st.sampled_from([b"BOUND6", b"RENEW6", b"DEPREF6", b"EXPIRE6"]) | near("BOUND6"),
        "interface": near("eth0"),
        **{
            f"{which}_{name}": near(valid)
            for which in ("new", "cur", "old")
            for name, valid in (
                ("ip6_prefix", PREFIX),
                ("iaid", '"eth0"'),
                ("life_starts", "1700000000"),
                ("preferred_life", "300"),
                ("max_life", "600"),
            )
        },
    }
)


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=60, deadline=None)
@given(env=HOSTILE)
def test_no_environment_does_harm(shell: str, env: dict[str, bytes]) -> None:
    command = shell_command(shell)
    with tempfile.TemporaryDirectory() as directory:
        caller = Caller(command, Path(directory))
        outcome = caller.run(env, before="set -eu")
        given_prefixes = {env[f"{which}_ip6_prefix"] for which in ("new", "cur")}
        assert outcome.printed == ""
        for route in outcome.routes:
            assert str(route["dst"]) in {
                str(IPv6Network(p.decode(), strict=False))
                for p in given_prefixes
                if re.fullmatch(rb"[0-9a-f:]+/\d+", p)
            }
        assert set(caller.directory.iterdir()) <= {caller.runtime_dir}
        if caller.runtime_dir.exists():
            assert [path.name for path in caller.runtime_dir.iterdir()] == ["leases"]
        for name, content in outcome.leases.items():
            lease = outcome.lease(name)
            assert content.isascii()
            assert content.replace("\n", "").isprintable()
            assert [line.split("=")[0] for line in content.splitlines()] == KEYS
            assert lease["prefix"].encode() in given_prefixes
            assert lease["uplink"].encode() == env["interface"]
            assert name == lease["prefix"].replace("/", "_") + "@" + lease["uplink"]
            assert all(lease[key].isdecimal() for key in KEYS[4:7])
