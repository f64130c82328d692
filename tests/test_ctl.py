"""anyipctl, as an operator calls it: what it prints, for people and for programs, and how it ends."""

from __future__ import annotations

import ipaddress
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.daemon import Daemon
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import Namespace

PREFIX = "2001:db8:100::/60"
POLICY = "subnets: [{name: web, id: 3}, {name: rest, count: 2}, {name: docker, id: 0xf, bind: false}]"


@pytest.fixture
def delegated(daemon: Daemon) -> Daemon:
    """A policy and a delegated prefix, and no daemon yet."""
    daemon.configure(POLICY)
    daemon.namespace.ip(f"-6 route add unreachable {PREFIX} dev lo proto dhcp")
    return daemon


def lines(daemon: Daemon, *words: str) -> list[str]:
    return daemon.control(*words).stdout.splitlines()


def test_check(daemon: Daemon, tmp_path: Path) -> None:
    daemon.configure(POLICY)
    assert lines(daemon, "check") == [f"{daemon.configuration}: good; subnets: web, rest, docker"]
    bad = tmp_path / "bad.yaml"
    bad.write_text("subnets: [{name: Web}]\nunassigned: reject\n")
    refused = daemon.control("check", str(bad), check=False)
    assert refused.returncode == 78
    assert [line.split(": ")[:2] for line in refused.stderr.splitlines()] == [
        [f"{bad}:1:18", "subnets[0].name"],
        [f"{bad}:2:13", "unassigned"],
    ]
    missing = daemon.control("check", str(tmp_path / "none"), check=False)
    assert (missing.returncode, missing.stderr) == (78, f"{tmp_path}/none: there is no such file\n")


def test_plan_of_an_example_needs_no_network(daemon: Daemon) -> None:
    daemon.configure(POLICY)
    assert lines(daemon, "plan", "--prefix", PREFIX) == [
        "SUBNET             PREFIX                                     STATE     REASON",
        "web                2001:db8:100:3::/64                        wanted",
        "rest-0 ... rest-1  2001:db8:100::/64 ... 2001:db8:100:1::/64  wanted",
        "docker             2001:db8:100:f::/64                        reserved  bind: false",
    ]
    example = json.loads(daemon.control("plan", "--prefix", "2001:db8::/63", "--json").stdout)
    keys = ("name", "prefix", "count", "state")
    assert [tuple(each[key] for key in keys) for each in example["subnets"]] == [
        ("web", None, 1, "without room"),
        ("rest-0", "2001:db8::/64", 2, "wanted"),
        ("docker", None, 1, "without room"),
    ]


@pytest.mark.parametrize("prefix", ["2001:db8::1/64", "nonsense", "2001:db8::/129"])
def test_a_bad_example_is_a_wrong_command_line(daemon: Daemon, prefix: str) -> None:
    refused = daemon.control("plan", "--prefix", prefix, check=False)
    assert refused.returncode == 64
    assert prefix in refused.stderr


def test_plan_is_what_the_daemon_then_does(delegated: Daemon) -> None:
    planned = json.loads(delegated.control("plan", "--json").stdout)
    assert planned["subnets"] is None  # nobody is there to tell what has which name
    assert [(each["change"], each["type"], each["prefix"], each["count"]) for each in planned["routes"]] == [
        ("add", "local", "2001:db8:100::/63", 2),
        ("add", "local", "2001:db8:100:3::/64", 1),
    ]
    assert {each["state"] for each in delegated.status()["subnets"]} == {"missing", "reserved"}
    delegated.start()
    assert lines(delegated, "plan") == ["nothing to change"]
    assert {each["state"] for each in delegated.status()["subnets"]} == {"bound", "reserved"}
    delegated.namespace.ip("-6 route add local 2001:db8:900::/64 dev lo table local proto 150 metric 1024")
    delegated.wait_for("unbound")


def test_plan_before_a_reload_says_which_subnets_move_or_go(delegated: Daemon, tmp_path: Path) -> None:
    delegated.configure("subnets: [{name: web, id: 3}, {name: rest, count: 2, id: 0}, {name: old, id: 9}]")
    delegated.start()
    delegated.configure("subnets: [{name: api, id: 3}, {name: rest, count: 3, id: 0}, {name: old, id: 10}]")
    assert lines(delegated, "plan") == [
        "SUBNET  CHANGE  FROM                 TO",
        "api     add     -                    2001:db8:100:3::/64",
        "rest-2  add     -                    2001:db8:100:2::/64",
        "old     move    2001:db8:100:9::/64  2001:db8:100:a::/64",
        "web     remove  2001:db8:100:3::/64  -",
        "",
        "CHANGE  TYPE   PREFIX               SUBNET",
        "add     local  2001:db8:100:2::/64  rest-2",
        "add     local  2001:db8:100:a::/64  old",
        "remove  local  2001:db8:100:9::/64  old",
    ]
    planned = json.loads(delegated.control("plan", "--json").stdout)
    assert {(each["name"], each["change"], each["from"], each["to"]) for each in planned["subnets"]} == {
        ("api", "add", None, "2001:db8:100:3::/64"),
        ("rest-2", "add", None, "2001:db8:100:2::/64"),
        ("old", "move", "2001:db8:100:9::/64", "2001:db8:100:a::/64"),
        ("web", "remove", "2001:db8:100:3::/64", None),
    }
    assert {each["delegation"] for each in planned["subnets"]} == {PREFIX}
    # And the reload does that and no more: what keeps its place is not touched, whatever its name.
    monitor = RouteMonitor(delegated.namespace, tmp_path)
    delegated.reload()
    assert [line.split(" dev ")[0] for line in monitor.changes()] == [
        "local 2001:db8:100:2::/64",
        "local 2001:db8:100:a::/64",
        "Deleted local 2001:db8:100:9::/64",
    ]
    assert lines(delegated, "plan") == ["nothing to change"]


def test_plan_says_why_a_subnet_goes(delegated: Daemon) -> None:
    delegated.start()
    delegated.configure("subnets: [{name: web, id: 0x20}, {name: rest, count: 2}, {name: docker, id: 3}]")
    assert lines(delegated, "plan")[:3] == [
        "SUBNET  CHANGE  FROM                 TO                   REASON",
        "web     remove  2001:db8:100:3::/64  -                    ID 0x20 does not fit into a /60",
        "docker  add     -                    2001:db8:100:3::/64",
    ]


def test_plan_does_without_a_daemon_that_hangs(delegated: Daemon) -> None:
    delegated.start()
    delegated.running.send_signal(signal.SIGSTOP)
    assert lines(delegated, "plan") == ["nothing to change"]


def test_a_configuration_that_is_missing(delegated: Daemon) -> None:
    """Then the default policy holds, and that is said."""
    delegated.configuration.unlink()
    for command in ("plan", "status"):
        done = delegated.control(command)
        assert f"{delegated.configuration} does not exist: the default policy holds\n" in done.stderr
        assert "default" in done.stdout


def test_status_for_people(delegated: Daemon) -> None:
    delegated.start()
    assert lines(delegated, "status") == [
        "DELEGATED PREFIX   SOURCE  UPLINK  PREFERRED  VALID    STATE",
        "2001:db8:100::/60  kernel  -       unknown    unknown  granted",
        "",
        "SUBNET             PREFIX                                     STATE     REASON",
        "web                2001:db8:100:3::/64                        bound",
        "rest-0 ... rest-1  2001:db8:100::/64 ... 2001:db8:100:1::/64  bound",
        "docker             2001:db8:100:f::/64                        reserved  bind: false",
    ]


def test_no_command_is_status(delegated: Daemon) -> None:
    delegated.start()
    assert delegated.control().stdout == delegated.control("status").stdout
    told = json.loads(delegated.control("status", "--json").stdout)
    assert json.loads(delegated.control("--json").stdout) == told
    assert json.loads(delegated.control("--json", "status").stdout) == told


def test_json_of_a_command_that_prints_none_is_a_wrong_command_line(daemon: Daemon) -> None:
    refused = daemon.control("--json", "check", check=False)
    assert (refused.returncode, refused.stderr) == (
        64,
        "anyipctl: check prints no JSON; see anyipctl --help\n",
    )


def test_status_without_anything(daemon: Daemon) -> None:
    waiting = "waiting for a prefix that dhclient, dhcpcd or systemd-networkd is delegated on any uplink"
    assert lines(daemon, "status") == [f"no prefix is delegated to this host; {waiting}"]
    assert daemon.status() == {"delegations": [], "subnets": []}


@pytest.mark.parametrize(
    ("words", "inside"),
    [
        ([], ["2001:db8:100::/63", "2001:db8:100:3::/64"]),
        (["web"], ["2001:db8:100:3::/64"]),
        (["rest"], ["2001:db8:100::/63"]),
        (["rest-1"], ["2001:db8:100:1::/64"]),
        (["2001:db8:100::/62"], ["2001:db8:100::/63", "2001:db8:100:3::/64"]),
    ],
)
def test_random_addresses_are_bound_and_spread(
    delegated: Daemon, words: list[str], inside: list[str]
) -> None:
    delegated.start()
    found = [ipaddress.ip_address(text) for text in lines(delegated, "random", *words, "-n", "300")]
    networks = [ipaddress.ip_network(text) for text in inside]
    assert len(set(found)) == 300
    assert all(any(address in network for network in networks) for address in found)
    # Every /64 gets its share, and both halves of what is in there.
    subnets = {subnet for network in networks for subnet in network.subnets(new_prefix=65)}
    assert all(any(address in subnet for address in found) for subnet in subnets)


@pytest.mark.parametrize(
    ("edited", "told"),
    [
        (
            "subnets: [{name: other, id: 3}, {name: web, id: 5}]",
            "{} is not in force: see anyipctl plan, apply it by systemctl reload anyipd\n",
        ),
        (
            "unassigned: reject",
            (
                "{}:1:13: unassigned: found reject; unreachable, blackhole, prohibit or none\n"
                "{} is not in force: mend it\n"
            ),
        ),
    ],
    ids=["good", "bad"],
)
def test_an_edited_policy_changes_nothing_before_it_is_reloaded(
    delegated: Daemon, edited: str, told: str
) -> None:
    delegated.start()
    before = delegated.control("status")
    assert before.stderr == ""
    delegated.configure(edited)
    status, picked = delegated.control("status"), delegated.control("random", "web")
    said = told.format(delegated.configuration, delegated.configuration)
    assert (status.stdout, status.stderr, picked.stderr) == (before.stdout, said, said)
    assert ipaddress.ip_address(picked.stdout.strip()) in ipaddress.ip_network("2001:db8:100:3::/64")
    (probed,) = json.loads(delegated.control("probe", "web", "--json", check=False).stdout)
    assert probed["around"]["prefix"] == "2001:db8:100:3::/64"


def test_a_daemon_that_does_not_answer_is_no_reason_for_another_policy(delegated: Daemon) -> None:
    delegated.start()
    delegated.running.send_signal(signal.SIGSTOP)
    pid, file = delegated.running.pid, delegated.configuration
    why = f"the daemon (pid {pid}) cannot be asked: no answer within 2 s"
    file.write_text("subnets: [{name: other}]")
    seen = delegated.control("status")
    assert seen.stderr.splitlines()[0] == why
    assert "one look of anyipctl itself" in seen.stderr
    assert "web" in seen.stdout
    assert f"{why}: which subnets would move is not known\n" in delegated.control("plan").stderr
    delegated.configure(POLICY)
    delegated.running.send_signal(signal.SIGCONT)
    assert delegated.control("status").stderr == ""


def test_another_file_than_the_daemons(delegated: Daemon, tmp_path: Path) -> None:
    delegated.start()
    other = tmp_path / "other.yaml"
    other.write_text("subnets: [{name: other}]")
    daemons, delegated.files[1] = delegated.files[1], str(other)
    status = delegated.control("status")
    assert status.stderr == f"the daemon works by {daemons}, not by {other}\n"
    assert "web" in status.stdout


def test_a_file_that_may_not_be_read_or_is_gone(delegated: Daemon) -> None:
    delegated.start()
    file = delegated.configuration
    file.unlink()
    advice = "see anyipctl plan, apply it by systemctl reload anyipd"
    assert delegated.control("status").stderr == f"{file} is not in force: {advice}\n"
    file.mkdir()
    unreadable = f"{file}: cannot be read: Is a directory; a file of YAML, or none\n"
    assert delegated.control("status").stderr == unreadable


def test_output_that_is_closed(delegated: Daemon) -> None:
    for command in ("status", "watch"):
        words = [sys.executable, "-m", "anyipd.ctl", command, *delegated.files]
        script = 'exec timeout --preserve-status --signal=INT 1 "$@" >&-'
        done = delegated.namespace.run(
            "sh", "-c", script, "sh", *words, check=False, env=delegated.environment()
        )
        assert "Traceback" not in done.stderr


def test_a_reload_that_meets_a_foreign_route_moves_nothing(delegated: Daemon) -> None:
    delegated.start()
    host = delegated.namespace
    host.ip("-6 route add local 2001:db8:100:5::/64 dev lo table local proto static metric 1024")
    for number in (5, 6):
        delegated.configure(f"subnets: [{{name: web, id: {number}}}]")
        delegated.reload()
    delegated.wait_for("bound subnet=web prefix=2001:db8:100:6::/64")
    assert not [line for line in delegated.lines() if "event=moved" in line]


def test_a_reload_makes_an_edited_policy_the_one_in_force(delegated: Daemon) -> None:
    delegated.start()
    delegated.configure("subnets: [{name: other, id: 3}, {name: web, id: 5}]")
    delegated.reload()
    assert delegated.control("status").stderr == ""
    (found,) = lines(delegated, "random", "web")
    assert ipaddress.ip_address(found) in ipaddress.ip_network("2001:db8:100:5::/64")


def test_a_reload_that_swaps_two_names_is_told_though_no_route_changes(delegated: Daemon) -> None:
    delegated.configure("subnets: [{name: web, id: 3}, {name: other, id: 5}]")
    delegated.start()
    since = len(delegated.lines())
    delegated.configure("subnets: [{name: web, id: 5}, {name: other, id: 3}]")
    delegated.reload()
    told = [line.split("event=")[1] for line in delegated.lines()[since:] if "reloaded" not in line]
    assert told == [
        "moved subnet=web prefix=2001:db8:100:5::/64 was=2001:db8:100:3::/64",
        "moved subnet=other prefix=2001:db8:100:3::/64 was=2001:db8:100:5::/64",
    ]


def test_status_says_which_subnet_waits_for_its_uplink(delegated: Daemon) -> None:
    delegated.configure("subnets: [{name: web}, {name: lab, uplink: eth7}]")
    delegated.start()
    status = delegated.control("status")
    assert "web" in status.stdout
    assert status.stderr == "lab: no prefix is known to be delegated on eth7\n"


def test_random_ends_clearly_where_nothing_is_bound(daemon: Daemon) -> None:
    ended = daemon.control("random", check=False)
    assert (ended.returncode, ended.stderr) == (
        1,
        "anyipctl random: no subnet is bound; see anyipctl status\n",
    )


def test_flush_takes_ours_and_nothing_else(delegated: Daemon) -> None:
    delegated.start()
    delegated.kill()
    host = delegated.namespace
    host.ip("-6 route add local 2001:db8:900::/64 dev lo table local proto static")
    before = host.ip("-6 route show table all").splitlines()
    assert lines(delegated, "flush") == ["removed 2 routes"]
    gone = set(before) - set(host.ip("-6 route show table all").splitlines())
    assert all("proto 150" in route for route in gone)
    assert len(gone) == 2
    assert json.loads(delegated.control("flush", "--json").stdout) == {"removed": 0}


def test_flush_beside_a_daemon_says_that_it_is_in_vain(delegated: Daemon) -> None:
    delegated.start()
    assert lines(delegated, "flush")[1:] == ["a daemon is running and puts back what belongs there"]
    delegated.wait_for("bound subnet=web", since=len(delegated.lines()) - 2)


def test_a_wrong_command_line(daemon: Daemon) -> None:
    refused = daemon.control("statsu", check=False)
    assert refused.returncode == 64
    assert "statsu" in refused.stderr
    assert "anyipctl --help" in refused.stderr


def checked(daemon: Daemon) -> tuple[int, str]:
    done = daemon.control("status", "--check", check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_o11_status_for_monitoring(delegated: Daemon) -> None:
    host = delegated.namespace
    code, text = checked(delegated)
    assert code == 2
    assert text.startswith("CRITICAL: ")
    assert "no daemon is running here: routes are not being maintained" in text
    delegated.start()
    whole = f"3 of 3 subnets bound of {PREFIX} (kernel)"
    assert checked(delegated) == (0, f"OK: {whole}\n")
    assert f"STATUS={whole}" in delegated.notified
    host.ip("link add other type veth peer name far")
    host.ip("link set other up")
    host.ip("-6 address add 2001:db8:100:3::1/64 dev other")
    delegated.wait_for("event=conflict")
    conflict = "conflict: web (2001:db8:100:3::/64 is on-link at other)"
    assert checked(delegated) == (1, f"WARNING: 2 of 3 subnets bound of {PREFIX} (kernel); {conflict}\n")
    host.ip("link delete other")
    delegated.wait_for("bound subnet=web", since=len(delegated.lines()) - 1)
    delegated.configure("subnets: [{name: Web}]")
    code, text = checked(delegated)
    assert code == 1
    assert text.startswith(f"WARNING: {whole}; {delegated.configuration}:1:18: subnets[0].name: ")
    assert text.count("\n") == 1
    delegated.running.send_signal(signal.SIGSTOP)
    code, text = checked(delegated)
    assert code == 2
    assert "cannot be asked" in text


def test_o13_it_says_whom_it_waits_for(daemon: Daemon) -> None:
    daemon.configure("{subnets: [{name: web}], accept: {uplinks: [ppp*, eth0]}}")
    daemon.start()
    whom = "waiting for a prefix that dhclient, dhcpcd or systemd-networkd is delegated on ppp*, eth0"
    assert whom.removeprefix("waiting for ") in daemon.wait_for("event=ready delegations=0 waiting_for=")
    assert checked(daemon) == (2, f"CRITICAL: {whom}\n")
    assert whom in daemon.control("status").stdout


@pytest.mark.parametrize("ledger", [True, False], ids=["", "without a ledger file"])
def test_o8_status_on_a_broken_policy_shows_what_is_bound(delegated: Daemon, *, ledger: bool) -> None:
    delegated.start()
    delegated.kill()
    delegated.configure("subnets: [{name: Web}]")
    if not ledger:
        for each in (delegated.runtime / "daemon").iterdir():
            each.unlink()
    shown = delegated.control("status", check=False)
    assert shown.returncode == 78
    assert "subnets[0].name" in shown.stderr
    assert "no daemon is running here" in shown.stderr
    [web] = [line for line in shown.stdout.splitlines() if "2001:db8:100:3::/64" in line]
    assert web.split() == ["web" if ledger else "2001:db8:100:3::/64", "2001:db8:100:3::/64", "bound"]


def test_nothing_of_another_network_namespace_is_shown(
    delegated: Daemon, lab: Callable[[str], Namespace], tmp_path: Path
) -> None:
    """Which shares /run, as that of a VPN or of a test may."""
    delegated.start()
    elsewhere = lab("elsewhere")
    with Daemon(elsewhere, tmp_path, POLICY, forked=True) as other:
        for running in (False, True, False):
            if running:
                other.start()
                other.wait_for("another process listens there")
            assert other.status() == {"delegations": [], "subnets": []}
            said = other.control("status").stderr
            assert ("of another network namespace" if running else "no daemon is running here") in said
            refused = other.control("forget", PREFIX, check=False)
            assert refused.returncode == 69
            if running:
                other.kill()
        assert len(delegated.status()["delegations"]) == 1
        assert delegated.control("status").stderr == ""
