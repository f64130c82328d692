"""Solicitations and advertisements as bytes, held against scapy, which wrote neither."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.config import conf

conf.route_autoload = conf.route6_autoload = False
from scapy.layers.inet6 import (  # noqa: E402  what it imports would read the routing table
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether  # noqa: E402
from scapy.packet import Packet, Raw, fuzz  # noqa: E402

from anyipd.model import address_text  # noqa: E402
from anyipd.neighbour.message import ADVERTISEMENT, SOLICITATION, Advertiser, parse, solicited_node  # noqa: E402

OURS, ROUTER = "02:00:00:00:00:01", "02:00:00:00:00:02"
LINK_LOCAL = 0xFE80 << 112
TARGET = (0x20010DB8_0005_0000 << 64) + 0xABCD1234
ADDRESSES = st.integers(1, (0xFF << 120) - 1)
LINK_LAYERS = st.binary(min_size=6, max_size=6)


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ethernet(address: bytes) -> str:
    return address.hex(":")


def frame(packet: Packet, **changed: Any) -> bytes:  # noqa: ANN401  a field's own type
    """Write ICMPv6 as a router sends it to our group; `changed` are fields of its IPv6 header."""
    header: dict[str, Any] = {
        "src": "fe80::2",
        "dst": address_text(solicited_node(TARGET)),
        "hlim": 255,
    } | changed
    return bytes(Ether(src=ROUTER, dst="33:33:ff:cd:12:34") / IPv6(**header) / packet)


def question(**changed: Any) -> Packet:  # noqa: ANN401  a field's own type
    return ICMPv6ND_NS(**({"tgt": address_text(TARGET)} | changed))


OPTION = ICMPv6NDOptSrcLLAddr(lladdr=ROUTER)


@given(LINK_LAYERS, LINK_LAYERS, ADDRESSES, ADDRESSES, ADDRESSES)
def test_an_answer_is_what_scapy_would_write(
    ours: bytes, to: bytes, source: int, destination: int, target: int
) -> None:
    expected = (
        Ether(src=ethernet(ours), dst=ethernet(to))
        / IPv6(src=address_text(target), dst=address_text(destination), hlim=255)
        / ICMPv6ND_NA(tgt=address_text(target), R=0, S=1, O=0)
        / ICMPv6NDOptDstLLAddr(lladdr=ethernet(ours))
    )
    assert Advertiser(ours, source).answer(to, destination, target) == bytes(expected)


@given(LINK_LAYERS, ADDRESSES, ADDRESSES)
@example(bytes.fromhex("31c271dfb1f2"), 1, 134)  # whose checksum is 0
def test_what_all_nodes_are_told_and_asked(ours: bytes, source: int, target: int) -> None:
    told = (
        Ether(src=ethernet(ours), dst="33:33:00:00:00:01")
        / IPv6(src=address_text(target), dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(tgt=address_text(target), R=0, S=0, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=ethernet(ours))
    )
    group = solicited_node(target)
    asked = (
        Ether(src=ethernet(ours), dst=ethernet(b"\x33\x33" + group.to_bytes(16)[-4:]))
        / IPv6(src=address_text(source), dst=address_text(group), hlim=255)
        / ICMPv6ND_NS(tgt=address_text(target))
        / ICMPv6NDOptSrcLLAddr(lladdr=ethernet(ours))
    )
    writer = Advertiser(ours, source)
    assert writer.announce(target) == bytes(told)
    assert writer.solicit(target) == bytes(asked)


GOOD = {
    "with its option": (frame(question() / OPTION), mac(ROUTER)),
    "without": (frame(question()), mac(ROUTER)),
    "another address in the option": (
        frame(question() / ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:77")),
        mac("02:00:00:00:00:77"),
    ),
    "options that are not for us": (
        frame(question() / ICMPv6NDOptMTU() / ICMPv6NDOptDstLLAddr(lladdr=OURS) / OPTION),
        mac(ROUTER),
    ),
    "of an unreachable cache entry": (frame(question() / OPTION, dst=address_text(TARGET)), mac(ROUTER)),
    "padded": (frame(question()) + bytes(18), mac(ROUTER)),
    "traffic class and flow label": (frame(question() / OPTION, tc=0xC0, fl=0x12345), mac(ROUTER)),
}


@pytest.mark.parametrize(("given_frame", "reply_to"), GOOD.values(), ids=GOOD)
def test_a_good_solicitation(given_frame: bytes, reply_to: bytes) -> None:
    assert parse(given_frame) == (SOLICITATION, mac(ROUTER), LINK_LOCAL + 2, TARGET, reply_to)


def test_detecting_duplicates() -> None:
    assert parse(frame(question(), src="::")) == (SOLICITATION, mac(ROUTER), 0, TARGET, mac(ROUTER))


def test_an_advertisement() -> None:
    packet = ICMPv6ND_NA(tgt=address_text(TARGET), R=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=OURS)
    found = parse(frame(packet, dst="ff02::1"))
    assert found
    kind, _, _, target, _ = found
    assert (kind, target) == (ADVERTISEMENT, TARGET)


ORDINARY = frame(question() / OPTION)


def with_bytes(at: int, value: bytes) -> bytes:
    return ORDINARY[:at] + value + ORDINARY[at + len(value) :]


BAD = {
    "hop limit": frame(question() / OPTION, hlim=254),
    "checksum": frame(question(cksum=0x1234) / OPTION),
    "code": frame(question(code=1) / OPTION),
    "multicast target": frame(question(tgt="ff02::1:ffcd:1234") / OPTION),
    "multicast source": frame(question() / OPTION, src="ff02::1"),
    "detecting duplicates with an option": frame(question() / OPTION, src="::"),
    "detecting duplicates at the target itself": frame(question(), src="::", dst=address_text(TARGET)),
    "option of no length": frame(question() / Raw(b"\1\0" + bytes(6))),
    "option cut short": frame(question() / Raw(b"\1\2" + bytes(6))),
    "another option cut short": frame(question() / Raw(b"\5\2" + bytes(6))),
    "half an option": frame(question() / Raw(b"\1\1\2\0")),
    "link-layer address of another length": frame(question() / Raw(b"\1\2" + bytes(14))),
    "link-layer address of many nodes": frame(question() / ICMPv6NDOptSrcLLAddr(lladdr="33:33:00:00:00:01")),
    "longer than it is": frame(question() / OPTION, plen=40),
    "shorter than it can be": frame(question() / OPTION, plen=16),
    "no target": frame(question())[:62],
    "another next header": frame(question() / OPTION, nh=59),
    "IPv4 in its version": with_bytes(14, b"\x45"),
    "another Ethernet type": with_bytes(12, b"\x08\x00"),
    "an echo request": with_bytes(54, b"\x80"),
    "nothing": b"",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_is_malformed_is_none(bad: bytes) -> None:
    assert parse(bad) is None


def test_every_single_bit_is_checked() -> None:
    """But for where it was sent to, traffic class and flow label, and the link-layer source."""
    free = {*range(12), 15, 16, 17}
    for at in set(range(len(ORDINARY))) - free:
        for bit in range(8):
            changed = with_bytes(at, bytes([ORDINARY[at] ^ (1 << bit)]))
            assert parse(changed) is None or (at == 14 and bit < 4), (at, bit)


@given(st.binary(max_size=200))
def test_any_bytes(noise: bytes) -> None:
    parse(noise)
    parse(ORDINARY[:54] + noise)
    parse(ORDINARY[:78] + noise)


@given(st.binary(min_size=8, max_size=64), ADDRESSES)
def test_options_never_lead_outside(options: bytes, target: int) -> None:
    found = parse(frame(question(tgt=address_text(target)) / Raw(options)))
    if found:
        *_, reply_to = found
        assert reply_to == mac(ROUTER) or reply_to in options


@pytest.mark.parametrize("make", [ICMPv6ND_NS, ICMPv6ND_NA])
def test_scapys_fuzz(make: Callable[[], Packet]) -> None:
    for _ in range(300):
        parse(bytes(Ether(src=ROUTER) / fuzz(IPv6(nh=58) / make() / ICMPv6NDOptSrcLLAddr())))
