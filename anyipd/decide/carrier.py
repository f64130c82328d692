"""Since when each link has its carrier: what an exchange leaves out after it came back is superseded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from anyipd.model import INFINITE, Link


class Carrier(NamedTuple):
    """What was last seen of the carrier of a link, and since when it is back.

    `since` is in seconds of CLOCK_BOOTTIME, -INFINITE where it was never seen to be lost.
    """

    link: Link
    since: float


def carriers(
    before: Mapping[str, Carrier], links: Mapping[str, Link], kept: Collection[str | None], now: float
) -> dict[str, Carrier]:
    """Return what is seen of all `links` at `now`; of links that are gone, those named in `kept` stay."""
    gone = {name: each for name, each in before.items() if name in kept and name not in links}
    return gone | {name: _seen(before.get(name), link, now) for name, link in links.items()}


def _seen(before: Carrier | None, link: Link, now: float) -> Carrier:
    if before is None:
        return Carrier(link, -INFINITE)
    # It may have come and gone between two looks. Another link of the same name is as good as a lost carrier.
    came_back = link.carrier_changes is not None and link != before.link
    return Carrier(link, now if came_back else before.since)
