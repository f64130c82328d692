"""The `anyipd-neighbour` command."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

import structlog

from anyipd import arguments, log, policy, start
from anyipd.kernel.confine import confine
from anyipd.kernel.routes import Routes
from anyipd.neighbour.service import Service

SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread is asked to let another go on; Python's default is 0.005."""


def main() -> None:
    """Answer Neighbor Solicitations in the foreground until SIGTERM or SIGINT."""
    start.take_signals()
    options = arguments.Parser(
        "anyipd-neighbour",
        "Answer Neighbor Solicitations for bound subnets, on the links that the policy names.",
    ).parse_args()
    try:
        first_policy = policy.read(options.config)
    except policy.PolicyError as error:
        arguments.fail(arguments.CONFIGURATION, *error.lines)
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
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_until_stopped(Service(options.config, options.runtime_dir, first_policy, Routes())))
    structlog.get_logger().info("stopped")


async def _until_stopped(service: Service) -> None:
    task = asyncio.create_task(service.run())
    for number in start.STOPS:
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    finally:
        start.block_signals()


if __name__ == "__main__":
    main()
