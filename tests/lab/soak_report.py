"""What the chaos run found: as a text for people, as JSON for programs, and whether it is good enough."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

GROWTH = 8 << 10
"""KiB by which the daemon may grow from its first fault to its last: allocators keep some of what an
overrun took, and a leak of a KiB a fault is past it after some hours."""

LOSSES_SHOWN = 10


@dataclass(frozen=True)
class Footprint:
    """Resident memory in KiB, and open descriptors, of a process."""

    rss: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Footprint:
        status = Path(f"/proc/{pid}/status").read_text()
        (rss,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
        counts = list[int]()
        for _ in range(5):  # a file that is open for a moment is no leak
            counts.append(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))
            time.sleep(0.02)
        return cls(int(rss), min(counts))


@dataclass
class Report:
    """Figures of a run; seconds from a fault to whole again are in `recoveries`, by the fault's name.

    `lifetimes` are the subnets that were bound past their end, or unbound before; `touched` is what of others
    was changed, beside `changes` of the daemon's own.
    """

    seed: int
    seconds: float = 0.0
    recoveries: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    restarts: int = 0
    sent: int = 0
    answered: int = 0
    lost_inside: int = 0
    losses: list[str] = field(default_factory=list)
    lifetimes: list[str] = field(default_factory=list)
    changes: int = 0
    touched: list[str] = field(default_factory=list)
    start: Footprint = field(default_factory=lambda: Footprint(0, 0))
    end: Footprint = field(default_factory=lambda: Footprint(0, 0))
    peak: int = 0
    grown: int = 0
    interrupted: bool = False
    problems: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        return sum(map(len, self.recoveries.values()))

    def see(self, footprint: Footprint, first: Footprint) -> None:
        """Take in what the daemon holds now, and what this same process held at `first`."""
        self.end = footprint
        self.peak = max(self.peak, footprint.rss)
        self.grown = max(self.grown, footprint.rss - first.rss)

    def verdict(self) -> list[str]:
        """Say all that is not as it must be."""
        found = list(self.problems)
        if self.losses:
            found.append(f"{len(self.losses)} probes lost outside all windows")
        if self.lifetimes:
            found.append(f"{len(self.lifetimes)} subnets bound too long, or not long enough")
        if self.touched:
            found.append(f"{len(self.touched)} changes of what is not anyipd's")
        if self.grown > GROWTH:
            found.append(f"the daemon grew by {self.grown} KiB, more than {GROWTH}")
        if self.end.descriptors > self.start.descriptors:
            found.append(f"descriptors grew from {self.start.descriptors} to {self.end.descriptors}")
        return found

    def data(self) -> dict[str, Any]:
        """Give it all for JSON; seconds, KiB and counts."""
        return {
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "interrupted": self.interrupted,
            "faults": {
                name: {
                    "count": len(found),
                    "recovery_median": round(median(found), 3),
                    "recovery_max": round(max(found), 3),
                }
                for name, found in sorted(self.recoveries.items())
            },
            "faults_total": self.faults,
            "restarts": self.restarts,
            "probes": {
                "sent": self.sent,
                "answered": self.answered,
                "lost_inside_windows": self.lost_inside,
                "lost_outside_windows": len(self.losses),
            },
            "losses": self.losses,
            "lifetimes": self.lifetimes,
            "changes": self.changes,
            "touched": self.touched,
            "daemon": {
                "start": asdict(self.start),
                "end": asdict(self.end),
                "rss_peak": self.peak,
                "rss_most_grown": self.grown,
            },
            "verdict": self.verdict(),
        }

    def text(self) -> str:
        """Write it as a table."""
        lines = [f"{'fault':36}{'times':>6}{'whole again, s: median':>25}{'max':>8}"]
        for name, found in sorted(self.recoveries.items()):
            lines.append(f"{name:36}{len(found):6}{median(found):25.3f}{max(found):8.3f}")
        start, end = self.start, self.end
        lines += [
            "",
            f"faults    {self.faults} in {self.seconds:.0f} s, seed {self.seed}",
            f"probes    {self.sent} sent, {self.answered} answered",
            f"          {self.lost_inside} lost inside windows, {len(self.losses)} outside",
            f"daemon    {self.restarts} restarts",
            f"          {self.changes} changes of its own, {len(self.touched)} of what is not",
            f"          descriptors {start.descriptors} at start, {end.descriptors} at end",
            f"          RSS {start.rss} KiB at start, {end.rss} at end, {self.peak} at most",
            f"          one process grew by {self.grown} KiB at most",
        ]
        lines += [f"lost      {each}" for each in self.losses[:LOSSES_SHOWN]]
        lines += [f"wrong     {each}" for each in (self.lifetimes + self.touched)[:LOSSES_SHOWN]]
        lines += [f"FAILED    {each}" for each in self.verdict()]
        if self.interrupted:
            lines.append("interrupted: this is what was seen so far")
        elif not self.verdict():
            lines.append("Nothing lost.")
        return "\n".join(lines)
