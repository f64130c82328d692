"""Checks of what a policy says of the inside of subnets: the host's own address, and holes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from anyipd.model import MAX_WITH_HOLES, Prefix, address_text

if TYPE_CHECKING:
    from anyipd.policy import Static, SubnetPolicy
    from anyipd.yaml_position import Loc

MAX_HOLES = 256
"""Holes of an entry: each is a route in each of its subnets."""


def own_address_mistakes(subnets: Mapping[int, SubnetPolicy]) -> Iterator[tuple[Loc, str]]:
    """Yield the mistakes in `address:`: where, and what was found and expected."""
    for i, s in subnets.items():
        if s.address is None:
            continue
        found, loc = address_text(s.address), ("subnets", i, "address")
        if s.address >> (128 - s.length):
            yield (
                loc,
                f"found {found}; at most {128 - s.length} bits, which a /{s.length} leaves to its hosts",
            )
        if s.count is not None:
            yield loc, f"found {found} beside `count`; one of the two"
        if not s.bind:
            yield loc, f"found {found} beside `bind: false`; one of the two"
        for hole in s.holes:
            if hole.covers(Prefix(s.address, 128)):
                yield loc, f"found {found}, which is in the hole {hole}; one outside of `except`"


def hole_mistakes(
    subnets: Mapping[int, SubnetPolicy], static: Mapping[int, Static]
) -> Iterator[tuple[Loc, str]]:
    """Yield the mistakes in `except:`: where, and what was found and expected."""
    for i, entry in subnets.items():
        if not entry.holes:
            continue
        loc: Loc = ("subnets", i, "except")
        if entry.count == "all" or (entry.count or 1) > MAX_WITH_HOLES:
            yield loc, f"found holes beside `count: {entry.count}`; a count of {MAX_WITH_HOLES} at most"
        if not entry.bind and not entry.neighbours:
            yield loc, "found holes beside `bind: false`; a subnet that is bound, or has `neighbours`"
        yield from _of_entry(loc, entry.holes, Prefix(0, entry.length), "the bits below the subnet")
    for i, each in static.items():
        if each.holes:
            yield from _of_entry(("static", i, "except"), each.holes, each.prefix, f"a part of {each.prefix}")


def _of_entry(loc: Loc, holes: Sequence[Prefix], around: Prefix, expected: str) -> Iterator[tuple[Loc, str]]:
    if len(holes) > MAX_HOLES:
        yield loc, f"found {len(holes)} holes; at most {MAX_HOLES}"
        return
    inside = []
    for i, hole in enumerate(holes):
        if hole.width != around.width or not around.overlaps(hole):
            yield (*loc, i), f"found {hole}; {expected}"
        elif hole.length <= around.length:
            yield (*loc, i), f"found {hole}; a prefix longer than /{around.length}"
        else:
            inside.append((hole, i))
    clear = True
    for (hole, i), (other, j) in pairwise(sorted(inside)):
        if hole.overlaps(other):
            clear = False
            later, earlier = max(i, j), min(i, j)
            yield (*loc, later), f"found {holes[later]}, which overlaps {holes[earlier]}; one of the two"
    if clear and sum(hole.size for hole, _ in inside) == around.size:
        yield loc, "found holes that leave nothing; a part of the subnet at most"
