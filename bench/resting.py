"""What it costs to have the daemon at all: starting, memory, idling, and other people's events."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from anyipd.varlink.client import Client
from bench.rig import OLD, WHOLE, Rig, cpu, resident, rig, timed
from bench.row import Row, in_turn
from tests.lab.daemon import awakenings

IDLE = 60.0
"""Seconds of idling that are watched."""

EVENTS = 100_000
"""Foreign route changes in a flood."""


ASKED = 20
"""How often `anyipctl status` is called."""


def rows(runs: int) -> Iterator[Row]:
    """Measure start-up, memory, idling and floods."""
    with rig("ours") as ours:
        yield from _start(ours, runs)
    with rig("ours") as ours:
        yield from _memory_and_idling(ours)
    with rig("ours") as ours:
        yield from _flood(ours, runs)


def _start(ours: Rig, runs: int) -> Iterator[Row]:
    ours.daemon.configure("subnets: [{name: all, count: all}]")

    def start() -> float:
        took = timed(ours.daemon.start)
        ours.daemon.kill()
        return took

    def import_pydantic() -> float:
        return timed(lambda: subprocess.run([sys.executable, "-c", "import pydantic"], check=True))

    goal = 5
    figures, theirs = in_turn(start, import_pydantic, 2 * runs, goal)
    yield Row("exec to READY", "ms", figures, 'python3 -c "import pydantic"', theirs, goal)
    ours.delegate(OLD)
    start()
    figures, theirs = in_turn(start, import_pydantic, runs)
    yield Row("exec to READY, 65,536 bound already", "ms", figures, 'python3 -c "import pydantic"', theirs)


def _memory_and_idling(ours: Rig) -> Iterator[Row]:
    importer = subprocess.Popen(
        [sys.executable, "-c", "import pyroute2, sys; print(flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert importer.stdout
    importer.stdout.readline()
    pyroute2 = resident(importer.pid)
    importer.communicate()
    ours.start("subnets: [{name: some, count: 16}]")
    ours.until_logged(lambda: ours.delegate(OLD), "bound")
    pid = ours.daemon.running.pid
    small = ours.memory()
    time.sleep(1)
    slept, used = awakenings(pid), cpu(pid)
    time.sleep(IDLE)
    slept, used = awakenings(pid) - slept, cpu(pid) - used
    status, view = _asked(ours)
    ours.daemon.configure("subnets: [{name: all, count: all}]")
    ours.daemon.reload()
    ours.settled(WHOLE)
    ours.daemon.reload()
    status_of_all, view_of_all = _asked(ours)
    yield Row("resident memory, 16 subnets", "MB", [small], "import pyroute2 alone", [pyroute2], limit=40)
    yield Row("resident memory, 65,536 subnets", "MB", [ours.memory()], "of 16", [small], 1.2)
    yield Row("anyipctl status, 65,536 subnets", "ms", status_of_all, "of 16", status, 1.2)
    yield Row("bytes of a View, 65,536 subnets", "", view_of_all, "of 16", view, 1.2)
    yield Row("wake-ups in an idle minute", "", [slept], limit=0)
    yield Row("CPU in an idle minute", "ms", [used], limit=0)


def _asked(ours: Rig) -> tuple[list[float], list[float]]:
    """How long `anyipctl status` takes, and how much is sent to whoever asks."""
    took = [timed(lambda: ours.daemon.control("status")) for _ in range(ASKED)]
    with ours.namespace.entered(), Client(ours.daemon.runtime) as client:
        return took, [float(len(json.dumps(client.describe())))]


def _flood(ours: Rig, runs: int) -> Iterator[Row]:
    ours.start("subnets: [{name: some, count: 16}]")
    ours.until_logged(lambda: ours.delegate(OLD), "bound")
    ours.namespace.ip("link add uplink type veth peer name other")
    ours.namespace.ip("link set uplink up")
    flood = {}
    for verb in ("add", "delete"):
        flood[verb] = ours.folder / f"flood-{verb}"
        routes = (
            f"route {verb} 2001:db9:{n >> 16:x}:{n & 0xFFFF:x}::/64 dev uplink proto static\n"
            for n in range(EVENTS // 2)
        )
        flood[verb].write_text("".join(routes))

    def cost(pid: int) -> float:
        before = cpu(pid)
        for verb in ("add", "delete"):
            ours.namespace.run("ip", "-6", "-batch", flood[verb])
        time.sleep(0.2)
        return cpu(pid) - before

    with Path(os.devnull).open("w") as nowhere:
        monitor = ours.namespace.popen("ip", "-6", "monitor", "route", stdout=nowhere)
        figures, theirs = in_turn(lambda: cost(ours.daemon.running.pid), lambda: cost(monitor.pid), runs)
    yield Row("CPU for 100,000 foreign route events", "ms", figures, "ip monitor >/dev/null", theirs)
