"""The parts of a pass by themselves, against the limit: a bare netlink loop that plans nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

from pyroute2 import IPRoute

from anyipd import clock, policy
from anyipd.apply import apply
from anyipd.decide.ledger import Ledger
from anyipd.decide.plan import Run
from anyipd.kernel import wire
from anyipd.kernel.monitor import Stale
from anyipd.kernel.routes import BATCH, BOUND_SUBNET, Routes
from anyipd.model import Prefix
from anyipd.observations import Observations
from anyipd.observer import Observer
from anyipd.slices import at_once
from bench.bulk import WHOLE_POLICY
from bench.rig import OLD, WHOLE, Rig, rig, subnet, timed
from bench.row import Row, in_turn

PYROUTE2_SHARE = 16
"""pyroute2 adds every sixteenth of the routes only, and its time is taken times sixteen."""


def rows(runs: int) -> Iterator[Row]:
    """Measure the kernel part, and passes that renew and that change nothing."""
    with rig("bench") as made, made.namespace.entered():
        yield from _kernel_part(made, runs)
        yield from _passes(made, runs)


def _kernel_part(made: Rig, runs: int) -> Iterator[Row]:
    run = Run(subnet(OLD, 0), WHOLE)

    def ours() -> float:
        routes = Routes()
        took = timed(lambda: list(routes.add_local([run], clock.now())))
        routes.close()
        made.flush()
        return took

    def bare() -> float:
        sends = _packed_ahead()
        with _request_socket() as sock:
            took = timed(lambda: _exchange(sock, sends))
        made.flush()
        return took

    def pyroute2() -> float:
        with IPRoute() as ip:
            took = timed(lambda: _add(ip, [subnet(OLD, n) for n in range(WHOLE // PYROUTE2_SHARE)]))
        made.flush()
        return took * PYROUTE2_SHARE

    goal = 1.15
    figures, limit = in_turn(ours, bare, runs, goal)
    yield Row("65,536 added, the kernel part", "ms", figures, "bare loop, packed ahead", limit, goal)
    figures, theirs = in_turn(ours, pyroute2, 1)
    yield Row("65,536 added, the kernel part", "ms", figures, "pyroute2, of 4,096", theirs)


def _passes(made: Rig, runs: int) -> Iterator[Row]:
    """Passes by themselves: one that only renews lifetimes, and one that finds nothing to do."""
    whole = policy.parse(WHOLE_POLICY, "bench")
    observer = Observer(Observations(made.daemon.configuration, whole, made.daemon.runtime, Ledger(), {}))
    lifetimes = cycle([7200, 3600])

    def renew() -> float:
        made.hook("RENEW6", OLD, next(lifetimes))
        return timed(lambda: _pass(observer))

    def replace() -> float:
        return made.batch("replace", OLD, WHOLE)

    renew()
    renewed, replaced = in_turn(renew, replace, runs)
    # What the peer replaced has no lifetime any more.
    _pass(observer)
    goal = 1.25
    nothing, shown = in_turn(lambda: timed(lambda: _pass(observer)), lambda: _show(made), runs, goal)
    observer.seen.routes.close()
    made.flush()
    yield Row("65,536 renewed, a pass", "ms", renewed, "ip -batch, replace", replaced)
    yield Row("a pass over 65,536 that changes none", "ms", nothing, "ip route show", shown, goal)


def _pass(observer: Observer) -> None:
    observer.look_again(Stale.ALL)
    decision = at_once(observer.look()).decision
    changes = at_once(observer.seen.compare(decision, whole=True))
    observer.seen.see_applied(changes, at_once(apply(observer.seen.routes, decision.view.policy, changes)))


def _show(made: Rig) -> float:
    with Path(os.devnull).open("w") as nowhere:
        command = ["ip", "-6", "route", "show", "table", "local", "proto", "150"]
        return timed(lambda: made.namespace.popen(*command, stdout=nowhere).wait())


def _packed_ahead() -> list[bytes]:
    template = wire.batch(
        wire.RTM_NEWROUTE, wire.NLM_F_CREATE | wire.NLM_F_EXCL, BOUND_SUBNET._replace(prefix=subnet(OLD, 0))
    )
    addresses = [subnet(OLD, n).address.to_bytes(16) for n in range(WHOLE)]
    return [template.pack(addresses[n : n + BATCH]) for n in range(0, WHOLE, BATCH)]


@contextmanager
def _request_socket() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.bind((0, 0))
        yield sock


def _exchange(sock: socket.socket, sends: Iterable[bytes]) -> None:
    for send in sends:
        sock.send(send)
        sock.recv(4096)


def _add(ip: IPRoute, prefixes: Iterable[Prefix]) -> None:
    for prefix in prefixes:
        ip.route("add", dst=str(prefix), type="local", table=255, oif=1, proto=150, family=socket.AF_INET6)
