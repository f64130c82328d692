"""Prefixes: their text, and how they lie to each other, with the ipaddress module as the judge."""

import ipaddress
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anyipd.model import Prefix, Subnets, SubnetState, address_text


@st.composite
def prefixes(draw: st.DrawFn) -> Prefix:
    width = draw(st.sampled_from([32, 128]))
    length = draw(st.integers(0, width))
    # Few high bits, so that two of them often meet.
    address = draw(st.sampled_from([0, (1 << width) - 1]) | st.integers(0, (1 << width) - 1))
    return Prefix(address >> (width - length) << (width - length), length, width)


def network(prefix: Prefix) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    kind = ipaddress.IPv6Network if prefix.width == 128 else ipaddress.IPv4Network
    return kind((prefix.address, prefix.length))


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("2001:db8::/32", Prefix(0x20010DB8 << 96, 32)),
        ("::/0", Prefix(0, 0)),
        ("::1", Prefix(1, 128)),
        ("FE80::/10", Prefix(0xFE80 << 112, 10)),
        ("192.0.2.0/24", Prefix(0xC0000200, 24, 32)),
        ("192.0.2.1", Prefix(0xC0000201, 32, 32)),
        ("0.0.0.0/0", Prefix(0, 0, 32)),
        ("::ffff:192.0.2.1", Prefix(0xFFFF_C000_0201, 128)),
    ],
)
def test_text_is_read(text: str, prefix: Prefix) -> None:
    assert Prefix.parse(text) == prefix


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "'' is not an IP prefix"),
        ("/64", "is not an IP prefix"),
        ("fe80::1%lo", "is not an IP prefix"),
        ("2001:db8::\0/32", "is not an IP prefix"),
        ("\ud800::/32", "is not an IP prefix"),
        ("1.2.3", "is not an IP prefix"),
        ("2001:db8::/", "has no length from 0 to 128"),
        ("2001:db8::/129", "has no length from 0 to 128"),
        ("2001:db8::/-1", "has no length from 0 to 128"),
        ("2001:db8::/٣", "has no length from 0 to 128"),
        ("2001:db8::/1²", "has no length from 0 to 128"),
        ("2001:db8::/" + "9" * 5000, "has no length from 0 to 128"),
        ("192.0.2.0/33", "has no length from 0 to 32"),
        ("192.0.2.0/255.255.255.0", "has no length from 0 to 32"),
        ("2001:db8::1/64", "'2001:db8::1/64' has host bits set; its network is 2001:db8::/64"),
        ("192.0.2.1/24", "its network is 192.0.2.0/24"),
    ],
)
def test_text_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)):
        Prefix.parse(text)


@given(st.text(st.sampled_from("0123456789abcf:./%"), max_size=24) | st.text())
@example("2001:db8::/032")
def test_whatever_is_taken_is_an_ip_prefix(text: str) -> None:
    try:
        found = Prefix.parse(text)
    except ValueError:
        return
    assert network(found) == ipaddress.ip_network(text)


@given(prefixes())
def test_text_goes_round(prefix: Prefix) -> None:
    assert Prefix.parse(str(prefix)) == prefix
    assert Prefix.parse(network(prefix).exploded) == prefix


@given(prefixes())
def test_extent(prefix: Prefix) -> None:
    judge = network(prefix)
    assert prefix.size == judge.num_addresses
    assert prefix.end == int(judge.broadcast_address) + 1


@given(prefixes(), prefixes(), st.integers(0, 128))
def test_relations(one: Prefix, other: Prefix, longer: int) -> None:
    inner = one._replace(length=min(one.length + longer, one.width))
    for a, b in [(one, other), (one, inner), (inner, one), (other, inner)]:
        if a.width == b.width:
            inner_first, outer_first = int(network(b)[0]), int(network(a)[0])
            inner_last, outer_last = int(network(b)[-1]), int(network(a)[-1])
            assert a.covers(b) is (outer_first <= inner_first and inner_last <= outer_last)
            assert a.overlaps(b) is (outer_first <= inner_last and inner_first <= outer_last)
        else:
            assert not a.covers(b)
            assert not a.overlaps(b)


def test_neighbours_share_no_address() -> None:
    low, high = Prefix.parse("2001:db8::/64"), Prefix.parse("2001:db8:0:1::/64")
    assert not low.overlaps(high)
    assert not high.overlaps(low)


@pytest.mark.parametrize(
    "text",
    [
        "2001:db8::1",
        "2001:db8:0:1:1:1:1:1",  # RFC 5952, 4.2.2: one group is not shortened
        "2001:0:0:1::1",  # 4.2.3: the longest run is, of equals the first
        "2001:db8::1:0:0:1",
        "::",
        "::ffff:192.0.2.1",  # 5
    ],
)
def test_addresses_are_written_as_rfc_5952_wants(text: str) -> None:
    assert address_text(int(ipaddress.IPv6Address(text))) == text


def test_ipv4_addresses_are_written() -> None:
    assert address_text(0xC0000201, 32) == "192.0.2.1"


def test_subnets_of_a_count_are_numbered_on() -> None:
    run = Subnets("proxies", None, SubnetState.WANTED, Prefix(0, 64), count=4, number=7)
    assert [run.subnet_name(i) for i in range(4)] == ["proxies-7", "proxies-8", "proxies-9", "proxies-10"]
    assert Subnets("web", None, SubnetState.WANTED, Prefix(0, 64)).subnet_name(0) == "web"
