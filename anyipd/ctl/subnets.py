"""Runs of subnets as output: one row a run for people, one object a subnet for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from anyipd.decide.verdict import part
from anyipd.model import Prefix, Subnets

HEAD = ("SUBNET", "PREFIX", "STATE", "REASON")


def rows(subnets: Iterable[Subnets]) -> Iterator[tuple[str, str, str, str]]:
    """Cells under HEAD."""
    for each in subnets:
        name, prefix = each.subnet_name(0), str(each.first or "-")
        if each.count > 1:
            name += f" ... {each.subnet_name(each.count - 1)}"
            if each.first:
                prefix += f" ... {_prefix(each, each.count - 1)}"
        yield name, prefix, each.state.value, each.reason or ""


def objects(subnets: Iterable[Subnets]) -> Iterator[dict[str, str | None]]:
    """`subnets` of `status --json`."""
    for each in subnets:
        for i in range(each.count):
            yield {
                "name": each.subnet_name(i),
                "prefix": str(_prefix(each, i)) if each.first else None,
                "delegation": str(each.delegation) if each.delegation else None,
                "state": each.state.value,
                "reason": each.reason,
            }


def _prefix(subnets: Subnets, i: int) -> Prefix | None:
    return part(subnets, i, 1).first
