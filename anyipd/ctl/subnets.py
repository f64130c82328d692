"""Runs of subnets, and their moves, as output: a row a run for people, an object for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from anyipd.decide.holes import as_written, holes_text
from anyipd.decide.moves import Move
from anyipd.decide.verdict import part
from anyipd.model import Prefix, Subnets, address_text

HEAD = ("SUBNET", "PREFIX", "ADDRESS", "STATE", "REASON")
MOVE_HEAD = ("SUBNET", "CHANGE", "FROM", "TO", "REASON")


def rows(subnets: Iterable[Subnets]) -> Iterator[tuple[str, str, str, str, str]]:
    """Cells under HEAD."""
    for each in subnets:
        holes = f"except {holes_text(each)}" if each.holes else ""
        reason = "; ".join(filter(None, (each.reason or each.address_reason, holes)))
        yield names(each), _prefixes(each), _address(each) or "", each.state.value, reason


def objects(subnets: Iterable[Subnets]) -> Iterator[dict[str, str | int | list[str] | None]]:
    """`subnets` of `status --json`: a run, by the name and the prefix of its first."""
    for each in subnets:
        yield {
            "name": each.subnet_name(0),
            "prefix": str(each.first) if each.first else None,
            "count": each.count,
            "delegation": str(each.delegation) if each.delegation else None,
            "state": each.state.value,
            "reason": each.reason,
            "address": _address(each),
            "address_reason": each.address_reason,
            "except": as_written(each),
        }


def named(subnets: Iterable[Subnets], name: str) -> Iterator[Subnets]:
    """Find those with this name, or all that a `count` made by the name before the number."""
    for each in subnets:
        if each.name == name:
            yield each
        elif each.first and each.number is not None:
            yield from (part(each, i, 1) for i in range(each.count) if each.subnet_name(i) == name)


def move_row(move: Move) -> tuple[str, str, str, str, str]:
    """Cells under MOVE_HEAD."""
    run = move.before or move.after
    assert run
    return names(run), move.change, _prefixes(move.before), _prefixes(move.after), move.reason or ""


def move_object(move: Move) -> dict[str, str | int | None]:
    """One of `subnets` of `plan --json`: a run, by the name and the prefixes of its first."""
    run = move.before or move.after
    assert run
    return {
        "name": run.subnet_name(0),
        "count": run.count,
        "delegation": str(run.delegation) if run.delegation else None,
        "change": move.change,
        "from": str(move.before.first) if move.before else None,
        "to": str(move.after.first) if move.after else None,
        "reason": move.reason,
    }


def names(run: Subnets) -> str:
    """Return the name of a run of subnets, or those of its ends."""
    last = f" ... {run.subnet_name(run.count - 1)}" if run.count > 1 else ""
    return run.subnet_name(0) + last


def _address(subnets: Subnets) -> str | None:
    return None if subnets.address is None else address_text(subnets.address)


def _prefixes(run: Subnets | None) -> str:
    if run is None or run.first is None:
        return "-"
    last = f" ... {_prefix(run, run.count - 1)}" if run.count > 1 else ""
    return f"{run.first}{last}"


def _prefix(subnets: Subnets, i: int) -> Prefix | None:
    return part(subnets, i, 1).first
