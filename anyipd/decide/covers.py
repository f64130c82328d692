"""Covers: the fewest prefixes that hold exactly a range of addresses. Each becomes one local route. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter

from anyipd.decide.gaps import Gaps, Span
from anyipd.decide.holes import spans
from anyipd.model import Prefix, Subnets, SubnetState

Wanted = Mapping[Prefix, float | None]
"""Wanted routes of one table: each destination, and until when, as in `Delegation`."""


def local_routes(subnets: Iterable[Subnets], taken: Collection[Prefix] = ()) -> dict[Prefix, float | None]:
    """Return the fewest routes that bind the wanted subnets, and nothing beside them.

    Adjacent subnets share routes where they are of one entry, one delegation and one deadline. `taken` are
    the destinations of foreign routes: one in our place keeps it, one inside ours would win. So no route of
    ours has one of them inside, except for those inside a subnet. Where one is a subnet's own, that subnet is
    not wanted. IPv4 is bound around its holes: see `holes`.
    """
    found: dict[Prefix, float | None] = {}
    for start, end, each in _ranges(subnets):
        assert each.first
        _, length, width = each.first
        if each.holes and width == 32:  # noqa: PLR2004  the width of IPv4
            for around in spans(each):
                found |= dict.fromkeys(covers(around, width), each.valid_until)
        elif end - start == 1 << width - length:
            found[each.first] = each.valid_until
        else:
            shorter = sorted(prefix for prefix in taken if prefix.length < length and prefix.width == width)
            found |= dict.fromkeys(covers(Span(start, end), width, shorter), each.valid_until)
    return found


def _ranges(subnets: Iterable[Subnets]) -> Iterator[tuple[int, int, Subnets]]:
    """Yield each range of adjacent wanted subnets: its first address, the one behind it, its first run."""
    # There may be thousands, so nothing is looked up twice here.
    state = SubnetState.WANTED
    wanted = [each for each in subnets if each.state is state]
    last, start, end = None, 0, 0
    for each in sorted(wanted, key=attrgetter("first")):
        assert each.first
        address, length, width = each.first
        if not (last and address == end and _share_a_fate(last, each)):
            if last:
                yield start, end, last
            last, start = each, address
        end = address + (each.count << width - length)
    if last:
        yield start, end, last


def _share_a_fate(one: Subnets, other: Subnets) -> bool:
    return (
        one.name == other.name and one.delegation == other.delegation and one.valid_until == other.valid_until
    )


def covers(span: Span, width: int, taken: Sequence[Prefix] = ()) -> Iterator[Prefix]:
    """Yield, in order, the fewest prefixes that hold the addresses of a span and have none of `taken` inside.

    `taken` is in order, and every address of the span is in a prefix that has none of them inside.
    """
    start, end = span
    while start < end:
        size = 1 << (end - start).bit_length() - 1
        while start % size or _holds_one(taken, start, size, width):
            size >>= 1
        yield Prefix(start, width + 1 - size.bit_length(), width)
        start += size


def _holds_one(taken: Sequence[Prefix], start: int, size: int, width: int) -> bool:
    low, high = (bisect_left(taken, (address,)) for address in (start, start + size))
    return any(width - each.length < size.bit_length() for each in taken[low:high])


def addresses(prefixes: Iterable[Prefix], besides: Iterable[Prefix] = ()) -> dict[int, Gaps]:
    """Return the addresses that are in some of `prefixes` and in none of those `besides`, by their width."""
    found: defaultdict[int, Gaps] = defaultdict(Gaps)
    for each in prefixes:
        found[each.width].add(each.address, each.end)
    for each in besides:
        found[each.width].remove(each.address, each.end)
    return found
