"""Whom to answer, and when to keep silent: frames in, frames out, no link."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyipd.model import Prefix, Subnets, SubnetState
from anyipd.neighbour import owners
from anyipd.neighbour.answerer import LATELY, MOST_ASKED, SOLICIT_PACE, Answerer
from anyipd.neighbour.message import ADVERTISEMENT, SOLICITATION, Advertiser, Message, parse
from anyipd.neighbour.owners import PATIENCE, Owners
from anyipd.neighbour.spans import Spans, answered
from anyipd.policy import parse as policy

OURS, ROUTER, OTHER = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2", b"\2\0\0\0\0\3"
LINK_LOCAL = 0xFE80 << 112
SUBNET = Prefix.parse("2001:db8:5::/64")
OWN, TARGET = SUBNET.address + 1, SUBNET.address + 0x1234
SPANS = Spans((SUBNET.address, SUBNET.end))
router, other = Advertiser(ROUTER, LINK_LOCAL + 2), Advertiser(OTHER, LINK_LOCAL + 3)


@pytest.fixture
def answerer() -> Answerer:
    made = Answerer()
    made.answer_for(SPANS, {OWN}, 0)
    made.speak_as(OURS, LINK_LOCAL + 1, 0)
    return made


def said(frames: Sequence[bytes]) -> list[tuple[int, int]]:
    """Kind and target of each frame, which is well-formed and ours."""
    found = [read(frame) for frame in frames]
    assert all(sender == OURS for _, sender, *_ in found)
    return [(kind, target) for kind, _, _, target, _ in found]


def read(frame: bytes) -> Message:
    message = parse(frame)
    assert message
    return message


def detecting(target: int) -> bytes:
    """What a node sends before it takes an address: no source, no option (RFC 4862, 5.4.2)."""
    frame = Advertiser(OTHER, 0).solicit(target)
    body = b"\x87\0" + bytes(6) + target.to_bytes(16)
    total = int.from_bytes(frame[38:54]) + int.from_bytes(body) + 24 + 58
    body = body[:2] + (0xFFFF - total % 0xFFFF).to_bytes(2) + body[4:]
    return frame[:18] + (24).to_bytes(2) + frame[20:54] + body


def announcements(answerer: Answerer) -> list[int]:
    found = []
    while frame := answerer.announcement():
        found.append(read(frame)[3])
    return found


def test_an_answer_and_a_question_of_our_own(answerer: Answerer) -> None:
    assert said(answerer.answer(router.solicit(TARGET), 1)) == [
        (ADVERTISEMENT, TARGET),
        (SOLICITATION, TARGET),
    ]
    assert said(answerer.answer(router.solicit(TARGET), 2)) == [(ADVERTISEMENT, TARGET)]


def test_questions_of_our_own_are_few(answerer: Answerer) -> None:
    asked = [
        len(answerer.answer(router.solicit(TARGET + number), number * SOLICIT_PACE / 10)) - 1
        for number in range(100)
    ]
    assert sum(asked) == 10


@pytest.mark.parametrize("target", [OWN, SUBNET.address - 1, SUBNET.end, LINK_LOCAL + 1, 1])
def test_what_is_not_ours_to_answer_for(answerer: Answerer, target: int) -> None:
    assert answerer.answer(router.solicit(target), 1) == ()


def test_nothing_is_said_before_there_is_an_address_to_speak_from() -> None:
    answerer = Answerer()
    answerer.answer_for(SPANS, {OWN}, 0)
    assert answerer.answer(router.solicit(TARGET), 1) == ()


def test_what_we_sent_ourselves_is_no_question(answerer: Answerer) -> None:
    assert answerer.answer(Advertiser(OURS, LINK_LOCAL + 1).solicit(TARGET), 1) == ()


@pytest.mark.parametrize(
    "claim",
    [
        other.answer(ROUTER, 5, TARGET),
        other.announce(TARGET),
        detecting(TARGET),
        Advertiser(OTHER, TARGET).solicit(5),
    ],
    ids=["answers", "announces", "detects duplicates", "speaks"],
)
def test_an_owner_is_known_by_what_he_says(answerer: Answerer, claim: bytes) -> None:
    assert answerer.answer(claim, 1) == ()
    assert said(answerer.answer(router.solicit(TARGET), 2)) == [(SOLICITATION, TARGET)]
    answerer.answer(other.answer(OURS, LINK_LOCAL + 1, TARGET), 2)
    for now in range(10, 20):
        assert ADVERTISEMENT not in dict(said(answerer.answer(router.solicit(TARGET), now)))
        answerer.answer(other.answer(OURS, LINK_LOCAL + 1, TARGET), now)


def test_an_owner_who_is_gone_is_none(answerer: Answerer) -> None:
    answerer.answer(other.announce(TARGET), 1)
    answers = [dict(said(answerer.answer(router.solicit(TARGET), now))) for now in (2.0, 2.1, 3.0, 4.0)]
    assert answers == [{SOLICITATION: TARGET}, {}, {SOLICITATION: TARGET}, {ADVERTISEMENT: TARGET}]


def test_a_flood_of_claims_costs_no_memory_and_silences_no_other_address(answerer: Answerer) -> None:
    for number in range(owners.MOST + 100):
        answerer.answer(other.announce(TARGET + number), 1)
    assert ADVERTISEMENT not in dict(said(answerer.answer(router.solicit(TARGET + owners.MOST), 2)))
    assert ADVERTISEMENT in dict(said(answerer.answer(router.solicit(TARGET), 2)))  # driven out


def test_what_was_asked_for_lately_is_announced_when_it_is_ours_again(answerer: Answerer) -> None:
    lately, long_ago, elsewhere, owned = TARGET, TARGET + 1, SUBNET.end + 5, TARGET + 2
    answerer.answer(router.solicit(long_ago), 1)
    answerer.answer_for(Spans(), {OWN}, 2)
    now = 2 + LATELY
    for target in (lately, elsewhere, OWN):
        assert answerer.answer(router.solicit(target), now - 1) == ()
    answerer.answer_for(SPANS, {OWN}, now)
    assert announcements(answerer) == [lately]
    answerer.answer(router.solicit(owned), now)
    answerer.answer(other.announce(owned), now)
    answerer.answer_for(SPANS, {OWN}, now)
    assert announcements(answerer) == []
    answerer.speak_as(ROUTER, LINK_LOCAL + 1, now)
    assert announcements(answerer) == [lately]  # another place on Ethernet


def test_an_own_address_that_goes_is_never_announced(answerer: Answerer) -> None:
    """Another node may have it by now, whose claim meant nothing to us while we had it."""
    answerer.answer(router.solicit(OWN), 1)
    answerer.answer(other.announce(OWN), 1)
    answerer.answer_for(SPANS, set(), 2)
    answerer.answer_for(Spans(), set(), 2)
    answerer.answer_for(SPANS, set(), 2)
    answerer.speak_as(ROUTER, LINK_LOCAL + 1, 2)
    answerer.speak_as(OURS, LINK_LOCAL + 1, 2)
    assert announcements(answerer) == []
    assert said(answerer.answer(router.solicit(OWN), 3)) == [(ADVERTISEMENT, OWN), (SOLICITATION, OWN)]


def test_what_goes_before_it_was_announced_is_not(answerer: Answerer) -> None:
    answerer.answer_for(Spans(), {OWN}, 1)
    answerer.answer(router.solicit(TARGET), 1)
    answerer.answer_for(SPANS, {OWN}, 2)
    answerer.answer_for(Spans(), {OWN}, 2)
    assert announcements(answerer) == []


def test_announcements_are_bounded(answerer: Answerer) -> None:
    answerer.answer_for(Spans(), {OWN}, 1)
    for number in range(MOST_ASKED + 10):
        answerer.answer(router.solicit(TARGET + number), 1)
    answerer.answer_for(SPANS, {OWN}, 2)
    for _ in range(3):  # a link that flaps
        answerer.fall_silent()
        answerer.speak_as(OURS, LINK_LOCAL + 1, 2)
    assert announcements(answerer) == [TARGET + number for number in range(10, MOST_ASKED + 10)]


@given(
    st.lists(st.tuples(st.sampled_from(["see", "doubt"]), st.integers(0, 5), st.floats(0, 3)), max_size=60)
)
def test_an_owner_is_asked_twice_before_he_is_forgotten(steps: list[tuple[str, int, float]]) -> None:
    found, now = Owners(), 0.0
    asked: dict[int, list[float]] = {}
    for step, address, later in steps:
        now += later
        if step == "see":
            found.see(address)
            asked[address] = []
        elif address in found:
            if found.doubt(address, now):
                assert not asked[address] or now >= asked[address][-1] + PATIENCE
                asked[address].append(now)
            if address not in found:
                assert len(asked[address]) == owners.MOST_UNANSWERED


SPAN_LISTS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)).map(lambda s: (s[0], s[0] + s[1])))


@given(SPAN_LISTS, SPAN_LISTS)
def test_spans_hold_what_is_inside_and_not_outside(
    inside: list[tuple[int, int]], outside: list[tuple[int, int]]
) -> None:
    def within(address: int, spans: list[tuple[int, int]]) -> bool:
        return any(start <= address < end for start, end in spans)

    found = Spans.of(inside, outside)
    for address in range(-1, 45):
        assert (address in found) == (within(address, inside) and not within(address, outside))
    assert list(found.bounds) == sorted(set(found.bounds))


def test_which_subnets_are_answered_for_where() -> None:
    wanted = policy(
        """
subnets:
  - {name: web, neighbours: [eth0, eth1]}
  - {name: many, count: 3, neighbours: [eth1]}
  - {name: plain}
  - {name: docker, id: 0xf, bind: false, neighbours: [eth0]}
static:
  - {prefix: 2001:db8:5::/64, neighbours: [eth0]}
  - 192.0.2.0/24
""",
        "test",
    )
    place = Prefix.parse("2001:db8:100::/64")
    v4 = Prefix.parse("192.0.2.0/24")

    def at(number: int) -> Prefix:
        return place._replace(address=place.address + (number << 64))

    def subnets(name: str, first: Prefix, state: SubnetState, count: int = 1) -> Subnets:
        return Subnets(name=name, delegation=None, state=state, first=first, count=count)

    reserved = Prefix.parse("2001:db8:5::8000:0:0:0/65")
    found = answered(
        wanted,
        [
            subnets("web", at(0), SubnetState.BOUND),
            subnets("many", at(1), SubnetState.BOUND, 2),
            subnets("many", at(3), SubnetState.MISSING),
            subnets("plain", at(4), SubnetState.BOUND),
            subnets("docker", reserved, SubnetState.RESERVED),
            subnets(str(SUBNET), SUBNET, SubnetState.BOUND),
            subnets(str(v4), v4, SubnetState.BOUND),
        ],
    )
    assert found == {
        "eth0": Spans((SUBNET.address, reserved.address, at(0).address, at(0).end)),
        "eth1": Spans((at(0).address, at(2).end)),
    }
