"""Faults of the kernel's side: floods, an overrun, errors of its calls, lo, and other programs' hands."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anyipd.kernel import wire
from anyipd.kernel.routes import Routes
from anyipd.kernel.wire import Route
from anyipd.model import Prefix
from anyipd.policy_value import PROTOCOLS
from tests.lab.daemon import Daemon
from tests.lab.delegated import bound, delegate, holder, subnets, take_away
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import Namespace, wait_until
from tests.lab.strace import injected

DELEGATED = "2001:db8:a::/48"
WANTED = subnets(DELEGATED, 16)
SOME = "2001:db8:a:7::/64"
FLOOD = 100_000
"""Foreign routes added, and deleted again."""


@pytest.fixture
def running(daemon: Daemon) -> Daemon:
    daemon.configure("subnets: [{name: some, count: 16}]")
    delegate(daemon.namespace, DELEGATED)
    daemon.start()
    return daemon


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def link(host: Namespace, name: str = "uplink") -> None:
    host.pair(name, f"{name}-peer")


@pytest.mark.alone
def test_a_flood_of_foreign_routes_passes_by(running: Daemon, tmp_path: Path) -> None:
    host = running.namespace
    link(host)
    for verb in ("add", "delete"):
        routes = (
            f"route {verb} 2001:db9:{n >> 16:x}:{n & 0xFFFF:x}::/64 dev uplink proto static\n"
            for n in range(FLOOD)
        )
        (tmp_path / verb).write_text("".join(routes))
    since = len(running.lines())
    before = cpu_ticks(running.running.pid)
    adding = host.popen("ip", "-6", "-batch", tmp_path / "add")
    take_away(host, SOME)
    wait_until(lambda: SOME in bound(host))
    assert adding.wait(60) == 0
    take_away(host, SOME)
    host.run("ip", "-6", "-batch", tmp_path / "delete")
    wait_until(lambda: bound(host) == WANTED)
    # 200,000 changes in about two seconds: a quarter of a core would be 50 ticks.
    assert cpu_ticks(running.running.pid) - before < 10

    def events() -> list[str]:
        return [line.split("event=")[1].split()[0] for line in running.lines()[since:]]

    wait_until(lambda: len(events()) >= 2)
    assert events() == ["bound", "bound"]


def test_an_overrun_of_events_is_made_good(running: Daemon) -> None:
    """Stopped, it cannot read; what it missed it finds by looking."""
    host = running.namespace
    running.running.send_signal(signal.SIGSTOP)
    for verb in ("add", "delete"):
        host.ips(*(f"route {verb} 2001:db8:a:1000::{n:x} dev lo proto static" for n in range(40_000)))
    host.ip("-6 route flush proto 150 table local")
    running.running.send_signal(signal.SIGCONT)
    wait_until(lambda: bound(host) == WANTED, 10)


@pytest.mark.parametrize(
    "fault",
    [
        "recvfrom:error=ENOBUFS:when=1",  # the event socket has lost some
        "recvfrom:error=EINTR:when=1..4",
        "sendto:error=EINTR:when=1..4",
        "sendto:error=ENOMEM:when=1",
        "sendto:error=ENOBUFS:when=1..2",
        "sendto:error=EBUSY:when=1",
        "recvfrom:error=ENOMEM:when=3",  # the answer to the request
        "sendto:retval=64:when=1",  # never arrives, so there is no answer
    ],
)
def test_a_system_call_that_fails_is_made_good(running: Daemon, tmp_path: Path, fault: str) -> None:
    host = running.namespace
    with injected(running.running.pid, tmp_path, fault):
        take_away(host, SOME)
        wait_until(lambda: bound(host) == WANTED, 30)
    # And it goes on as ever.
    take_away(host, SOME)
    wait_until(lambda: bound(host) == WANTED)
    assert not [line for line in running.lines() if "Traceback" in line]


@pytest.mark.parametrize("silent", [0, 1])
@pytest.mark.parametrize("count", [16, 65536])
def test_lo_down_and_up(daemon: Daemon, silent: int, count: int) -> None:
    """It takes our routes along and the clients' discard routes; with `silent` nobody says so."""
    host = daemon.namespace
    host.sysctl("net.ipv6.route.skip_notify_on_dev_down", silent)
    daemon.configure(f"subnets: [{{name: some, count: {count}}}]")
    delegate(host, DELEGATED)
    daemon.launch()
    daemon.wait_for_ready(60)
    assert count_bound(host) == count
    host.ip("link set lo down")
    assert count_bound(host) == 0
    host.ip("link set lo up")
    wait_until(lambda: count_bound(host) == count, 60)
    wait_until(lambda: f"unreachable {DELEGATED} dev lo proto 150" in host.ip("-6 route show table main"))
    # And the client has the last word again.
    delegate(host, DELEGATED)
    wait_until(lambda: host.ip("-6 route show table main proto 150") == "", 60)
    host.ip(f"-6 route delete unreachable {DELEGATED} dev lo proto dhcp metric 1024")
    wait_until(lambda: count_bound(host) == 0, 60)


def count_bound(host: Namespace) -> int:
    return len(bound(host))


def replaced(host: Namespace, prefix: str) -> str:
    host.ip(f"-6 route replace local {prefix} dev lo table local proto static metric 1024")
    return f"-6 route delete local {prefix} dev lo table local proto static metric 1024"


def removed(host: Namespace, prefix: str) -> str:
    host.run(
        "ip",
        "-6",
        "route",
        "delete",
        "local",
        prefix,
        *["dev", "lo", "table", "local", "proto", "150"],
        check=False,
    )
    return ""


def copied_to_another_metric(host: Namespace, prefix: str) -> str:
    host.ip(f"-6 route add local {prefix} dev lo table local proto 150 metric 7")
    return ""


def copied_to_another_table(host: Namespace, prefix: str) -> str:
    host.ip(f"-6 route add local {prefix} dev lo table main proto 150 metric 1024")
    return ""


def copied_by_another_protocol(host: Namespace, prefix: str) -> str:
    host.ip(f"-6 route add local {prefix} dev lo table local proto static metric 7")
    return f"-6 route delete local {prefix} dev lo table local proto static metric 7"


INTERFERENCE = [
    replaced,
    removed,
    copied_to_another_metric,
    copied_to_another_table,
    copied_by_another_protocol,
]


def ours(host: Namespace) -> list[tuple[str, str, int]]:
    """Every route of protocol 150 but the discard route, in whatever table."""
    return sorted(
        (route["dst"], route["table"], route["metric"])
        for route in host.ip_json("-6 route show table all proto 150 type local")
    )


@pytest.mark.parametrize("interfere", INTERFERENCE)
def test_routes_that_others_touch(running: Daemon, interfere: Callable[[Namespace, str], str]) -> None:
    """One at a time, then all at once; what others own is left to them."""
    host = running.namespace
    before = ours(host)
    for prefixes in ({SOME}, {holder(host, SOME)}, WANTED):
        undo = [interfere(host, prefix) for prefix in prefixes]
        for command in filter(None, undo):
            # Until its owner takes it away it stays, whatever it stands in the way of.
            host.ip(command)
        wait_until(lambda: ours(host) == before)


def test_foreign_routes_in_all_our_places_are_never_touched(running: Daemon, tmp_path: Path) -> None:
    host = running.namespace
    for prefix in WANTED:
        replaced(host, prefix)
    wait_until(lambda: {each["state"] for each in running.status()["subnets"]} == {"conflict"})
    monitor = RouteMonitor(host, tmp_path)
    running.reload()
    running.kill()
    running.start()
    assert monitor.changes() == []
    for prefix in WANTED:
        host.ip(f"-6 route delete local {prefix} dev lo table local proto static metric 1024")
    wait_until(lambda: bound(host) == WANTED)


@pytest.mark.long
def test_a_crowd_of_foreign_routes_in_a_table_of_its_own(running: Daemon) -> None:
    host = running.namespace
    link(host)
    link(host, "tun0")
    host.ip("-6 rule add pref 5270 lookup 52")
    crowd = (f"route add 2001:{n >> 16:x}:{n & 0xFFFF:x}::/64 dev uplink table 52" for n in range(100_000))
    host.ips(*crowd)
    host.ip("-6 route add 2001:db8:c000::/36 dev tun0 table 52")
    wanted = WANTED | subnets("2001:db8:b::/48", 16)
    for delegated in ("2001:db8:c000::/48", "2001:db8:b::/48"):
        delegate(host, delegated)
    wait_until(lambda: bound(host) == wanted, 30)
    running.wait_for("2001:db8:c000::/36 is routed to tun0 in table 52")
    running.kill()
    running.start()
    assert bound(host) == wanted
    running.wait_for("2001:db8:c000::/36 is routed to tun0 in table 52")
    host.ip("-6 route delete 2001:db8:c000::/36 table 52")
    wait_until(lambda: bound(host) == wanted | subnets("2001:db8:c000::/48", 16))


def foreign_routes(message: int, flags: int, interface: int, count: int) -> Iterator[bytes]:
    """Yield requests about unicast routes of protocol static in table main."""
    static = PROTOCOLS["static"]
    for n in range(count):
        prefix = Prefix(0x2001 << 112 | n << 80, 64)
        route = Route(prefix, wire.TABLE_MAIN, static, wire.UNICAST, 1024, interface, gateway=False, ticks=0)
        yield wire.change_request(message, flags, route)


@pytest.mark.long
def test_a_million_foreign_routes(running: Daemon, routes: Routes) -> None:
    host, million = running.namespace, 1_000_000
    link(host)
    with host.entered():
        uplink = socket.if_nametoindex("uplink")
    exclusive = wire.NLM_F_CREATE | wire.NLM_F_EXCL
    assert routes.change(foreign_routes(wire.RTM_NEWROUTE, exclusive, uplink, million)) == []
    take_away(host, SOME)
    wait_until(lambda: bound(host) == WANTED, 30)
    delegate(host, "2001:db8:b::/48")
    wait_until(lambda: bound(host) == WANTED | subnets("2001:db8:b::/48", 16), 60)
    running.kill()
    began = time.monotonic()
    running.launch()
    running.wait_for_ready(60)
    print(f"started in {time.monotonic() - began:.1f} s")
    assert bound(host) == WANTED | subnets("2001:db8:b::/48", 16)
    # All at once, with their namespace, would keep a processor from everybody's packets for two seconds.
    assert routes.change(foreign_routes(wire.RTM_DELROUTE, 0, uplink, million)) == []
