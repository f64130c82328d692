"""What a later Reply left out: of what one client was granted on one uplink.

The Reply that grants one prefix of an IA_PD and not another supersedes the other (RFC 9096). So does one to a
client that started anew, or after the link had lost its carrier, whatever the IAID.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple

from anyipd.model import Lease

if TYPE_CHECKING:  # the ledger knows this module
    from anyipd.decide.ledger import Record


class LeftOut(NamedTuple):
    """A record, one that was granted instead, and when that Reply was reported last (CLOCK_BOOTTIME)."""

    record: Record
    by: Record
    finished: float


def left_out(granted: Collection[Record], carrier: float) -> Iterator[LeftOut]:
    """Yield what was left out of `granted`; `carrier` is when the uplink got its carrier back."""
    finished: dict[_Reply, float] = {}
    for record in granted:
        written, reply = record.lease.written, _reply(record.lease)
        finished[reply] = max(written, finished.get(reply, written))
    if len(finished) == 1:  # one Reply granted all
        return
    later = _Later(granted, carrier)
    for record in granted:
        by = later.than(record)
        if by:
            yield LeftOut(record, by, finished[_reply(by.lease)])


_Reply = tuple[float, str | None]


def _reply(lease: Lease) -> _Reply:
    """Return what is the same in all reports of one Reply: dhclient may start twice within one second."""
    return lease.reply, lease.instance


class _Later:
    """Finds what should have been granted together, among what one client was granted on one uplink."""

    def __init__(self, granted: Collection[Record], carrier: float) -> None:
        self._carrier = carrier
        by_written = sorted(granted, key=lambda record: record.lease.written)
        self._last = by_written[-1]
        self._of_exchange = {_exchange(record.lease): record for record in by_written}
        by_start = sorted(granted, key=lambda record: record.instance_since)
        self._of_instance = {record.lease.instance: record for record in by_start}

    def than(self, record: Record) -> Record | None:
        """Return a record that a later Reply granted, where that should have granted `record` too."""
        lease = record.lease
        candidates = [self._of_exchange[_exchange(lease)]] if _exchange(lease) is not None else []
        # With another IAID it says so only where the exchange began anew.
        if lease.written < self._carrier < self._last.lease.written:
            candidates.append(self._last)
        if lease.instance is not None:
            candidates += [
                other
                for instance, other in self._of_instance.items()
                if instance not in {None, lease.instance} and other.instance_since > lease.written
            ]
        later = [
            other
            for other in candidates
            if _reply(other.lease) != _reply(lease) and other.lease.written > lease.written
        ]
        return max(later, key=lambda other: other.lease.written, default=None)


def _exchange(lease: Lease) -> tuple[str | None, str] | None:
    """Return what is the same in all that one Reply should grant: DUID and IAID; networkd's is the link's."""
    iaid = "" if lease.client == "networkd" else lease.iaid
    return None if iaid is None else (lease.duid, iaid)
