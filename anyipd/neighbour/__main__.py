"""The `anyipd-neighbour` command."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import structlog

from anyipd import arguments, log, mainloop, signals
from anyipd.follow.views import Views
from anyipd.kernel.confine import confine
from anyipd.ledger_file import LedgerFile
from anyipd.neighbour.service import Service
from anyipd.view import View

SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread is asked to let another go on; Python's default is 0.005."""


def main() -> None:
    """Answer Neighbor Solicitations in the foreground until SIGTERM or SIGINT."""
    signals.take_signals()
    options = arguments.Parser(
        "anyipd-neighbour",
        "Answer Neighbor Solicitations for bound subnets, on the links that the policy names.",
    ).parse_args()
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except PermissionError:
        arguments.fail(
            arguments.NO_PERMISSION,
            "anyipd-neighbour: may not listen on links here: CAP_NET_RAW is missing;"
            " run it as root or as a service",
        )
    log.configure()
    if obstacle := confine():
        structlog.get_logger().info("not confined", reason=obstacle)
    # A thread that waits on a link is not to wait long for one that looks at routes.
    sys.setswitchinterval(SWITCH_INTERVAL)
    views = Views(options.runtime_dir, _last_view(options.runtime_dir))
    mainloop.run(Service().follow(views.follow()))
    structlog.get_logger().info("stopped")


def _last_view(runtime_dir: Path) -> View | None:
    ledger_file = LedgerFile(runtime_dir)
    try:
        return ledger_file.read_view()
    except (OSError, ValueError) as error:
        structlog.get_logger().warning("ledger file dropped", path=str(ledger_file.path), reason=str(error))
        return None


if __name__ == "__main__":
    main()
