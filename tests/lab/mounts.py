"""Programs with files of their own where everybody's are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

BIND = """\
while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done
shift
exec "$@"
"""
"""Pairs of what is to be seen and where, `--`, and the command that is to see it so."""


def with_mounts(mounts: Mapping[str, Path]) -> list[str]:
    """Give the beginning of a command line: what follows has `mounts`, by their place, and nobody else."""
    pairs = [str(word) for place, file in mounts.items() for word in (file, place)]
    return ["unshare", "--mount", "sh", "-ec", BIND, "sh", *pairs, "--"]
