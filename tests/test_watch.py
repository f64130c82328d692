"""`anyipctl watch` against the real kernel: all that is, then each change once, until interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from anyipd.model import Prefix
from tests.lab.daemon import Daemon
from tests.lab.delegated import PREFIX, delegate, write_lease
from tests.lab.kea import Kea, Offer
from tests.lab.namespace import stop, wait_until
from tests.lab.network import Uplink
from tests.lab.networkd import Networkd

POLICY = "subnets: [{name: web, id: 3}, {name: docker, id: 0xf, bind: false}]"

DELEGATED = {"event": "delegated", "prefix": PREFIX, "source": "kernel"}
BOUND = {"event": "bound", "subnet": "web", "prefix": "2001:db8:100:3::/64"}
RESERVED = {
    "event": "reserved",
    "subnet": "docker",
    "prefix": "2001:db8:100:f::/64",
    "reason": "bind: false",
}
WITHDRAWN = {
    "event": "withdrawn",
    "prefix": PREFIX,
    "source": "kernel",
    "reason": "its discard route is gone",
}
GONE = [{"event": "gone"} | {key: each[key] for key in ("subnet", "prefix")} for each in (BOUND, RESERVED)]


class Watch:
    """`anyipctl watch` beside a daemon."""

    def __init__(self, daemon: Daemon, folder: Path, *options: str) -> None:
        self.out, self.err = folder / "watch.out", folder / "watch.err"
        command = [sys.executable, "-m", "anyipd.ctl", "watch", *daemon.files, *options]
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process: subprocess.Popen[str] = daemon.namespace.popen(
                *command, stdout=out, stderr=err, env=daemon.environment()
            )
        self.taken = 0

    def lines(self) -> list[str]:
        return self.out.read_text().splitlines()

    def tells(self, *expected: Mapping[str, object]) -> None:
        """Wait for the next events, which are these and no others, but for what stood for a moment only."""
        told: list[dict[str, Any]] = []

        def enough() -> bool:
            for line in self.lines()[self.taken :]:
                self.taken += 1
                told.append(json.loads(line))
            return len(told) >= len(expected) and told[-1]["event"] == expected[-1]["event"]

        wait_until(enough)
        for each in told:
            assert abs(datetime.fromisoformat(each.pop("time")) - datetime.now(UTC)) < timedelta(seconds=30)
        assert [each for each in told if each in expected or each["event"] != "missing"] == [*expected]


@pytest.fixture
def start(daemon: Daemon, tmp_path: Path) -> Iterator[Callable[..., Watch]]:
    started: list[Watch] = []

    def start(*options: str) -> Watch:
        started.append(Watch(daemon, tmp_path, *options))
        return started[-1]

    daemon.configure(POLICY)
    yield start
    for each in started:
        stop(each.process, signal.SIGKILL)


def watching(daemon: Daemon, start: Callable[..., Watch]) -> Watch:
    """A watch that has told what a running daemon bound."""
    delegate(daemon.namespace)
    daemon.start()
    watch = start("--json")
    watch.tells(DELEGATED, BOUND, RESERVED)
    return watch


def test_a_prefix_comes_is_held_off_and_goes(daemon: Daemon, start: Callable[..., Watch]) -> None:
    host = daemon.namespace
    watch = start("--json")
    daemon.start()
    delegate(host)
    watch.tells(DELEGATED, BOUND, RESERVED)
    host.ip("link add other type veth peer name far")
    host.ip("link set other up")
    host.ip("-6 address add 2001:db8:100:3::1/64 dev other")
    watch.tells(BOUND | {"event": "conflict", "reason": "2001:db8:100:3::/64 is on-link at other"})
    host.ip("link delete other")
    watch.tells(BOUND)
    host.ip(f"-6 route delete unreachable {PREFIX} dev lo proto dhcp")
    watch.tells(
        WITHDRAWN,
        *GONE,
    )


def test_all_that_is_comes_first_and_a_line_is_readable(daemon: Daemon, start: Callable[..., Watch]) -> None:
    delegate(daemon.namespace)
    daemon.start()
    watch = start()
    wait_until(lambda: len(watch.lines()) == 3)
    assert [line.split(" ", 1)[1] for line in watch.lines()] == [
        f"event=delegated prefix={PREFIX} source=kernel",
        "event=bound subnet=web prefix=2001:db8:100:3::/64",
        'event=reserved subnet=docker prefix=2001:db8:100:f::/64 reason="bind: false"',
    ]
    watch.process.send_signal(signal.SIGINT)
    assert watch.process.wait(20) == -signal.SIGINT
    assert watch.err.read_text() == ""


def test_lifetimes_end_without_anybody_telling(daemon: Daemon, start: Callable[..., Watch]) -> None:
    daemon.configure(f"{POLICY}\nstatic: [2001:db8:5::/64]\n")
    daemon.start()
    watch = start("--json")
    watch.tells({"event": "bound", "subnet": "2001:db8:5::/64", "prefix": "2001:db8:5::/64"})
    write_lease(daemon.runtime, preferred_lifetime=4, valid_lifetime=8)
    lease: dict[str, object] = {"prefix": PREFIX, "source": "dhclient", "uplink": "uplink"}
    # A busy machine may be two seconds late.
    left = {"preferred": pytest.approx(3, abs=1), "valid": pytest.approx(7, abs=1)}
    watch.tells(lease | {"event": "delegated"} | left, BOUND, RESERVED)
    watch.tells(lease | {"event": "deprecated", "preferred": 0, "valid": pytest.approx(3, abs=1)})
    watch.tells(
        lease | {"event": "expired", "reason": "its valid lifetime is over"},
        *GONE,
    )


def test_a_renewal_by_a_lease_file_alone(daemon: Daemon, start: Callable[..., Watch], tmp_path: Path) -> None:
    def grant(valid: int) -> None:
        granted = write_lease(tmp_path / "elsewhere", valid_lifetime=valid)
        granted.rename(daemon.runtime / "leases" / "one")

    (tmp_path / "elsewhere").mkdir()
    (daemon.runtime / "leases").mkdir()
    grant(2000)
    daemon.start()
    watch = start("--json")
    wait_until(lambda: len(watch.lines()) == 3)
    time.sleep(1.5)  # a second after the lease our own discard route is due, which is a reason to look
    grant(9000)
    wait_until(lambda: len(watch.lines()) == 4)
    assert "renewed" in watch.lines()[3]


def test_a_policy_counts_from_its_reload_on(daemon: Daemon, start: Callable[..., Watch]) -> None:
    watch = watching(daemon, start)
    daemon.configure("subnets: [{name: web, id: 5}]")
    wait_until(lambda: "is not in force" in watch.err.read_text())
    assert len(watch.lines()) == 3
    daemon.reload()
    moved = {"event": "bound", "subnet": "web", "prefix": "2001:db8:100:5::/64", "was": BOUND["prefix"]}
    watch.tells(moved, GONE[1])
    assert watch.err.read_text().count("is not in force") == 1


def test_a_daemon_that_stands_still_changes_nothing(daemon: Daemon, start: Callable[..., Watch]) -> None:
    watch = watching(daemon, start)
    daemon.configure("subnets: [{name: other, id: 5}]")
    daemon.running.send_signal(signal.SIGSTOP)
    wait_until(lambda: "is not in force" in watch.err.read_text())
    assert len(watch.lines()) == 3
    daemon.running.send_signal(signal.SIGCONT)


def test_it_says_that_the_daemon_went_and_goes_on_when_it_is_back(
    daemon: Daemon, start: Callable[..., Watch]
) -> None:
    watch = watching(daemon, start)
    daemon.kill()
    wait_until(lambda: "no daemon is running here" in watch.err.read_text())
    daemon.namespace.ip(f"-6 route delete unreachable {PREFIX} dev lo proto dhcp")
    daemon.start()
    watch.tells(WITHDRAWN, *GONE)


def test_lo_down_and_up_takes_nothing_back(daemon: Daemon, start: Callable[..., Watch]) -> None:
    watch = watching(daemon, start)
    host = daemon.namespace
    host.ip("link set lo down")
    wait_until(lambda: "missing" in watch.out.read_text())
    host.ip("link set lo up")
    watch.tells(BOUND | {"event": "missing"}, BOUND)


def test_a_restart_of_networkd_takes_nothing_back(
    uplink: Uplink, kea: Kea, daemon: Daemon, start: Callable[..., Watch], tmp_path: Path
) -> None:
    """It takes its discard route away and says nothing until it is answered: what it said holds meanwhile."""
    daemon.configure("subnets: [{name: web, id: 3}]")
    kea.start(Offer(Prefix.parse(PREFIX)))
    networkd = Networkd(uplink.host, uplink.interface, tmp_path)
    networkd.start()
    networkd.wait_until_bound()
    daemon.start()
    daemon.wait_for("source=networkd", 20)
    watch = start("--json")
    wait_until(lambda: len(watch.lines()) == 2)
    kea.process.send_signal(signal.SIGSTOP)
    networkd.restart()
    wait_until(lambda: not uplink.host.ip("-6 route show type unreachable proto dhcp"))
    time.sleep(2)
    assert len(watch.lines()) == 2
    kea.process.send_signal(signal.SIGCONT)


def test_it_ends_when_nobody_reads_on(daemon: Daemon) -> None:
    host = daemon.namespace
    delegate(host)
    daemon.start()
    command = [sys.executable, "-m", "anyipd.ctl", "watch", *daemon.files]
    script = 'timeout 5 "$@" | grep -m 1 event=bound'
    done = host.run("bash", "-o", "pipefail", "-c", script, "bash", *command, env=daemon.environment())
    assert done.stdout.count("event=bound") == 1


def test_without_a_daemon_it_looks_once_and_waits_for_one(
    daemon: Daemon, start: Callable[..., Watch]
) -> None:
    delegate(daemon.namespace)
    watch = start("--json")
    watch.tells(DELEGATED, BOUND | {"event": "missing"}, RESERVED)
    assert "no daemon is running here" in watch.err.read_text()
    assert "one look of anyipctl itself" in watch.err.read_text()
    daemon.start()
    watch.tells(BOUND)


def test_a_ledger_file_that_is_none_is_told_of(daemon: Daemon, start: Callable[..., Watch]) -> None:
    daemon.start()
    daemon.kill()
    [file] = (daemon.runtime / "daemon").iterdir()
    file.write_text("nonsense")
    delegate(daemon.namespace)
    watch = start("--json")
    watch.tells(DELEGATED, BOUND | {"event": "missing"}, RESERVED)
    assert f"dropped: {file}" in watch.err.read_text()


def test_a_broken_policy_is_told_once(daemon: Daemon, start: Callable[..., Watch]) -> None:
    watch = watching(daemon, start)
    daemon.configure("subnets: [{name: Web}]")
    wait_until(lambda: "is not in force: mend it" in watch.err.read_text())
    time.sleep(2.5)  # it looks at the file every two seconds
    assert watch.err.read_text().count("subnets[0].name") == 1
    assert len(watch.lines()) == 3
