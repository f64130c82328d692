"""The ledger: the life of each delegation, by what DHCPv6 clients report and what stands in the kernel.

In: reports, discard routes, links, and the time. Out: records and routes, which delegations.py sums up.
Nothing here reads a clock. A record is what one client reports of one prefix on one uplink; what happens to
it stands in `TRANSITIONS`. What is not in there changes nothing: that a client gives up, loses its link,
crashes or falls silent takes nothing back, and the record ends with its valid lifetime. Time decides between
records, never their size, their names or how long they were granted for.

A discard route of a client's own names neither uplink nor lifetime. It is evidence where no record explains
it: one that stood while a lease for its prefix, or around it, was known never outlives that lease.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from itertools import chain
from operator import attrgetter

from anyipd.decide.carrier import Carrier, carriers
from anyipd.decide.left_out import LeftOut, left_out
from anyipd.model import INFINITE, Discard, Lease, Link, Prefix


class State(Enum):
    """What became of a record. What is GRANTED or SUPERSEDED is bound."""

    GRANTED = "granted"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class Event(Enum):
    """What happens to a record."""

    GRANT = auto()  # a Reply grants the prefix, with a valid lifetime above 0
    LEFT_OUT = auto()  # a later Reply of the same exchange grants another prefix, and not this one
    WITHDRAWAL = auto()  # a valid lifetime of 0, a Release, or the operator's word
    END = auto()  # the valid lifetime is over


TRANSITIONS: Mapping[tuple[State | None, Event], State] = {
    (None, Event.GRANT): State.GRANTED,
    (State.GRANTED, Event.GRANT): State.GRANTED,  # the series goes on; all other grants begin one
    (State.SUPERSEDED, Event.GRANT): State.GRANTED,
    (State.WITHDRAWN, Event.GRANT): State.GRANTED,
    (State.EXPIRED, Event.GRANT): State.GRANTED,
    (State.GRANTED, Event.LEFT_OUT): State.SUPERSEDED,
    (None, Event.WITHDRAWAL): State.WITHDRAWN,
    (State.GRANTED, Event.WITHDRAWAL): State.WITHDRAWN,
    (State.SUPERSEDED, Event.WITHDRAWAL): State.WITHDRAWN,
    (State.WITHDRAWN, Event.WITHDRAWAL): State.WITHDRAWN,
    (State.EXPIRED, Event.WITHDRAWAL): State.WITHDRAWN,
    (State.GRANTED, Event.END): State.EXPIRED,
    (State.SUPERSEDED, Event.END): State.EXPIRED,
}

LIVE = {State.GRANTED, State.SUPERSEDED}

JUDGED_AFTER = 0.3
"""Seconds after the last report of a Reply until what it left out is superseded: reports come one by one."""

CLOCK_STEP = 5.0
"""Seconds by which the wall clock must have been set back for an older Reply to be the later one."""

MAX_NEW = 64
"""Records of an uplink that are taken in above the limit until it is judged which of all stay."""

MAX_ENDED = 256
"""Records of an uplink kept that are withdrawn or expired: each says that a route or a late report means
nothing, so no other uplink's server may drive it out."""

KERNEL = "kernel"
"""The source of a delegation that only a discard route tells of."""

HOOK_METRIC, ALONE_METRIC = 1025, 1026
"""Metrics of the hooks' messages: beside a lease file, which says it all, and where none could be written."""

HOOK_METRICS = HOOK_METRIC, ALONE_METRIC

Key = tuple[Prefix, str, str | None]
"""Prefix, client and uplink of a record."""


@dataclass(frozen=True, slots=True)
class Record:
    """What one client reports of one prefix on one uplink.

    `lease` is the last report that counted, `began` when the series of grants began, `since` when the record
    came into its state, `until` the deadline, kept when it is withdrawn, `instance_since` when
    the client's process reported it first. Times are seconds of CLOCK_BOOTTIME.
    """

    lease: Lease
    state: State
    began: float
    since: float
    until: float
    instance_since: float
    superseded_by: Prefix | None = None

    @property
    def key(self) -> Key:
        """Return what identifies the record."""
        return _key(self.lease)

    @property
    def ended(self) -> float:
        """Return when it ended or will end."""
        return self.until if self.state in LIVE else self.since


class Ledger:
    """All records and known routes. Every method that takes `now` wants seconds of CLOCK_BOOTTIME."""

    def __init__(
        self,
        records: Iterable[Record] = (),
        routes: Mapping[Discard, float] | None = None,
        fallen: Iterable[Discard] = (),
        carriers: Mapping[str, Carrier] | None = None,
    ) -> None:
        self.version = 0
        """Changes with everything that must survive."""
        self._records: dict[Key, Record] = {}
        self._keys: dict[Prefix, dict[Key, None]] = {}
        self._lengths: set[int] = set()
        for record in records:
            self._put(record)
        self._routes = dict(routes or {})
        self._fallen = self._routes.keys() & fallen
        self._metrics = {each.metric for each in self._routes}
        self._links: Mapping[str, Link] = {}
        self._carriers = dict(carriers or {})
        self._seen_routes = routes is not None
        self._due = -INFINITE
        self._to_judge: set[Key] = set()
        self._passed_over: dict[str | None, float] = {}
        self._dropped: set[Prefix] = set()  # by the last look
        self._explained: dict[Prefix, float] = {}  # reported until then, though there is no record of it

    @property
    def records(self) -> Collection[Record]:
        """Return every record, ended ones among them."""
        return self._records.values()

    @property
    def routes(self) -> Mapping[Discard, float]:
        """Return the known discard routes, and when each was added: -INFINITE where that was not seen.

        Of a message beside a lease file nothing is kept: it says nothing that the lease does not.
        """
        return self._routes

    @property
    def fallen(self) -> Collection[Discard]:
        """Return those of the routes that went with lo."""
        return self._fallen

    @property
    def carriers(self) -> Mapping[str, Carrier]:
        """Return what is known of the carriers of the uplinks."""
        uplinks = self._uplinks()
        return {name: each for name, each in self._carriers.items() if name in uplinks}

    # What is reported.

    @property
    def overfull(self) -> Collection[str | None]:
        """Return the uplinks on which more was reported than is taken in."""
        return self._passed_over.keys()

    def take(
        self,
        leases: Iterable[Lease],
        now: float,
        *,
        silent: Collection[str] = (),
        max_live: float = INFINITE,
    ) -> None:
        """Take in all reports at hand.

        `silent` are clients that are there, and cannot be understood. Of an uplink `max_live` records
        stay, for a server may delegate thousands of prefixes.
        """
        live = self._live()
        ended = len(self._records) - live.total()
        # A withdrawal may end what was reported on another uplink: before it, but not since.
        reported = sorted(leases, key=attrgetter("written", "prefix"))
        for lease in reported:
            known = self._records.get(_key(lease))
            if known and known.lease == lease:
                continue
            if self._due <= lease.written:  # it may be read late
                self.pass_time(lease.written, silent=silent)
            is_over = lease.valid_until <= now
            has_room = ended < MAX_ENDED if is_over else live[lease.uplink] < max_live + MAX_NEW
            if self._report(lease, now, has_room=has_room):
                ended += is_over
                live[lease.uplink] += not is_over
        self._due = -INFINITE
        self.pass_time(now, silent=silent)
        self._pass_over(max_live)
        self._explain(reported, now)

    def _explain(self, reported: Iterable[Lease], now: float) -> None:
        """Keep of the reports that there is no room for how long they explain a route."""
        self._explained |= {each.prefix: each.valid_until for each in reported}
        for prefix, until in list(self._explained.items()):
            if prefix in self._keys or (until <= now and not self._stands(prefix)):
                del self._explained[prefix]

    def _report(self, lease: Lease, now: float, *, has_room: bool) -> bool:
        """Take in a report; say whether it began a record."""
        record = self._records.get(_key(lease))
        if lease.lifetime == 0:
            if record is None or lease.written >= record.lease.written:
                self._withdraw(lease, now)
        elif record:
            if _is_later(lease, record):
                self._change(record, Event.GRANT, lease, now)
        elif lease.written > self._passed_over.get(lease.uplink, -INFINITE):
            if has_room:
                self._change(None, Event.GRANT, lease, now)
                return True
            if lease.valid_until > now:
                self._passed_over[lease.uplink] = lease.written
        return False

    def _live(self) -> Counter[str | None]:
        """Count the live records of each uplink."""
        return Counter(record.lease.uplink for record in self._records.values() if record.state in LIVE)

    def _pass_over(self, max_live: float) -> None:
        """Forget what is too much of an uplink, once all of it is judged, until it is reported again."""
        self._dropped = set()
        live = self._live()
        for uplink in [uplink for uplink in self._passed_over if live[uplink] < max_live]:
            del self._passed_over[uplink]
        for uplink in [uplink for uplink, count in live.items() if count > max_live]:
            records = [r for r in self._records.values() if r.lease.uplink == uplink and r.state in LIVE]
            if any(record.key in self._to_judge for record in records):
                continue
            records.sort(key=_seniority)
            for record in records[int(max_live) :]:
                self._drop(record)
                self._dropped.add(record.lease.prefix)
                before = self._passed_over.get(uplink, -INFINITE)
                self._passed_over[uplink] = max(before, record.lease.written)

    def _withdraw(self, lease: Lease, now: float) -> None:
        """End what this client reported on this uplink, and under the names of links that are gone."""
        key = _key(lease)
        self._change(self._records.get(key), Event.WITHDRAWAL, lease, now)
        for record in list(self._of(lease.prefix)):
            same = record.lease.client == lease.client and record.key != key
            if same and record.state in LIVE and not self.exists(record.lease.uplink):
                self._change(record, Event.WITHDRAWAL, record.lease, now)

    def forget(self, prefix: Prefix, now: float) -> bool:
        """End a delegation until it is granted again; return whether there was one."""
        known = [record for record in self._of(prefix) if record.state in LIVE]
        for record in known:
            self._change(record, Event.WITHDRAWAL, record.lease, now)
        standing = [each for each in self._routes if each.prefix == prefix and self.speaks(each)]
        if standing:
            said = Lease(prefix, KERNEL, None, None, now, 0, now, now)
            self._change(self._records.get((prefix, KERNEL, None)), Event.WITHDRAWAL, said, now)
        return bool(known or standing)

    def _change(
        self, record: Record | None, event: Event, lease: Lease, now: float, by: Prefix | None = None
    ) -> None:
        before = record.state if record else None
        after = TRANSITIONS.get((before, event))
        if after is None:
            return
        granted = event is Event.GRANT
        goes_on = granted and before is State.GRANTED
        until = lease.valid_until if granted or record is None else record.until
        since = until if event is Event.END else now
        same_instance = record and record.lease.instance == lease.instance
        self._put(
            Record(
                lease=lease,
                state=after,
                began=record.began if record and (goes_on or not granted) else lease.written,
                since=record.since if record and goes_on else since,
                until=until,
                instance_since=record.instance_since if record and same_instance else lease.written,
                superseded_by=by,
            )
        )

    # What stands in the kernel.

    def see_links(self, links: Mapping[str, Link], now: float) -> None:
        """Take note of the links that exist, as read from the kernel."""
        before, uplinks = self.carriers, self._uplinks()
        self._links = links
        self._carriers = carriers(self._carriers, links, uplinks, now)
        if self.carriers != before:
            self.version += 1

    def see_routes(self, standing: Collection[Discard], now: float) -> None:
        """Take note of all discard routes that stand, as read from the kernel."""
        self.version += 1
        # What was not there at the last reading was added since; at the first, nobody knows when.
        added = now if self._seen_routes else -INFINITE
        self._seen_routes = True
        routes = {each: self._routes.get(each, added) for each in standing if each.metric != HOOK_METRIC}
        before, self._routes, self._metrics = self._routes, routes, {each.metric for each in routes}
        self._fallen = {each for each in self._fallen if not self._stands(each.prefix)}
        self._routes |= {each: before[each] for each in self._fallen}
        self._metrics |= {each.metric for each in self._fallen}

    def route_added(self, route: Discard, now: float) -> None:
        """Take note that a client added a discard route, or replaced it by the same."""
        if route.metric == HOOK_METRIC:
            return
        self.version += 1
        again = {each for each in self._fallen if each.prefix == route.prefix}
        self._fallen -= again
        for each in again:  # one of another metric is not there any more
            self._routes.pop(each, None)
        self._routes[route] = now
        self._metrics.add(route.metric)

    def route_removed(self, route: Discard) -> None:
        """Take note that a discard route went, unless it went with lo."""
        self.version += 1
        if route not in self._fallen:
            self._routes.pop(route, None)

    def lo_fell(self) -> None:
        """Take note that lo took the routes along, which is no client's word."""
        self.version += 1
        self._fallen |= self._routes.keys()

    def is_stale(self, route: Discard) -> bool:
        """Whether a hook's message is left over: its lease is over, or there is one that says more."""
        if route.metric == ALONE_METRIC:
            return not self.speaks(route)
        return not any(record.state in LIVE for record in self._of(route.prefix))

    def _stands(self, prefix: Prefix) -> bool:
        """Whether a discard route over a prefix is known."""
        return any(Discard(prefix, metric) in self._routes for metric in self._metrics)

    def speaks(self, route: Discard) -> bool:
        """Whether a route is evidence by itself."""
        added = self._routes[route]
        if route.prefix in self._explained and added <= self._explained[route.prefix]:
            return False
        for record in self._around(route.prefix):
            if record.lease.client == KERNEL and record.lease.prefix != route.prefix:
                continue  # a mere route around it was forgotten, and no lease
            # A message that stands alone is as good as the report that could not be written down.
            reported = route.metric == ALONE_METRIC and record.state is not State.WITHDRAWN
            if added <= (record.lease.written if reported else record.ended):
                return False
        return True

    # What follows from that as time goes by.

    def pass_time(self, now: float, *, silent: Collection[str] = ()) -> None:
        """End what is over, and judge what the latest Replies left out, each when it was due."""
        while self._due < now:
            self._do_what_is_due(self._due, silent)
        self._do_what_is_due(now, silent)

    def _do_what_is_due(self, now: float, silent: Collection[str]) -> None:
        for record in list(self._records.values()):
            held = record.lease.client in silent and self._stands(record.lease.prefix)
            if record.until <= now and not held:
                self._change(record, Event.END, record.lease, now)
        judge_at, self._to_judge = INFINITE, set()
        for record, by, finished in list(self._left_out()):
            if finished + JUDGED_AFTER <= now:
                self._change(record, Event.LEFT_OUT, record.lease, now, by.lease.prefix)
            else:
                self._to_judge.add(record.key)
                judge_at = min(judge_at, finished + JUDGED_AFTER)
        ends = chain.from_iterable(
            (record.lease.preferred_until, record.until)
            for record in self._records.values()
            if record.state in LIVE
        )
        later = (end for end in ends if end is not None and end > now)
        self._due = min(chain(later, (judge_at,)))
        self._drop_ended()

    def _left_out(self) -> Iterator[LeftOut]:
        """Yield what later Replies left out, exchange by exchange."""
        exchanges: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
        for record in self._records.values():
            if record.state is State.GRANTED and record.lease.uplink is not None:
                exchanges[record.lease.client, record.lease.uplink].append(record)
        for (_, uplink), granted in exchanges.items():
            carrier = self._carriers.get(uplink)
            yield from left_out(granted, carrier.since if carrier else -INFINITE)

    def _drop_ended(self) -> None:
        uplinks: defaultdict[str | None, list[Record]] = defaultdict(list)
        for record in self._records.values():
            if record.state not in LIVE:
                uplinks[record.lease.uplink].append(record)
        for ended in uplinks.values():
            # What expired may be reported again, and is over all the same; what was withdrawn must stay so.
            ended.sort(key=lambda record: (record.state is State.WITHDRAWN, record.since))
            for record in ended[:-MAX_ENDED]:
                self._drop(record)

    def _drop(self, record: Record) -> None:
        self.version += 1
        del self._records[record.key]
        keys = self._keys[record.lease.prefix]
        del keys[record.key]
        if not keys:
            del self._keys[record.lease.prefix]

    # What is asked.

    def is_to_judge(self, record: Record) -> bool:
        """Whether a later Reply left it out so far."""
        return record.key in self._to_judge

    def holds(self, lease: Lease) -> bool:
        """Whether there is a record of what this lease is a report of."""
        return _key(lease) in self._records

    def remembers(self, prefix: Prefix) -> bool:
        """Whether anything was reported of a prefix, though it may be over."""
        return prefix in self._keys

    def ending(self, prefix: Prefix) -> tuple[str, str]:
        """Return what became of a prefix that is not delegated any more, and why."""
        ended = max(self._of(prefix), key=lambda record: record.since, default=None)
        if ended is None and (prefix in self._dropped or prefix in self._explained):
            return "passed over", "more is delegated on its uplink than is kept"
        if ended is None or ended.state in LIVE:
            return State.WITHDRAWN.value, "its discard route is gone"
        if ended.state is State.EXPIRED:
            return State.EXPIRED.value, "its valid lifetime is over"
        if ended.lease.lifetime == 0 and ended.lease.client != KERNEL:
            return State.WITHDRAWN.value, "the server or the client took it back"
        return State.WITHDRAWN.value, "forgotten by the operator"

    @property
    def next_deadline(self) -> float:
        """When something changes by itself: a lifetime ends, or what was left out is judged.

        It may be over by now, where that was while other things were looked at.
        """
        return self._due

    def _of(self, prefix: Prefix) -> Iterator[Record]:
        """Yield the records of a prefix."""
        return (self._records[key] for key in self._keys.get(prefix, ()))

    def _around(self, prefix: Prefix) -> Iterator[Record]:
        """Yield the records of a prefix and of those that cover it."""
        for length in self._lengths:
            if length <= prefix.length:
                yield from self._of(prefix._replace(length=length).masked())

    def _uplinks(self) -> set[str | None]:
        return {record.lease.uplink for record in self._records.values()}

    def _put(self, record: Record) -> None:
        self.version += 1
        self._records[record.key] = record
        self._keys.setdefault(record.lease.prefix, {})[record.key] = None
        self._lengths.add(record.lease.prefix.length)

    def exists(self, uplink: str | None) -> bool:
        """Whether a link is there, as far as is known."""
        return uplink is None or not self._links or uplink in self._links


def _key(lease: Lease) -> Key:
    return lease.prefix, lease.client, lease.uplink


def seniority(prefix: Prefix, began: float, superseded_since: float | None) -> tuple[bool, float, Prefix]:
    """Order what an uplink delegates: who came first, and behind them what was superseded last."""
    if superseded_since is None:
        return False, began, prefix
    return True, -superseded_since, prefix


def _seniority(record: Record) -> tuple[bool, float, Prefix]:
    since = record.since if record.state is State.SUPERSEDED else None
    return seniority(record.lease.prefix, record.began, since)


def _is_later(lease: Lease, record: Record) -> bool:
    """Whether a report is of a later Reply than the last one that counted."""
    before = record.lease
    if lease.reply != before.reply:
        return lease.reply > before.reply or lease.clock < before.clock - CLOCK_STEP
    # Within the second of a Release a client may begin anew; what was reported before that does not count.
    return lease.anew and before.lifetime == 0 and lease.written > before.written
