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
    return gone | {
        name: _seen(before.get(name), link, now, known=name in kept) for name, link in links.items()
    }


def _seen(before: Carrier | None, link: Link, now: float, *, known: bool) -> Carrier:
    # It may have come and gone between two looks. Another link of the same name is as good as a lost carrier,
    # and so is one that comes when somebody reported on it before.
    # What kind of link it is does not matter, nor does the ledger file know.
    differs = link[:2] != before.link[:2] if before else known
    came_back = link.carrier_changes is not None and differs
    return Carrier(link, now if came_back else before.since if before else -INFINITE)
