"""What wakes the daemon and what does not: real events of the kernel, through the real filter."""

import contextlib
import ipaddress
from collections.abc import Iterator
from dataclasses import replace

import pytest

from anyipd.kernel import wire
from anyipd.kernel.monitor import MOST_LOST, MOST_NEWS, Hint, LinkDown, Monitor, News, Stale, hint
from anyipd.kernel.routes import BOUND_SUBNET, Routes, local_route
from anyipd.model import Prefix, address_text
from tests.lab.namespace import Namespace, wait_until

DELEGATED = Prefix.parse("2001:db8::/56")
NOTHING, ALL = Hint(), Hint(Stale.ALL)
PRESENT, ADDRESSES = Hint(Stale.PRESENT), Hint(Stale.ADDRESSES)
DISCARD, ROUTE = ["unreachable"], ["unicast"]
DHCP, KERNEL = 16, 2
CAME = News(BOUND_SUBNET._replace(table=wire.TABLE_MAIN, type=wire.UNICAST, protocol=KERNEL), came=True)
WENT, KERNEL_ROUTE = CAME._replace(came=False), CAME
TYPES = {wire.UNICAST: "unicast"} | {number: name for name, number in wire.DISCARDS.items()}


def heard(hint: Hint) -> list[str] | Hint:
    """Name what a hint tells of: types of routes that came or went; the hint, where it tells of nothing."""
    return [told(each) for each in hint.news] or hint


def told(news: News | LinkDown) -> str:
    if isinstance(news, LinkDown):
        return "link down"
    return TYPES[news.route.type] if news.came else f"no {TYPES[news.route.type]}"


@pytest.fixture
def monitor(host: Namespace, routes: Routes) -> Iterator[Monitor]:
    """On a host with the links one and two, watching as the daemon does."""
    host.pair("one", "two")
    # The carrier comes a little later, by itself, and is an event.
    wait_until(lambda: host.ip("link show").count("state UP") == 2)
    with host.entered():
        opened = Monitor()
    opened.watch(routes.port, [DHCP], [Prefix.parse("2001:db8:ff00::/40"), DELEGATED])
    opened.subscribe()
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        # ours, by another's hand
        ("route add local 2001:db8:0:1::/64 dev lo table local proto 150", PRESENT),
        ("route add local 2001:db8:77::/64 dev lo table local proto 150", PRESENT),
        ("route add blackhole 2001:db8:77::/64 table 77 proto 150", NOTHING),
        ("route add unreachable 2001:db8:77::/48 proto 150", Hint(Stale.PRESENT | Stale.DISCARDS)),
        # who else stands in the place of ours
        ("route add local 2001:db8:0:1::/64 dev lo table local proto static", PRESENT),
        ("route add local 2001:db8:77::/64 dev lo table local proto static", NOTHING),
        # the word of clients, wherever the prefix lies
        ("route add unreachable 2001:db8:77::/48 proto dhcp", DISCARD),
        ("route add blackhole 2001:db8::/56 proto dhcp", ["blackhole"]),
        ("route add prohibit 2001:db8:0:1::/64 proto dhcp", ["prohibit"]),
        ("route add unreachable 2001:db8:77::/48 proto static", NOTHING),
        ("route add unreachable 2001:db8::/56 proto static", DISCARD),  # it may replace a client's
        ("route add unreachable 2001:db8:77::/48 proto dhcp table 77", NOTHING),
        ("route add unreachable 2001:db8:77::/48 proto dhcp table 150", DISCARD),
        ("route add unreachable 2001:db8:77::/48 proto static table 150", NOTHING),
        # what is assigned
        ("route add 2001:db8:0:1::/64 dev one proto static", ROUTE),
        ("route add 2001:db8:0:ff::/64 via fe80::9 dev one", ROUTE),
        ("route add 2001:db8:0:1::/64 dev one proto dhcp", ROUTE),
        ("route add 2001:db8:ff12::/48 dev one", ROUTE),
        ("route add 2001:db8:0:1::1 dev one", ROUTE),
        ("route add 2001:db8:0:1::/64 dev one proto static table 77", ROUTE),
        ("route add 2001:db8:0:1::/64 dev one proto static table 150", ROUTE),
        ("route add 2001:db8:0:1::/64 dev one proto 150 table 51820", ROUTE),
        ("route add unreachable 2001:db8:0:1::/64 proto static table 77", DISCARD),  # it may replace one
        ("route add 2001:db8:77::/64 dev one proto static table 77", NOTHING),
        ("route add 2001:db8:77::/64 dev one proto static table 150", NOTHING),
        ("route add 2001:db8:0:100::/64 dev one", NOTHING),
        ("route add 2001:db8:77::/64 dev one proto static", NOTHING),
        ("route add 2001:db8:77::/64 dev one proto dhcp", NOTHING),
        ("route add 2001:db8::/32 dev one proto static", ROUTE),  # one look too many: it starts inside
        # around a delegated prefix, or it may be
        ("route add 2001:db8:fe00::/39 dev one proto static", ROUTE),
        ("route add 2001:db8:ee00::/39 via fe80::9 dev one proto static", ROUTE),
        ("route add 2001:db8:ee00::/39 via fe80::9 dev one table 77", ROUTE),
        ("route add 2001:db9::/39 dev one proto static", NOTHING),
        ("route add 2001:db9::/39 dev one proto static table 77", NOTHING),
        ("route add 2001:db8:ee00::/56 dev one proto static", NOTHING),
        ("route add default via fe80::9 dev one", ROUTE),
        # on-link, also where it covers a delegated prefix
        ("route add 2001:db8::/32 dev one proto ra", ROUTE),
        ("route add 2001::/16 dev one proto kernel", ROUTE),
        ("route add default via fe80::9 dev one proto ra", ROUTE),
        ("route add 2001:db8::/32 dev one proto ra table 77", ROUTE),
        ("route add default via fe80::9 dev one proto dhcp table 77", NOTHING),
        ("addr add 2001:db8:0:1::1/64 dev one", Hint(Stale.ADDRESSES | Stale.PRESENT, news=[KERNEL_ROUTE])),
        ("addr add 2001:db8:77::1/64 dev one", Hint(Stale.ADDRESSES, news=[KERNEL_ROUTE])),
        ("addr add 2001:db8:77::1/128 dev lo", Hint(Stale.ADDRESSES, news=[KERNEL_ROUTE])),
        ("-4 addr add 192.0.2.1/24 dev one", NOTHING),
        # links
        ("link add three type veth peer name four", ["link down", "link down"]),
        ("link set one mtu 1400", Hint(Stale.LINKS)),
        ("link set lo mtu 1400", Hint(Stale.ALL, lo_up=True)),
        # what is none of our business
        ("neigh add fe80::7 lladdr 02:00:00:00:00:07 dev one", NOTHING),
        ("rule add from 2001:db8::/56 lookup 77", NOTHING),
        ("-4 route add 192.0.2.0/24 dev lo", NOTHING),
        ("-4 route add unreachable 198.51.100.0/24 proto 150", NOTHING),
    ],
)
def test_what_wakes_us(host: Namespace, monitor: Monitor, command: str, expected: Hint | list[str]) -> None:
    assert monitor.read() == NOTHING
    host.ip(f"-6 {command}")
    seen = monitor.read()
    if command.startswith("addr"):  # what follows from an address comes from a work queue
        assert isinstance(expected, Hint)
        wait_until(lambda: len(add_up(seen, monitor).news) == len(expected.news))
        wait_until(lambda: add_up(seen, monitor).stale == expected.stale)
        assert heard(seen) == ROUTE
    else:
        assert heard(seen) == expected


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        (
            "local 2001:db8:0:1::/64 dev lo table local proto 150",
            Hint(lost={Prefix.parse("2001:db8:0:1::/64")}),
        ),
        ("local 2001:db8:0:1::/64 dev lo table local proto 150 metric 7", PRESENT),
        ("local 2001:db8:0:1::/64 dev lo table local proto static", PRESENT),
        ("unreachable 2001:db8:77::/48 proto 150", PRESENT),
        ("unreachable 2001:db8:77::/48 proto dhcp", ["no unreachable"]),
        ("2001:db8:0:1::/64 dev one", ["no unicast"]),
    ],
)
def test_what_goes_wakes_us(
    host: Namespace, monitor: Monitor, route: str, expected: Hint | list[str]
) -> None:
    host.ip(f"-6 route add {route}")
    assert monitor.read() != NOTHING
    host.ip(f"-6 route delete {route}")
    assert heard(monitor.read()) == expected


def some(count: int, length: int = 64) -> dict[Prefix, None]:
    first = Prefix(DELEGATED.address, length)
    return {first._replace(address=first.address + i * first.size): None for i in range(count)}


def test_few_routes_that_are_lost_are_named(host: Namespace, routes: Routes, monitor: Monitor) -> None:
    for count, expected in [(MOST_LOST, Hint(lost={*some(MOST_LOST)})), (MOST_LOST + 1, PRESENT)]:
        routes.add_local(some(count), 0)
        with host.entered(), contextlib.closing(Routes()) as other:
            other.remove(map(local_route, some(count)))
        assert monitor.read() == expected


def add_up(seen: Hint, monitor: Monitor) -> Hint:
    seen.add(monitor.read())
    return seen


def test_hints_add_up() -> None:
    one, other = Prefix.parse("2001:db8::/64"), Prefix.parse("2001:db8:0:1::/64")
    hint = Hint(Stale.ROUTES, {one}, [CAME])
    hint.add(Hint(Stale.LEASES, {other}, [WENT], lo_up=False))
    assert hint == Hint(Stale.ROUTES | Stale.LEASES, {one, other}, [CAME, WENT], lo_up=False)
    hint.add(PRESENT)  # a look at all of them finds each
    assert hint == Hint(Stale.ROUTES | Stale.LEASES | Stale.PRESENT, set(), [CAME, WENT], lo_up=False)
    others = Stale.ADDRESSES | Stale.DISCARDS | Stale.LINKS | Stale.STATIC
    hint.add(Hint(others, lost={one}, lo_fell=True, lo_up=True))
    assert hint == Hint(Stale.ALL, set(), [CAME, WENT], lo_fell=True, lo_up=True)
    hint.add(Hint())
    assert hint == Hint(Stale.ALL, set(), [CAME, WENT], lo_fell=True, lo_up=True)


def test_much_news_is_a_look_at_all() -> None:
    hint = Hint(news=[CAME] * MOST_NEWS)
    assert hint.stale == Stale.NOTHING
    hint.add(Hint(news=[WENT]))
    assert hint == Hint(Stale.DISCARDS | Stale.ROUTES)


def test_what_goes_while_lo_is_down_went_with_it(host: Namespace, monitor: Monitor) -> None:
    host.ip("-6 route add unreachable 2001:db8:77::/48 proto dhcp")
    assert heard(monitor.read()) == DISCARD
    host.ip("link set lo down")
    seen = monitor.read()
    assert replace(seen, news=[]) == Hint(Stale.ALL, lo_fell=True, lo_up=False)
    assert "no unreachable" in [told(each) for each in seen.news]
    # Events of the routes may come later than its own: that holds until it is up.
    assert monitor.read() == Hint(lo_fell=True)
    host.ip("link set lo up")
    assert monitor.read() == Hint(Stale.ALL, lo_fell=True, lo_up=True)
    assert monitor.read() == NOTHING


def test_that_lo_came_back_is_known_also_where_its_event_was_lost(host: Namespace, monitor: Monitor) -> None:
    with host.entered(), contextlib.closing(Routes()) as other:
        other.add_local(some(20_000, 80), 0)
    monitor.read()
    host.ip("link set lo down")  # all of them go with it, more than the socket holds events
    host.ip("link set lo up")
    assert monitor.read().lo_fell
    assert not monitor.read().lo_fell


@pytest.mark.parametrize("cut", [1, 15, 17, 40, 70])
def test_a_message_that_is_none_is_dropped_and_all_looked_at(cut: int) -> None:
    whole = (28).to_bytes(4, "little") + (24).to_bytes(2, "little") + bytes(100)
    seen = hint(whole[:cut])
    assert seen.stale == Stale.ALL
    assert len(seen.malformed) == 1


def test_our_own_echo_does_not_wake_us(host: Namespace, routes: Routes, monitor: Monitor) -> None:
    many = some(300)
    assert routes.add_local(many, 0) == []
    assert routes.renew_local(many, 0) == []
    assert routes.add_discard(7, [DELEGATED]) == []
    assert routes.remove(map(local_route, many)) == []
    assert monitor.read() == NOTHING
    with host.entered(), contextlib.closing(Routes()) as other:
        other.add_local(many, 0)
    assert monitor.read() == PRESENT


@pytest.mark.parametrize("length", [*range(1, 129, 7), 32, 33, 63, 65, 96, 97, 127, 128])
def test_the_edges_of_a_prefix(host: Namespace, routes: Routes, monitor: Monitor, length: int) -> None:
    middle = Prefix.parse("2d0f:db8:8765:4321:fedc:ba98:7654:3210").address
    prefix = Prefix(middle >> (128 - length) << (128 - length), length)
    monitor.watch(routes.port, [DHCP], [Prefix.parse("fd00::/64"), prefix, Prefix.parse("fd01::/80")])
    for address, inside in [
        (prefix.address, True),
        (prefix.end - 1, True),
        (middle, True),
        (prefix.address - 1, False),
        (prefix.end, False),
    ]:
        if 1 << 120 < address < 0xFE80 << 112:  # no address at all beyond
            host.ip(f"-6 route replace {address_text(address)} dev one proto static")
            assert heard(monitor.read()) == (ROUTE if inside else NOTHING), address_text(address)


@pytest.mark.parametrize(
    "place", ["2001:db8:77::/64", "2001:db8:76::/60", "2001:d00::/24", "2001:db8:77::1/128"]
)
def test_a_place_of_its_own_is_watched(host: Namespace, routes: Routes, monitor: Monitor, place: str) -> None:
    places = [Prefix.parse("fd00::/64"), Prefix.parse(place), Prefix.parse("fd01::/80")]
    monitor.watch(routes.port, [DHCP], [DELEGATED], places=places)
    for kind in ("", "unreachable", "blackhole"):
        host.ip(f"-6 route replace {kind} {place} dev one proto static metric 77")
        assert heard(monitor.read()) == [kind or "unicast"]
    inside = ipaddress.ip_network(place)
    for other in (inside.supernet(), *([] if inside.prefixlen == 128 else inside.subnets())):
        host.ip(f"-6 route replace {other} dev one proto static")
        assert monitor.read() == NOTHING


def test_places_are_passed_over_where_there_are_too_many(
    host: Namespace, routes: Routes, monitor: Monitor
) -> None:
    places = [Prefix((0x20020000 + i) << 96, 64) for i in range(60)]
    monitor.watch(routes.port, [DHCP], [DELEGATED], places=places)
    host.ip(f"-6 route add {places[0]} dev one proto static")
    assert monitor.read() == NOTHING
    host.ip("-6 route add 2001:db8:0:1::/64 dev one proto static")
    assert heard(monitor.read()) == ROUTE


@pytest.mark.parametrize("count", [0, 1, 10, 3000])
def test_many_prefixes(host: Namespace, routes: Routes, monitor: Monitor, count: int) -> None:
    prefixes = [Prefix((0x20020000 + i) << 96, 64) for i in range(count)]
    monitor.watch(routes.port, [DHCP], prefixes)
    for prefix in (*prefixes[:1], *prefixes[-1:]):
        host.ip(f"-6 route replace {prefix} dev one")
        assert heard(monitor.read()) == ROUTE
    host.ip("-6 route add 2001:db8:77::/64 dev one proto static")
    # A filter that would be too long for the kernel passes everything, whoever's it is.
    assert heard(monitor.read()) == (ROUTE if count == 3000 else NOTHING)
    host.ip("-6 route add unreachable 2001:db8:77::/64 proto static metric 5")
    assert heard(monitor.read()) == (DISCARD if count == 3000 else NOTHING)


@pytest.mark.parametrize("count", [1, 3000])
def test_a_port_that_leaves_its_bridge_is_not_down(
    host: Namespace, routes: Routes, monitor: Monitor, count: int
) -> None:
    monitor.watch(routes.port, [DHCP], [Prefix((0x20020000 + i) << 96, 64) for i in range(count)])
    host.ip("link add bridge type bridge")
    host.ip("link set one master bridge")
    monitor.read()
    host.ip("link set one nomaster")
    assert LinkDown(int(host.ip("-o link show one").split(":")[0])) not in monitor.read().news


def test_a_small_optmem_is_no_obstacle(host: Namespace, routes: Routes) -> None:
    # The default before Linux 6.7, which has no such thing for each namespace.
    with contextlib.suppress(FileNotFoundError):
        host.sysctl("net.core.optmem_max", 20480)
    with host.entered(), contextlib.closing(Monitor()) as monitor:
        for count in range(400):
            prefixes = [Prefix((0x20020000 + i) << 96, 128) for i in range(count)]
            monitor.watch(routes.port, [DHCP, 18], prefixes)


def test_many_protocols(host: Namespace, routes: Routes, monitor: Monitor) -> None:
    monitor.watch(routes.port, range(1, 256), [])
    host.ip("-6 route add unreachable 2001:db8:77::/64 proto 255")
    assert heard(monitor.read()) == DISCARD


def test_a_new_filter_replaces_the_old_at_once(host: Namespace, routes: Routes, monitor: Monitor) -> None:
    host.ip("-6 route add 2001:db8:77::/64 dev one")
    assert monitor.read() == NOTHING
    monitor.watch(routes.port, [18], [Prefix.parse("2001:db8:77::/48")])
    host.ip("-6 route del 2001:db8:77::/64 dev one")
    assert heard(monitor.read()) == ["no unicast"]
    host.ip("-6 route add unreachable 2001:db8:1::/48 proto dhcp")
    assert monitor.read() == NOTHING
    host.ip("-6 route add unreachable 2001:db8:2::/48 proto keepalived")
    assert heard(monitor.read()) == DISCARD


def test_lost_events_make_all_stale(host: Namespace, monitor: Monitor) -> None:
    many = some(20_000, 80)
    with host.entered(), contextlib.closing(Routes()) as other:
        other.add_local(many, 0)
        other.remove(map(local_route, many))
    assert monitor.read() == ALL
    assert monitor.read() == NOTHING
    host.ip("-6 route add 2001:db8:0:1::/64 dev one")  # and it goes on
    assert heard(monitor.read()) == ROUTE


@pytest.mark.parametrize("table", ["main", "77"])
def test_a_flood_of_other_peoples_routes_is_not_even_queued(
    host: Namespace, monitor: Monitor, table: str
) -> None:
    rest = f"dev one proto bird table {table}"
    lines = "".join(
        f"route {what} {address_text((0x20010DB87700 << 80) + (i << 64))}/64 {rest}\n"
        for what in ("add", "del")
        for i in range(20_000)
    )
    host.run("ip", "-6", "-batch", "-", input=lines)
    assert monitor.read() == NOTHING
