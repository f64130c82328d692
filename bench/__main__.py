"""`make bench`: everything measured, one table. `python -m bench [--json] [--runs N] [PART ...]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from statistics import median

from bench import bulk, crowded, latency, neighbour, resting
from bench.row import Row
from tests.lab.namespace import LabError, enter

PARTS = {
    "bulk": bulk,
    "latency": latency,
    "crowded": crowded,
    "resting": resting,
    "neighbour": neighbour,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--runs", type=int, default=5, help="measurements of each (default: %(default)s)")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    options = parser.parse_args()
    unknown = set(options.parts) - PARTS.keys()
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    try:
        enter()
    except LabError as error:
        sys.exit(str(error))
    rows: list[Row] = []
    for part in options.parts or PARTS:
        for row in PARTS[part].rows(options.runs):
            rows.append(row)
            if not options.json:
                print(_line(row), flush=True)
    if options.json:
        print(json.dumps([_object(row) for row in rows], indent=2))
    sys.exit(any(row.reached is False for row in rows))


def _line(row: Row) -> str:
    verdict = {True: "reached", False: "MISSED", None: ""}[row.reached]
    goal = f"<= {row.goal:g}" if row.goal is not None else ""
    limit = f"<= {row.limit:g} {row.unit}" if row.limit is not None else ""
    ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
    return (
        f"{row.name:38} {_span(row.ours):>22} {row.unit:2} x{len(row.ours):<4} {ratio:>6} {goal:8} {limit:10}"
        f" {verdict:8}"
        f" {row.peer} {_span(row.theirs)}"
    ).rstrip()


def _span(figures: Sequence[float]) -> str:
    if not figures:
        return ""
    if len(figures) == 1:
        return f"{figures[0]:.3g}"
    return f"{median(figures):.3g} ({min(figures):.3g}-{max(figures):.3g})"


def _object(row: Row) -> dict[str, object]:
    return {
        "name": row.name,
        "unit": row.unit,
        "median": median(row.ours),
        "figures": list(row.ours),
        "peer": row.peer or None,
        "peer_median": median(row.theirs) if row.theirs else None,
        "ratio": row.ratio,
        "goal": row.goal,
        "limit": row.limit,
        "reached": row.reached,
    }


if __name__ == "__main__":
    main()
