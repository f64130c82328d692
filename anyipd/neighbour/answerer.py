"""What is known of one link, and what is to be said there.

Pure: frames and the time come in, frames go out.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from anyipd.neighbour.message import ADVERTISEMENT, UNSPECIFIED, Advertiser, parse
from anyipd.neighbour.owners import Owners
from anyipd.neighbour.spans import Spans

MOST_ASKED, LATELY = 1024, 600.0
"""Addresses that were asked for lately: so many at most, and for how many seconds. By default no router
remembers more neighbours than that (gc_thresh3 in net/ipv6/ndisc.c)."""

SOLICIT_PACE, ANNOUNCE_PACE = 0.1, 0.02
"""Seconds between two solicitations of ours, and between two announcements: all nodes of the link hear them.
The latter are few, and routers wait for them."""


class Answerer:
    """Answers solicitations on one link. Times are of a clock that never goes back."""

    def __init__(self) -> None:
        self._advertiser: Advertiser | None = None
        self._link_layer = b""
        self._spans = Spans()
        self._own: AbstractSet[int] = frozenset()
        self._owners = Owners()
        self._asked: OrderedDict[int, float] = OrderedDict()
        self._may_solicit_at = 0.0
        self._to_announce: deque[int] = deque(maxlen=MOST_ASKED)

    def speak_as(self, link_layer: bytes, source: int, now: float) -> None:
        """Speak from this address on Ethernet, and from `source`, an address of the link, from now on."""
        spans, self._spans = self._spans, Spans()
        self._link_layer, self._advertiser = link_layer, Advertiser(link_layer, source)
        self.answer_for(spans, self._own, now)

    def fall_silent(self) -> None:
        """Say nothing any more, until there is something to speak as."""
        self._advertiser = None

    def answer_for(self, spans: Spans, own: AbstractSet[int], now: float) -> None:
        """Answer for these addresses from now on, but not for `own`: the kernel does that.

        What was asked for lately and had no answer of ours until now is announced, so that routers' caches
        follow: it may have been somebody else's, or gone for a while.
        """
        before, self._spans, self._own = self._spans, spans, own
        self._to_announce.extend(
            address for address, at in self._asked.items() if now < at + LATELY and address not in before
        )

    def announcement(self) -> bytes | None:
        """Give the next frame that is to be sent though nobody asked, if there is one."""
        while self._advertiser and self._to_announce:
            address = self._to_announce.popleft()
            if self._answers_for(address) and address not in self._owners:
                return self._advertiser.announce(address)
        return None

    def answer(self, frame: bytes, now: float) -> Sequence[bytes]:
        """Give the frames to be sent in return for one."""
        message = parse(frame)
        if message is None or self._advertiser is None or message.frame_source == self._link_layer:
            return ()
        kind, _, source, target, reply_to = message
        if kind == ADVERTISEMENT or source == UNSPECIFIED:
            # He has it, or is about to: detecting duplicates is how a node claims an address (RFC 4862, 5.4).
            self._see(target)
            return ()
        self._see(source)
        known = target in self._asked
        self._remember(target, now)
        if self._answers_for(target):
            return self._reply(self._advertiser.answer(reply_to, source, target), target, now, known=known)
        return ()

    def _reply(self, answer: bytes, target: int, now: float, *, known: bool) -> Sequence[bytes]:
        """Give the answer, or a solicitation of ours, or both."""
        may_solicit = now >= self._may_solicit_at
        if target in self._owners:
            if may_solicit and self._owners.doubt(target, now):
                return (self._solicit(target, now),)
            return () if target in self._owners else (answer,)
        if known or not may_solicit:
            return (answer,)
        # Somebody may have it and have kept silent so far. His answer prevails over ours, and tells us.
        return answer, self._solicit(target, now)

    def _solicit(self, target: int, now: float) -> bytes:
        assert self._advertiser
        self._may_solicit_at = now + SOLICIT_PACE
        return self._advertiser.solicit(target)

    def _answers_for(self, address: int) -> bool:
        return address in self._spans and address not in self._own

    def _see(self, address: int) -> None:
        if self._answers_for(address):
            self._owners.see(address)

    def _remember(self, address: int, now: float) -> None:
        self._asked[address] = now
        self._asked.move_to_end(address)
        if len(self._asked) > MOST_ASKED:
            self._asked.popitem(last=False)
