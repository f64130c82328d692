"""`anyipctl watch`: what `status` prints, as it changes, a line for each change."""

from __future__ import annotations

import argparse
import json
import select
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime

from structlog.processors import LogfmtRenderer

from anyipd import clock, policy
from anyipd.ctl.look import Look, look_by, read_policy
from anyipd.kernel.monitor import Monitor
from anyipd.kernel.routes import Routes
from anyipd.model import Prefix
from anyipd.narrate import Line, delegation_lines, state_lines
from anyipd.observe.lease_monitor import LeaseMonitor
from anyipd.observe.networkd import RESTFUL
from anyipd.passes import LONGEST_REST

_render = LogfmtRenderer()


def run(options: argparse.Namespace) -> None:
    """Print all that is, and then what becomes of it, until interrupted."""
    before: Look | None = None
    complaints: set[str] = set()
    for seen, said in _looks(options):
        for complaint in sorted({*seen.complaints, *said} - complaints):
            print(complaint, file=sys.stderr)
        complaints = {*seen.complaints, *said}
        _print(_lines(before, seen), as_json=options.json)
        before = seen


def _looks(options: argparse.Namespace) -> Iterator[tuple[Look, Iterable[str]]]:
    """Look again whenever there is a reason to; give also what is wrong with the policy by now."""
    in_force, routes = read_policy(options), Routes()
    monitor, lease_monitor, alarm = Monitor(), LeaseMonitor(options.runtime_dir / "leases"), clock.Alarm()
    monitor.subscribe()
    watched: list[Prefix] | None = None
    while True:
        mistakes: list[str] = []
        try:
            in_force = policy.read(options.config)
        except policy.PolicyError as error:
            mistakes = error.lines
        lease_monitor.watch()
        seen = look_by(in_force, options.runtime_dir, routes)
        delegated = [each.prefix for each in seen.decision.delegations]
        inside = [*delegated, *(each.prefix for each in in_force.static)]
        if inside != watched:
            # Events from in there pass the filter from here on, and are no reason before.
            watched = inside
            monitor.watch(routes.port, in_force.accept.protocols, inside)
            continue
        yield seen, mistakes
        alarm.set(seen.decision.deadline)
        # Nothing tells of a renewal by networkd, nor of an edited policy.
        select.select([each.fileno() for each in (monitor, lease_monitor, alarm)], [], [], RESTFUL)
        alarm.clear()
        monitor.read()
        lease_monitor.read()
        time.sleep(LONGEST_REST)


def _lines(before: Look | None, seen: Look) -> Iterator[Line]:
    delegations, subnets = (before.decision.delegations, before.subnets) if before else ((), ())
    yield from delegation_lines(delegations, seen.decision.delegations, seen.now)
    yield from state_lines(subnets, seen.subnets)


def _print(lines: Iterable[Line], *, as_json: bool) -> None:
    now = datetime.now().astimezone().isoformat(timespec="milliseconds")
    for line in lines:
        fields = {"time": now, "event": line.event, **line.fields}
        print(json.dumps(fields) if as_json else _render(None, "", fields), flush=True)
