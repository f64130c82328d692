"""The `anyipctl` command: parse, and import only what the subcommand needs."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

from anyipd import arguments
from anyipd.printable import guard_output

SUBCOMMANDS = {
    "check": "read the policy and report every mistake in it",
    "plan": "show what a pass would change now, or what an example prefix would give",
    "status": "show delegations and subnets as the daemon has them",
    "watch": "print what status shows as it changes, a line for each change",
    "probe": "ask whether addresses of bound subnets really answer, and say why if not",
    "random": "print uniformly random addresses inside bound subnets",
    "forget": "end a delegation now, until it is granted again",
    "flush": "remove every route of anyipd's; a running daemon puts back what belongs there",
    "install": "lay out unit, user, hooks, sysctl, protocol name and manual, around what pipx or uv brought",
    "uninstall": "undo `anyipctl install`; a changed configuration stays",
}

DEFAULT = "status"
WITHOUT_DATA = {"check", "forget", "install", "uninstall"}


def main() -> None:
    """Run a subcommand."""
    # An interrupt ends it as it ends any program, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    guard_output()
    parser = arguments.Parser("anyipctl", f"Look after anyipd. Without a command: {DEFAULT}.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(check=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=arguments.Subparser)
    for name, purpose in SUBCOMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
        _add_arguments(name, command)
        if name not in WITHOUT_DATA:
            command.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    options = parser.parse_args()
    if options.json and options.command in WITHOUT_DATA:
        parser.error(f"{options.command} prints no JSON")
    run = import_module(f"anyipd.ctl.{options.command or DEFAULT}").run
    try:
        run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads on; what Python flushes at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _add_arguments(name: str, command: argparse.ArgumentParser) -> None:
    match name:
        case "check":
            command.add_argument("file", type=Path, nargs="?", metavar="FILE", help="instead of --config")
        case "plan":
            command.add_argument("--prefix", action="append", metavar="P", help="an example; may be repeated")
        case "status":
            text = "one line and the exit code of a monitoring plugin"
            command.add_argument("--check", action="store_true", default=argparse.SUPPRESS, help=text)
        case "probe":
            text = "(default: all subnets)"
            command.add_argument("target", nargs="?", metavar="SUBNET|ADDRESS", help=text)
            text = "addresses a subnet (default: 3)"
            command.add_argument("-n", dest="number", type=int, default=3, metavar="N", help=text)
            command.add_argument("--tcp", type=_port, metavar="PORT", help="is this port open there?")
        case "random":
            command.add_argument("subnet", nargs="?", metavar="SUBNET", help="a subnet's name, or a prefix")
            text = "how many (default: 1)"
            command.add_argument("-n", dest="number", type=int, default=1, metavar="N", help=text)
        case "forget":
            command.add_argument("prefix", metavar="PREFIX", help="the delegated prefix")
        case "install" | "uninstall":
            text = "another root directory than /"
            command.add_argument("--root", type=Path, default=Path("/"), metavar="DIR", help=text)
            text = "the programs are in DIR/bin (default: where this one is)"
            command.add_argument("--prefix", type=Path, default=Path(sys.prefix), metavar="DIR", help=text)


def _port(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 65535):  # noqa: PLR2004  16 bits
        raise argparse.ArgumentTypeError(f"found {text}; a port from 1 to 65535")
    return int(text)


if __name__ == "__main__":
    main()
