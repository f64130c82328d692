"""DHCPv6 messages: what they say by example, against scapy's writing of them, and no bytes that harm."""

import os
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.config import conf

from anyipd.model import Prefix
from anyipd.observe.dhcpv6 import DelegatedPrefix, Kind, MalformedError, Message, parse

# Else it reads the machine's whole routing table.
conf.route_autoload = conf.route6_autoload = False

from scapy.layers import dhcp6  # noqa: E402

CLIENT, SERVER = bytes.fromhex("00030001020304050607"), bytes.fromhex("0003000102ffffffffff")
DELEGATED = Prefix.parse("2001:db8:100::/56")


def option(code: int, content: bytes, length: int | None = None) -> bytes:
    return struct.pack("!HH", code, len(content) if length is None else length) + content


def iaprefix(options: bytes = b"", preferred: int = 100, valid: int = 200, length: int = 56) -> bytes:
    return struct.pack("!IIB16s", preferred, valid, length, DELEGATED.address.to_bytes(16)) + options


def ia_pd(*options: bytes, t1: int = 0, t2: int = 0) -> bytes:
    return option(25, struct.pack("!III", 0, t1, t2) + b"".join(options))


def reply(*options: bytes) -> bytes:
    return b"".join([b"\x07abc", option(1, CLIENT), option(2, SERVER), *options])


def prefixes(message: bytes) -> list[tuple[str, int, int, str | None]]:
    return [
        (str(each.prefix), each.preferred, each.valid, each.exclude and str(each.exclude))
        for each in parse(message).prefixes
    ]


TOLD = (str(DELEGATED), 100, 200, None)


def test_a_reply() -> None:
    assert parse(reply(ia_pd(option(26, iaprefix())))) == Message(
        kind=Kind.REPLY,
        transaction=b"abc",
        client=CLIENT,
        from_server=True,
        rapid_commit=False,
        failed=False,
        prefixes=(DelegatedPrefix("00:00:00:00", DELEGATED, 100, 200, None),),
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], []),
        ([ia_pd()], []),
        ([ia_pd(option(26, iaprefix(), 25))], [TOLD]),
        ([ia_pd(option(26, iaprefix()), option(26, iaprefix(length=57)))],
         [TOLD, ("2001:db8:100::/57", 100, 200, None)]),
        ([ia_pd(option(26, iaprefix())), ia_pd(option(26, iaprefix()))], [TOLD, TOLD]),
        ([option(3, b"\xff" * 12), option(23, b"\x01"), ia_pd(option(26, iaprefix()))], [TOLD]),
        ([ia_pd(option(999, b"x"), option(26, iaprefix()))], [TOLD]),
        ([ia_pd(option(26, iaprefix(option(999, b""))))], [TOLD]),
        # An IA_PD with success, with an error; the same beside an IA_PD says nothing of it here.
        ([ia_pd(option(13, b"\0\0fine"), option(26, iaprefix()))], [TOLD]),
        ([ia_pd(option(13, b"\0\3no binding"), option(26, iaprefix()))], []),
        ([option(13, b"\0\1"), ia_pd(option(26, iaprefix()))], [TOLD]),
        ([ia_pd(option(26, iaprefix(preferred=201)))], []),
        # T1 after T2; where there is none of the two, the client chooses.
        ([ia_pd(option(26, iaprefix()), t1=81, t2=80)], []),
        ([ia_pd(option(26, iaprefix()), t1=80, t2=80)], [TOLD]),
        ([ia_pd(option(26, iaprefix()), t1=80)], [TOLD]),
        # An error inside a prefix: the others stay, and what is taken back is.
        ([ia_pd(option(26, iaprefix(option(13, b"\0\6"))), option(26, iaprefix(length=57)))],
         [("2001:db8:100::/57", 100, 200, None)]),
        ([ia_pd(option(26, iaprefix(option(13, b"\0\0"))))], [TOLD]),
        ([ia_pd(option(26, iaprefix(option(13, b"\0\6"), preferred=0, valid=0)))],
         [(str(DELEGATED), 0, 0, None)]),
        ([ia_pd(option(26, iaprefix(preferred=0, valid=0)))], [(str(DELEGATED), 0, 0, None)]),
        ([ia_pd(option(26, iaprefix(length=24)))], [("2001:d00::/24", 100, 200, None)]),
        # An IA_PD inside something else is none.
        ([option(3, bytes(12) + ia_pd(option(26, iaprefix())))], []),
        ([option(26, iaprefix())], []),
    ],
)  # fmt: skip
def test_prefixes(options: list[bytes], expected: list[tuple[str, int, int, str | None]]) -> None:
    assert prefixes(reply(*options)) == expected


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [
        (b"\x40\x0f", "2001:db8:100:f::/64"),
        (b"\x40\x00", "2001:db8:100::/64"),
        (b"\x39\x80", "2001:db8:100:80::/57"),
        (b"\x39\x7f", "2001:db8:100::/57"),  # what fills up to whole bytes means nothing
        (b"\x41\xff\x80", "2001:db8:100:ff:8000::/65"),
        (b"\x80" + bytes(8) + b"\x07", "2001:db8:100::7/128"),
    ],
)
def test_the_excluded_prefix(exclude: bytes, expected: str) -> None:
    """The examples of RFC 6603, 4.2, and more."""
    assert prefixes(reply(ia_pd(option(26, iaprefix(option(67, exclude))))))[0][3] == expected


def test_what_else_a_message_says() -> None:
    asked = parse(b"\x01xyz" + option(1, CLIENT) + option(14, b""))
    assert (asked.kind, asked.transaction, asked.from_server) == (Kind.SOLICIT, b"xyz", False)
    assert asked.rapid_commit
    assert parse(b"\x05xyz").client == b""
    assert not parse(reply(option(13, b"\0\0"))).failed
    assert parse(reply(option(13, b"\0\5"))).failed


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "the message ends in its header"),
        (b"\x07ab", "the message ends in its header"),
        (reply(b"\0"), "an option ends in its header"),
        (reply(option(999, b"", 1)), "an option is longer than what holds it"),
        (reply(option(25, bytes(11))), "an IA_PD ends early"),
        (reply(ia_pd(option(26, iaprefix()))[:-1]), "an option is longer than what holds it"),
        (reply(ia_pd(b"\0\x1a\0")), "an option ends in its header"),
        (reply(ia_pd(option(26, iaprefix(), 26))), "an option is longer than what holds it"),
        (reply(ia_pd(option(26, iaprefix()[:-1]))), "an IA Prefix ends early"),
        (reply(ia_pd(option(26, iaprefix(length=129)))), "a prefix is longer than 128 bits"),
        (reply(option(13, b"\0")), "a status code ends early"),
        (reply(ia_pd(option(13, b""))), "a status code ends early"),
        *[
            (reply(ia_pd(option(26, iaprefix(option(67, exclude))))),
             "an excluded prefix does not fit its delegated prefix")
            for exclude in (b"", b"\x38", b"\x38\0", b"\x40", b"\x40\0\0", b"\x81" + bytes(10), b"\x30\0")
        ],
    ],
)  # fmt: skip
def test_what_is_malformed(message: bytes, reason: str) -> None:
    with pytest.raises(MalformedError) as error:
        parse(message)
    assert str(error.value) == reason


EVERYWHERE = Prefix(0, 0)
WORD = st.integers(0, 0xFFFFFFFF)
OPTIONS: st.SearchStrategy[bytes] = st.deferred(
    lambda: st.lists(
        st.builds(
            lambda code, content, lie: option(code, content, (len(content) + lie) % 0x10000),
            st.sampled_from([1, 2, 3, 13, 14, 25, 26, 67, 999]),
            st.binary(max_size=40)
            | OPTIONS.map(lambda inner: bytes(12) + inner)
            | OPTIONS.map(lambda inner: iaprefix() + inner)
            | st.just(iaprefix()),
            st.just(0) | st.integers(-3, 3),
        ),
        max_size=4,
    ).map(b"".join)
)


@given(st.binary(max_size=200) | OPTIONS.map(lambda options: b"\x07abc" + options))
@example(os.urandom(1500))
def test_no_bytes_do_harm(message: bytes) -> None:
    try:
        found = parse(message)
    except MalformedError:
        return
    for each in found.prefixes:
        assert each.preferred <= each.valid
        assert each.prefix == each.prefix.masked()
        assert each.exclude is None or (each.prefix.covers(each.exclude) and each.prefix != each.exclude)


@st.composite
def delegated_prefixes(draw: st.DrawFn, within: Prefix = EVERYWHERE) -> DelegatedPrefix:
    address = draw(st.integers(within.address, within.end - 1))
    prefix = Prefix(address, draw(st.integers(within.length, 128))).masked()
    preferred, valid = sorted([draw(WORD), draw(WORD)])
    exclude = None
    if prefix.length < 128 and draw(st.booleans()):
        length = draw(st.integers(prefix.length + 1, 128))
        exclude = Prefix(prefix.address + draw(st.integers(0, prefix.size - 1)), length).masked()
    return DelegatedPrefix("", prefix, preferred, valid, exclude)


def excluding(each: DelegatedPrefix) -> list[dhcp6.DHCP6OptUnknown]:
    """RFC 6603, 4.2, the other way round: bit by bit."""
    if each.exclude is None:
        return []
    bits = f"{each.exclude.address:0128b}"[each.prefix.length : each.exclude.length]
    filled = bits + "0" * (-len(bits) % 8)
    content = bytes(int(filled[i : i + 8], 2) for i in range(0, len(filled), 8))
    return [dhcp6.DHCP6OptUnknown(optcode=67, data=bytes([each.exclude.length]) + content)]


@given(
    st.sampled_from([dhcp6.DHCP6_Reply, dhcp6.DHCP6_Request, dhcp6.DHCP6_Renew, dhcp6.DHCP6_Rebind]),
    st.binary(min_size=3, max_size=3),
    st.lists(st.tuples(WORD, st.lists(delegated_prefixes(), max_size=3)), max_size=3),
)
def test_what_scapy_writes_is_read(
    kind: type[dhcp6.DHCP6], transaction: bytes, ias: list[tuple[int, list[DelegatedPrefix]]]
) -> None:
    packet = kind(trid=int.from_bytes(transaction))
    packet /= dhcp6.DHCP6OptElapsedTime() / dhcp6.DHCP6OptClientId(duid=CLIENT)
    packet /= dhcp6.DHCP6OptOptReq() / dhcp6.DHCP6OptDNSServers(dnsservers=["2001:db8::53"])
    for iaid, inside in ias:
        packet /= dhcp6.DHCP6OptIA_PD(
            iaid=iaid,
            T1=1,
            T2=2,
            iapdopt=[
                dhcp6.DHCP6OptIAPrefix(
                    preflft=each.preferred,
                    validlft=each.valid,
                    plen=each.prefix.length,
                    prefix=str(each.prefix).split("/")[0],
                    iaprefopts=excluding(each),
                )
                for each in inside
            ],
        )
    found = parse(bytes(packet))
    assert (found.kind, found.transaction, found.client) == (packet.msgtype, transaction, CLIENT)
    assert found.prefixes == tuple(
        each._replace(iaid=iaid.to_bytes(4).hex(":")) for iaid, inside in ias for each in inside
    )
