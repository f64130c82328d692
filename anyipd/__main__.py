"""The `anyipd` command."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import structlog

from anyipd import arguments, asking, log, policy, start
from anyipd.answers import Answers
from anyipd.daemon import Daemon
from anyipd.kernel import lock
from anyipd.kernel.confine import confine
from anyipd.kernel.routes import Routes


def main() -> None:
    """Run the daemon in the foreground until SIGTERM or SIGINT."""
    start.take_signals()
    options = arguments.Parser("anyipd", "Bind /64s of delegated IPv6 prefixes by AnyIP.").parse_args()
    try:
        first_policy = policy.read(options.config)
    except policy.PolicyError as error:
        arguments.fail(arguments.CONFIGURATION, *error.lines)
    routes = Routes()
    if not routes.may_change():
        arguments.fail(
            arguments.NO_PERMISSION,
            "anyipd: may not change routes here: CAP_NET_ADMIN is missing; run it as root or as a service",
        )
    try:
        held = lock.take()
    except lock.HeldError as error:
        arguments.fail(
            arguments.UNAVAILABLE,
            f"anyipd: already running in this network namespace ({error}); stop that one first",
        )
    listening = asking.listen()
    log.configure()
    if obstacle := confine():
        structlog.get_logger().info("not confined", reason=obstacle)
    daemon = Daemon(options.config, options.runtime_dir, first_policy, routes)
    with held, contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_until_stopped(daemon, listening))
    structlog.get_logger().info("stopped, the routes stay")


async def _until_stopped(daemon: Daemon, listening: socket.socket | None) -> None:
    task = asyncio.create_task(daemon.run())
    loop = asyncio.get_running_loop()
    if listening:
        loop.add_reader(listening, Answers(listening, daemon).answer)
    else:
        structlog.get_logger().warning("somebody else holds the name of anyipd in this network namespace")
    for number in start.STOPS:
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    finally:
        start.block_signals()


if __name__ == "__main__":
    main()
