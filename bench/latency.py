"""How long it takes: from the client's script to the address answering, and to mend what was broken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

from anyipd.kernel.routes import Routes
from anyipd.model import Prefix
from bench.rig import OLD, WHOLE, Rig, Witness, remove, rig, subnet
from bench.row import Row, in_turn
from tests.lab.delegated import holder

MENDED = 200
"""How often a route is removed; a figure is the median of so many."""

PAUSE = 0.01
"""Seconds before a route is removed: after a pass the daemon rests for as long as that took."""


def rows(runs: int) -> Iterator[Row]:
    """Measure from the hook's start to the last route, and from a removal to the route's return."""
    yield from _from_the_hook(runs)
    yield from _mending(runs)


def _from_the_hook(runs: int) -> Iterator[Row]:
    # A shell hook that knows the routes by heart: no policy, no lifetimes, no second look.
    loop = (
        "n=0; while [ $n -lt {count} ]; do "
        'ip -6 route add local "2001:db8:a:$(printf %x $n)::/64" dev lo proto 150; n=$((n + 1)); done'
    )
    scripts = {
        1: (20, "ip -6 route add local 2001:db8:a::/64 dev lo proto 150", 1.5),
        16: (20, loop.format(count=16), 0.5),
        256: (3, loop.format(count=256), None),
    }
    for count, (times, script, goal) in scripts.items():
        figures, theirs = _against_a_shell_hook(count, script, times * runs, goal)
        name = f"hook's start to answering, {count}"
        yield Row(name, "ms", figures, "shell hook, `ip` each", theirs, goal, 20 if count == 1 else None)


def _against_a_shell_hook(
    count: int, script: str, runs: int, goal: float | None
) -> tuple[list[float], list[float]]:
    last = subnet(OLD, count - 1)
    with rig("ours") as ours, rig("peer") as peer:
        hook = peer.folder / "hook"
        hook.write_text(script + "\n")
        ours.start(f"subnets: [{{name: some, count: {count}}}]")
        witness, other = Witness(ours.namespace), Witness(peer.namespace)

        def bind() -> float:
            took, process = witness.until_added(last, lambda: ours.start_hook("BOUND6", OLD))
            process.wait()
            ours.take_back(OLD)
            return took

        def by_shell() -> float:
            took, process = other.until_added(last, lambda: peer.start_hook("BOUND6", OLD, hook=hook))
            process.wait()
            peer.flush()
            return took

        return in_turn(bind, by_shell, runs, goal)


def _mending(runs: int) -> Iterator[Row]:
    medians: dict[int, list[float]] = {16: [], WHOLE: []}
    at_once = list[float]()
    for count, figures in medians.items():
        with rig("ours") as ours:
            ours.start(
                "subnets: [{name: all, count: all}]"
                if count == WHOLE
                else "subnets: [{name: some, count: 16}]"
            )
            ours.until_logged(lambda: ours.delegate(OLD), "bound")
            ours.settled(count)
            figures += [_mend(ours, PAUSE) for _ in range(runs)]
            at_once += [_mend(ours, 0) for _ in range(runs if count != WHOLE else 0)]
    yield Row("one removed route back, of 16", "ms", medians[16], limit=1.5)
    yield Row("one removed again and again, of 16", "ms", at_once)
    yield Row(
        "one removed route back, of 65,536", "ms", medians[WHOLE], "of 16", medians[16], goal=1.5, limit=2
    )


def _mend(ours: Rig, pause: float) -> float:
    lost = Prefix.parse(holder(ours.namespace, subnet(OLD, 7)))
    witness = Witness(ours.namespace)
    with ours.namespace.entered():
        vandal = Routes()
    figures = []
    for _ in range(MENDED):
        time.sleep(pause)
        figures.append(witness.until_added(lost, lambda: remove(vandal, lost))[0])
    return median(figures)
