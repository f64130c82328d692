"""Whom to answer, and when to keep silent: frames in, frames out, no link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyipd.model import Prefix, Subnets, SubnetState
from anyipd.neighbour.answerer import LATELY, MOST_ASKED, SOLICIT_PACE, Answerer
from anyipd.neighbour.message import ADVERTISEMENT, SOLICITATION, Advertiser, Message, parse
from anyipd.neighbour.owners import ANSWER_TIMEOUT, DISBELIEF, MAX_CLAIMS, MAX_QUESTIONS, Owners
from anyipd.neighbour.spans import Answered, Spans, answered
from anyipd.policy import parse as policy

OURS, ROUTER, OTHER = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2", b"\2\0\0\0\0\3"
LINK_LOCAL = 0xFE80 << 112
SUBNET = Prefix.parse("2001:db8:5::/64")
OWN, TARGET = SUBNET.address + 1, SUBNET.address + 0x1234
SPANS = Answered(Spans((SUBNET.address, SUBNET.end)))
NOTHING = Answered()
router, other = Advertiser(ROUTER, LINK_LOCAL + 2), Advertiser(OTHER, LINK_LOCAL + 3)


@pytest.fixture
def answerer() -> Answerer:
    made = Answerer(lambda _: False)
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


def announcements(answerer: Answerer, now: float) -> list[int]:
    found = []
    while frame := answerer.announcement(now):
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


@pytest.mark.parametrize(("others", "is_news"), [(MOST_ASKED - 1, False), (2 * MOST_ASKED, True)])
def test_what_was_asked_for_is_remembered_for_as_many_more(
    answerer: Answerer, others: int, *, is_news: bool
) -> None:
    answerer.answer(router.solicit(TARGET), 1)
    for number in range(others):
        answerer.answer(router.solicit(TARGET + 1 + number), 1)
    found = said(answerer.answer(router.solicit(TARGET), 2))
    assert found == [(ADVERTISEMENT, TARGET), *([(SOLICITATION, TARGET)] if is_news else [])]


@pytest.mark.parametrize("target", [OWN, SUBNET.address - 1, SUBNET.end, LINK_LOCAL + 1, 1])
def test_what_is_not_ours_to_answer_for(answerer: Answerer, target: int) -> None:
    assert answerer.answer(router.solicit(target), 1) == ()


def test_nothing_is_said_before_there_is_an_address_to_speak_from() -> None:
    answerer = Answerer(lambda _: False)
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


def test_an_owner_who_answered_may_miss_one_question(answerer: Answerer) -> None:
    answerer.answer(other.announce(TARGET), 1)
    for now in (2, 4, 6):
        assert said(answerer.answer(router.solicit(TARGET), now)) == [(SOLICITATION, TARGET)]
        assert said(answerer.answer(router.solicit(TARGET), now + 1)) == [(SOLICITATION, TARGET)]
        answerer.answer(other.answer(OURS, LINK_LOCAL + 1, TARGET), now + 1)


@pytest.mark.parametrize(
    "claim",
    [other.announce(TARGET), other.answer(ROUTER, LINK_LOCAL + 2, TARGET), detecting(TARGET)],
    ids=["announces", "answers somebody else", "detects duplicates"],
)
def test_a_claim_is_no_answer(answerer: Answerer, claim: bytes) -> None:
    """However often it comes. It silences us at most twice in a minute, and each has us ask once at most."""
    silent: list[float] = []
    asked = 0
    times = [n / 10 for n in range(600)]
    for now in times:
        answerer.answer(claim, now)
        found = dict(said(answerer.answer(router.solicit(TARGET), now)))
        asked += SOLICITATION in found
        silent += [] if ADVERTISEMENT in found else [now]
    assert silent == [now for now in times if now < 2 * ANSWER_TIMEOUT]
    assert asked <= 60 / ANSWER_TIMEOUT


def test_an_owner_who_comes_after_false_claims_is_found(answerer: Answerer) -> None:
    answerer.answer(other.announce(TARGET), 1)
    for now in (2.0, 3.0):
        answerer.answer(router.solicit(TARGET), now)
    assert said(answerer.answer(router.solicit(TARGET), 4)) == [(ADVERTISEMENT, TARGET)]
    answerer.answer(detecting(TARGET), 5)
    assert said(answerer.answer(router.solicit(TARGET), 7)) == [
        (ADVERTISEMENT, TARGET),
        (SOLICITATION, TARGET),
    ]
    answerer.answer(other.answer(OURS, LINK_LOCAL + 1, TARGET), 7.01)
    for now in (7.1, 8, 9):
        assert ADVERTISEMENT not in dict(said(answerer.answer(router.solicit(TARGET), now)))


def test_false_claims_are_held_against_an_address_for_a_minute(answerer: Answerer) -> None:
    answerer.answer(other.announce(TARGET), 1)
    asked = 2 + ANSWER_TIMEOUT
    for now in (2.0, asked):
        answerer.answer(router.solicit(TARGET), now)
    answerer.answer(other.announce(TARGET), asked + DISBELIEF - 1)
    assert said(answerer.answer(router.solicit(TARGET), asked + DISBELIEF)) == [(SOLICITATION, TARGET)]


def test_what_is_claimed_by_many_at_once_is_answered_for_again(answerer: Answerer) -> None:
    """As a router asks: thrice, a second apart."""
    targets = [TARGET + number for number in range(300)]
    for target in targets:
        answerer.answer(other.announce(target), 1)
    found = [
        [
            said(answerer.answer(router.solicit(target), now + number / 10_000))
            for number, target in enumerate(targets)
        ]
        for now in (2, 3, 4)
    ]
    assert found[0] == [[(SOLICITATION, target)] for target in targets]
    assert found[1].count([(SOLICITATION, targets[0])]) == 1
    assert found[1][1:] == [[(ADVERTISEMENT, target)] for target in targets[1:]]
    assert found[2] == [[(ADVERTISEMENT, target)] for target in targets]


def test_a_flood_of_claims_costs_no_memory_and_silences_no_other_address(answerer: Answerer) -> None:
    for number in range(MAX_CLAIMS + 100):
        answerer.answer(other.announce(TARGET + number), 1)
    assert ADVERTISEMENT not in dict(said(answerer.answer(router.solicit(TARGET + MAX_CLAIMS), 2)))
    assert ADVERTISEMENT in dict(said(answerer.answer(router.solicit(TARGET), 2)))  # driven out


def test_no_flood_drives_out_what_was_found_out(answerer: Answerer) -> None:
    """Neither that somebody answers for an address, nor that nobody does."""
    owned, false = TARGET - 1, TARGET - 2
    for target in (owned, false):
        answerer.answer(other.announce(target), 0)
        answerer.answer(router.solicit(target), 0)
    answerer.answer(other.answer(OURS, LINK_LOCAL + 1, owned), 0)
    silenced = 0
    for number in range(2 * MAX_QUESTIONS):
        answerer.answer(other.announce(TARGET + number), 1)
        silenced += ADVERTISEMENT not in dict(said(answerer.answer(router.solicit(TARGET + number), 1)))
    assert silenced == MAX_QUESTIONS - 2  # where we cannot ask, we answer
    answerer.answer(other.announce(false), 2)
    answerer.answer(router.solicit(false), 2)  # asked again, at our own expense
    assert said(answerer.answer(router.solicit(owned), 3)) == [(SOLICITATION, owned)]
    assert (ADVERTISEMENT, false) in said(answerer.answer(router.solicit(false), 3))
    # What was asked for long ago makes room.
    answerer.answer(other.announce(TARGET - 3), 1 + DISBELIEF)
    assert said(answerer.answer(router.solicit(TARGET - 3), 1 + DISBELIEF)) == [(SOLICITATION, TARGET - 3)]


def test_what_was_asked_for_lately_is_announced_when_it_is_ours_again(answerer: Answerer) -> None:
    lately, long_ago, elsewhere, owned = TARGET, TARGET + 1, SUBNET.end + 5, TARGET + 2
    answerer.answer(router.solicit(long_ago), 1)
    answerer.answer_for(NOTHING, {OWN}, 2)
    now = 2 + LATELY
    for target in (lately, elsewhere, OWN):
        assert answerer.answer(router.solicit(target), now - 1) == ()
    answerer.answer_for(SPANS, {OWN}, now)
    assert announcements(answerer, now) == [lately]
    answerer.answer(router.solicit(owned), now)
    answerer.answer(other.announce(owned), now)
    answerer.answer_for(SPANS, {OWN}, now)
    assert announcements(answerer, now) == []
    answerer.speak_as(ROUTER, LINK_LOCAL + 1, now)
    assert announcements(answerer, now) == [lately]  # another place on Ethernet


def test_an_own_address_that_goes_is_never_announced(answerer: Answerer) -> None:
    """Another node may have it by now, whose claim meant nothing to us while we had it."""
    answerer.answer(router.solicit(OWN), 1)
    answerer.answer(other.announce(OWN), 1)
    answerer.answer_for(SPANS, set(), 2)
    answerer.answer_for(NOTHING, set(), 2)
    answerer.answer_for(SPANS, set(), 2)
    answerer.speak_as(ROUTER, LINK_LOCAL + 1, 2)
    answerer.speak_as(OURS, LINK_LOCAL + 1, 2)
    assert announcements(answerer, 2) == []
    assert said(answerer.answer(router.solicit(OWN), 3)) == [(ADVERTISEMENT, OWN), (SOLICITATION, OWN)]


def test_what_goes_before_it_was_announced_is_not(answerer: Answerer) -> None:
    answerer.answer_for(NOTHING, {OWN}, 1)
    answerer.answer(router.solicit(TARGET), 1)
    answerer.answer_for(SPANS, {OWN}, 2)
    answerer.answer_for(NOTHING, {OWN}, 2)
    assert announcements(answerer, 2) == []


def test_announcements_are_bounded(answerer: Answerer) -> None:
    answerer.answer_for(NOTHING, {OWN}, 1)
    for number in range(MOST_ASKED + 10):
        answerer.answer(router.solicit(TARGET + number), 1)
    answerer.answer_for(SPANS, {OWN}, 2)
    for _ in range(3):  # a link that flaps
        answerer.fall_silent()
        answerer.speak_as(OURS, LINK_LOCAL + 1, 2)
    assert announcements(answerer, 2) == [TARGET + number for number in range(10, MOST_ASKED + 10)]


ROUTED = Answered(SPANS.spans, routed=Spans((SUBNET.address + 0x1000, SUBNET.address + 0x2000)))


@pytest.fixture
def routes() -> set[int]:
    """What leads on by another link."""
    return set()


@pytest.fixture
def proxy(routes: set[int]) -> Answerer:
    made = Answerer(routes.__contains__)
    made.answer_for(ROUTED, {OWN}, 0)
    made.speak_as(OURS, LINK_LOCAL + 1, 0)
    return made


def test_what_is_routed_on_is_answered_for_as_long_as_it_is(proxy: Answerer, routes: set[int]) -> None:
    bound = SUBNET.address + 0x2000
    for now, leads in enumerate((False, True, False)):
        routes ^= {TARGET} if leads or TARGET in routes else set()
        answers = [(ADVERTISEMENT, TARGET)] if leads else []
        assert said(proxy.answer(router.solicit(TARGET), now))[:1] == answers
        assert said(proxy.answer(router.solicit(bound), now))[:1] == [(ADVERTISEMENT, bound)]


def test_routes_are_asked_for_what_is_routed_on_alone() -> None:
    asked: list[int] = []

    def leads_elsewhere(address: int) -> bool:
        asked.append(address)
        return False

    proxy = Answerer(leads_elsewhere)
    proxy.answer_for(ROUTED, {OWN, TARGET + 1}, 0)
    proxy.speak_as(OURS, LINK_LOCAL + 1, 0)
    for target in (TARGET, TARGET + 1, OWN, SUBNET.address + 5, SUBNET.end):
        proxy.answer(router.solicit(target), 1)
        proxy.answer(other.announce(target), 1)
        proxy.answer(detecting(target), 1)
    assert asked == [TARGET]


def test_an_owner_on_the_link_keeps_what_is_routed_on(proxy: Answerer, routes: set[int]) -> None:
    routes.add(TARGET)
    proxy.answer(other.announce(TARGET), 1)
    assert said(proxy.answer(router.solicit(TARGET), 2)) == [(SOLICITATION, TARGET)]
    proxy.answer(other.answer(OURS, LINK_LOCAL + 1, TARGET), 2)
    assert said(proxy.answer(router.solicit(TARGET), 2.5)) == []


def test_of_what_is_routed_on_what_leads_on_is_announced(proxy: Answerer, routes: set[int]) -> None:
    routes.add(TARGET)
    for target in (TARGET, TARGET + 1):
        proxy.answer(router.solicit(target), 1)
    proxy.answer_for(NOTHING, {OWN}, 1)
    proxy.answer_for(ROUTED, {OWN}, 2)
    assert announcements(proxy, 2) == [TARGET]


def test_what_is_kept_in_mind_is_bounded() -> None:
    found = Owners()
    for number in range(3 * MAX_QUESTIONS):
        found.claim(number)
        found.doubt(number, number / 10, spare=True)
        found.claim(number)
    assert len(found) == MAX_CLAIMS + MAX_QUESTIONS


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["claim", "confirm", "solicit"]), st.floats(0, 30) | st.floats(0, 1), st.booleans()
    ),
    max_size=60,
)


@given(STEPS)
def test_a_claim_costs_as_much_as_it_costs_us(steps: list[tuple[str, float, bool]]) -> None:
    found, now = Owners(), 0.0
    paid = asked = 0
    asked_at = float("-inf")
    for step, later, _ in steps:
        now += later
        if step == "claim":
            found.claim(TARGET)
            paid += 1
        elif step == "confirm":
            found.confirm(TARGET, now)
            paid += 1
        elif found.doubt(TARGET, now, spare=False)[1]:
            assert now >= asked_at + ANSWER_TIMEOUT
            asked_at = now
            asked += 1
        assert asked <= paid


@given(STEPS)
def test_claims_without_an_answer_silence_us_twice_a_minute(steps: list[tuple[str, float, bool]]) -> None:
    found, now = Owners(), 0.0
    silent_since: list[float] = []
    for step, later, spare in steps:
        now += later
        if step == "solicit":
            silent, ask = found.doubt(TARGET, now, spare=spare)
            if silent and ask:
                silent_since.append(now)
            assert not silent or now < silent_since[-1] + ANSWER_TIMEOUT
        else:
            found.claim(TARGET)
    assert all(
        third >= first + DISBELIEF for first, third in zip(silent_since, silent_since[2:], strict=False)
    )


SPAN_LISTS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)).map(lambda s: (s[0], s[0] + s[1])))


@given(SPAN_LISTS, SPAN_LISTS)
def test_spans_hold_what_is_inside_and_not_outside(
    inside: list[tuple[int, int]], outside: list[tuple[int, int]]
) -> None:
    def within(address: int, spans: list[tuple[int, int]]) -> bool:
        return any(start <= address < end for start, end in spans)

    found = Spans.of(inside, outside)
    for address in range(-1, 45):
        assert found.hold(address) == (within(address, inside) and not within(address, outside))
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
  - {prefix: 2001:db8:5::/64, neighbours: [eth0], except: ["2001:db8:5::c0/124", "2001:db8:5::1/128"]}
  - {prefix: 2001:db8:6::/64, neighbours: [eth1], bind: false}
  - 192.0.2.0/24
""",
        "test",
    )
    place = Prefix.parse("2001:db8:100::/64")
    v4, proxied = Prefix.parse("192.0.2.0/24"), Prefix.parse("2001:db8:6::/64")

    def at(number: int) -> Prefix:
        return place._replace(address=place.address + (number << 64))

    def subnets(name: str, first: Prefix, state: SubnetState, count: int = 1) -> Subnets:
        return Subnets(name=name, delegation=None, state=state, first=first, count=count)

    reserved, hole = Prefix.parse("2001:db8:5:0:8000::/65"), Prefix.parse("2001:db8:5::c0/124")
    found = answered(
        wanted,
        [
            subnets("web", at(0), SubnetState.BOUND),
            subnets("many", at(1), SubnetState.BOUND, 2),
            subnets("many", at(3), SubnetState.MISSING),
            subnets("plain", at(4), SubnetState.BOUND),
            subnets("docker", reserved, SubnetState.RESERVED),
            subnets("plain", at(2), SubnetState.RESERVED),
            subnets(str(proxied), proxied, SubnetState.RESERVED),
            replace(
                subnets(str(SUBNET), SUBNET, SubnetState.BOUND),
                holes=(Prefix(1, 128), Prefix(0xC0, 124)),
                gateways=(Prefix(1, 128),),
            ),
            subnets(str(v4), v4, SubnetState.BOUND),
        ],
    )
    assert found == {
        "eth0": Answered(
            Spans((SUBNET.address, OWN, OWN + 1, SUBNET.end, at(0).address, at(0).end)),
            routed=Spans((hole.address, hole.end, reserved.address, reserved.end)),
        ),
        "eth1": Answered(
            Spans((proxied.address, proxied.end, at(0).address, at(1).end)),
            routed=Spans((proxied.address, proxied.end)),
        ),
    }
