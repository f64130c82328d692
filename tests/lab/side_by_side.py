"""Many tests at once, by pytest-xdist: which share a worker, which start first, which run alone."""

from __future__ import annotations

import contextlib
import fcntl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

WORKERS_PER_CORE = 5
"""Most tests wait for a lifetime to end or for a client to act."""

ON_ONE_WORKER = {"test_deb.py", "test_install.py", "test_systemd.py"}
"""Files whose tests share something expensive, such as a booted machine."""


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """Give each test to the next worker that is free, but the tests of a file ON_ONE_WORKER to the same."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if Path(file).name in ON_ONE_WORKER else nodeid


def sort(items: list[pytest.Item]) -> None:
    """Put the tests marked `long` first and those marked `alone` last, else keep their order."""
    items.sort(key=lambda item: bool(item.get_closest_marker("long")), reverse=True)
    items.sort(key=lambda item: bool(item.get_closest_marker("alone")))


def spread(items: list[pytest.Item]) -> None:
    """Spread the tests of each file evenly: else all workers wait at once, and compute at once later."""
    size, before, place = Counter(item.path for item in items), Counter[Path](), dict[pytest.Item, float]()
    for item in items:
        place[item] = before[item.path] / size[item.path]
        before[item.path] += 1
    items.sort(key=place.__getitem__)


@contextlib.contextmanager
def turn(item: pytest.Item) -> Iterator[None]:
    """Wait until `item` may run, and keep others waiting: all if it is marked `alone`, else those."""
    with Path(__file__).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        yield
