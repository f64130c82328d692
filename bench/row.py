"""A row of the table: a few measurements of ours, taken in turn with a few of a peer's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

Measurement = Callable[[], float]


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
        ratios = [our / their for our, their in zip(self.ours, self.theirs, strict=False)]
        return median(ratios) if ratios else None

    @property
    def reached(self) -> bool | None:
        """Whether the goals are met, None if there are none."""
        verdicts = []
        if self.goal is not None and self.ratio is not None:
            verdicts.append(self.ratio <= self.goal)
        if self.limit is not None:
            verdicts.append(median(self.ours) <= self.limit)
        return all(verdicts) if verdicts else None


def in_turn(ours: Measurement, theirs: Measurement, runs: int) -> tuple[list[float], list[float]]:
    """Measure A B A B ...; the first of each warms up and does not count."""
    pairs = [(ours(), theirs()) for _ in range(runs + 1)][1:]
    return [our for our, _ in pairs], [their for _, their in pairs]
