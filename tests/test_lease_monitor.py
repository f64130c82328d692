"""What of a directory of lease files wakes the daemon: real files, and the kernel's own events."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anyipd.model import Prefix
from anyipd.observe.lease_monitor import LeaseMonitor
from tests.lab.hook_caller import BOUND, PREFIX, Caller

NAME = "2001:db8:a::_48@uplink"


@pytest.fixture
def leases(tmp_path: Path) -> Path:
    made = tmp_path / "run" / "leases"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def monitor(leases: Path) -> Iterator[LeaseMonitor]:
    made = LeaseMonitor(leases)
    made.watch()
    yield made
    os.close(made.fileno())


def woken(monitor: LeaseMonitor) -> bool:
    """Do what the daemon does with events: read once each time the descriptor is readable, then watch."""
    changed = False
    while select.select([monitor], [], [], 0)[0]:
        changed |= monitor.read()
    monitor.watch()
    return changed


@pytest.mark.parametrize(
    ("gone", "wakes"),
    [
        (lambda leases: leases.rmdir(), True),
        # Nothing in there went so far.
        (lambda leases: leases.rename(leases.parent / "old"), False),
        (lambda leases: leases.rename(leases.parent.parent / "old"), False),
    ],
)
def test_a_directory_that_was_replaced_is_watched(
    leases: Path, monitor: LeaseMonitor, gone: Callable[[Path], None], *, wakes: bool
) -> None:
    gone(leases)
    assert woken(monitor) is wakes
    leases.mkdir()
    woken(monitor)  # by the directory above
    (leases / NAME).touch()
    assert woken(monitor)


def test_a_directory_that_was_replaced_in_between_is_watched(leases: Path, monitor: LeaseMonitor) -> None:
    leases.rmdir()
    leases.mkdir()
    assert woken(monitor)
    (leases / NAME).touch()
    assert woken(monitor)


def test_more_events_than_one_read_takes(leases: Path, monitor: LeaseMonitor) -> None:
    for number in range(500):
        (leases / f".{NAME}.{number}").touch()
    (leases / NAME).touch()
    assert not monitor.read()
    assert woken(monitor)
    assert not woken(monitor)


def test_a_file_in_the_making_wakes_nobody_but_names_its_prefix(leases: Path, monitor: LeaseMonitor) -> None:
    (leases / f".{NAME}.4711").touch()
    assert not monitor.read()
    assert monitor.coming == [Prefix.parse("2001:db8:a::/48")]
    (leases / f".{NAME}.4711").rename(leases / NAME)
    assert monitor.read()


@pytest.mark.parametrize(
    "name", [b".x", b".@", b"...", b".2001:db8:a::_129@a", b".2001:db8:a::@a\xff", b".\xff_48@a", b".:_48@a"]
)
def test_a_name_that_is_none_names_nothing_much(leases: Path, monitor: LeaseMonitor, name: bytes) -> None:
    Path(os.fsdecode(bytes(leases) + b"/" + name)).touch()
    assert not monitor.read()
    assert monitor.coming in ([], [Prefix.parse("2001:db8:a::/128")])


def test_the_hook_names_its_prefix_before_its_file_is_in_place(caller: Caller) -> None:
    caller.leases.mkdir(parents=True)
    monitor = LeaseMonitor(caller.leases)
    monitor.watch()
    caller.run(BOUND)
    assert monitor.read()
    assert monitor.coming[:1] == [Prefix.parse(PREFIX)]
    os.close(monitor.fileno())
