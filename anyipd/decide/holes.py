"""Holes: parts of bound subnets that are left to other routes. Pure.

A local route covers its subnet whole, and table local is looked up first. So for IPv6 a throw route in there
hands a hole on to table main. IPv4 is bound around its holes instead (see `covers`): while no rule was ever
added, a throw does no more there than make the address unreachable.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import attrgetter

from anyipd.decide.gaps import Span
from anyipd.model import Assigned, Prefix, Subnets, SubnetState

MAX_NAMED = 4
"""Holes that are named, where it is people who read."""


def is_in_hole(prefix: Prefix, length: int, holes: Sequence[Prefix]) -> bool:
    """Whether a prefix lies whole in a hole of the subnet of a length that is around it.

    `holes` are in order.
    """
    below = prefix._replace(address=prefix.address % (1 << prefix.width - length))
    at = bisect_right(holes, below.address, key=attrgetter("address")) - 1
    return at >= 0 and holes[at].covers(below)


def holes(run: Subnets) -> Iterator[Prefix]:
    """Return the holes of each subnet of a run, in order."""
    return run.parts(run.holes)


def as_written(run: Subnets) -> list[str]:
    """Return the holes of each subnet of a run as `except:` has them: of a static prefix they are whole."""
    return list(map(str, run.holes if run.delegation else holes(run)))


def holes_text(run: Subnets) -> str:
    """Name them, and of many how many there are."""
    more = f" and {len(run.holes) - MAX_NAMED} more" if len(run.holes) > MAX_NAMED else ""
    return ", ".join(as_written(run)[:MAX_NAMED]) + more


def spans(run: Subnets) -> Iterator[Span]:
    """Yield what of a run's addresses is outside its holes, in order."""
    if run.first:
        start = run.first.address
        for hole in holes(run):
            if start < hole.address:
                yield Span(start, hole.address)
            start = hole.end
        end = run.first.address + run.count * run.first.size
        if start < end:
            yield Span(start, end)


def throws(subnets: Iterable[Subnets]) -> dict[Prefix, None]:
    """Return the throw routes that the wanted subnets take; these ignore lifetimes."""
    return dict.fromkeys(hole for hole in _wanted(subnets) if hole.width == 128)  # noqa: PLR2004  the width of IPv6


def hole_discards(
    subnets: Iterable[Subnets], next_hops: Collection[Prefix], assigned: Iterable[Assigned]
) -> dict[Prefix, None]:
    """Return the discard routes over holes: without one, packets to an unused hole would loop.

    None is over a next hop, or over what a shorter route of table main leads to a link: it would win.
    """
    found = list(_wanted(subnets))
    if not found:
        return {}
    reached = {each.prefix for each in assigned if each.table is None}
    lengths = sorted({each.length for each in reached})

    def is_reached(hole: Prefix) -> bool:
        return any(
            hole._replace(length=length).masked() in reached for length in lengths if length < hole.length
        )

    return dict.fromkeys(hole for hole in found if hole not in next_hops and not is_reached(hole))


def _wanted(subnets: Iterable[Subnets]) -> Iterator[Prefix]:
    for each in subnets:
        if each.holes and each.state is SubnetState.WANTED:
            yield from holes(each)
