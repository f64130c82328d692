"""A restart at any moment, whichever client is down: the daemon knows what it knew."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from anyipd import clock, here
from anyipd.decide.carrier import Carrier
from anyipd.decide.ledger import Ledger
from anyipd.ledger_file import LedgerFile
from anyipd.model import (
    INFINITE,
    Delegation,
    DelegationState,
    Discard,
    HoldDown,
    Lease,
    Link,
    Place,
    Places,
    Prefix,
    Subnets,
    SubnetState,
)
from anyipd.policy import Policy
from anyipd.view import View
from tests.lab.daemon import Daemon
from tests.lab.delegated import PREFIX, bound, delegate, subnets, write_lease
from tests.lab.namespace import wait_until

WANTED = subnets(PREFIX, 1)
P, Q = Prefix.parse(PREFIX), Prefix.parse("2001:db8:200::/60")
LEASE = Lease(
    P,
    "dhclient",
    "eth0",
    "00:00:00:01",
    9.25,
    600,
    INFINITE,
    INFINITE,
    Prefix(P.address, 64),
    7,
    1e9,
    "1",
    duid="ab",
)

PLACES = {
    P: Places(
        (Place("web", None, Prefix(P.address, 64), 1), Place("all", 3, Prefix(P.address + (5 << 64), 64), 7)),
        (HoldDown(P.address, P.address + 1, INFINITE), HoldDown(P.end - 9, P.end, 71.5)),
    ),
    Q: Places(),
}


VIEW = View(
    9.5,
    here.network_namespace(),
    "/etc/anyipd.yaml",
    Policy(),
    (Delegation(P, "dhclient", DelegationState.GRANTED, valid_until=INFINITE),),
    (Subnets("default", P, SubnetState.BOUND, Prefix(P.address, 64), valid_until=INFINITE),),
)


def filled() -> Ledger:
    ledger = Ledger()
    ledger.take([LEASE, Lease(Q, "networkd", None, None, 9.5, None, None, 77.0, reply=9.5)], 10.0)
    ledger.see_routes({Discard(P, 1001)}, 11.0)
    ledger.lo_fell()
    ledger.route_added(Discard(Q, 1024), 12.0)
    ledger.forget(Q, 13.0)
    ledger.see_links({"eth0": Link(2, 1), "eth1": Link(3, 1)}, 14.0)
    ledger.see_links({"eth0": Link(2, 3), "eth1": Link(3, 3)}, 15.0)
    return ledger


def test_what_is_written_is_read(tmp_path: Path) -> None:
    ledger = filled()
    LedgerFile(tmp_path).write(ledger, PLACES, VIEW)
    found, places = LedgerFile(tmp_path).read()
    assert places == PLACES
    assert LedgerFile(tmp_path).read_view() == VIEW
    assert list(found.records) == list(ledger.records)
    assert (found.routes, found.fallen) == (ledger.routes, ledger.fallen)
    assert found.carriers == ledger.carriers == {"eth0": Carrier(Link(2, 3), 15.0)}
    path = tmp_path / "daemon" / str(here.network_namespace())
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_it_is_written_no_more_often_than_something_changed(tmp_path: Path) -> None:
    ledger, file = filled(), LedgerFile(tmp_path)
    file.write(ledger, PLACES, VIEW)
    before = file.path.stat().st_ino
    file.write(ledger, PLACES, VIEW)
    assert file.path.stat().st_ino == before
    ledger.forget(P, 14.0)
    file.write(ledger, PLACES, VIEW)
    assert file.path.stat().st_ino != before
    before = file.path.stat().st_ino
    file.write(ledger, PLACES, replace(VIEW, time=12.0))
    assert file.path.stat().st_ino == before
    file.write(ledger, PLACES, replace(VIEW, subnets=()))
    assert file.path.stat().st_ino != before


def test_that_of_another_boot_is_of_no_use(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path)
    file.write(filled(), {}, VIEW)
    file.path.write_text(file.path.read_text().replace(here.boot(), "0" * 36))
    assert not file.read()[0].records
    assert file.read_view() is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", json.dumps({"boot": "BOOT"}), json.dumps({"boot": "BOOT", "records": [1]})]
)
def test_nonsense_is_said_and_is_no_ledger(daemon: Daemon, text: str) -> None:
    daemon.start()
    daemon.kill()
    [file] = (daemon.runtime / "daemon").iterdir()
    file.write_text(text.replace("BOOT", here.boot()))
    delegate(daemon.namespace)
    daemon.start()
    daemon.wait_for("ledger file dropped")
    assert bound(daemon.namespace) == WANTED


@pytest.mark.parametrize(
    "leave",
    [os.mkfifo, Path.mkdir, lambda file: file.symlink_to("/dev/zero")],
    ids=["FIFO", "folder", "link"],
)
def test_no_kind_of_file_holds_anybody_up(daemon: Daemon, leave: Callable[[Path], None]) -> None:
    """Whoever took the daemon over may leave what root and the next daemon would wait for, or follow."""
    delegate(daemon.namespace)
    daemon.start()
    daemon.kill()
    [file] = (daemon.runtime / "daemon").iterdir()
    file.unlink()
    leave(file)
    daemon.start()
    daemon.wait_for("ledger file dropped")
    assert bound(daemon.namespace) == WANTED
    daemon.kill()
    file.rmdir() if file.is_dir() else file.unlink()
    leave(file)
    assert f"dropped: {file}" in daemon.control("status").stderr


def test_a_fifo_in_its_way_does_not_hold_it_up(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path)
    file.path.parent.mkdir()
    os.mkfifo(file.path.with_name(f".{file.path.name}"))
    file.write(filled(), PLACES, VIEW)
    assert LedgerFile(tmp_path).read()[1] == PLACES


def test_everybody_may_read_it_whatever_the_umask_is(tmp_path: Path) -> None:
    file, before = LedgerFile(tmp_path), os.umask(0o077)
    try:
        file.write(filled(), PLACES, VIEW)
    finally:
        os.umask(before)
    assert file.path.stat().st_mode & 0o777 == 0o644
    assert file.path.parent.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "1e300", "-1e300"])
def test_a_time_that_is_none_is_said_and_is_no_ledger(tmp_path: Path, number: str) -> None:
    file = LedgerFile(tmp_path)
    file.write(filled(), PLACES, VIEW)
    text = file.path.read_text()
    times = {each[0] for each in re.finditer(r'"\w+": -?\d+\.\d+', text)}
    assert len(times) > 3
    for time_of in times:
        name, _, _ = time_of.partition(":")
        file.path.write_text(text.replace(time_of, f"{name}: {number}"))
        with pytest.raises(ValueError, match="is no time"):
            file.read()


def test_a_directory_that_cannot_be_written_costs_a_warning(daemon: Daemon) -> None:
    (daemon.runtime / "daemon").touch()
    daemon.start()
    delegate(daemon.namespace)
    daemon.wait_for("ledger file not written")
    wait_until(lambda: bound(daemon.namespace) == WANTED)


def test_a_lease_whose_file_is_gone_ends_on_time_over_a_restart(daemon: Daemon) -> None:
    written = write_lease(daemon.runtime, preferred_lifetime=8, valid_lifetime=10)
    end = clock.now() + 11
    daemon.start()
    wait_until(lambda: bound(daemon.namespace) == WANTED)
    daemon.kill()
    written.unlink()
    daemon.start()
    assert bound(daemon.namespace) == WANTED
    daemon.wait_for("event=expired", 15)
    assert clock.now() < end + 1
    wait_until(lambda: bound(daemon.namespace) == set())


def test_a_route_that_outlived_its_lease_means_nothing_after_a_restart(daemon: Daemon) -> None:
    daemon.namespace.ip(f"-6 route add unreachable {PREFIX} dev lo proto dhcp metric 1001")
    daemon.start()
    written = write_lease(daemon.runtime, client="dhcpcd", preferred_lifetime=1, valid_lifetime=2)
    daemon.wait_for("source=dhcpcd")
    daemon.wait_for("event=expired", 6)
    written.unlink()
    daemon.kill()
    daemon.start()
    time.sleep(0.3)
    assert bound(daemon.namespace) == set()


def test_what_fell_with_lo_is_known_after_a_restart(daemon: Daemon) -> None:
    daemon.start()
    delegate(daemon.namespace)
    wait_until(lambda: bound(daemon.namespace) == WANTED)
    daemon.namespace.ip("link set lo down")
    daemon.namespace.ip("link set lo up")
    wait_until(lambda: bound(daemon.namespace) == WANTED)
    daemon.kill()
    daemon.start()
    assert bound(daemon.namespace) == WANTED
    assert daemon.status()["delegations"][0]["prefix"] == PREFIX


@pytest.mark.parametrize("change", ["link set far down; link set far up", "link delete uplink; LINK"])
def test_an_uplink_that_came_back_meanwhile_is_noticed_after_a_restart(daemon: Daemon, change: str) -> None:
    """What the next exchange leaves out, whatever its IAID, is superseded."""
    link = "link add uplink up type veth peer far"

    def do(commands: str) -> None:
        for command in commands.replace("LINK", f"{link}; link set far up").split("; "):
            daemon.namespace.ip(command)

    do("LINK")
    daemon.start()
    write_lease(daemon.runtime)
    [file] = (daemon.runtime / "daemon").iterdir()
    wait_until(lambda: PREFIX in file.read_text())
    daemon.kill()
    do(change)
    daemon.start()
    write_lease(daemon.runtime, "two", prefix=str(Q), iaid="00:00:00:02")
    daemon.wait_for("event=superseded")
    assert bound(daemon.namespace) == WANTED | subnets(str(Q), 1)
