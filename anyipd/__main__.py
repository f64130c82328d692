"""The `anyipd` command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import structlog

from anyipd import arguments, log, only_one, policy, start
from anyipd.daemon import Daemon
from anyipd.kernel.confine import confine
from anyipd.kernel.routes import Routes
from anyipd.model import Prefix

UNTIL_DESCRIPTORS = 1.0
"""Seconds until somebody who could not be received is again."""


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
        claimed = only_one.claim()
    except only_one.AlreadyRunningError as error:
        arguments.fail(
            arguments.UNAVAILABLE,
            f"anyipd: already running in this network namespace ({error}); stop that one first",
        )
    log.configure()
    if obstacle := confine():
        structlog.get_logger().info("not confined", reason=obstacle)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(
            _until_stopped(Daemon(options.config, options.runtime_dir, first_policy, routes), claimed)
        )
    structlog.get_logger().info("stopped, the routes stay")


async def _until_stopped(daemon: Daemon, claimed: socket.socket | None) -> None:
    task = asyncio.create_task(daemon.run())
    loop = asyncio.get_running_loop()
    if claimed:
        loop.add_reader(claimed, _Answers(claimed, daemon).answer)
    else:
        structlog.get_logger().warning("somebody else holds the name of anyipd in this network namespace")
    for number in start.STOPS:
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    finally:
        start.block_signals()


class _Answers:
    """What those are told who ask who we are: the policy in force."""

    def __init__(self, claimed: socket.socket, daemon: Daemon) -> None:
        self._claimed, self._daemon = claimed, daemon
        self._in_force: policy.InForce | None = None
        self._news: int | None = None

    def answer(self) -> None:
        """Answer whoever is next."""
        try:
            caller = only_one.answer(self._claimed, self._current())
            if caller:
                loop = asyncio.get_running_loop()
                loop.add_reader(caller, self._on_request, caller)
                loop.call_later(only_one.PATIENCE, _close, caller)
        except OSError:
            # No descriptor is left. Who asks knows who we are without an answer, and can stay in line.
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._claimed)
            loop.call_later(UNTIL_DESCRIPTORS, loop.add_reader, self._claimed, self.answer)

    def _on_request(self, caller: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            verb, _, text = caller.recv(only_one.MAX_REQUEST).decode().strip().partition(" ")
            if verb == "forget":
                known = self._daemon.forget(Prefix.parse(text))
                caller.send(b"forgotten" if known else b"unknown")
        _close(caller)

    def _current(self) -> int:
        in_force = self._daemon.in_force
        if self._news is None or in_force != self._in_force:
            news = only_one.sealed(in_force.model_dump_json().encode())
            if self._news is not None:
                os.close(self._news)
            self._news, self._in_force = news, in_force
        return self._news


def _close(caller: socket.socket) -> None:
    if caller.fileno() >= 0:
        asyncio.get_running_loop().remove_reader(caller)
        caller.close()


if __name__ == "__main__":
    main()
