"""Which Replies count: by transaction ID, DUID and uplink, once, and while somebody waits for them."""

from dataclasses import replace

import pytest

from anyipd.model import Prefix
from anyipd.observe.dhcpv6 import DelegatedPrefix, Kind, Message
from anyipd.observe.exchange import LONGEST_WAIT, MOST_REQUESTS, Exchanges, Told

NOW = 1000.0
DELEGATED = DelegatedPrefix("00:00:00:01", Prefix.parse("2001:db8::/56"), 100, 200, None)
ASKED = Message(
    kind=Kind.REQUEST,
    transaction=b"abc",
    client=b"duid",
    from_server=False,
    rapid_commit=False,
    failed=False,
    prefixes=(DELEGATED,),
)
REPLY = replace(ASKED, kind=Kind.REPLY, from_server=True)
TOLD = [Told("eth0", DELEGATED, b"duid")]


@pytest.mark.parametrize(
    ("request_", "reply", "expected"),
    [
        (ASKED, REPLY, TOLD),
        (replace(ASKED, kind=Kind.RENEW), REPLY, TOLD),
        (replace(ASKED, kind=Kind.REBIND), REPLY, TOLD),
        (replace(ASKED, kind=Kind.SOLICIT, rapid_commit=True), REPLY, TOLD),
        (replace(ASKED, kind=Kind.SOLICIT), REPLY, []),
        (replace(ASKED, client=b""), replace(REPLY, client=b""), []),
        (ASKED, replace(REPLY, transaction=b"abd"), []),
        (ASKED, replace(REPLY, client=b"duie"), []),
        (ASKED, replace(REPLY, client=b""), []),
        (ASKED, replace(REPLY, from_server=False), []),
        (ASKED, replace(REPLY, failed=True), []),
        (ASKED, replace(REPLY, kind=Kind.REQUEST), []),
        (ASKED, replace(REPLY, prefixes=()), []),
    ],
)
def test_a_reply_must_match(request_: Message, reply: Message, expected: list[Told]) -> None:
    exchanges = Exchanges()
    assert exchanges.sent("eth0", request_, NOW) == []
    assert exchanges.received("eth0", reply, NOW + 1) == expected


def test_nobody_asked() -> None:
    assert Exchanges().received("eth0", REPLY, NOW) == []


def test_nobody_asked_there() -> None:
    exchanges = Exchanges()
    exchanges.sent("eth0", ASKED, NOW)
    assert exchanges.received("eth1", REPLY, NOW) == []
    assert exchanges.received("eth0", REPLY, NOW) == TOLD


def test_the_first_reply_counts() -> None:
    exchanges = Exchanges()
    exchanges.sent("eth0", ASKED, NOW)
    assert exchanges.received("eth0", REPLY, NOW) == TOLD
    assert exchanges.received("eth0", REPLY, NOW) == []


def test_who_repeats_a_request_goes_on_waiting() -> None:
    exchanges = Exchanges()
    exchanges.sent("eth0", ASKED, NOW)
    exchanges.sent("eth0", ASKED, NOW + LONGEST_WAIT)
    assert exchanges.received("eth0", REPLY, NOW + 2 * LONGEST_WAIT) == TOLD
    exchanges.sent("eth0", ASKED, NOW)
    assert exchanges.received("eth0", REPLY, NOW + LONGEST_WAIT + 1) == []


def test_so_many_requests_wait() -> None:
    exchanges = Exchanges()
    for number in range(MOST_REQUESTS + 1):
        exchanges.sent("eth0", replace(ASKED, transaction=number.to_bytes(3)), NOW)
    waiting = [
        bool(exchanges.received("eth0", replace(REPLY, transaction=number.to_bytes(3)), NOW))
        for number in range(MOST_REQUESTS + 1)
    ]
    assert waiting == [False] + [True] * MOST_REQUESTS


@pytest.mark.parametrize("kind", [Kind.RELEASE, Kind.DECLINE])
def test_what_is_given_back_is_gone_at_once(kind: Kind) -> None:
    exchanges = Exchanges()
    [gone] = exchanges.sent("eth0", replace(ASKED, kind=kind), NOW)
    assert gone == Told("eth0", DELEGATED._replace(preferred=0, valid=0), b"duid")
    assert exchanges.received("eth0", REPLY, NOW) == []
