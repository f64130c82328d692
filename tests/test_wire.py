"""Messages as bytes, with pyroute2 and the kernel as the judges."""

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from anyipd.kernel import link_wire, wire
from anyipd.kernel.routes import Routes, discard_route, ours_and_others
from anyipd.kernel.wire import Refusal, Route
from anyipd.model import Link, LinkKind, Prefix, address_text
from tests.lab.namespace import Namespace

P = Prefix.parse("2001:db8::/64")
OURS = Route(
    P, wire.TABLE_LOCAL, wire.PROTOCOL, wire.LOCAL, 1024, wire.LOOPBACK_INDEX, gateway=False, ticks=0
)
ONLINK = 4  # RTNH_F_ONLINK
UINT = st.integers(0, 2**32 - 1)
ROUTES_TO_SEND = st.builds(
    Route,
    prefix=st.integers(0, 128).map(lambda length: Prefix(0, length)),
    table=st.sampled_from([wire.TABLE_MAIN, wire.TABLE_LOCAL]),
    protocol=st.integers(0, 255),
    type=st.integers(0, 255),
    metric=UINT,
    interface=UINT,
    gateway=st.just(value=False),
    ticks=st.just(0),
    source=st.integers(0, 128).map(lambda length: Prefix(0, length)),
    hops=st.just(()),
)


def decoded(data: bytes) -> Iterator[rtmsg]:
    for start, _, end in wire.messages(data):
        message = rtmsg(data[start:end])
        message.decode()
        yield message


@given(
    st.lists(st.integers(0, 2**128 - 1), min_size=1, max_size=5),
    ROUTES_TO_SEND,
    st.none() | UINT,
    st.sampled_from([wire.RTM_NEWROUTE, wire.RTM_DELROUTE]),
    st.sampled_from([0, wire.NLM_F_REPLACE, wire.NLM_F_CREATE | wire.NLM_F_EXCL]),
)
def test_requests_say_what_they_should(
    addresses: list[int], route: Route, expires: int | None, message: int, flags: int
) -> None:
    of = (route._replace(prefix=route.prefix._replace(address=address)) for address in addresses)
    data = b"".join(wire.change_request(message, flags, each, expires) for each in of)
    found = list(decoded(data))
    assert [each.get("dst") for each in found] == [address_text(address) for address in addresses]
    for each in found:
        assert each["header"]["type"] == message
        assert each["header"]["flags"] == wire.NLM_F_REQUEST | flags
        fixed = (each["family"], each["dst_len"], each["src_len"], each["tos"], each["scope"])
        assert fixed == (wire.AF_INET6, route.prefix.length, route.source.length, 0, 0)
        assert each.get("src") == ("::" if route.source.length else None)
        assert (each["table"], each["proto"], each["type"]) == (route.table, route.protocol, route.type)
        assert (each.get("oif"), each.get("priority")) == (route.interface or None, route.metric)
        assert ("RTA_EXPIRES" in dict(each["attrs"])) is (expires is not None)
    if expires is not None:  # pyroute2 makes text of it
        assert data.endswith(struct.pack("=HHI", 8, wire.RTA_EXPIRES, expires))


def test_requests_ask_for_a_dump() -> None:
    request = wire.routes_request(wire.TABLE_LOCAL, 150, wire.AF_INET6, wire.UNICAST)
    [found] = decoded(request)
    assert found["type"] == wire.UNICAST
    assert found["header"]["length"] == len(request)
    assert (found["header"]["type"], found["header"]["flags"]) == (wire.RTM_GETROUTE, 0x301)
    assert (found["family"], found["proto"], found.get("table")) == (10, 150, 255)


PREFIXES = st.builds(
    lambda number, length: Prefix(number << 120, length).masked(), st.integers(0, 255), st.integers(1, 8)
)
"""Of the first eight bits, so that many overlap."""


def listed(prefix: Prefix) -> bytes:
    """A route as a dump has it: first of the attributes are table and destination."""
    attributes = struct.pack(
        "=HHIHH16s", 8, wire.RTA_TABLE, wire.TABLE_MAIN, 20, wire.RTA_DST, prefix.address.to_bytes(16)
    )
    return struct.pack("=I13xB10x", 28 + len(attributes), prefix.length) + attributes


@given(st.lists(PREFIXES, min_size=1, max_size=5), st.lists(PREFIXES, max_size=10))
def test_what_overlaps_is_found(prefixes: list[Prefix], routes: list[Prefix]) -> None:
    dump = b"".join(map(listed, routes))
    found = [start // 56 for start, _ in wire.Overlap(prefixes).find(dump)]
    assert found == [i for i, route in enumerate(routes) if any(map(route.overlaps, prefixes))]


END = struct.Struct("=IHHIIi")


def test_the_end_of_a_dump() -> None:
    route = wire.change_request(wire.RTM_NEWROUTE, 0, OURS)
    done = END.pack(END.size, wire.NLMSG_DONE, wire.NLM_F_MULTI, 1, 77, 0)
    assert wire.split_end(route) == (route, False)
    assert wire.split_end(route + done) == (route, True)
    assert wire.split_end(done) == (b"", True)


@pytest.mark.parametrize("kind", [wire.NLMSG_DONE, wire.NLMSG_ERROR])
def test_a_dump_that_fails(kind: int) -> None:
    failure = END.pack(END.size, kind, wire.NLM_F_MULTI, 1, 77, -22)
    if kind == wire.NLMSG_ERROR:  # the request comes back behind it
        failure += wire.routes_request(255, 0, wire.AF_INET6)
    with pytest.raises(OSError, match="Invalid argument"):
        wire.split_end(failure)


def test_an_address_that_looks_like_an_end() -> None:
    # The last 20 bytes: valid lifetime, time stamps, IFA_FLAGS.
    tail = struct.pack("=HHIIII", 20, 6, 9, END.size, wire.NLMSG_DONE, 4) + struct.pack("=HHI", 8, 8, 0x80)
    message = struct.pack("=IHHII", 24 + len(tail), wire.RTM_NEWADDR, 2, 1, 77) + bytes(8) + tail
    assert wire.split_end(message) == (message, False)


def test_answers_name_what_was_refused() -> None:
    request = wire.change_request(wire.RTM_NEWROUTE, 0, OURS)
    acknowledged = struct.pack("=IHHIIi", 36, wire.NLMSG_ERROR, 0x100, 1, 77, 0) + wire.BARRIER
    refused = struct.pack("=IHHIIi", 20 + 64, wire.NLMSG_ERROR, 0, 1, 77, -17) + request
    assert list(wire.answers(refused + acknowledged)) == [(Refusal(P, 17), False), (None, True)]


def as_judged(message: rtmsg) -> Route:
    """The same of a message as pyroute2 reads it."""
    cache = message.get("cacheinfo")
    return Route(
        Prefix.parse(f"{message.get('dst') or '::'}/{message['dst_len']}"),
        message.get("table"),
        message["proto"],
        message["type"],
        message.get("priority"),
        message.get("oif") or 0,
        bool(message.get("gateway") or message.get("multipath") or message.get("via")),
        cache["rta_expires"] if cache else 0,
        hops=() if message["dst_len"] else as_hops(message),
        preference=0 if message["dst_len"] else {1: 1, 3: -1}.get(message.get("pref"), 0),
    )


def as_hops(message: rtmsg) -> tuple[wire.Hop, ...]:
    """The next hops of a default route."""
    return tuple(
        wire.Hop(
            hop.get("oif"), Prefix.parse(hop.get("gateway") or "::").address, bool(hop["flags"] & ONLINK)
        )
        for hop in message.get("multipath") or [message]
    )


ROUTES = """
    2001:db8:1::/64 dev one proto static
    2001:db8:2::/64 via fe80::9 dev one
    2001:db8:3::/64 metric 4294967295 nexthop via fe80::9 dev one nexthop via fe80::8 dev two
    2001:db8:4::/127 dev one expires 300 proto ra pref high
    default via fe80::9 dev two metric 5
    default via fe80::9 dev two metric 6 pref high
    default via 2001:db8:77::1 dev two metric 7 onlink
    default dev one metric 8 pref low
    default metric 9 nexthop via fe80::9 dev one nexthop via fe80::8 dev two
    default metric 10 nexthop via 2001:db8:77::9 dev one onlink nexthop via fe80::8 dev two
    unreachable 2001:db8:5::/48 proto dhcp expires 90
    blackhole 2001:db8:6::/48 proto 150 metric 2048
    prohibit 2001:db8:7::/48
    local 2001:db8:8::/64 dev lo table local proto 150
    local 2001:db8:9::/64 dev lo table local proto 150 expires 77
    local 2001:db8:a::/64 dev lo table local proto 150 metric 7
    local 2001:db8:b::/64 dev one table local proto 150
    local 2001:db8:c::/64 dev lo table local proto static
    local 2001:db8:d::1 dev lo table local proto 150
    anycast 2001:db8:e::1 dev one table local
    2001:db8:f::/64 dev one table 7000
    2001:db8:10::/64 dev one src 2001:db8:99::1 mtu 1300
    2001:db8:11::/64 encap mpls 7 via fe80::9 dev one
"""


@pytest.fixture
def router(host: Namespace) -> Namespace:
    host.pair("one", "two")
    host.ip("addr add 2001:db8:99::1/64 dev one")
    host.ip("addr add 2001:db8:98::1 peer 2001:db8:98::2 dev two")
    host.ip("addr add 2001:db8:96::1 peer 2001:db8:95::1/64 dev two")
    host.ip("addr add 2001:db8:97::1/56 dev two valid_lft 500 preferred_lft 400")
    for line in ROUTES.strip().splitlines():
        host.run("ip", "-6", "route", "add", *line.split(), check="encap" not in line)
    return host


@pytest.mark.parametrize("table", [wire.TABLE_MAIN, wire.TABLE_LOCAL, 7000])
def test_the_kernels_routes_are_read_as_pyroute2_reads_them(
    router: Namespace, routes: Routes, table: int
) -> None:
    count = 0
    for chunk in routes.dump(table):
        for (start, kind, end), judged in zip(wire.messages(chunk), decoded(chunk), strict=True):
            assert kind == wire.RTM_NEWROUTE
            found = wire.route(chunk, start, end)
            assert found == as_judged(judged)
            count += 1
    assert count == len(router.ip_json(f"-6 route show table {table}"))


def link_message(hardware: int, **info: str) -> bytes:
    """Make the kernel's message of a link, with as much of its IFLA_LINKINFO."""
    kinds = {"kind": link_wire.IFLA_INFO_KIND, "slave": link_wire.IFLA_INFO_SLAVE_KIND}
    nested = b"".join(attribute(kinds[key], text.encode() + b"\0") for key, text in info.items())
    body = struct.pack("=BxHiII", 0, hardware, 7, 0, 0) + attribute(link_wire.IFLA_IFNAME, b"link\0")
    body += attribute(link_wire.IFLA_LINKINFO, nested) if nested else b""
    return struct.pack("=IHHII", 16 + len(body), wire.RTM_NEWLINK, 0, 1, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


@pytest.mark.parametrize(
    ("hardware", "info", "kind"),
    [
        (1, {"kind": "veth"}, LinkKind.PLAIN),
        (1, {"kind": "tun"}, LinkKind.PLAIN),  # tap
        (65534, {"kind": "tun"}, LinkKind.TUNNEL),
        (65534, {"kind": "wireguard"}, LinkKind.TUNNEL),
        (65534, {"kind": "wwan"}, LinkKind.PLAIN),
        (65534, {}, LinkKind.PLAIN),  # a modem, by an older driver
        (512, {"kind": "ppp"}, LinkKind.PLAIN),
        (776, {"kind": "sit"}, LinkKind.TUNNEL),
        (769, {"kind": "vti6"}, LinkKind.TUNNEL),
        (1, {"kind": "veth", "slave": "vrf"}, LinkKind.IN_VRF),
        (1, {"kind": "veth", "slave": "bridge"}, LinkKind.PLAIN),
    ],
)
def test_what_kind_of_link_one_is(hardware: int, info: dict[str, str], kind: LinkKind) -> None:
    assert dict(link_wire.links(link_message(hardware, **info))) == {"link": Link(7, None, kind)}


def test_bound_subnets_are_told_from_all_else(router: Namespace, routes: Routes) -> None:
    bound, others = ours_and_others(routes.dump(wire.TABLE_LOCAL))
    ticks = {str(prefix): left for prefix, left in bound.items()}
    assert ticks.keys() == {"2001:db8:8::/64", "2001:db8:9::/64", "2001:db8:d::1/128"}
    assert ticks["2001:db8:8::/64"] == 0
    assert 7600 < ticks["2001:db8:9::/64"] <= 7700
    assert {str(each.prefix) for each in others if each.protocol == 150} == {
        "2001:db8:a::/64",  # another metric
        "2001:db8:b::/64",  # another interface
    }
    assert len(bound) + len(others) == len(router.ip_json("-6 route show table local"))


@pytest.mark.usefixtures("router")
def test_our_discard_route_is_known_again(routes: Routes) -> None:
    [found] = [
        wire.route(chunk, start, end)
        for chunk in routes.dump(wire.TABLE_MAIN, wire.PROTOCOL)
        for start, _, end in wire.messages(chunk)
    ]
    assert found == discard_route(wire.DISCARDS["blackhole"], Prefix.parse("2001:db8:6::/48"))


def test_the_kernels_addresses_are_read(router: Namespace, routes: Routes) -> None:
    found = sorted((each.interface, str(each.prefix.masked())) for each in routes.addresses())
    index = {each["ifname"]: each["ifindex"] for each in router.ip_json("link show")}
    assert found == sorted(
        [
            (index["lo"], "::1/128"),
            (index["one"], "2001:db8:99::/64"),
            (index["two"], "2001:db8:95::1/128"),
            (index["two"], "2001:db8:96::/64"),
            (index["two"], "2001:db8:97::/56"),
            (index["two"], "2001:db8:98::1/128"),
            (index["two"], "2001:db8:98::2/128"),
        ]
    )
