"""A /48 bound whole, which is one route, against one subnet of it; and many subnets that share no route."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from bench.rig import NEW, OLD, Rig, Witness, rig, subnet
from bench.row import Row, in_turn

WHOLE_POLICY, ONE_POLICY = "subnets: [{name: all, count: all}]", "subnets: [{name: one}]"

GOAL = 1.2
"""Times what one subnet takes, at most."""

NAMES = 4096
"""Subnets that are pinned, each by an entry of its own."""


def rows(runs: int) -> Iterator[Row]:
    """Measure from the event that tells of a change to the last route changed, planning included."""
    with rig("whole") as whole, rig("one") as one:
        whole.start(WHOLE_POLICY)
        one.start(ONE_POLICY)
        for what, measure in (
            ("bound, from the event", _bind),
            ("renumbered", _renumber),
            ("renewed", _renew),
            ("unbound", _unbind),
            ("restored", _restore),
        ):
            figures, theirs = in_turn(_anew(whole, measure), _anew(one, measure), 4 * runs, GOAL)
            yield Row(f"65,536 {what}", "ms", figures, "of one subnet", theirs, GOAL)
    yield _names(runs)


def _anew(at: Rig, measure: Callable[[Rig], float]) -> Callable[[], float]:
    """Measure, and leave nothing bound."""

    def figure() -> float:
        took = measure(at)
        at.take_back(OLD, NEW)
        return took

    return figure


def _bind(at: Rig) -> float:
    return at.until_logged(lambda: at.hook("BOUND6", OLD), "bound")


def _renumber(at: Rig) -> float:
    _bind(at)

    def renumber() -> None:
        at.hook("BOUND6", NEW)
        at.hook("RELEASE6", OLD)

    return at.until_logged(renumber, "unbound")


def _renew(at: Rig) -> float:
    _bind(at)
    return at.until_logged(lambda: at.hook("RENEW6", OLD, 3600), "shortened")


def _unbind(at: Rig) -> float:
    _bind(at)
    return at.until_logged(lambda: at.hook("RELEASE6", OLD), "unbound")


def _restore(at: Rig) -> float:
    _bind(at)
    flush = "-6 route flush table local proto 150"
    return at.until_logged(lambda: at.namespace.ip(flush), "bound")


def _names(runs: int) -> Row:
    """No two of them may share a route: they are of different entries."""
    names = ", ".join(f"{{name: s{n}, id: {n}}}" for n in range(NAMES))
    with rig("ours") as ours, rig("peer") as peer:
        ours.start(f"subnets: [{names}]")
        witnesses, last = [Witness(each.namespace) for each in (ours, peer)], subnet(OLD, NAMES - 1)
        for each in witnesses:  # who listens costs the kernel something
            each.hear_of_alone(last)

        def bind() -> float:
            took, _ = witnesses[0].until_added(last, lambda: ours.delegate(OLD))
            ours.withdraw(OLD)
            ours.settled(0)
            time.sleep(1)  # it has as many lines to log
            return took

        def batch() -> float:
            took = peer.batch("add", OLD, NAMES)
            peer.flush()
            return took

        figures, theirs = in_turn(bind, batch, runs, 1)
    return Row(f"{NAMES:,} names bound, from the event", "ms", figures, "ip -batch", theirs, 1)
