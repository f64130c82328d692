"""Overlapping delegations: which of them keeps the addresses that both hold.

A superseded one loses only its subnets inside the other; any other loser is refused whole. It stays so when
it is superseded: what was never bound does not begin to be when it is as good as over. A renewal never
changes the order, since that goes by when a series of grants began. One that the latest Reply left out so
far counts as superseded here: within the time until that is judged nothing else of it may go.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from operator import attrgetter

from anyipd.decide.ledger import KERNEL
from anyipd.model import Assigned, Delegation, DelegationState, Prefix


def without_overlaps(delegations: Sequence[Delegation], links: Collection[str]) -> list[Delegation]:
    """Mark as REFUSED what lost all its addresses to another delegation; `links` are those that exist.

    What is usable afterwards overlaps at most with delegations that yield: see `yielded`.
    """
    usable = [each for each in delegations if each.is_usable and not each.yields]
    kept: list[Delegation] = []
    refused: list[Delegation] = []
    # As it happened: a lease goes before a mere route, and then who came first.
    for each in sorted(usable, key=lambda each: (each.source == KERNEL, *_began(each))):
        rivals = _overlapping(kept, each.prefix)
        if all(_displaces(each, rival, links) for rival in rivals):
            refused += rivals
            for rival in rivals:
                kept.remove(rival)
            insort(kept, each, key=attrgetter("prefix"))
        else:
            refused.append(each)
    losers: dict[Prefix, Delegation] = {}
    for each in refused:
        if rivals := _overlapping(kept, each.prefix):
            losers[each.prefix] = rivals[0]
        else:  # who took its addresses lost them to a third
            insort(kept, each, key=attrgetter("prefix"))
    for each in delegations:
        if each.is_usable and each.yields:
            before = [rival for rival in _overlapping(kept, each.prefix) if _began(rival) < _began(each)]
            if rivals := [rival for rival in before if not _displaces(each, rival, links)]:
                losers[each.prefix] = rivals[0]
    return [_refused(each, losers[each.prefix]) if each.prefix in losers else each for each in delegations]


def yielded(delegation: Delegation, delegations: Iterable[Delegation]) -> Iterator[Assigned]:
    """Yield what a delegation that yields loses: what others hold of its addresses."""
    if delegation.yields:
        for other in delegations:
            later = _began(other) > _began(delegation)
            wins = other.is_usable and (not other.yields or later)
            if wins and other.prefix != delegation.prefix and other.prefix.overlaps(delegation.prefix):
                yield Assigned(other.prefix, "delegated since")


def _overlapping(kept: Sequence[Delegation], prefix: Prefix) -> list[Delegation]:
    """Return those of `kept`, which are in order and do not overlap, that share addresses with a prefix."""
    place = bisect_left(kept, prefix, key=attrgetter("prefix"))
    inside = takewhile(lambda each: each.prefix.overlaps(prefix), islice(kept, place, None))
    around = [each for each in kept[max(place - 1, 0) : place] if each.prefix.overlaps(prefix)]
    return [*around, *inside]


def _refused(loser: Delegation, winner: Delegation) -> Delegation:
    where = winner.uplink or "an unknown uplink"
    if loser.source == KERNEL and winner.source != KERNEL:
        why = "which is leased"
    elif _began(winner) > _began(loser):
        why = f"which was delegated later on {where}"
    else:
        why = f"which was delegated before on {where}"
    return replace(loser, state=DelegationState.REFUSED, reason=f"overlaps {winner.prefix}, {why}")


def _began(delegation: Delegation) -> tuple[float, Prefix]:
    """Return what orders delegations by when they began."""
    return delegation.began, delegation.prefix


def _displaces(later: Delegation, earlier: Delegation, links: Collection[str]) -> bool:
    """Whether what began later takes addresses over: from its own uplinks, or from ones that are gone.

    Every uplink that the earlier one was told on must tell of the later one too. Else whoever runs one of
    them would tell of another's prefix first, and then of a part of it.
    """
    if earlier.source == KERNEL:
        return later.source != KERNEL
    if later.source == KERNEL:
        return False
    present = {uplink for uplink in earlier.uplinks if uplink is None or not links or uplink in links}
    return present <= later.uplinks - {None}
