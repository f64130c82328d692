"""What the kernel does with our batches, in a namespace: nothing is lost, nothing foreign is touched."""

import errno
import sys
from collections.abc import Iterator
from itertools import chain

import pytest

from anyipd import clock
from anyipd.decide.plan import LONGEST, Plan, Run, Sweep, Wanted
from anyipd.kernel import wire
from anyipd.kernel.routes import BATCH, Routes, discard_route, local_routes
from anyipd.kernel.wire import Refusal
from anyipd.model import INFINITE, Prefix
from tests.lab.namespace import Namespace

FIRST = Prefix.parse("2001:db8::/64")
MANY = 2 * BATCH + 88


def done(steps: Iterator[list[Refusal]]) -> list[Refusal]:
    return list(chain.from_iterable(steps))


def ours(routes: Routes) -> dict[str, int]:
    """Bound subnets and the ticks that they have left."""
    return {
        str(Prefix(address, length)): ticks
        for chunk in routes.dump(wire.TABLE_LOCAL)
        for address, length, ticks in local_routes(chunk)[0]
    }


def nth(i: int) -> Prefix:
    return Prefix(FIRST.address + (i << 64), 64)


def test_subnets_are_bound_as_the_contract_says(host: Namespace, routes: Routes) -> None:
    now = clock.now()
    assert done(routes.add_local([Run(FIRST, 1), Run(nth(1), 1, now + 90)], now)) == []
    shown = [each for each in host.ip_json("-6 route show table local") if each["protocol"] == "150"]
    contract = {"type": "local", "dev": "lo", "scope": "global", "metric": 1024}
    assert [each["dst"] for each in shown] == [str(FIRST), str(nth(1))]
    assert all(contract.items() <= each.items() for each in shown)
    assert ["expires" in each for each in shown] == [False, True]
    assert ours(routes)[str(FIRST)] == 0
    assert 8900 < ours(routes)[str(nth(1))] <= 9100


def test_more_than_a_batch(host: Namespace, routes: Routes) -> None:
    steps = list(routes.add_local([Run(FIRST, MANY)], 0))
    assert steps == [[], [], []]
    assert ours(routes).keys() == {str(nth(i)) for i in range(MANY)}
    shown = host.ip_json("-6 route show table local proto 150")
    assert [each["dst"] for each in shown] == [str(nth(i)) for i in range(MANY)]
    assert list(routes.remove_local([Run(FIRST, MANY)])) == [[], [], []]
    assert ours(routes) == {}


def test_runs_of_many_lengths(routes: Routes) -> None:
    lengths = [128, 65, 64, 63, 48, 127, 64]
    prefixes = [Prefix((0x20020000 + i) << 96, length) for i, length in enumerate(lengths)]
    runs = [Run(prefix, 2) for prefix in prefixes]
    assert done(routes.add_local(runs, 0)) == []
    both = [each for prefix in prefixes for each in (prefix, Prefix(prefix.end, prefix.length))]
    assert ours(routes).keys() == {str(prefix) for prefix in both}
    assert done(routes.remove_local(runs)) == []
    assert ours(routes) == {}


def test_a_place_that_is_taken_is_refused_and_the_others_go_on(host: Namespace, routes: Routes) -> None:
    for i in (0, BATCH - 1, BATCH, MANY - 1):
        host.ip(f"-6 route add local {nth(i)} dev lo table local proto static metric 1024")
    before = host.ip("-6 route show table local proto static")
    taken = [Refusal(nth(i), errno.EEXIST) for i in (0, BATCH - 1, BATCH, MANY - 1)]
    assert done(routes.add_local([Run(FIRST, MANY)], 0)) == taken
    assert len(ours(routes)) == MANY - 4
    assert host.ip("-6 route show table local proto static") == before
    assert done(routes.remove_local([Run(FIRST, MANY)])) == [
        Refusal(each.prefix, errno.ESRCH) for each in taken
    ]
    assert host.ip("-6 route show table local proto static") == before


def test_every_message_of_many_batches_is_refused(routes: Routes) -> None:
    run = Run(FIRST, MANY)
    assert done(routes.remove_local([run])) == [Refusal(nth(i), errno.ESRCH) for i in range(MANY)]
    assert done(routes.renew_local([run], 0)) == [Refusal(nth(i), errno.ENOENT) for i in range(MANY)]
    done(routes.add_local([run], 0))
    assert done(routes.add_local([run], 0)) == [Refusal(nth(i), errno.EEXIST) for i in range(MANY)]


@pytest.mark.parametrize(
    ("before", "after"), [(60.0, 600.0), (600.0, 60.0), (INFINITE, 60.0), (60.0, INFINITE), (60.0, None)]
)
def test_a_renewal_changes_the_lifetime_and_nothing_else(
    host: Namespace, routes: Routes, before: float, after: float | None
) -> None:
    host.ip(f"-6 route add local {FIRST} dev lo table local proto static metric 7")
    now = clock.now()
    wanted = Run(FIRST, 3, after and now + after)
    assert done(routes.add_local([Run(FIRST, 2, now + before)], now)) == []
    assert done(routes.renew_local([wanted], now)) == [Refusal(nth(2), errno.ENOENT)]
    assert ours(routes).keys() == {str(FIRST), str(nth(1))}
    for ticks in ours(routes).values():
        assert ticks == 0 if after in {INFINITE, None} else abs(ticks - 100 * (after or 0)) < 200
    assert len(host.ip_json(f"-6 route show table local {FIRST}")) == 2


@pytest.mark.parametrize("left", [0.3, 1.0, 59.999, 86400.0, 4294967294.0, INFINITE, None])
def test_what_was_done_is_what_was_wanted(routes: Routes, left: float | None) -> None:
    now = clock.now()
    run = Run(FIRST, 300, left and now + left)
    done(routes.add_local([run], now))
    sweep = Sweep(Wanted.of([run]))
    for chunk in routes.dump(wire.TABLE_LOCAL):
        sweep.see_ours(local_routes(chunk)[0], clock.now())
    assert sweep.plan() == Plan()


@pytest.mark.parametrize("left", [-1e6, -2.5, -1.0, -0.5, 0.0])
def test_a_deadline_just_missed_is_still_one(routes: Routes, left: float) -> None:
    assert done(routes.add_local([Run(FIRST, 1, 1e7 + left)], 1e7)) == []
    [ticks] = ours(routes).values()
    assert 0 < ticks <= 100


@pytest.mark.parametrize("left", [2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**32 + 5])
def test_a_distant_deadline_is_still_one(routes: Routes, left: int) -> None:
    assert done(routes.add_local([Run(FIRST, 1, 1000.5 + left)], 1000.0)) == []
    assert list(ours(routes).values()) == [LONGEST]


def test_deletion_hits_ours_alone(host: Namespace, routes: Routes) -> None:
    strangers = [
        f"local {FIRST} dev lo table local proto static metric 7",
        f"local {FIRST} dev lo table local proto 150 metric 8",
        f"local {FIRST} dev lo table main proto 150 metric 1024",
        f"unreachable {FIRST} table local proto 150 metric 9",
    ]
    for stranger in strangers:
        host.ip(f"-6 route add {stranger}")
    before = host.ip("-6 route show table all")
    assert done(routes.remove_local([Run(FIRST, 1)])) == [Refusal(FIRST, errno.ESRCH)]
    assert host.ip("-6 route show table all") == before
    done(routes.add_local([Run(FIRST, 1)], 0))
    assert host.ip("-6 route show table all") != before
    assert done(routes.remove_local([Run(FIRST, 1)])) == []
    assert host.ip("-6 route show table all") == before


@pytest.mark.parametrize("kind", wire.DISCARDS)
def test_discard_routes(host: Namespace, routes: Routes, kind: str) -> None:
    delegated, taken = Prefix.parse("2001:db8::/56"), Prefix.parse("2001:db8:0:100::/56")
    host.ip(f"-6 route add unreachable {delegated} dev lo proto dhcp metric 1024")
    host.ip(f"-6 route add unreachable {taken} dev lo proto dhcp metric 2048")
    before = host.ip("-6 route show table main")
    number = wire.DISCARDS[kind]
    assert done(routes.add_discard(number, [delegated, taken])) == [Refusal(taken, errno.EEXIST)]
    [found] = host.ip_json("-6 route show table main proto 150")
    assert {"type": kind, "dst": str(delegated), "dev": "lo", "metric": 2048}.items() <= found.items()
    both = [discard_route(number, delegated), discard_route(number, taken)]
    assert done(routes.remove(both)) == [Refusal(taken, errno.ESRCH)]
    assert host.ip("-6 route show table main") == before


def test_whatever_bears_our_protocol_can_be_removed(host: Namespace, routes: Routes) -> None:
    host.ip("link add one type veth peer name two")
    host.ip("link set one up")
    host.ip("link set two up")
    for route in (
        "local 2001:db8:1::/64 dev one proto 150 table local",
        "local 2001:db8:1::/64 dev lo proto 150 table local metric 5 expires 50",
        "2001:db8:2::/64 via fe80::1 dev two proto 150",
        "2001:db8:3::/64 proto 150 nexthop via fe80::1 dev one nexthop via fe80::1 dev two",
        "blackhole 2001:db8:4::/64 proto 150",
        "default dev two proto 150",
    ):
        host.ip(f"-6 route add {route}")
    found = [
        wire.route(chunk, start, end)
        for table in (wire.TABLE_LOCAL, wire.TABLE_MAIN)
        for chunk in routes.dump(table, wire.PROTOCOL)
        for start, _, end in wire.messages(chunk)
    ]
    assert len(found) == 6
    assert done(routes.remove(found)) == []
    assert host.ip("-6 route show table all proto 150") == ""


def test_a_dump_gives_one_table_and_one_protocol(host: Namespace, routes: Routes) -> None:
    done(routes.add_local([Run(FIRST, MANY)], 0))
    host.ip("-6 route add blackhole 2001:db8:5::/64 proto dhcp")

    def dumped(table: int, protocol: int = 0) -> int:
        return sum(1 for chunk in routes.dump(table, protocol) for _ in wire.messages(chunk))

    assert dumped(wire.TABLE_LOCAL, 150) == MANY
    assert dumped(wire.TABLE_LOCAL) > MANY
    assert dumped(wire.TABLE_LOCAL, 16) == dumped(wire.TABLE_MAIN, 150) == 0
    assert dumped(wire.TABLE_MAIN, 16) == 1
    assert dumped(wire.TABLE_MAIN) == len(host.ip_json("-6 route show table main"))


MAY_CHANGE = "from anyipd.kernel.routes import Routes; print(Routes().may_change())"


@pytest.mark.parametrize(("bounds", "answer"), [("-net_raw", "True\n"), ("-net_admin", "False\n")])
def test_whether_we_may_change_routes(host: Namespace, bounds: str, answer: str) -> None:
    command = ["setpriv", "--bounding-set", bounds, sys.executable, "-c", MAY_CHANGE]
    before = host.ip("-6 route show table all")
    assert host.run(*command).stdout == answer
    assert host.ip("-6 route show table all") == before


ADD = """
from anyipd.decide.plan import Run
from anyipd.kernel.routes import Routes
from anyipd.model import Prefix
print(*(each.error for each in sum(Routes().add_local([Run(Prefix(2 << 124, 64), 2)], 0), [])))
"""


def test_what_may_not_be_changed_is_refused(host: Namespace) -> None:
    done = host.run("setpriv", "--bounding-set", "-net_admin", sys.executable, "-c", ADD)
    assert done.stdout == f"{errno.EPERM} {errno.EPERM}\n"
