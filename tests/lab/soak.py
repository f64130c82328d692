"""`make soak`: the chaos run. Real Kea, dhclient and kernel, random faults, probes all the time.

Exit code 0 if nothing was lost outside the faults' own windows, every subnet was bound until the end of
its valid lifetime and no longer, the table is right at the end, nobody else's address, route or rule was
touched, and the daemon leaked nothing; 1 if not; 130 where somebody interrupted, with the report so far.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.lab.faults import FAULTS, Fault
from tests.lab.namespace import LabError, Process, enter
from tests.lab.soak_report import Footprint, Report
from tests.lab.stage import Stage, build

LONGEST_REST = 3.0
"""Seconds between two faults at most."""

LOG_LINES = 12
FAILURES = (TimeoutError, RuntimeError, OSError, subprocess.CalledProcessError)
"""What the lab raises when one of its programs does not do what it was started for."""


def order(seed: int) -> Iterator[Fault]:
    """All faults in a random order, and again in another, without end."""
    choices = Random(seed)
    while True:
        yield from choices.sample(FAULTS, len(FAULTS))


class Soak:
    """One run of `seconds`."""

    def __init__(self, stage: Stage, report: Report, seconds: float) -> None:
        self.stage, self.report, self.seconds = stage, report, seconds
        self.begun = time.monotonic()
        self.process = 0
        self.first = Footprint(0, 0)
        self.terminal = sys.stderr.isatty()

    def run(self) -> None:
        """Cause faults until the time is over, one at least; what goes wrong is in the report."""
        rests = Random(self.report.seed)
        with self.stage.witness as witness, self.stage.onlooker, self.stage.prober as prober:
            name = "the start"
            try:
                self.stage.start()
                self.begun = time.monotonic()
                self.stage.wait_until_whole()
                # What a daemon hands to those who ask is a descriptor, held from the first of them on.
                self.stage.daemon.control("status")
                self.look()
                self.report.start = self.first
                for fault in order(self.report.seed):
                    name = fault.name
                    self.show(name)
                    lost, wrong = len(prober.lost_outside), len(witness.wrong)
                    fault.happen(self.stage)
                    self.report.recoveries[name].append(self.stage.recovery)
                    self.look()
                    time.sleep(rests.uniform(0, LONGEST_REST))
                    if len(prober.lost_outside) > lost:
                        self.tell(f"lost during or after: {name}")
                    if found := [what for _, what in witness.wrong[wrong:]]:
                        self.tell(f"during or after: {name}: {'; '.join(found)}")
                    if time.monotonic() - self.begun > self.seconds:
                        break
                name = "the end"
                self.stage.wait_until_whole()
            except KeyboardInterrupt:
                self.report.interrupted = True
            except FAILURES as error:
                self.report.problems.append(f"{name}: {error}")
                self.tell(f"{name}: {error}")
            finally:
                self.report.seconds = time.monotonic() - self.begun
                prober.stop()
                self.count()
        if self.terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def look(self) -> None:
        """Look at the daemon's footprint, and whether the others still run."""
        process = self.stage.daemon.running.pid
        footprint = Footprint.of(process)
        if process != self.process:
            self.process, self.first = process, footprint
        self.report.see(footprint, self.first)
        programs: list[Process] = [self.stage.neighbour.running]
        for line in self.stage.lines:
            programs += [line.client.process, line.kea.process]
        for program in programs:
            if program.poll() is not None:
                raise RuntimeError(f"{program!r} ended with {program.returncode} by itself")
        for watcher in self.stage.prober, self.stage.witness, self.stage.onlooker:
            if not watcher.thread.is_alive():
                raise RuntimeError(f"the {type(watcher).__name__.lower()} ended")

    def count(self) -> None:
        """Put what became of the probes into the report."""
        prober, report = self.stage.prober, self.report
        report.sent, report.answered, report.lost_inside = prober.sent, prober.answered, prober.lost_inside
        report.restarts = self.stage.restarts
        report.losses = [
            f"{loss.probe.address} of {loss.probe.subnet} at {loss.probe.begun - self.begun:.3f} s: "
            f"{loss.error or 'no answer'}"
            for loss in prober.lost_outside
        ]
        report.lifetimes = self.timed(self.stage.witness.wrong)
        report.changes, report.touched = self.stage.onlooker.changes, self.timed(self.stage.onlooker.touched)

    def timed(self, found: Iterable[tuple[float, str]]) -> list[str]:
        """Return what was found as the report shows it."""
        return [f"at {at - self.begun:.3f} s: {what}" for at, what in found]

    def show(self, name: str) -> None:
        """Show on a terminal how far it is."""
        if self.terminal:
            self.count()
            report, elapsed = self.report, time.monotonic() - self.begun
            line = (
                f"{elapsed:.0f} of {self.seconds:.0f} s  {report.faults} faults  {report.sent} probes  "
                f"lost {report.lost_inside} inside windows, {len(report.losses)} outside  {name}"
            )
            line = line[: shutil.get_terminal_size().columns - 1]
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def tell(self, what: str) -> None:
        """Say at once what went wrong, and what the daemon said before."""
        print(f"{time.monotonic() - self.begun:.3f} s: {what}", file=sys.stderr)
        for line in self.stage.daemon.lines()[-LOG_LINES:]:
            print(f"  {line}", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="soak", description="Random faults, and no answer lost.")
    parser.add_argument("--minutes", type=float, default=5, help="how long (%(default)s)")
    parser.add_argument("--seed", type=int, help="repeat the order of faults of a run")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    parser.add_argument("--logs", type=Path, help="a folder to keep all logs in")
    return parser.parse_args()


def perform(options: argparse.Namespace) -> int:
    """Run, report, and give the exit code."""
    seed = secrets.randbits(32) if options.seed is None else options.seed
    report = Report(seed)
    # In the lab's own /run: it goes with the last process, however that ends.
    with TemporaryDirectory(dir="/run") as name:
        folder = Path(name)
        with build(folder, seed) as stage:
            Soak(stage, report, options.minutes * 60).run()
        if options.logs:
            for log in folder.rglob("*.log"):
                target = options.logs / log.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(log, target)
    print(json.dumps(report.data(), indent=1) if options.json else report.text())
    return 1 if report.verdict() else 130 if report.interrupted else 0


def main() -> int:
    options = arguments()
    try:
        enter()
        return perform(options)
    except LabError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
