"""The `anyipd` command."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path

import structlog

from anyipd import arguments, log, mainloop, policy, signals
from anyipd.daemon import Daemon
from anyipd.kernel import lock
from anyipd.kernel.confine import confine
from anyipd.kernel.routes import Routes
from anyipd.varlink.listening import Listening, listen


def main() -> None:
    """Run the daemon in the foreground until SIGTERM or SIGINT."""
    signals.take_signals()
    options = arguments.Parser("anyipd", "Bind /64s of delegated IPv6 prefixes by AnyIP.").parse_args()
    try:
        first_policy = policy.read(options.config)
    except policy.PolicyError as error:
        arguments.fail(arguments.CONFIGURATION, *error.lines)
    with contextlib.closing(Routes()) as routes:
        if not routes.may_change():
            arguments.fail(
                arguments.NO_PERMISSION,
                "anyipd: may not change routes here: CAP_NET_ADMIN is missing;"
                " run it as root or as a service",
            )
    try:
        held = lock.take()
    except lock.HeldError as error:
        arguments.fail(
            arguments.UNAVAILABLE,
            f"anyipd: already running in this network namespace ({error}); stop that one first",
        )
    log.configure()
    listening = _listen(options.runtime_dir)
    if obstacle := confine():
        structlog.get_logger().info("not confined", reason=obstacle)
    daemon = Daemon(options.config, options.runtime_dir, first_policy, listening)
    # A pass over thousands of names makes some ten thousand values, none of them in a cycle.
    gc.set_threshold(20_000)
    gc.freeze()  # what is there stays, and takes longer to search for cycles than many a pass
    with held:
        mainloop.run(daemon.run())
    structlog.get_logger().info("stopped, the routes stay")


def _listen(runtime_dir: Path) -> Listening | None:
    """Listen for followers and anyipctl. Routes are maintained without them as well."""
    try:
        listening = listen(runtime_dir)
        reason = "" if listening else "another process listens there"
    except OSError as error:
        listening, reason = None, error.strerror or str(error)
    if reason:
        _log = structlog.get_logger()
        _log.warning("not published, the ledger file has the last view", path=str(runtime_dir), reason=reason)
    return listening


if __name__ == "__main__":
    main()
