"""A row of the table: a few measurements of ours, taken in turn with a few of a peer's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import median

Measurement = Callable[[], float]

MAX_PAIRS = 8
"""Times as many pairs as asked for, at most, where noise may decide whether a goal is met."""


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of one thing in `unit` ("ms", "MB" or "1"). `goal` is the largest ratio wanted."""

    name: str
    unit: str
    ours: Sequence[float]
    peer: str = ""
    theirs: Sequence[float] = field(default_factory=list)
    goal: float | None = None
    limit: float | None = None  # the largest figure of ours that is wanted, in `unit`

    @property
    def ratio(self) -> float | None:
        """Median of the ratios, run by run: what slows the machine down slows both."""
        found = ratios(self.ours, self.theirs)
        return median(found) if found else None

    @property
    def reached(self) -> bool | None:
        """Whether the goals are met, None if there are none."""
        verdicts = []
        if self.goal is not None and self.ratio is not None:
            verdicts.append(self.ratio <= self.goal)
        if self.limit is not None:
            verdicts.append(median(self.ours) <= self.limit)
        return all(verdicts) if verdicts else None


def in_turn(
    ours: Measurement, theirs: Measurement, runs: int, goal: float | None = None
) -> tuple[list[float], list[float]]:
    """Measure A B A B ...; the first of each warms up and does not count.

    There are more than `runs` pairs where `wants_more` says so.
    """
    ours(), theirs()
    figures: list[float] = []
    peers: list[float] = []
    while wants_more(figures, peers, runs, goal):
        figures.append(ours())
        peers.append(theirs())
    return figures, peers


def wants_more(ours: Sequence[float], theirs: Sequence[float], runs: int, goal: float | None) -> bool:
    """Whether so many pairs are too few, or leave open on which side of the goal their ratios' median is."""
    if len(ours) < runs or goal is None:
        return len(ours) < runs
    return len(ours) < MAX_PAIRS * runs and not is_settled(ratios(ours, theirs), goal)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Divide, pair by pair."""
    return [our / their for our, their in zip(ours, theirs, strict=False)]


def is_settled(found: Sequence[float], goal: float) -> bool:
    """Whether so many ratios are on one side of the goal that it is hardly their true median.

    If it were, each would be on either side by the toss of a coin (the sign test): this is two standard
    deviations from as many above as below, and takes nothing for granted of the noise.
    """
    below = sum(each <= goal for each in found)
    return abs(2 * below - len(found)) > 2 * sqrt(len(found))
