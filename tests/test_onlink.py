"""Which prefixes are in use for something else, read from a real kernel."""

import asyncio
from collections.abc import Iterator

import pytest

from anyipd.kernel.routes import Routes
from anyipd.model import Assigned, Covering, Prefix
from anyipd.observe.discard import Discards
from anyipd.observe.onlink import Routed, addressed
from tests.lab.namespace import Namespace

DELEGATED = [Prefix.parse("2001:db8::/56"), Prefix.parse("2001:db8:ff00::/60")]


class Host:
    """A namespace with the links one and two, and what is seen in it."""

    def __init__(self, namespace: Namespace) -> None:
        self.ip = namespace.ip
        self.namespace = namespace
        namespace.pair("one", "two")
        with namespace.entered():
            self.routes = Routes()

    def assigned(self, delegated: list[Prefix] = DELEGATED) -> set[tuple[str, str]]:
        with self.namespace.entered():  # names of links are the thread's
            routed = Routed()
            asyncio.run(routed.look(self.routes, delegated))
            found = {*addressed(self.routes.addresses(), delegated), *routed.assigned}
        return {(str(each.prefix), each.holder) for each in found}


@pytest.fixture
def machine(host: Namespace) -> Iterator[Host]:
    made = Host(host)
    yield made
    made.routes.close()


ON_ONE, ON_TWO = "on-link at one", "on-link at two"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("addr add 2001:db8:0:1::1/64 dev one", {("2001:db8:0:1::/64", ON_ONE)}),
        ("addr add 2001:db8:0:1::1/64 dev one noprefixroute", {("2001:db8:0:1::/64", ON_ONE)}),
        ("addr add 2001:db8:0:1::1/128 dev one", {("2001:db8:0:1::1/128", ON_ONE)}),
        ("addr add 2001:db8::1/32 dev one", {("2001:db8::/32", ON_ONE)}),  # covers both delegated ones
        (
            "addr add 2001:db8:0:1::1 peer 2001:db8:0:2::2 dev two",
            {("2001:db8:0:1::1/128", ON_TWO), ("2001:db8:0:2::2/128", ON_TWO)},
        ),
        (
            "addr add 2001:db8:0:1::1 peer 2001:db8:0:2::2/64 dev two",
            {("2001:db8:0:1::/64", ON_TWO), ("2001:db8:0:2::2/128", ON_TWO)},
        ),
        ("addr add 2001:db8:0:1::1/128 dev lo", set()),
        ("addr add 2001:db8:0:1::1/64 dev lo", set()),
        ("addr add 2001:db8:77::1/64 dev one", set()),
        ("-4 addr add 192.0.2.1/24 dev one", set()),
        ("route add 2001:db8:0:1::/64 dev one proto ra", {("2001:db8:0:1::/64", ON_ONE)}),
        ("route add 2001:db8:0:1::/64 dev one proto kernel", {("2001:db8:0:1::/64", ON_ONE)}),
        ("route add 2001::/16 dev two proto ra", {("2001::/16", ON_TWO)}),
        ("route add 2001::/16 via fe80::9 dev two proto ra", set()),
        ("route add default dev two proto kernel", set()),
        ("route add default via fe80::9 dev two proto ra", set()),
        ("route add default via fe80::9 dev two", set()),
        ("route add 2001:db8::/32 dev two proto static", set()),
        ("route add 2001:db8::/32 via fe80::9 dev two proto dhcp", set()),
        ("route add 2001:db8:0:1::/64 via fe80::9 dev two", {("2001:db8:0:1::/64", "routed to two")}),
        ("route add 2001:db8:0:1::/64 dev two proto static", {("2001:db8:0:1::/64", "routed to two")}),
        ("route add 2001:db8:0:1::1 dev two proto redirect", set()),
        ("route add 2001:db8:0:1::1 via fe80::9 dev two proto redirect", set()),
        ("route add 2001:db8:0:1::1 dev two", {("2001:db8:0:1::1/128", "routed to two")}),
        ("route add 2001:db8::/56 via fe80::9 dev one", {("2001:db8::/56", "routed to one")}),
        (
            "route add 2001:db8:0:1::/64 nexthop via fe80::9 dev one nexthop via fe80::9 dev two",
            {("2001:db8:0:1::/64", "routed to several links")},
        ),
        ("route add 2001:db8:0:1::/64 dev lo", set()),
        ("route add 2001:db8:0:100::/64 dev one", set()),
        ("route add unreachable 2001:db8:0:1::/64", set()),
        ("route add local 2001:db8:0:1::/64 dev one table main", set()),
        (
            "route add 2001:db8:0:1::/64 dev one table 77",
            {("2001:db8:0:1::/64", "routed to one in table 77")},
        ),
        (
            "route add 2001:db8:0:1::/64 via fe80::9 dev one table 51820",
            {("2001:db8:0:1::/64", "routed to one in table 51820")},
        ),
        ("route add 2001::/16 dev two proto ra table 77", {("2001::/16", ON_TWO)}),
        ("route add default dev two proto kernel table 77", set()),
        ("route add 2001:db8:0:1::/64 dev lo table 77", set()),
        ("route add unreachable 2001:db8:0:1::/64 table 77", set()),
        ("route add 2001:db8:0:1::/64 dev one table local", set()),
        ("route add local 2001:db8:0:1::/64 dev lo table local proto 150", set()),
    ],
)
def test_what_is_in_use(machine: Host, command: str, expected: set[tuple[str, str]]) -> None:
    assert machine.assigned() == set()
    machine.ip(f"-6 {command}")
    assert machine.assigned() == expected


def test_what_is_in_use_goes(machine: Host) -> None:
    machine.ip("addr add 2001:db8:0:1::1/64 dev one")
    machine.ip("addr del 2001:db8:0:1::1/64 dev one")
    assert machine.assigned() == set()


def test_nothing_delegated_nothing_read(machine: Host) -> None:
    machine.ip("addr add 2001:db8:0:1::1/64 dev one")
    assert machine.assigned([]) == set()


def test_a_route_to_one_delegated_prefix_is_around_another(machine: Host) -> None:
    """Else who delegates just what a VPN routes would let through what another delegates inside."""
    machine.ip("-6 route add 2001:db8::/56 via fe80::9 dev one")
    around, inside = Prefix.parse("2001:db8::/56"), Prefix.parse("2001:db8::/60")
    with machine.namespace.entered():
        routed = Routed()
        for delegated, assigned, covering in (
            ([inside], set(), {Covering(around, "one")}),
            ([around, inside], {Assigned(around, "routed to one")}, {Covering(around, "one")}),
            ([around], {Assigned(around, "routed to one")}, set()),
        ):
            asyncio.run(routed.look(machine.routes, delegated))
            assert (routed.assigned, routed.covering) == (assigned, covering)


def test_an_address_brings_its_route_and_both_say_the_same(machine: Host) -> None:
    machine.ip("addr add 2001:db8:0:1::1/64 dev one")
    with machine.namespace.entered():
        routed = Routed()
        asyncio.run(routed.look(machine.routes, DELEGATED))
        found = Assigned(Prefix.parse("2001:db8:0:1::/64"), ON_ONE)
        assert addressed(machine.routes.addresses(), DELEGATED) == [found]
    assert routed.assigned == {found}


def test_discard_routes_of_the_accepted_protocols(machine: Host) -> None:
    for route in (
        "unreachable 2001:db8:1::/56 dev lo proto dhcp metric 1024",
        "unreachable 2001:db8:1::/56 dev lo proto dhcp metric 1001",
        "blackhole 2001:db8:2::/56 proto keepalived metric 7",
        "prohibit 2001:db8:3::/56 proto dhcp metric 1027",
        "unreachable 2001:db8:8::/56 dev lo proto dhcp metric 1025 table 150",
        "unreachable 2001:db8:8::/56 dev lo proto static metric 1026 table 150",
        "unreachable 2001:db8:9::/56 dev lo proto dhcp metric 1026",  # left by 0.1.0
        "unreachable 2001:db8:4::/56 proto static",
        "unreachable 2001:db8:5::/56 proto dhcp table 77",
        "throw 2001:db8:6::/56 proto dhcp",
        "2001:db8:7::/56 dev one proto dhcp",
        "unreachable default proto dhcp metric 9",
    ):
        machine.ip(f"-6 route add {route}")

    def found(*protocols: int) -> set[tuple[str, int]]:
        discards = Discards()
        discards.look(machine.routes, protocols)
        assert {str(each.prefix) for each in discards.leftover} == {"2001:db8:9::/56"}
        return {(str(each.prefix), each.metric) for each in discards.standing}

    by_dhcp = {
        ("2001:db8:1::/56", 1024),
        ("2001:db8:1::/56", 1001),
        ("2001:db8:3::/56", 1027),
        ("2001:db8:8::/56", 1025),
        ("::/0", 9),
    }
    assert found(16) == by_dhcp
    assert found(18, 16) == by_dhcp | {("2001:db8:2::/56", 7)}
    assert found(42) == found() == {("2001:db8:8::/56", 1025)}
