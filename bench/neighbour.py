"""Neighbor Solicitations: who answers more of them, sooner, and with less work, anyipd-neighbour or ndppd."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from anyipd.model import Prefix
from anyipd.neighbour.message import Advertiser
from bench.rig import resident
from bench.row import Row, wants_more
from tests.lab import debian
from tests.lab.daemon import Daemon
from tests.lab.namespace import Namespace
from tests.lab.network import Uplink
from tests.lab.solicitor import Solicitor

GOAL = 1
"""The largest ratio to ndppd's figures."""

RATES = {1_000: 2.0, 20_000: 1.0, 50_000: 1.0}
"""Solicitations a second, and for how many seconds."""

PROXIED_RATES = {1_000: 2.0, 20_000: 1.0}

SUBNET = Prefix.parse("2001:db8:5::/64")
POLICY = f"subnets: []\nstatic: [{{prefix: '{SUBNET}', neighbours: [uplink]}}]\n"
PROXIED = POLICY.replace("neighbours", "bind: false, neighbours")
BOUND_INSIDE = POLICY.replace("uplink", "inside")
NDPPD = f"proxy uplink {{\n router no\n rule {SUBNET} {{\n static\n }}\n}}\n"
NDPPD_PROXIED = NDPPD.replace("static", "iface inside")  # its `auto` answers for one address and no other
LINK_LOCAL = (0xFE80 << 112) + 1
ASKERS = 1_000_000
SETTLED = 0.5  # seconds after which no answer comes any more
ASKED_AGAIN = 1.0
"""Seconds that who has no answer waits at least: the router asks again then (RFC 4861, 10: RETRANS_TIMER)."""


class Figures(NamedTuple):
    """Of one run: solicitations for each answer, median latency and processor time of 1,000 answers in ms."""

    asked: float
    latency: float
    work: float


Peer = tuple[Solicitor, int]
"""Who asks, and the pid of who answers."""


def rows(runs: int) -> Iterator[Row]:
    """Measure both in turn at every rate, then what concerns ours alone; and all that as NDP proxies."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        ours = stack.enter_context(_ours(Path(folder)))
        peer = stack.enter_context(_ndppd(Path(folder)))
        for rate, seconds in RATES.items():
            yield from _pairs(ours, peer, rate, seconds, runs)
        yield Row(f"memory that {ASKERS:,} askers take", "MB", [_grown(*ours)], limit=1)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        ours = stack.enter_context(_ours_proxied(Path(folder)))
        peer = stack.enter_context(_ndppd_proxied(Path(folder)))
        for rate, seconds in PROXIED_RATES.items():
            yield from _pairs(ours, peer, rate, seconds, runs, ", proxied")
        yield Row(f"memory that {ASKERS:,} askers take, proxied", "MB", [_grown(*ours)], limit=1)
    yield Row("delegated to first answer", "ms", list(_renumbered(runs)), limit=50)


def _pairs(  # noqa: PLR0913, PLR0917
    ours: Peer, peer: Peer, rate: int, seconds: float, runs: int, how: str = ""
) -> Iterator[Row]:
    """Measure both in turn at one rate."""
    pairs = list[tuple[Figures, Figures]]()
    _ask(*ours, rate, seconds), _ask(*peer, rate, seconds)
    while any(wants_more(*_sides(pairs, field), runs, GOAL) for field in Figures._fields):
        pairs.append((_ask(*ours, rate, seconds), _ask(*peer, rate, seconds)))
    for field, name, unit in (
        ("asked", "solicitations for an answer", "1"),
        ("latency", "solicitation to answer", "ms"),
        ("work", "processor time of 1,000 answers", "ms"),
    ):
        figures, theirs = _sides(pairs, field)
        yield Row(f"{name}, {rate:,}/s{how}", unit, figures, "ndppd", theirs, GOAL)


def _sides(pairs: Sequence[tuple[Figures, Figures]], field: str) -> tuple[list[float], list[float]]:
    """Give one figure of each run, ours and the peer's."""
    ours, theirs = ([getattr(pair[side], field) for pair in pairs] for side in (0, 1))
    return ours, theirs


def _ask(router: Solicitor, pid: int, rate: int, seconds: float) -> Figures:
    targets = [random.randrange(SUBNET.address, SUBNET.end) for _ in range(int(rate * seconds))]
    frames = [router.solicitation(target) for target in targets]
    router.answers()
    before = _processor(pid)
    sent = router.pelt(frames, rate)
    time.sleep(SETTLED)
    work = _processor(pid) - before
    found = router.answers()
    latencies = [
        found[target].at - at if target in found else ASKED_AGAIN
        for target, at in zip(targets, sent, strict=True)
    ]
    answers = len(found) or 1
    return Figures(len(frames) / answers, median(latencies) * 1000, work * 1000 / answers)


def _grown(router: Solicitor, pid: int) -> float:
    """MB that the process grows by while a million nodes, each of the subnet, ask once each."""

    def pelt(number: int) -> None:
        for n in range(number):
            node = Advertiser(b"\2" + random.randbytes(5), random.randrange(SUBNET.address, SUBNET.end))
            router.socket.send(node.solicit(random.randrange(SUBNET.address, SUBNET.end)))
            if n % 64 == 0:
                router.answers()
        time.sleep(SETTLED)

    pelt(ASKERS // 50)
    before = resident(pid)
    pelt(ASKERS)
    return resident(pid) - before


def _renumbered(runs: int) -> Iterator[float]:
    """Milliseconds from the discard route of another prefix to the first answer inside."""
    policy = "subnets: [{name: web, neighbours: [uplink]}]"
    with (
        TemporaryDirectory() as folder,
        _link("renumbered") as (uplink, router),
        _started(uplink.host, Path(folder), policy),
    ):
        for number in range(runs):
            prefix = Prefix((0x20010DB8_0100 + number) << 80, 60)
            begun = time.time()
            uplink.host.ip(f"-6 route add unreachable {prefix} dev lo proto dhcp")
            for suffix in count(1):
                router.socket.send(router.solicitation(prefix.address + suffix))
                found = [
                    each.at for each in router.advertisements() if prefix.covers(Prefix(each.target, 128))
                ]
                if found:
                    yield (min(found) - begun) * 1000
                    break
                time.sleep(0.001)


def _processor(pid: int) -> float:
    """Processor time of all threads of a process so far, in ms (proc_pid_schedstat)."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e6


@contextmanager
def _link(name: str) -> Iterator[tuple[Uplink, Solicitor]]:
    with Namespace(f"{name}-isp") as isp, Namespace(f"{name}-host") as host:
        uplink = Uplink(isp, host)
        with Solicitor(isp, uplink.customer, LINK_LOCAL) as router:
            yield uplink, router


@contextmanager
def _started(host: Namespace, folder: Path, policy: str) -> Iterator[int]:
    """Start the daemon and anyipd-neighbour; give the pid of the latter."""
    with Daemon(host, folder) as daemon, Daemon(host, folder, policy, "anyipd.neighbour") as neighbour:
        daemon.start()
        neighbour.start()
        yield neighbour.running.pid


@contextmanager
def _inside(host: Namespace, folder: Path) -> Iterator[None]:
    """Route the subnet on to a node that has all of it, and answers for it there."""
    with Namespace(f"{host.name}-inside") as node:
        host.ip(f"link add inside type veth peer name inside netns {node.name}")
        for end, address in ((host, 1), (node, 2)):
            end.ip("link set inside up")
            end.ip(f"addr add fe80::{address}/64 dev inside nodad")
        host.ip(f"-6 route add {SUBNET} dev inside")
        node.ip("-6 route add default via fe80::1 dev inside")
        folder.mkdir()
        with _started(node, folder, BOUND_INSIDE):
            yield


@contextmanager
def _ours_proxied(folder: Path) -> Iterator[Peer]:
    with (
        _link("proxy") as (uplink, router),
        _inside(uplink.host, folder / "inside"),
        _started(uplink.host, folder, PROXIED) as pid,
    ):
        yield router, pid


@contextmanager
def _ndppd_proxied(folder: Path) -> Iterator[Peer]:
    with _link("auto") as (uplink, router), _inside(uplink.host, folder / "inside-auto"):
        yield _start_ndppd(uplink, router, folder, NDPPD_PROXIED)


@contextmanager
def _ours(folder: Path) -> Iterator[Peer]:
    with _link("ours") as (uplink, router), _started(uplink.host, folder, POLICY) as pid:
        yield router, pid


@contextmanager
def _ndppd(folder: Path) -> Iterator[Peer]:
    with _link("ndppd") as (uplink, router):
        yield _start_ndppd(uplink, router, folder, NDPPD)


def _start_ndppd(uplink: Uplink, router: Solicitor, folder: Path, text: str) -> Peer:
    configuration = folder / "ndppd.conf"
    configuration.write_text(text)
    with (folder / "ndppd.log").open("w") as log:
        files = ("-c", configuration, "-p", folder / "ndppd.pid")
        process = uplink.host.popen("ndppd", *files, env=debian.environment(), stdout=log, stderr=log)
    while not router.ask([SUBNET.address + 5], 0.1):
        assert process.poll() is None, (folder / "ndppd.log").read_text()
    return router, process.pid
