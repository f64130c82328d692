"""What a pass changed, as log lines: one for each thing, none if nothing changed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from anyipd.decide.covers import covers
from anyipd.decide.gaps import Gaps
from anyipd.decide.holes import holes, holes_text
from anyipd.decide.moves import moves, pairs
from anyipd.decide.source_routes import SourceChanges
from anyipd.decide.verdict import Placed
from anyipd.model import (
    INFINITE,
    Delegation,
    DelegationState,
    Link,
    Prefix,
    SourceRoute,
    Subnets,
    SubnetState,
    address_text,
)

Fields = dict[str, str | int]


class Line(NamedTuple):
    """A log line: a word for what happened and what it happened to."""

    event: str
    fields: Fields
    warning: bool = False


_HELD_OFF = {SubnetState.CONFLICT, SubnetState.WITHOUT_ROOM}

Ending = Callable[[Prefix], tuple[str, str]]
"""Says what became of a prefix that is gone, and why: see `Ledger.ending`."""


def delegation_lines(
    before: Iterable[Delegation],
    after: Iterable[Delegation],
    now: float,
    ending: Ending,
    bound: Collection[Prefix | None],
) -> Iterator[Line]:
    """Delegations that came, went, changed state or lifetime; `now` is CLOCK_BOOTTIME.

    `bound` are those that had bound subnets: it is a warning that one of them is gone.
    """
    known = {each.prefix: each for each in before}
    for each in after:
        old = known.pop(each.prefix, None)
        if old is None or (old.state, old.reason) != (each.state, each.reason):
            event = each.state.value
            if each.state is DelegationState.GRANTED:
                event = "reported" if old and old.state is each.state else "delegated"
            yield Line(event, _told(each, now), warning=each.state is DelegationState.REFUSED)
        elif change := _lifetime_change(old, each):
            yield Line(change, _told(each, now))
        elif (old.source, old.uplink) != (each.source, each.uplink):
            yield Line("reported", _told(each, now))
    for gone in known.values():
        event, reason = ending(gone.prefix)
        fields: dict[str, str | int] = {"prefix": str(gone.prefix), "source": gone.source}
        if gone.uplink:
            fields["uplink"] = gone.uplink
        yield Line(event, fields | {"reason": reason}, warning=gone.prefix in bound)


def subnet_lines(
    before: Sequence[Subnets], after: Sequence[Subnets], came: Mapping[int, Gaps], went: Mapping[int, Gaps]
) -> Iterator[Line]:
    """Subnets that were bound and unbound, and those that are newly held off.

    `before` and `after` are verdicts. Routes of ours `came` to these addresses, and `went` from them.
    """
    yield from _subnets_at("bound", after, came)
    yield from _subnets_at("unbound", before, went)
    known = {_fate(each) for each in before}
    had = {each[:-1]: each[-1] for each in known}
    for each in after:
        *fate, now = _fate(each)
        if had.get(tuple(fate), now) != now:
            yield Line("holes", _named(each))
        if each.state is SubnetState.BOUND and each.reason and tuple(fate) not in had:
            yield Line("in use", _named(each) | {"reason": each.reason}, warning=True)
        if each.state in _HELD_OFF and _fate(each) not in known:
            yield Line(each.state.value, _named(each) | {"reason": each.reason or ""}, warning=True)


def _subnets_at(event: str, subnets: Iterable[Subnets], found: Mapping[int, Gaps]) -> Iterator[Line]:
    bound = [each for each in subnets if each.state is SubnetState.BOUND]
    placed = Placed(bound)
    for width, spans in _with_holes(bound, found).items():
        for span in spans:
            named = [_named(each) for each in placed.inside(span, width)]
            unnamed: Iterable[Fields] = ({"prefix": str(prefix)} for prefix in covers(span, width))
            yield from (Line(event, fields) for fields in named or unnamed)


def address_lines(
    before: Sequence[Subnets], after: Sequence[Subnets], came: Iterable[Prefix], went: Iterable[Prefix]
) -> Iterator[Line]:
    """This host's own addresses that were assigned and removed, and those that newly cannot be had."""
    known = {each.address: each for each in before}
    named = {each.address: each for each in after}
    for event, subnets, prefixes in (("assigned", named, came), ("unassigned", known, went)):
        for prefix in prefixes:
            fields: Fields = {"address": address_text(prefix.address)}
            if each := subnets.get(prefix.address):
                fields["subnet"] = each.name
            yield Line(event, fields)
    said = {(each.address, each.address_reason) for each in before}
    for each in after:
        if (
            each.address is not None
            and each.address_reason
            and (each.address, each.address_reason) not in said
        ):
            fields = {
                "address": address_text(each.address),
                "subnet": each.name,
                "reason": each.address_reason,
            }
            yield Line("not assigned", fields, warning=True)


def _with_holes(subnets: Iterable[Subnets], found: Mapping[int, Gaps]) -> Mapping[int, Gaps]:
    """Return addresses with the holes of those IPv4 subnets that are there but for these."""
    whole = dict(found)
    for each in subnets:
        if each.holes and each.first and (there := whole.get(each.first.width)):
            filled = there.copy()
            for hole in holes(each):
                filled.add(hole.address, hole.end)
            if filled.holds(each.first.address, each.first.end):
                whole[each.first.width] = filled
    return whole


def moved_lines(before: Iterable[Subnets], after: Iterable[Subnets]) -> Iterator[Line]:
    """Subnets that have another prefix of the same delegation now: also where no route came or went by it."""
    for was, will_be, _ in moves(before, after):
        if was and will_be:
            yield Line("moved", _named(will_be) | {"was": str(was.first)})


def source_lines(
    changes: SourceChanges, refused: Collection[SourceRoute], links: Mapping[str, Link]
) -> Iterator[Line]:
    """Source routes that came, were changed, or went."""
    names = {link.interface: name for name, link in links.items()}
    for event, routes in (
        ("source route added", changes.add),
        ("source route changed", changes.replace),
        ("source route removed", changes.remove),
    ):
        for each in routes:
            if each not in refused:
                yield Line(event, {"source": str(each.source), **_way(each, names)})


def _way(route: SourceRoute, names: Mapping[int, str]) -> Fields:
    if not route.interface:
        return {"uplink": "unreachable"}
    fields: Fields = {"uplink": names.get(route.interface, f"link {route.interface}")}
    return fields | ({"router": address_text(route.router)} if route.router else {})


def state_lines(before: Iterable[Subnets], after: Iterable[Subnets]) -> Iterator[Line]:
    """Subnets that are in another state or place, or there for another reason, than they were before."""
    for was, now in pairs(before, after):
        if now is None:
            if was:
                yield Line("gone", _named(was))
        elif was is None or _told_state(was) != _told_state(now):
            fields = _named(now)
            if now.address is not None:
                fields["address"] = address_text(now.address)
            if was and was.first and was.first != now.first:
                fields["was"] = str(was.first)
            if reason := now.reason or now.address_reason:
                fields["reason"] = reason
            yield Line(now.state.value, fields, warning=now.state in _HELD_OFF)


def _lifetime_change(old: Delegation, new: Delegation) -> str | None:
    """Say what became of the valid lifetime: renewed, shortened or lost; None where it is the same."""
    if old.valid_until == new.valid_until:
        return None
    if new.valid_until is None:
        return "lifetime unknown"
    if old.valid_until is None:
        return "lifetime known"
    # Clients count lifetimes in whole seconds.
    if abs(new.valid_until - old.valid_until) <= 1:
        return None
    return "renewed" if new.valid_until > old.valid_until else "shortened"


def _told(delegation: Delegation, now: float) -> dict[str, str | int]:
    fields: dict[str, str | int] = {"prefix": str(delegation.prefix), "source": delegation.source}
    if delegation.uplink:
        fields["uplink"] = delegation.uplink
    for name, end in (("preferred", delegation.preferred_until), ("valid", delegation.valid_until)):
        if end is not None:
            fields[name] = "infinite" if end == INFINITE else max(round(end - now), 0)
    if delegation.reason:
        fields["reason"] = delegation.reason
    return fields


def _named(subnets: Subnets) -> dict[str, str | int]:
    fields: dict[str, str | int] = {"subnet": subnets.subnet_name(0)}
    if subnets.first:
        fields["prefix"] = str(subnets.first)
    elif subnets.delegation:
        fields["delegation"] = str(subnets.delegation)
    if subnets.count > 1:
        fields["count"] = subnets.count
    if subnets.holes:
        fields["except"] = holes_text(subnets)
    return fields


def _told_state(subnets: Subnets) -> tuple[object, ...]:
    return subnets.state, subnets.first, subnets.reason, subnets.address, subnets.address_reason


def _fate(subnets: Subnets) -> tuple[object, ...]:
    return (
        *(subnets.name, subnets.delegation, subnets.state, subnets.first, subnets.number, subnets.reason),
        subnets.holes,
    )
