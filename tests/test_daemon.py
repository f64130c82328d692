"""The daemon against a real kernel: what is not about DHCPv6 on the wire."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from anyipd import clock
from tests.lab import delegated
from tests.lab.daemon import Daemon, awakenings
from tests.lab.delegated import PREFIX, delegate, take_back, write_lease
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import Namespace, wait_until

NEXT = "2001:db8:100:10::/60"
POLICY = "subnets: [{name: web, id: 0}, {name: proxies, count: 4}]"
BOUND = [f"2001:db8:100:{number}::/64" if number else "2001:db8:100::/64" for number in range(5)]


def bound(host: Namespace) -> list[str]:
    return sorted(delegated.bound(host))


@pytest.fixture
def running(daemon: Daemon) -> Daemon:
    daemon.configure(POLICY)
    delegate(daemon.namespace)
    daemon.start()
    assert bound(daemon.namespace) == sorted(BOUND)
    return daemon


def test_ready_means_bound(running: Daemon) -> None:
    # The fixture saw READY=1 and asserted what was bound at that moment.
    assert not [
        route
        for route in running.namespace.ip("-6 route show table local proto 150").splitlines()
        if "expires" in route
    ]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_restart_changes_no_route(running: Daemon, tmp_path: Path, end: signal.Signals) -> None:
    monitor = RouteMonitor(running.namespace, tmp_path)
    running.running.send_signal(end)
    assert running.running.wait(20) in {0, -signal.SIGKILL}
    assert bound(running.namespace) == sorted(BOUND)
    running.start()
    assert monitor.changes() == []


def test_flushed_routes_come_back(running: Daemon) -> None:
    running.namespace.ip("-6 route flush proto 150 table local")
    wait_until(lambda: bound(running.namespace) == sorted(BOUND))


def test_a_stray_route_of_ours_goes(running: Daemon) -> None:
    for stray in (
        "local 2001:db8:900::/64 dev lo table local proto 150 metric 1024",
        "local 2001:db8:100::/64 dev lo table local proto 150 metric 7",
        "unreachable 2001:db8:900::/60 dev lo table main proto 150 metric 2048",
    ):
        running.namespace.ip(f"-6 route add {stray}")
        wait_until(lambda: "900" not in running.namespace.ip("-6 route show table all proto 150"))
    wait_until(lambda: bound(running.namespace) == sorted(BOUND))


def test_a_stray_in_the_place_of_a_clients_discard_route_ends_what_that_said(running: Daemon) -> None:
    running.namespace.ip(f"-6 route replace {PREFIX} dev lo proto 150 metric 1024")
    wait_until(lambda: not running.status()["delegations"])
    assert bound(running.namespace) == []


def test_a_foreign_route_in_our_place_is_left_alone(running: Daemon, tmp_path: Path) -> None:
    host = running.namespace
    since = len(running.lines())
    host.ip("-6 route replace local 2001:db8:100::/64 dev lo table local proto static metric 1024")
    assert "conflict" in running.wait_for("subnet=web", since=since)
    monitor = RouteMonitor(host, tmp_path)
    (web,) = [each for each in running.status()["subnets"] if each["name"] == "web"]
    assert (web["state"], web["reason"]) == ("conflict", "another local route has this destination")
    running.terminate()
    running.start()
    assert monitor.changes() == []
    host.ip("-6 route delete local 2001:db8:100::/64 dev lo table local proto static")
    wait_until(lambda: bound(host) == sorted(BOUND))


def test_a_place_that_was_taken_before_is_left_out_of_what_is_added_first(daemon: Daemon) -> None:
    host = daemon.namespace
    daemon.configure("subnets: [{name: proxies, count: 4}]")
    daemon.start()
    host.ip("-6 route add local 2001:db8:100:1::/64 dev lo table local proto static metric 1024")
    write_lease(daemon.runtime)
    daemon.wait_for("event=conflict subnet=proxies-1 ")
    assert bound(host) == sorted([BOUND[0], *BOUND[2:4]])
    told = [line.partition("event=bound ")[2] for line in daemon.lines() if "event=bound " in line]
    assert told == [f"subnet=proxies-0 prefix={BOUND[0]}", f"subnet=proxies-2 prefix={BOUND[2]} count=2"]


def test_an_on_link_prefix_is_never_bound(daemon: Daemon) -> None:
    host = daemon.namespace
    daemon.configure("subnets: [{name: pinned, id: 1}, {name: automatic, count: 3}]")
    host.ip("link add uplink type veth peer name other")
    host.ip("link set uplink up")
    host.ip("addr add 2001:db8:100:1::5/64 dev uplink")
    delegate(host)
    daemon.start()
    assert bound(host) == ["2001:db8:100:2::/64", "2001:db8:100:3::/64", "2001:db8:100::/64"]
    (pinned,) = [each for each in daemon.status()["subnets"] if each["name"] == "pinned"]
    assert pinned["state"] == "conflict"
    assert pinned["reason"] == "2001:db8:100:1::/64 is on-link at uplink"
    host.ip("addr delete 2001:db8:100:1::5/64 dev uplink")
    daemon.wait_for("bound subnet=pinned")
    host.ip("addr add 2001:db8:100:1::5/64 dev uplink")
    daemon.wait_for("unbound subnet=pinned")


def test_lo_down_and_up(running: Daemon) -> None:
    host = running.namespace
    host.ip("link set lo down")
    assert bound(host) == []
    host.ip("link set lo up")
    # lo took the client's route along, but not its word.
    wait_until(lambda: bound(host) == sorted(BOUND))
    (discard,) = host.ip_json("-6 route show type unreachable")
    assert (discard["dst"], discard["protocol"], discard["metric"]) == (PREFIX, "150", 2048)
    delegate(host)
    wait_until(lambda: host.ip("-6 route show table main proto 150") == "")
    host.ip(f"-6 route delete unreachable {PREFIX} dev lo proto dhcp metric 1024")
    wait_until(lambda: bound(host) == [])


def test_what_is_bound_whole_leaves_no_discard_route_when_it_ends_while_lo_is_down(daemon: Daemon) -> None:
    """Its subnet, which the kernel refuses then, has the same prefix as the discard route, which it takes."""
    host, whole = daemon.namespace, "2001:db8:500::/64"
    daemon.start()
    host.ip("link set lo down")
    write_lease(daemon.runtime, prefix=whole, preferred_lifetime=1, valid_lifetime=6)
    wait_until(lambda: host.ip_json("-6 route show table main proto 150"))
    write_lease(daemon.runtime, "other", prefix="2001:db8:600::/60")
    daemon.wait_for("event=expired")
    wait_until(lambda: "2001:db8:500::" not in host.ip("-6 route show table all proto 150"))


def test_a_stray_like_no_route_of_ours_goes_too(running: Daemon) -> None:
    running.namespace.ip("-6 route add 2001:db8:900::/64 from 2001:db8::/32 dev lo proto 150")
    wait_until(lambda: "900" not in running.namespace.ip("-6 route show table all proto 150"))
    assert "prefix=2001:db8:900::/64" in running.wait_for("event=stray")


def test_a_log_that_cannot_be_written_costs_lines_alone(daemon: Daemon) -> None:
    daemon.configure(POLICY)
    environment = {**daemon.environment(), "NOTIFY_SOCKET": "/none"}
    with Path("/dev/full").open("w") as full:
        daemon.namespace.popen(*daemon.command(), stderr=full, env=environment)
    delegate(daemon.namespace)
    wait_until(lambda: bound(daemon.namespace) == sorted(BOUND))


def test_a_leases_directory_that_is_none_stops_nothing(daemon: Daemon) -> None:
    (daemon.runtime / "leases").touch()
    daemon.configure(POLICY)
    delegate(daemon.namespace)
    daemon.start()
    assert bound(daemon.namespace) == sorted(BOUND)
    assert f"path={daemon.runtime}/leases" in daemon.wait_for("Not a directory")


def test_reload(running: Daemon) -> None:
    running.configure("subnets: [{name: web, id: 0}, {name: extra, id: 9}]")
    running.reload()
    assert bound(running.namespace) == ["2001:db8:100:9::/64", "2001:db8:100::/64"]
    running.configure("subnets: [{name: web, id: 0, idd: 3}]")
    running.reload()
    running.wait_for("the old configuration stays in force")
    assert f"{running.configuration}:1:30: subnets[0].idd" in running.log.read_text()
    assert bound(running.namespace) == ["2001:db8:100:9::/64", "2001:db8:100::/64"]


def test_a_reload_in_the_middle_of_a_pass(daemon: Daemon) -> None:
    daemon.configure("subnets: [{name: all, count: all}]")
    daemon.start()
    delegate(daemon.namespace, "2001:db8::/48")
    wait_until(lambda: bound(daemon.namespace))
    daemon.configure("subnets: [{name: one}]")
    daemon.reload()
    wait_until(lambda: bound(daemon.namespace) == ["2001:db8::/64"], 10)


def test_a_second_daemon_is_refused(running: Daemon) -> None:
    second = running.namespace.run(*running.command(), check=False, env=running.environment())
    assert second.returncode == 69
    assert f"pid {running.running.pid}" in second.stderr


def test_bad_configuration(daemon: Daemon) -> None:
    daemon.configure("subnets: [{name: web, count: 0}, {name: lab, length: 300}]\n")
    assert daemon.launch().wait(20) == 78
    assert len(daemon.lines()) == 2


def test_without_the_right_to_change_routes(daemon: Daemon) -> None:
    ended = daemon.namespace.run(
        "setpriv",
        "--bounding-set=-net_admin",
        "--inh-caps=-net_admin",
        *daemon.command(),
        check=False,
        env=daemon.environment(),
    )
    assert ended.returncode == 77
    assert "CAP_NET_ADMIN" in ended.stderr


def test_usage(daemon: Daemon) -> None:
    assert daemon.launch("--no-such-option").wait(20) == 64
    assert "--help" in daemon.log.read_text()


def test_a_pass_that_changes_nothing_says_nothing(running: Daemon) -> None:
    since = len(running.lines())
    for _ in range(3):
        running.namespace.ip(f"-6 route replace unreachable {PREFIX} dev lo proto dhcp metric 1024")
    running.reload()
    assert [line for line in running.lines()[since:] if "reloaded" not in line] == []


@pytest.mark.alone
def test_idle_means_asleep(running: Daemon) -> None:
    pid = running.running.pid
    time.sleep(0.5)
    before = awakenings(pid)
    time.sleep(2)
    assert awakenings(pid) == before


def test_a_lease_file_alone_delegates(daemon: Daemon) -> None:
    (daemon.runtime / "leases").mkdir()
    daemon.configure(POLICY)
    daemon.start()
    granted = clock.now()
    write_lease(daemon.runtime, client="dhcpcd")
    wait_until(lambda: bound(daemon.namespace) == sorted(BOUND))
    # The client has a second to leave a discard route of its own.
    found = daemon.namespace.ip_json("-6 route show type unreachable")
    assert found == [] or clock.now() > granted + 0.99
    (discard,) = wait_until(lambda: daemon.namespace.ip_json("-6 route show type unreachable"))
    assert (discard["dst"], discard["protocol"], discard["metric"]) == (PREFIX, "150", 2048)
    take_back(daemon.runtime, client="dhcpcd")
    wait_until(lambda: daemon.namespace.ip("-6 route show table all proto 150") == "")


def test_who_takes_a_discard_routes_place_while_nothing_is_delegated_is_seen(daemon: Daemon) -> None:
    (daemon.runtime / "leases").mkdir()
    daemon.configure(POLICY)
    daemon.start()
    write_lease(daemon.runtime)
    delegate(daemon.namespace)
    wait_until(lambda: bound(daemon.namespace) == sorted(BOUND))
    take_back(daemon.runtime)
    wait_until(lambda: bound(daemon.namespace) == [])
    daemon.namespace.ip(f"-6 route replace unreachable {PREFIX} dev lo proto static metric 1024")
    write_lease(daemon.runtime)
    ours = f"-6 route show type unreachable proto 150 {PREFIX}"
    wait_until(lambda: "metric 2048" in daemon.namespace.ip(ours))


def test_who_takes_the_place_of_a_refused_prefixs_discard_route_is_seen(daemon: Daemon) -> None:
    daemon.configure("accept: {uplinks: [up0]}")
    daemon.start()
    delegate(daemon.namespace)
    wait_until(lambda: [each["state"] for each in daemon.status()["delegations"]] == ["refused"])
    daemon.namespace.ip(f"-6 route replace unreachable {PREFIX} dev lo proto static metric 1024")
    wait_until(lambda: daemon.status()["delegations"] == [])


def test_a_lease_file_counts_before_it_is_in_its_place(daemon: Daemon) -> None:
    """The hook has to start a program for that; what it wrote is whole before."""
    leases = daemon.runtime / "leases"
    leases.mkdir()
    daemon.configure(POLICY)
    daemon.start()
    elsewhere = daemon.runtime.parent / "elsewhere"
    elsewhere.mkdir()
    whole = write_lease(elsewhere).read_bytes()
    name = PREFIX.replace("/", "_") + "@uplink"
    new = leases / f".{name}.4711"
    with new.open("wb") as file:
        file.write(whole[:40])
        file.flush()
        time.sleep(0.3)
        assert bound(daemon.namespace) == []
        file.write(whole[40:])
    wait_until(lambda: bound(daemon.namespace) == sorted(BOUND))
    (leases / ".swept@uplink").write_text("4711\n")
    new.rename(leases / name)
    daemon.reload()
    assert bound(daemon.namespace) == sorted(BOUND)
    assert sum("event=delegated" in line for line in daemon.lines()) == 1
    assert not any("dropped" in line or "renewed" in line for line in daemon.lines())


def test_adjacent_prefixes_that_go_together_leave_nothing(daemon: Daemon) -> None:
    daemon.configure(POLICY)
    long_ago = f"{time.clock_gettime(time.CLOCK_BOOTTIME) - 2:.2f}"
    write_lease(daemon.runtime, "one", uptime=long_ago, iaid="00:00:00:01")
    write_lease(daemon.runtime, "two", uptime=long_ago, iaid="00:00:00:02", prefix=NEXT)
    daemon.start()
    assert len(daemon.namespace.ip_json("-6 route show table main proto 150")) == 2
    daemon.running.send_signal(signal.SIGSTOP)
    take_back(daemon.runtime, "one")
    take_back(daemon.runtime, "two", prefix=NEXT)
    daemon.running.send_signal(signal.SIGCONT)
    wait_until(lambda: daemon.namespace.ip("-6 route show table all proto 150") == "")


def test_a_lease_file_takes_the_place_of_a_route_that_fell_without_one(daemon: Daemon) -> None:
    host = daemon.namespace
    # The hook's, when no file could be written; the next renewal could.
    host.ip(f"-6 route add unreachable {PREFIX} dev lo table 150 proto dhcp metric 1026")
    daemon.configure(POLICY)
    write_lease(daemon.runtime)
    daemon.start()
    host.ip("link set lo down")
    host.ip("link set lo up")
    wait_until(lambda: bound(host) == sorted(BOUND))
    take_back(daemon.runtime)
    wait_until(lambda: bound(host) == [])


def test_what_the_hooks_of_010_left_in_table_main_goes(daemon: Daemon) -> None:
    host = daemon.namespace
    write_lease(daemon.runtime)
    for metric in (1025, 1026):
        host.ip(f"-6 route add unreachable {PREFIX} dev lo proto dhcp metric {metric}")
    daemon.configure(POLICY)
    daemon.start()
    assert bound(host) == sorted(BOUND)
    (discard,) = host.ip_json("-6 route show type unreachable")
    assert (discard["protocol"], discard["metric"]) == ("150", 2048)


def test_a_discard_route_of_ours_that_stands_stays_at_a_renewal(daemon: Daemon, tmp_path: Path) -> None:
    """O2: also where a client has a second to add one of its own."""
    daemon.configure(POLICY)
    write_lease(daemon.runtime, client="dhcpcd")
    daemon.start()
    wait_until(lambda: daemon.namespace.ip_json("-6 route show type unreachable"))
    monitor = RouteMonitor(daemon.namespace, tmp_path)
    write_lease(daemon.runtime, client="dhcpcd", valid_lifetime=9000)
    daemon.wait_for("event=renewed")
    assert not [line for line in monitor.changes() if "Deleted" in line]


def test_a_hooks_message_goes_with_its_lease(daemon: Daemon) -> None:
    host = daemon.namespace
    write_lease(daemon.runtime, preferred_lifetime=3, valid_lifetime=6)
    host.ip(f"-6 route add unreachable {PREFIX} dev lo table 150 proto dhcp metric 1025")
    daemon.configure(POLICY)
    daemon.start()
    assert host.ip_json("-6 route show table 150") != []
    daemon.wait_for("event=expired", 10)
    wait_until(lambda: host.ip_json("-6 route show table 150") == [])


def test_a_bad_lease_file_costs_one_warning(daemon: Daemon) -> None:
    daemon.configure(POLICY)
    write_lease(daemon.runtime, prefix="2001:db8::/60;reboot")
    delegate(daemon.namespace)
    daemon.start()
    daemon.reload()
    assert bound(daemon.namespace) == sorted(BOUND)
    (line,) = [line for line in daemon.lines() if "lease file dropped" in line]
    assert "level=warning" in line
    assert f"path={daemon.runtime}/leases/one" in line
    assert "2001:db8::/60;reboot" in line


def test_a_network_that_never_had_a_route(daemon: Daemon) -> None:
    """The kernel makes a table of IPv4 with its first route, and refuses to dump one that is not there."""
    daemon.within = ["unshare", "--net"]
    daemon.configure(POLICY)
    daemon.start()
    assert not [line for line in daemon.lines() if "pass failed" in line]
    shown = daemon.namespace.run(
        *("unshare", "--net", sys.executable, "-m", "anyipd.ctl", "status", *daemon.files),
        env=daemon.environment(),
    )
    assert "no prefix is delegated to this host" in shown.stdout
