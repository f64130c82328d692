"""Since when each link has its carrier: what an exchange leaves out after it came back is superseded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from anyipd.model import INFINITE, Link


class Carrier(NamedTuple):
    """What was last seen of the carrier of a link with this interface index.

    `changes` is how often it came or went, None while it is away; `since` is when it was seen to be back, in
    seconds of CLOCK_BOOTTIME, and -INFINITE where it was never seen to be lost.
    """

    index: int
    changes: int | None
    since: float


def carriers(
    before: Mapping[str, Carrier], links: Mapping[str, Link], kept: Collection[str], now: float
) -> dict[str, Carrier]:
    """Return what is seen of all `links` at `now`; of links that are gone the names in `kept` stay."""
    gone = {name: before[name]._replace(changes=None) for name in before.keys() & kept - links.keys()}
    return gone | {name: _seen(before.get(name), link, now) for name, link in links.items()}


def _seen(before: Carrier | None, link: Link, now: float) -> Carrier:
    changes = link.carrier_changes if link.has_carrier else None
    since = before.since if before else -INFINITE
    # It may have come and gone between two looks; and another link of the same name is as good as a lost carrier.
    came_back = before is not None and (before.index, before.changes) != (link.index, changes)
    return Carrier(link.index, changes, now if came_back and link.has_carrier else since)
