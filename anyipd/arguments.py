"""The command line options that the daemon and `anyipctl` share, and their exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from anyipd import __version__

OK = 0
USAGE = 64  # EX_USAGE of sysexits.h, as are all below
UNAVAILABLE = 69
NO_PERMISSION = 77
CONFIGURATION = 78


class Parser(argparse.ArgumentParser):
    """A parser whose complaints end with EX_USAGE, with the shared options."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        self.add_argument("--version", action="version", version=f"{prog} {__version__}")
        add_shared(self)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and where help is."""
        fail(USAGE, f"{self.prog}: {message}; see {self.prog} --help")


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Add the options that every program of ours has."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path("/etc/anyipd.yaml"),
        metavar="FILE",
        help="the policy (default: %(default)s)",
    )
    parser.add_argument(
        "--runtime-dir",
        type=Path,
        default=Path(os.environ.get("RUNTIME_DIRECTORY", "/run/anyipd")),
        metavar="DIR",
        help="where hooks leave lease files (default: $RUNTIME_DIRECTORY, else /run/anyipd)",
    )


def fail(code: int, *lines: str) -> NoReturn:
    """End with an exit code and a word to the user."""
    print(*lines, sep="\n", file=sys.stderr)
    raise SystemExit(code)
