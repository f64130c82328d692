"""Addresses that other nodes of the link own, as far as we know.

Nothing on a link is authenticated: anybody may claim anything. So a claim is worth one question and no more.
When somebody solicits a claimed address we solicit it as well, and keep silent for as long as its owner may
take to answer. Who answers is the owner, until two questions in a row had no answer. Who does not answer is
none: we answer again, and for a while further claims of that address silence us no more. Each has us ask
once, so a real owner who comes then is found.

A claim pays for one question, an answer for the next. A second question is at our own expense, like the one
about an address that nobody solicited before; these are paced. Where we cannot ask, we answer: a real owner
prevails by the override flag, which our answers lack.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MAX_CLAIMS = 4096
"""Claims that are kept in mind until somebody solicits the address; the oldest go first."""

MAX_QUESTIONS = 4096
"""Addresses that we asked for and keep in mind. Where there is no room, the oldest goes if `DISBELIEF` has
passed; if not, another claim neither has us ask nor silences us. So no flood drives out what we found out."""

ANSWER_TIMEOUT = 0.9
"""Seconds that an owner has to answer: a little less than those between two solicitations (RFC 4861, 10:
RETRANS_TIMER), so that every one of a router's may have one of ours follow."""

DISBELIEF = 60.0
"""Seconds for which claims of an address do not silence us after nobody answered for it."""


@dataclass(slots=True)
class _Question:
    """A solicitation of ours: when; whether we keep silent meanwhile; whether a second one may follow."""

    at: float
    believed: bool
    again: bool
    answered: bool = False


class Owners:
    """Who else owns what; `now` is of a clock that never goes back."""

    def __init__(self) -> None:
        self._claims: OrderedDict[int, None] = OrderedDict()
        self._questions: OrderedDict[int, _Question] = OrderedDict()  # the oldest first

    def claim(self, address: int) -> None:
        """Take note that another node says that it has the address."""
        self._claims[address] = None
        self._claims.move_to_end(address)
        if len(self._claims) > MAX_CLAIMS:
            self._claims.popitem(last=False)

    def confirm(self, address: int, now: float) -> None:
        """Take note that another node says so in answer to a solicitation of ours; unasked, it is a claim."""
        question = self._questions.get(address)
        if question and now < question.at + ANSWER_TIMEOUT:
            question.believed = question.answered = True
        else:
            self.claim(address)

    def know_of(self, address: int) -> bool:
        """Say whether anything is known of the address: where not, nobody else has it."""
        return address in self._claims or address in self._questions

    def __len__(self) -> int:
        return len(self._claims) + len(self._questions)

    def may_have(self, address: int, now: float) -> bool:
        """Say whether somebody claims the address, or owns it, as far as we know without asking."""
        if address in self._claims:
            return True
        question = self._questions.get(address)
        return question is not None and (
            question.answered or (question.believed and now < question.at + ANSWER_TIMEOUT)
        )

    def doubt(self, address: int, now: float, *, spare: bool) -> tuple[bool, bool]:
        """Take note that the address is solicited; say whether to keep silent, and whether to solicit it too.

        `spare` says whether a question may be at our own expense. One that is wanted is taken as sent.
        """
        last = self._questions.get(address)
        if last and now < last.at + ANSWER_TIMEOUT:
            return last.believed, False
        if last and last.answered:
            question = _Question(now, believed=True, again=True)
        elif last and last.again and spare:
            question = _Question(now, believed=True, again=False)
        elif address in self._claims and (last or self._has_room(now)):
            del self._claims[address]
            believed = last is None or now >= last.at + DISBELIEF
            question = _Question(now, believed=believed, again=believed)
        else:
            if last:
                last.again = False  # whom we answered once for want of an owner we answer again
            return False, False
        self._questions[address] = question
        self._questions.move_to_end(address)
        return question.believed, True

    def _has_room(self, now: float) -> bool:
        """Say whether another address can be kept in mind; make room where the oldest may go."""
        if len(self._questions) < MAX_QUESTIONS:
            return True
        address, oldest = next(iter(self._questions.items()))
        if now < oldest.at + DISBELIEF:
            return False
        del self._questions[address]
        return True
