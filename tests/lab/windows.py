"""When a probe may be lost: the windows of the faults, each as small as truth allows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from anyipd.model import Prefix

Covers = Callable[[Prefix], bool]
"""Whether a window lets probes to this subnet be lost."""


@dataclass
class Window:
    """From `start` to `end`, in seconds of CLOCK_MONOTONIC; it is open while `end` is None."""

    covers: Covers
    start: float
    end: float | None = None

    def close(self) -> None:
        self.end = time.monotonic()


class Windows:
    """All windows that may still excuse a probe."""

    def __init__(self) -> None:
        self.opened: list[Window] = []

    def open(self, covers: Covers) -> Window:
        window = Window(covers, time.monotonic())
        self.opened.append(window)
        return window

    def excuse(self, subnet: Prefix, begun: float, ended: float) -> bool:
        """Whether a probe to `subnet`, given to the kernel between `begun` and `ended`, may be lost."""
        return any(
            window.start <= ended and (window.end is None or begun <= window.end) and window.covers(subnet)
            for window in list(self.opened)
        )
