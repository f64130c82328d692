"""What the records of a ledger come to: one `Delegation` for each prefix that is delegated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from heapq import nsmallest

from anyipd.decide.ledger import KERNEL, LIVE, Ledger, Record, State
from anyipd.model import INFINITE, Delegation, DelegationState, Prefix


def delegations(
    ledger: Ledger,
    now: float,
    accepts: Callable[[str | None], bool] = lambda _: True,
    max_bare: int | None = None,
) -> list[Delegation]:
    """Return what is delegated at `now` (seconds of CLOCK_BOOTTIME), in the order of the prefixes.

    `accepts` says which uplinks may tell: what an accepted one reports goes before what another does. Of
    those that only a route tells of no more than `max_bare` count, the first ones.
    """
    reports: defaultdict[Prefix, list[Record]] = defaultdict(list)
    for record in ledger.records:
        if record.state in LIVE:
            reports[record.lease.prefix].append(record)
    bare: dict[Prefix, float] = {}
    for route, added in ledger.routes.items():
        if ledger.speaks(route):
            bare[route.prefix] = max(added, bare.get(route.prefix, -INFINITE))
    alone = [prefix for prefix in bare if prefix not in reports]
    if max_bare is not None and len(alone) > max_bare:
        alone = nsmallest(max_bare, alone, key=lambda prefix: (bare[prefix], prefix))
    return [
        _merged(
            ledger,
            [each for each in reports[prefix] if accepts(each.lease.uplink)] or reports[prefix],
            now,
            unknown=prefix in bare,
        )
        if prefix in reports
        else Delegation(prefix, KERNEL, DelegationState.GRANTED, began=bare[prefix])
        for prefix in sorted({*reports, *alone})
    ]


def _merged(ledger: Ledger, records: list[Record], now: float, *, unknown: bool) -> Delegation:
    """Make one delegation of what several report; with `unknown`, how long it is valid is not known."""
    shown = min(records, key=partial(_order, ledger))
    granted = [record for record in records if record.state is State.GRANTED]
    preferred = _last(record.lease.preferred_until for record in granted) if granted else None
    state, reason = DelegationState.GRANTED, None
    if not granted and not unknown:
        last = max(records, key=lambda record: record.since)
        state, preferred = DelegationState.SUPERSEDED, last.since
        reason = f"superseded by {last.superseded_by}"
    elif preferred is not None and preferred <= now:
        state = DelegationState.DEPRECATED
    doubts = [_doubt(ledger, record) for record in records if record.until == INFINITE]
    if doubts and all(doubts):
        reason = reason or f"nobody confirms it: {doubts[0]}"
        reason += f"; it never expires: `anyipctl forget {shown.lease.prefix}` ends it"
    # What is over and still here is held, since its client cannot be understood.
    valid = max(record.until for record in records)
    # Another uplink's server may tell of it too, and must not take a part of it out of use.
    excluding = [
        lease
        for lease in (record.lease for record in records)
        if lease.exclude and (lease.uplink == shown.lease.uplink or not ledger.exists(lease.uplink))
    ]
    return Delegation(
        prefix=shown.lease.prefix,
        source=shown.lease.client,
        state=state,
        uplink=shown.lease.uplink,
        iaid=shown.lease.iaid,
        preferred_until=preferred,
        valid_until=None if unknown or valid <= now else valid,
        began=shown.began,
        uplinks=frozenset(record.lease.uplink for record in records),
        exclude=max(excluding, key=lambda lease: lease.written).exclude if excluding else None,
        reason=reason,
        left_out=bool(granted) and not unknown and all(ledger.is_to_judge(record) for record in granted),
    )


def _order(ledger: Ledger, record: Record) -> tuple[bool, float, str, str]:
    """Order the records of a prefix: the series that began first is shown, if its link exists."""
    lease = record.lease
    return not ledger.exists(lease.uplink), record.began, lease.client, lease.uplink or ""


def _doubt(ledger: Ledger, record: Record) -> str | None:
    """Return why nobody confirmed a record since, though its client may still be there."""
    if record.state is State.SUPERSEDED:
        return f"{record.superseded_by} was granted instead"
    uplink = record.lease.uplink
    if uplink is None:
        return None
    if not ledger.exists(uplink):
        return f"{uplink} is gone"
    carrier = ledger.carriers.get(uplink)
    if carrier and (carrier.link.carrier_changes is None or record.lease.written < carrier.since):
        return f"{uplink} lost its carrier"
    return None


def _last(deadlines: Iterable[float | None]) -> float | None:
    known = list(deadlines)
    return None if None in known else max(end for end in known if end is not None)
