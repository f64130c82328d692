"""The dhclient hook as a guest in another program's shell: it bears with it, and leaves nothing behind."""

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.lab import debian
from tests.lab.dhclient import HOOK
from tests.lab.hook_caller import BOUND, LEASE, PREFIX, RELEASE, Caller, discard, in_namespaces
from tests.lab.programs import need


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


def test_a_failure_of_ip_is_one_line(caller: Caller) -> None:
    powerless = Caller(["setpriv", "--bounding-set=-net_admin", *caller.shell], caller.directory)
    bound = powerless.run(BOUND, before="set -eu", after="echo alive")
    assert bound.errors == ["RTNETLINK answers: Operation not permitted"]
    assert (bound.printed, list(bound.leases)) == ("alive\n", [LEASE])
    gone = powerless.run(RELEASE, before="set -eu", after="echo alive")
    assert (gone.printed, gone.errors, gone.lease()["valid_lifetime"]) == ("alive\n", [], "0")


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
    outcome, before, after = caller.run_watched(
        env,
        *further,
        before=f"exit_status=2; IFS=:; umask 027; set {options} --",
        after="printf '%s\\n' status:$? $exit_status",
        function="report",
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
    assert (gone.lease()["valid_lifetime"], gone.routes, gone.errors) == ("0", [], [])


def test_debians_dhclient_script_runs_it(tmp_path: Path) -> None:
    hooks, script, resolv_conf = (tmp_path / n for n in ("dhclient-exit-hooks.d", "script", "resolv.conf"))
    hooks.mkdir()
    (hooks / "anyipd").symlink_to(HOOK)
    script.write_text(Path(need("dhclient-script")).read_text().replace("/etc/dhcp/", f"{tmp_path}/"))
    script.chmod(0o755)
    resolv_conf.touch()
    again = " ".join(f"{name}={shlex.quote(value)}" for name, value in RELEASE.items())
    calls = (
        f"mount --bind {resolv_conf} /etc/resolv.conf\n"
        f"{script} && ip -6 route show table 150 && ls {tmp_path}/run/leases\n"
        f"{again} {script} || echo status $?; ip -6 route show table 150\n"
        f"ip -6 route show table main; grep -h ^valid {tmp_path}/run/leases/*\n"
    )
    done = subprocess.run(
        in_namespaces(["sh", "-ec", calls]),
        env={"PATH": debian.environment()["PATH"], "ANYIPD_RUNTIME_DIR": str(tmp_path / "run"), **BOUND},
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
        "status 2",  # the script's own, for a prefix: it runs its exit hooks so, whatever they do
        "valid_lifetime=0",
    ]
