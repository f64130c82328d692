"""What of a directory of lease files wakes the daemon: real files, and the kernel's own events."""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anyipd.observe.lease_monitor import LeaseMonitor
from tests.lab.hook_caller import BOUND, Caller

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
    changed = read_all(monitor)
    monitor.watch()
    return changed


def read_all(monitor: LeaseMonitor) -> bool:
    """Read as often as the descriptor is readable, which it must cease to be."""
    changed = False
    for _ in range(1000):
        if not select.select([monitor], [], [], 0)[0]:
            return changed
        changed |= monitor.read()
    raise AssertionError("it wakes by itself")


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


def replaced_by_rename(leases: Path) -> None:
    leases.rename(leases.parent / "old")
    (leases.parent / "new").rename(leases)


def with_all_around_it(leases: Path) -> None:
    leases.parent.rename(leases.parents[1] / "old")
    (leases.parents[1] / "old/new").rename(leases.parents[1] / "new")
    leases.parent.mkdir()
    (leases.parents[1] / "new").rename(leases)


def removed_and_made_again(leases: Path) -> None:
    shutil.copytree(leases.parent / "new", leases.parents[1] / "new")
    shutil.rmtree(leases.parent)
    leases.parent.mkdir()
    (leases.parents[1] / "new").rename(leases)


REPLACED = [replaced_by_rename, with_all_around_it, removed_and_made_again]


@pytest.mark.parametrize("replace", REPLACED)
def test_what_is_in_a_directory_that_takes_the_place_wakes(
    leases: Path, monitor: LeaseMonitor, replace: Callable[[Path], None]
) -> None:
    """And nobody calls `watch` in between: the daemon does so in a pass, for which it must wake."""
    (leases.parent / "new").mkdir()
    (leases.parent / "new" / NAME).touch()
    assert not monitor.read()
    replace(leases)
    assert read_all(monitor)
    assert not read_all(monitor)
    (leases / f"{NAME}2").touch()
    assert read_all(monitor)


def test_a_directory_made_again_step_by_step_wakes(leases: Path, monitor: LeaseMonitor) -> None:
    shutil.rmtree(leases.parent)
    assert read_all(monitor)
    (leases.parents[1] / "another").mkdir()
    assert not read_all(monitor)
    leases.parent.mkdir()
    read_all(monitor)
    (leases.parent / "daemon").mkdir()
    assert not read_all(monitor)
    leases.mkdir()
    assert read_all(monitor)
    (leases / NAME).touch()
    assert read_all(monitor)


def test_a_directory_that_was_replaced_wakes_no_more(leases: Path, monitor: LeaseMonitor) -> None:
    leases.rename(leases.parent / "old")
    assert not read_all(monitor)
    leases.mkdir()
    assert read_all(monitor)
    (leases.parent / "old" / NAME).touch()
    assert not read_all(monitor)


def test_more_events_than_one_read_takes(leases: Path, monitor: LeaseMonitor) -> None:
    for number in range(500):
        (leases / f".swept{number}").touch()
    (leases / NAME).touch()
    assert not monitor.read()
    assert woken(monitor)
    assert not woken(monitor)


@pytest.mark.parametrize("publish", [Path.rename, Path.hardlink_to])
def test_a_file_wakes_when_it_is_whole_and_when_it_is_in_its_place(
    leases: Path, monitor: LeaseMonitor, publish: Callable[[Path, Path], object]
) -> None:
    new, name = leases / f".{NAME}.4711", f".{NAME}.4711"
    with new.open("w") as file:
        file.write("some")
        file.flush()
        assert not monitor.read()
        assert monitor.written == set()
    assert monitor.read()
    assert monitor.written == {name}
    if publish is Path.rename:
        new.rename(leases / NAME)
    else:
        (leases / NAME).hardlink_to(new)
        new.unlink()
    assert monitor.read()
    assert monitor.written == set()


@pytest.mark.parametrize(
    "name", [b".x", b".@", b"...", b".2001:db8:a::_129@a", b".2001:db8:a::@a\xff", b".\xff_48@a", b".:_48@a"]
)
def test_a_name_that_is_none_is_no_lease(leases: Path, monitor: LeaseMonitor, name: bytes) -> None:
    Path(os.fsdecode(bytes(leases) + b"/" + name)).touch()
    assert not monitor.read()
    assert monitor.written == set()


def test_what_the_hook_leaves_is_in_its_place(caller: Caller) -> None:
    caller.leases.mkdir(parents=True)
    monitor = LeaseMonitor(caller.leases)
    monitor.watch()
    caller.run(BOUND)
    assert woken(monitor)
    assert monitor.written == set()
    os.close(monitor.fileno())
