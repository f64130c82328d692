"""Addresses that other nodes of the link own, as far as we know.

Nothing on a link is authenticated: anybody may claim anything. So a claim holds for as long as its owner
answers for it: asked for such an address we keep silent and ask for it ourselves, and what nobody answers
for is nobody's. There is room for many claims and no more; who makes a flood of them drives real ones out,
and then owners are found anew when they are asked for, and prevail by the override flag meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MOST = 4096
"""Addresses that are kept in mind; those that were not seen for longest go first."""

PATIENCE = 0.9
"""Seconds that an owner has to answer: a little less than those between two solicitations (RFC 4861, 10:
RETRANS_TIMER), so that every one of a router's may have one of ours follow."""

MOST_UNANSWERED = 2
"""Solicitations of ours without an answer, after which an address is nobody's. A router sends three."""


@dataclass(slots=True)
class _Claim:
    asked: float = float("-inf")
    unanswered: int = 0


class Owners:
    """Who else owns what; `now` is of a clock that never goes back."""

    def __init__(self) -> None:
        self._claims: OrderedDict[int, _Claim] = OrderedDict()

    def see(self, address: int) -> None:
        """Take note that another node has the address."""
        self._claims[address] = _Claim()
        self._claims.move_to_end(address)
        if len(self._claims) > MOST:
            self._claims.popitem(last=False)

    def __contains__(self, address: int) -> bool:
        return address in self._claims

    def __len__(self) -> int:
        return len(self._claims)

    def doubt(self, address: int, now: float) -> bool:
        """Take note that the address, which somebody has, is asked for; say whether to ask for it as well.

        One that has been asked for in vain is nobody's from here on.
        """
        claim = self._claims[address]
        if now < claim.asked + PATIENCE:
            return False
        if claim.unanswered >= MOST_UNANSWERED:
            del self._claims[address]
            return False
        claim.asked = now
        claim.unanswered += 1
        return True
