"""Tables for people: columns as wide as their widest cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from anyipd.printable import printable


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under a head, without the columns in which no row says anything."""
    rows = [[printable(cell) for cell in row] for row in rows]
    columns = [column for column in zip(head, *rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    for line in zip(*columns, strict=True):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
