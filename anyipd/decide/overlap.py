"""Overlapping delegations: which of them keeps the addresses that both hold.

A superseded one loses only its subnets inside the other, and none to what another uplink delegated since.
Any other loser is refused whole, and stays so when it is superseded: what was never bound does not begin to
be when it is as good as over. A renewal never changes the order, since that goes by when a series of grants
began. One that the latest Reply left out so far counts as superseded here: within the time until that is
judged nothing else of it may go.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice, takewhile
from operator import attrgetter

from anyipd.decide.ledger import KERNEL
from anyipd.model import Assigned, Delegation, DelegationState, Prefix


def without_overlaps(delegations: Sequence[Delegation], links: Collection[str]) -> list[Delegation]:
    """Mark as REFUSED what lost all its addresses to another delegation; `links` are those that exist.

    What is usable afterwards overlaps at most with delegations that yield: see `yielded`.
    """
    held = dict(_held(delegations, links))
    usable = [each for each in delegations if each.is_usable and not each.yields and each.prefix not in held]
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
    losers = held
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


def _held(delegations: Iterable[Delegation], links: Collection[str]) -> Iterator[tuple[Prefix, Delegation]]:
    """Yield the prefixes of leases that may not take what yields, and what that is."""
    leases = [each for each in delegations if each.is_usable and each.source != KERNEL]
    yielding = {each.prefix: each for each in leases if each.yields}
    ordered, lengths = sorted(yielding), {prefix.length for prefix in yielding}
    for each in leases if yielding else ():
        prefix = each.prefix
        around = [prefix._replace(length=length).masked() for length in lengths if length < prefix.length]
        inside = takewhile(prefix.covers, islice(ordered, bisect_left(ordered, prefix), None))
        for found in chain((yielding[one] for one in around if one in yielding), map(yielding.get, inside)):
            if found and found.began < each.began and not _displaces(each, found, links):
                yield prefix, found
                break


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
    """Whether what began later takes addresses over: from its own uplink, or from one that is gone.

    Of several uplinks that the earlier one is told on it is the first's: else a second uplink's server would
    tell of the same prefix, and then of one around it.
    """
    if earlier.source == KERNEL:
        return later.source != KERNEL
    if later.source == KERNEL:
        return False
    incumbent = earlier.uplink  # one that exists, if any does
    if incumbent is None:
        return False
    return incumbent in later.uplinks or (bool(links) and incumbent not in links)
