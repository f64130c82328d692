"""How far it is, on a terminal."""

from __future__ import annotations

import sys


def show(target: str, done: int, what: str) -> None:
    """Show it in place of what was shown before."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{target:11} {done:>9,} inputs, {what}", end="", file=sys.stderr, flush=True)


def clear() -> None:
    """Make room for what is printed next."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
