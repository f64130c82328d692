"""Dumps of a table miss routes that are there, when others go meanwhile: seen with a real kernel."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from contextlib import closing, suppress
from itertools import cycle
from pathlib import Path

import pytest

from anyipd.kernel import wire
from anyipd.kernel.removals import Removals
from anyipd.kernel.routes import Routes
from anyipd.model import Prefix
from anyipd.observe.onlink import Routed
from tests.lab.daemon import Daemon
from tests.lab.delegated import bound, delegate, subnets
from tests.lab.namespace import Namespace, wait_until

DELEGATED = Prefix.parse("2001:db8:ffff::/48")
FOREIGN = subnets(str(DELEGATED), 20)
CROWD, GO = 1000, 800
"""Routes before those in a dump, which comes in parts of some 200; and those of them that go meanwhile."""
MAIN, OTHER = 254, 77
RTMGRP_IPV6_ROUTE = 0x400  # linux/rtnetlink.h


class Table:
    """A table with somebody's routes inside DELEGATED, and many before them."""

    def __init__(self, host: Namespace, number: int, crowd: int = CROWD) -> None:
        self.host, self.number = host, number
        self.crowd("add", crowd)
        host.ips(*(f"route add {self.to(each)}" for each in FOREIGN))
        with host.entered():
            self.routes = Routes()

    def to(self, prefix: str) -> str:
        """Name somebody's route to a prefix."""
        return f"{prefix} dev one proto static table {self.number}"

    def crowd(self, verb: str, count: int = GO) -> None:
        self.host.ips(*(f"route {verb} {self.to(f'2001:db8:0:{n:x}::/64')}" for n in range(count)))

    def crowd_out(self, count: int = GO) -> None:
        """Have many go and one come, for which the kernel begins anew: it skips as many nodes as it saw."""
        self.crowd("delete", count)
        self.crowd("add", 1)

    def look(self, routed: Routed) -> None:
        with self.host.entered():  # names of links are the thread's
            asyncio.run(routed.look(self.routes, [DELEGATED]))

    def crowd_back(self, count: int = GO) -> None:
        self.crowd("delete", 1)
        self.crowd("add", count)

    def look_and_miss(self, routed: Routed, count: int = GO) -> None:
        """Look; the first dump passes over what is there as over what has gone."""
        with self.host.entered():
            for number, _ in enumerate(steps(routed.look(self.routes, [DELEGATED]))):
                if number == 0:
                    self.crowd_out(count)
        self.crowd_back(count)

    def dump(self) -> set[str]:
        """Dump the table as `look_and_miss` has it, and give which of FOREIGN are in it."""
        found = b""
        for number, chunk in enumerate(self.routes.dump(self.number)):
            if number == 0:
                self.crowd_out()
            found += chunk
        self.crowd_back()
        return {each for each in FOREIGN if Prefix.parse(each).address.to_bytes(16) in found}


def steps(work: Coroutine[None, None, None]) -> Iterator[None]:
    """Make one turn after the other of what waits for nothing."""
    with suppress(StopIteration):
        while True:
            yield work.send(None)


def assigned(routed: Routed) -> set[str]:
    return {str(each.prefix) for each in routed.assigned}


@pytest.fixture
def linked(host: Namespace) -> Namespace:
    host.pair("one", "two")
    return host


@pytest.fixture(params=[MAIN, OTHER])
def table(linked: Namespace, request: pytest.FixtureRequest) -> Iterator[Table]:
    made = Table(linked, request.param)
    with closing(made.routes):
        yield made


def test_the_kernel_misses_routes(table: Table) -> None:
    """Where it no longer does, most of this file has no reason to be."""
    assert table.dump() == set()


def test_a_first_look_takes_the_union_of_two_dumps(table: Table) -> None:
    routed = Routed()
    table.look_and_miss(routed)
    assert assigned(routed) == FOREIGN
    assert not routed.in_doubt


def test_a_first_look_ends_while_routes_go_without_pause(table: Table) -> None:
    routed, turns = Routed(), cycle(["delete", "add"])
    with table.host.entered():
        for _ in steps(routed.look(table.routes, [DELEGATED])):
            table.crowd(next(turns))
    assert assigned(routed) <= FOREIGN


def test_what_is_known_stays_however_often_it_is_missed(table: Table) -> None:
    routed = Routed()
    table.look(routed)
    for _ in range(3):
        table.look_and_miss(routed)
        assert assigned(routed) == FOREIGN
        assert routed.in_doubt
    table.look(routed)
    assert assigned(routed) == FOREIGN
    assert not routed.in_doubt


def test_what_two_credible_dumps_in_a_row_lack_is_gone(table: Table) -> None:
    routed, gone = Routed(), min(FOREIGN)
    table.look(routed)
    table.host.ip(f"-6 route delete {table.to(gone)}")
    table.look(routed)
    assert (assigned(routed), routed.in_doubt) == (FOREIGN, True)
    table.look_and_miss(routed)  # says nothing, for or against
    table.look(routed)
    assert (assigned(routed), routed.in_doubt) == (FOREIGN - {gone}, False)


def test_what_comes_back_between_two_looks_is_in_no_doubt(table: Table) -> None:
    routed, flapping = Routed(), min(FOREIGN)
    table.look(routed)
    for _ in range(3):
        table.host.ip(f"-6 route delete {table.to(flapping)}")
        table.look(routed)
        table.host.ip(f"-6 route add {table.to(flapping)}")
        table.look(routed)
        assert (assigned(routed), routed.in_doubt) == (FOREIGN, False)


def test_what_is_no_longer_delegated_is_of_no_interest(table: Table) -> None:
    routed = Routed()
    table.look(routed)
    with table.host.entered():
        asyncio.run(routed.look(table.routes, [DELEGATED._replace(length=60)]))
        assert assigned(routed) == subnets(str(DELEGATED), 16)
        asyncio.run(routed.look(table.routes, []))
    assert (assigned(routed), routed.in_doubt) == (set(), False)


def test_removals_are_counted(table: Table) -> None:
    with table.host.entered(), closing(Removals()) as removals:
        table.crowd("delete", 7)
        table.crowd("add", 7)
        for other in (51820, "local"):
            table.host.ip(f"-6 route add 2001:db8:7::/64 dev one table {other}")
            table.host.ip(f"-6 route delete 2001:db8:7::/64 dev one table {other}")
        assert removals.count() == {table.number: 7, 51820: 1}
        assert removals.count() == {}
        for _ in range(10):
            table.crowd("delete")
            table.crowd("add")
        assert removals.count() is None
        assert removals.count() == {}


def test_what_is_read_of_other_tables_makes_no_dump_credible(linked: Namespace) -> None:
    """Five that go are much for a small table, and next to nothing for a large one that is read with it."""
    large, routed = Table(linked, MAIN, 9000), Routed()
    with closing(large.routes):
        _, parts = ([len(list(wire.messages(each))) for each in large.routes.dump(MAIN)] for _ in range(2))
        # While the first part of a dump is read the kernel has the second one ready: FOREIGN is the third.
        small = Table(linked, OTHER, sum(parts[:2]))
        with closing(small.routes):
            small.look(routed)
            everything = routed.assigned
            for _ in range(3):
                small.look_and_miss(routed, 5)
                assert (routed.in_doubt, routed.assigned) == (True, everything)
            small.look(routed)
            assert (routed.in_doubt, routed.assigned) == (False, everything)


def test_routes_that_flap_without_pause_make_nobody_bind_what_is_routed_elsewhere(
    daemon: Daemon, table: Table, tmp_path: Path
) -> None:
    """A dump at such a time misses hundreds of the 3,000."""
    flap = tmp_path / "flap"
    flap.write_text(
        "".join(
            f"route {verb} {table.to(f'2001:db8:0:{n:x}::/64')}\n"
            for verb in ("delete", "add")
            for n in range(GO)
        )
    )
    table.host.ips(*(f"route add {table.to(f'2001:db8:8000:{n:x}::/64')}" for n in range(3000)))
    delegate(table.host, "2001:db8:8000::/48")
    daemon.configure("subnets: [{name: some, count: 3001, id: 0}]")
    daemon.start()
    free = {"2001:db8:8000:bb8::/64"}
    assert bound(table.host) == free
    flapping = table.host.popen("sh", "-c", f"while ip -6 -batch {flap}; do :; done")
    for _ in range(10):
        daemon.reload()
        assert bound(table.host) == free
    flapping.kill()
    assert not [line for line in daemon.lines() if "event=unbound" in line]


def test_a_route_whose_end_was_not_heard_of_is_looked_for_twice(daemon: Daemon, table: Table) -> None:
    delegate(table.host, str(DELEGATED))
    daemon.configure(f"subnets: [{{name: some, count: {len(FOREIGN)}, id: 0}}]")
    daemon.start()
    assert bound(table.host) == set()
    daemon.running.send_signal(signal.SIGSTOP)
    for verb in ("add", "delete"):
        routes = (f"route {verb} 2001:db8:ffff:1000::{n:x} dev lo proto static" for n in range(20_000))
        table.host.ips(*routes)
    table.host.ip(f"-6 route delete {table.to(min(FOREIGN))}")
    daemon.running.send_signal(signal.SIGCONT)
    wait_until(lambda: bound(table.host) == {min(FOREIGN)})


def test_whoever_else_listens_hears_all_of_it(linked: Namespace) -> None:
    """What the filter of one listener cuts off the kernel cuts off for those behind it, whose they be."""
    with linked.entered(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as other:
        other.bind((0, RTMGRP_IPV6_ROUTE))
        with closing(Removals()) as removals:
            for verb in ("add", "delete"):
                linked.ip(f"-6 route {verb} 2001:db8::/64 dev one")
            assert removals.count() == {MAIN: 1}
        heard = [other.recv(4096, socket.MSG_DONTWAIT) for _ in range(2)]
    assert [len(each) for each in heard] == [int.from_bytes(each[:4], sys.byteorder) for each in heard]
