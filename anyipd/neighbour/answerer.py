"""What is known of one link, and what is to be said there.

Pure: frames and the time come in, frames go out; where an address is routed to is asked of whoever made it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from anyipd.neighbour.message import ADVERTISEMENT, UNSPECIFIED, Advertiser, is_answer_to, parse
from anyipd.neighbour.owners import Owners
from anyipd.neighbour.spans import Answered, Spans

MOST_ASKED, LATELY = 1024, 600.0
"""Addresses that were asked for lately: so many at least are remembered, twice as many at most, and for how
many seconds. By default no router remembers more neighbours than that (gc_thresh3 in net/ipv6/ndisc.c)."""

SOLICIT_PACE, ANNOUNCE_PACE = 0.1, 0.02
"""Seconds between a solicitation of ours and one that no claim paid for, and between two announcements: all
nodes of the link hear them. The latter are few, and routers wait for them."""


class Answerer:
    """Answers solicitations on one link. Times are of a clock that never goes back.

    `leads_elsewhere` says whether this host would send packets to an address on by another link.
    """

    def __init__(self, leads_elsewhere: Callable[[int], bool]) -> None:
        self._leads_elsewhere = leads_elsewhere
        self._advertiser: Advertiser | None = None
        self._link_layer, self._source = b"", UNSPECIFIED
        self._wanted = Answered()  # with the link's own addresses; what follows is without
        self._spans = Spans()
        self._routed: Spans | None = None  # None where there is none: that saves every answer a step
        self._own: AbstractSet[int] = frozenset()
        self._owners = Owners()
        self._asked: dict[int, float] = {}
        self._asked_before: dict[int, float] = {}  # what the former was when it was full
        self._may_solicit_at = 0.0
        self._to_announce: deque[int] = deque(maxlen=MOST_ASKED)

    def speak_as(self, link_layer: bytes, source: int, now: float) -> None:
        """Speak from this address on Ethernet, and from `source`, an address of the link, from now on."""
        self._link_layer, self._source = link_layer, source
        self._advertiser = Advertiser(link_layer, source)
        self._announce_all_but(Answered(), now)

    def fall_silent(self) -> None:
        """Say nothing any more, until there is something to speak as."""
        self._advertiser = None

    def answer_for(self, wanted: Answered, own: AbstractSet[int], now: float) -> None:
        """Answer for these addresses from now on, but not for `own`: the kernel does that.

        Who has one next that was our own, somebody else or we, is a new question.
        """
        for gone in self._own - own:
            self._asked.pop(gone, None)
            self._asked_before.pop(gone, None)
        before, self._wanted, self._own = self._wanted, wanted, own
        self._spans = wanted.spans.without(own)
        self._routed = wanted.routed.without(own) if wanted.routed.bounds else None
        self._announce_all_but(before, now)

    def _announce_all_but(self, before: Answered, now: float) -> None:
        """Have announced what was asked for lately and had no answer of ours, so that routers' caches follow.

        It may have been somebody else's, or gone for a while.
        """
        self._to_announce.extend(
            address
            for address, at in (self._asked_before | self._asked).items()
            if now < at + LATELY and not before.spans.hold(address)
        )

    def announcement(self, now: float) -> bytes | None:
        """Give the next frame that is to be sent though nobody asked, if there is one."""
        while self._advertiser and self._to_announce:
            address = self._to_announce.popleft()
            is_answered = self._spans.hold(address) and not self._leads_nowhere(address)
            if is_answered and not self._owners.may_have(address, now):
                return self._advertiser.announce(address)
        return None

    def answer(self, frame: bytes, now: float) -> Sequence[bytes]:
        """Give the frames to be sent in return for one."""
        message = parse(frame)
        if message is None or self._advertiser is None:
            return ()
        kind, sender, source, target, reply_to = message
        if sender == self._link_layer:
            return ()
        answered = self._spans
        if kind == ADVERTISEMENT or source == UNSPECIFIED:
            # He has it, or is about to: detecting duplicates is how a node claims an address (RFC 4862, 5.4).
            if answered.hold(target):
                self._take_claim(kind, target, frame, now)
            return ()
        if answered.hold(source):
            self._owners.claim(source)
        spare = now >= self._may_solicit_at
        is_news = spare and target not in self._asked and target not in self._asked_before
        self._remember(target, now)
        if not answered.hold(target) or (self._routed and self._leads_nowhere(target)):
            return ()
        if self._owners.know_of(target):
            silent, ask = self._owners.doubt(target, now, spare=spare)
        else:
            # Somebody may have it and have kept silent so far. His answer prevails over ours, and tells us.
            silent, ask = False, is_news
        frames = () if silent else (self._advertiser.answer(reply_to, source, target),)
        return (*frames, self._solicit(target, now)) if ask else frames

    def _leads_nowhere(self, address: int) -> bool:
        """Whether an address is of what is routed on, and there is no route by another link."""
        routed = self._routed
        return routed is not None and routed.hold(address) and not self._leads_elsewhere(address)

    def _take_claim(self, kind: int, target: int, frame: bytes, now: float) -> None:
        if kind == ADVERTISEMENT and is_answer_to(self._source, frame):
            self._owners.confirm(target, now)
        else:
            self._owners.claim(target)

    def _remember(self, target: int, now: float) -> None:
        """Take note that the address is asked for."""
        self._asked[target] = now
        if len(self._asked) == MOST_ASKED:
            self._asked_before, self._asked = self._asked, {}

    def _solicit(self, target: int, now: float) -> bytes:
        assert self._advertiser
        self._may_solicit_at = now + SOLICIT_PACE
        return self._advertiser.solicit(target)
