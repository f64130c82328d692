"""What the kernel does with our batches, in a namespace: nothing is lost, nothing foreign is touched."""

import errno
import sys
from collections.abc import Iterable

import pytest

from anyipd import clock
from anyipd.decide.plan import LONGEST, Plan, plan
from anyipd.kernel import wire
from anyipd.kernel.routes import BATCH, Routes, discard_route, local_route, ours_and_others
from anyipd.kernel.wire import Refusal
from anyipd.model import INFINITE, Prefix
from tests.lab.namespace import Namespace

FIRST = Prefix.parse("2001:db8::/64")
MANY = 2 * BATCH + 88


def ours(routes: Routes) -> dict[str, int]:
    """Bound subnets and the ticks that they have left."""
    found, _ = ours_and_others(routes.dump(wire.TABLE_LOCAL))
    return {str(prefix): ticks for prefix, ticks in found.items()}


def nth(i: int) -> Prefix:
    return Prefix(FIRST.address + (i << 64), 64)


def some(count: int, until: float | None = None) -> dict[Prefix, float | None]:
    return {nth(i): until for i in range(count)}


def remove(routes: Routes, prefixes: Iterable[Prefix]) -> list[Refusal]:
    return routes.remove(map(local_route, prefixes))


def test_subnets_are_bound_as_the_contract_says(host: Namespace, routes: Routes) -> None:
    now = clock.now()
    assert routes.add_local({FIRST: None, nth(1): now + 90}, now) == []
    shown = [each for each in host.ip_json("-6 route show table local") if each["protocol"] == "150"]
    contract = {"type": "local", "dev": "lo", "scope": "global", "metric": 1024}
    assert [each["dst"] for each in shown] == [str(FIRST), str(nth(1))]
    assert all(contract.items() <= each.items() for each in shown)
    assert ["expires" in each for each in shown] == [False, True]
    assert ours(routes)[str(FIRST)] == 0
    assert 8900 < ours(routes)[str(nth(1))] <= 9100


def test_more_than_a_batch(host: Namespace, routes: Routes) -> None:
    assert routes.add_local(some(MANY), 0) == []
    assert ours(routes).keys() == {str(nth(i)) for i in range(MANY)}
    shown = host.ip_json("-6 route show table local proto 150")
    assert [each["dst"] for each in shown] == [str(nth(i)) for i in range(MANY)]
    assert remove(routes, some(MANY)) == []
    assert ours(routes) == {}


def test_routes_of_many_lengths(routes: Routes) -> None:
    lengths = [128, 65, 64, 63, 48, 127, 64]
    prefixes = [Prefix((0x20020000 + i) << 96, length) for i, length in enumerate(lengths)]
    both = [each for prefix in prefixes for each in (prefix, Prefix(prefix.end, prefix.length))]
    assert routes.add_local(dict.fromkeys(both), 0) == []
    assert ours(routes).keys() == {str(prefix) for prefix in both}
    assert remove(routes, both) == []
    assert ours(routes) == {}


def test_a_place_that_is_taken_is_refused_and_the_others_go_on(host: Namespace, routes: Routes) -> None:
    for i in (0, BATCH - 1, BATCH, MANY - 1):
        host.ip(f"-6 route add local {nth(i)} dev lo table local proto static metric 1024")
    before = host.ip("-6 route show table local proto static")
    taken = [Refusal(nth(i), errno.EEXIST) for i in (0, BATCH - 1, BATCH, MANY - 1)]
    assert routes.add_local(some(MANY), 0) == taken
    assert len(ours(routes)) == MANY - 4
    assert host.ip("-6 route show table local proto static") == before
    assert remove(routes, some(MANY)) == [Refusal(each.prefix, errno.ESRCH) for each in taken]
    assert host.ip("-6 route show table local proto static") == before


def test_every_message_of_many_batches_is_refused(routes: Routes) -> None:
    many = some(MANY)
    assert remove(routes, many) == [Refusal(nth(i), errno.ESRCH) for i in range(MANY)]
    assert routes.renew_local(many, 0) == [Refusal(nth(i), errno.ENOENT) for i in range(MANY)]
    routes.add_local(many, 0)
    assert routes.add_local(many, 0) == [Refusal(nth(i), errno.EEXIST) for i in range(MANY)]


@pytest.mark.parametrize(
    ("before", "after"), [(60.0, 600.0), (600.0, 60.0), (INFINITE, 60.0), (60.0, INFINITE), (60.0, None)]
)
def test_a_renewal_changes_the_lifetime_and_nothing_else(
    host: Namespace, routes: Routes, before: float, after: float | None
) -> None:
    host.ip(f"-6 route add local {FIRST} dev lo table local proto static metric 7")
    now = clock.now()
    wanted = some(3, after and now + after)
    assert routes.add_local(some(2, now + before), now) == []
    assert routes.renew_local(wanted, now) == [Refusal(nth(2), errno.ENOENT)]
    assert ours(routes).keys() == {str(FIRST), str(nth(1))}
    for ticks in ours(routes).values():
        assert ticks == 0 if after in {INFINITE, None} else abs(ticks - 100 * (after or 0)) < 200
    assert len(host.ip_json(f"-6 route show table local {FIRST}")) == 2


@pytest.mark.parametrize("left", [0.3, 1.0, 59.999, 86400.0, 4294967294.0, INFINITE, None])
def test_what_was_done_is_what_was_wanted(routes: Routes, left: float | None) -> None:
    now = clock.now()
    wanted = some(300, left and now + left)
    routes.add_local(wanted, now)
    present, _ = ours_and_others(routes.dump(wire.TABLE_LOCAL))
    assert plan(wanted, present, clock.now()) == Plan(remove=[])


@pytest.mark.parametrize("left", [-1e6, -2.5, -1.0, -0.5, 0.0])
def test_a_deadline_just_missed_is_still_one(routes: Routes, left: float) -> None:
    assert routes.add_local({FIRST: 1e7 + left}, 1e7) == []
    [ticks] = ours(routes).values()
    assert 0 < ticks <= 100


@pytest.mark.parametrize("left", [2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**32 + 5])
def test_a_distant_deadline_is_still_one(routes: Routes, left: int) -> None:
    assert routes.add_local({FIRST: 1000.5 + left}, 1000.0) == []
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
    assert remove(routes, [FIRST]) == [Refusal(FIRST, errno.ESRCH)]
    assert host.ip("-6 route show table all") == before
    routes.add_local({FIRST: None}, 0)
    assert host.ip("-6 route show table all") != before
    assert remove(routes, [FIRST]) == []
    assert host.ip("-6 route show table all") == before


@pytest.mark.parametrize("kind", wire.DISCARDS)
def test_discard_routes(host: Namespace, routes: Routes, kind: str) -> None:
    delegated, taken = Prefix.parse("2001:db8::/56"), Prefix.parse("2001:db8:0:100::/56")
    host.ip(f"-6 route add unreachable {delegated} dev lo proto dhcp metric 1024")
    host.ip(f"-6 route add unreachable {taken} dev lo proto dhcp metric 2048")
    before = host.ip("-6 route show table main")
    number = wire.DISCARDS[kind]
    assert routes.add_discard(number, [delegated, taken]) == [Refusal(taken, errno.EEXIST)]
    [found] = host.ip_json("-6 route show table main proto 150")
    assert {"type": kind, "dst": str(delegated), "dev": "lo", "metric": 2048}.items() <= found.items()
    both = [discard_route(number, delegated), discard_route(number, taken)]
    assert routes.remove(both) == [Refusal(taken, errno.ESRCH)]
    assert host.ip("-6 route show table main") == before


def test_whatever_bears_our_protocol_can_be_removed(host: Namespace, routes: Routes) -> None:
    host.pair("one", "two")
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
    assert routes.remove(found) == []
    assert host.ip("-6 route show table all proto 150") == ""


def test_a_dump_gives_one_table_and_one_protocol(host: Namespace, routes: Routes) -> None:
    routes.add_local(some(MANY), 0)
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
from anyipd.kernel.routes import Routes
from anyipd.model import Prefix
wanted = {Prefix((2 << 124) + (i << 64), 64): None for i in range(2)}
print(*(each.error for each in Routes().add_local(wanted, 0)))
"""


def test_what_may_not_be_changed_is_refused(host: Namespace) -> None:
    done = host.run("setpriv", "--bounding-set", "-net_admin", sys.executable, "-c", ADD)
    assert done.stdout == f"{errno.EPERM} {errno.EPERM}\n"
