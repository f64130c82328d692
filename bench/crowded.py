"""A table full of other people's routes: what anyipd does costs the same, and floods cost nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle
from statistics import median

from anyipd.kernel import wire
from anyipd.kernel.routes import Routes, ours_and_others
from anyipd.model import Prefix
from bench.rig import Rig, Witness, cpu, remove, rig, subnet, timed
from bench.row import Row, in_turn
from tests.lab.namespace import wait_until

CROWD = 1_000_000
"""Foreign routes in table main."""

FLOOD = 100_000
"""Foreign routes that come, and go again: twice as many changes."""

INSIDE = 100_000
"""Foreign routes inside a delegated prefix, every other of its /64s."""

CHANGES = 10_000
"""Foreign routes that come there, and go again, a thousand at once."""

WIDE = Prefix.parse("2001:db8::/32")
DELEGATED, OTHER = Prefix.parse("2001:db8:a::/60"), Prefix.parse("2001:db8:b::/60")
FEW = 9
"""Measurements behind one figure, which is their median."""

GOAL = 2
"""Times what an empty table takes, at most."""


def rows(runs: int) -> Iterator[Row]:
    """Measure in an empty and in a crowded table in turn, then in a flood."""
    with rig("crowded") as crowded, rig("empty") as empty:
        _foreign(crowded, "add", CROWD)
        full, bare = _Host(crowded), _Host(empty)
        for name, figure in (
            ("one removed route back", _Host.mended),
            ("a renewal", _Host.renewed),
            ("a foreign route in our place", _Host.conflict),
            ("and it goes", _Host.end_of_conflict),
        ):
            figures, peers = in_turn(_several(figure, full), _several(figure, bare), runs, GOAL)
            yield Row(f"{name}, of {CROWD:,} foreign", "ms", figures, "of none", peers, GOAL)
        figures, peers = in_turn(full.delegated, bare.delegated, runs)
        yield Row(f"a new prefix, of {CROWD:,} foreign", "ms", figures, "of none", peers)
    with rig("inside") as crowded, rig("outside") as empty:
        yield _inside(crowded, empty, runs)
    with rig("flooded") as flooded:
        yield from _flood(flooded, runs)


def _several(figure: Callable[[_Host], float], host: _Host) -> Callable[[], float]:
    return lambda: median(figure(host) for _ in range(FEW))


class _Host:
    """A rig with one delegated prefix, of which two subnets are bound."""

    def __init__(self, at: Rig) -> None:
        self.rig = at
        at.namespace.ip("link add uplink type veth peer name other")
        at.namespace.ip("link set uplink up")
        at.namespace.ip("link set other up")
        at.start("subnets: [{name: web, id: 1}, {name: other, id: 2}]")
        at.hook("BOUND6", DELEGATED)
        with at.namespace.entered():
            self.routes = Routes()
        self.lifetimes = cycle([7200, 3600])
        self.wait_for(2)
        time.sleep(2)  # the links settle, and what that wakes
        self.witness = Witness(at.namespace)

    def bound(self) -> int:
        return len(ours_and_others(self.routes.dump(wire.TABLE_LOCAL, wire.PROTOCOL))[0])

    def wait_for(self, count: int) -> None:
        while self.bound() != count:
            pass

    def mended(self) -> float:
        lost = subnet(DELEGATED, 1)
        took, _ = self.witness.until_added(lost, lambda: remove(self.routes, lost))
        return took

    def renewed(self) -> float:
        lifetime = next(self.lifetimes)
        took, process = self.witness.until_added(
            subnet(DELEGATED, 1), lambda: self.rig.start_hook("RENEW6", DELEGATED, lifetime)
        )
        process.wait()
        return took

    def conflict(self) -> float:
        """Milliseconds until ours makes way for a route that leads there; and see that it comes back."""
        took = self.foreign("add", 1)
        self.foreign("delete", 2)
        return took

    def end_of_conflict(self) -> float:
        self.foreign("add", 1)
        return self.foreign("delete", 2)

    def foreign(self, verb: str, left: int) -> float:
        def change() -> None:
            self.rig.namespace.ip(f"-6 route {verb} {subnet(DELEGATED, 1)} dev uplink")
            self.wait_for(left)

        return timed(change)

    def delegated(self) -> float:
        """Milliseconds from the hook's start to the first subnet of another prefix."""
        took, process = self.witness.until_added(
            subnet(OTHER, 1), lambda: self.rig.start_hook("BOUND6", OTHER)
        )
        process.wait()
        self.rig.hook("RELEASE6", OTHER)
        self.wait_for(2)
        return took


def _foreign(at: Rig, verb: str, count: int) -> None:
    routes = (
        f"route {verb} unreachable 2a00:{n >> 16:x}:{n & 0xFFFF:x}::/48 proto static\n" for n in range(count)
    )
    at.namespace.run("ip", "-6", "-batch", "-", input="".join(routes))


def _inside(crowded: Rig, empty: Rig, runs: int) -> Row:
    for at, count in (crowded, INSIDE), (empty, 0):
        at.namespace.ip("link add uplink type veth peer name other")
        at.namespace.ip("link set uplink up")
        at.namespace.ip("link set other up")
        _routed(at, "add", range(0x100000, 0x100000 + 2 * count, 2))
        at.delegate(WIDE)
        at.daemon.configure("subnets: [{name: web, id: 1}, {name: some, count: 16}]")
        at.daemon.launch()
        at.daemon.wait_for_ready(60)
        at.settled(17)
    figures, peers = in_turn(lambda: _change_inside(crowded), lambda: _change_inside(empty), runs, GOAL)
    name = f"CPU of {2 * CHANGES:,} changes inside, of {INSIDE:,}"
    return Row(name, "ms", figures, "of none", peers, GOAL)


def _change_inside(at: Rig) -> float:
    used = cpu(at.daemon.running.pid)
    for first in range(0x900000, 0x900000 + CHANGES, 1000):
        for verb in ("add", "delete"):
            _routed(at, verb, range(first, first + 1000))
    time.sleep(0.2)
    return cpu(at.daemon.running.pid) - used


def _routed(at: Rig, verb: str, numbers: Iterable[int]) -> None:
    routes = (f"route {verb} {subnet(WIDE, n)} dev uplink proto static\n" for n in numbers)
    at.namespace.run("ip", "-6", "-batch", "-", input="".join(routes))


def _flood(at: Rig, runs: int) -> Iterator[Row]:
    host = _Host(at)
    shares, ends = [], []
    for _ in range(runs):
        used, begun = cpu(at.daemon.running.pid), time.perf_counter()
        _foreign(at, "add", FLOOD)
        remove(host.routes, subnet(DELEGATED, 1))
        _foreign(at, "delete", FLOOD)
        ended = time.perf_counter()
        wait_until(lambda: host.bound() == 2)
        ends.append((time.perf_counter() - ended) * 1000)
        shares.append((cpu(at.daemon.running.pid) - used) / ((ended - begun) * 1000) * 100)
    yield Row(f"CPU in a flood of {2 * FLOOD:,} changes", "%", shares, limit=25)
    yield Row("a route lost in it back, from its end", "ms", ends, limit=100)
