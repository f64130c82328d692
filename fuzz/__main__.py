"""`make fuzz`: feed each target for a while, or with a number of inputs.

Exit code 0 if no input did what none may, 1 if one did.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from fuzz import coverage, hook, progress
from tests.lab.namespace import LabError, enter

COVERED = (
    *("lease", "policy", "netlink", "dhcpv6"),
    *("ledger", "heard", "nameservers", "networkd", "dbus", "varlink", "neighbour"),
)
"""Targets that coverage guides."""

TARGETS = (*COVERED, *hook.CLIENTS)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description="Inputs that nobody should send.")
    parser.add_argument("--runs", type=int, default=0, metavar="N", help="inputs a target")
    parser.add_argument(
        "--seconds", type=int, default=0, metavar="N", help="seconds a target (60, where --runs is not given)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (all)")
    options = parser.parse_args()
    unknown = [each for each in options.targets if each not in TARGETS]
    if unknown:
        parser.error(f"there is no target {', '.join(unknown)}, only {', '.join(TARGETS)}")
    if not options.runs and not options.seconds:
        options.seconds = 60
    return options


def fuzz(target: str, runs: int, seconds: int) -> dict[str, object]:
    """Fuzz one target and say what became of it."""
    begun = time.monotonic()
    if target in COVERED:
        done, crash = coverage.fuzz(target, runs, seconds)
    else:
        done, crash = hook.fuzz(target, runs, seconds)
    return {"target": target, "runs": done, "seconds": round(time.monotonic() - begun, 1), "crash": crash}


def main() -> None:
    options = arguments()
    targets = options.targets or TARGETS
    if set(targets) & hook.CLIENTS.keys():
        try:
            enter()
        except LabError as error:
            sys.exit(f"fuzz: {error}")
    summaries = []
    for target in targets:
        summary = fuzz(target, options.runs, options.seconds)
        summaries.append(summary)
        progress.clear()
        if not options.json:
            verdict = summary["crash"] or "fine"
            print(
                f"{target:11} {summary['runs']:>9,} inputs in {summary['seconds']:.0f} s: {verdict}",
                flush=True,
            )
    if options.json:
        print(json.dumps(summaries, indent=2))
    sys.exit(any(summary["crash"] for summary in summaries))


if __name__ == "__main__":
    main()
