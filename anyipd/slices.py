"""Work in slices: generators that yield after every few milliseconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

_T = TypeVar("_T")

SLICE = 0.002
"""Seconds after which the loop gets a turn within a pass; a step of work takes a millisecond or two."""


class _Steps(Generic[_T]):
    """The steps of some work, and what it came to when they are over."""

    result: _T

    def __init__(self, work: Generator[None, None, _T]) -> None:
        self._work = work

    def __iter__(self) -> Iterator[None]:
        self.result = yield from self._work


def at_once(work: Generator[None, None, _T]) -> _T:
    """Run a step to its end without a pause, and give its result."""
    steps = _Steps(work)
    for _ in steps:
        pass
    return steps.result


async def in_slices(work: Generator[None, None, _T]) -> _T:
    """Run a step to its end, let the loop take its turn now and then, and give its result."""
    steps = _Steps(work)
    turn = time.monotonic() + SLICE
    for _ in steps:
        if time.monotonic() > turn:
            await asyncio.sleep(0)
            turn = time.monotonic() + SLICE
    return steps.result
