"""The command line options that the daemon and `anyipctl` share, and their exit codes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from anyipd import __version__
from anyipd.printable import printable

USAGE = 64  # EX_USAGE of sysexits.h, as are all below
UNAVAILABLE = 69
NO_PERMISSION = 77
CONFIGURATION = 78


class Parser(argparse.ArgumentParser):
    """A parser with the shared options, whose complaints end with EX_USAGE."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        self.add_argument("--version", action="version", version=f"{prog} {__version__}")
        _add_shared(self, Path("/etc/anyipd.yaml"), Path("/run/anyipd"))

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and where help is."""
        fail(USAGE, f"{self.prog}: {message}; see {self.prog} --help")


class Subparser(argparse.ArgumentParser):
    """A subcommand's parser, which takes the shared options as well."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  argparse's own
        super().__init__(**options, allow_abbrev=False)
        _add_shared(self, argparse.SUPPRESS, argparse.SUPPRESS)

    error = Parser.error


def _add_shared(parser: argparse.ArgumentParser, config: Path | str, runtime_dir: Path | str) -> None:
    parser.add_argument(
        "--config", type=Path, default=config, metavar="FILE", help="the policy (default: /etc/anyipd.yaml)"
    )
    parser.add_argument(
        "--runtime-dir",
        type=Path,
        default=runtime_dir,
        metavar="DIR",
        help="where hooks leave lease files (default: /run/anyipd)",
    )


def fail(code: int, *lines: str) -> NoReturn:
    """End with an exit code and a word to the user."""
    print(*(printable(line) for line in lines), sep="\n", file=sys.stderr)
    raise SystemExit(code)
