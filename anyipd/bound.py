"""The bound subnets by their names, as the daemon tells `anyipctl plan` of them.

The kernel knows what is bound, and not by which name: that came of a policy that may be edited by now.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from anyipd.model import Prefix, Subnets, SubnetState

_BOUND = {SubnetState.BOUND, SubnetState.MISSING}


def dumps(subnets: Iterable[Subnets]) -> bytes:
    """Write those of `subnets` that are bound, or were about to be when that was looked at."""
    return json.dumps(
        [
            (each.name, each.number, each.count, str(each.first), each.delegation and str(each.delegation))
            for each in subnets
            if each.state in _BOUND
        ]
    ).encode()


def loads(data: bytes) -> list[Subnets]:
    """Read what `dumps` wrote; lifetimes are not told."""
    return [
        Subnets(
            name=name,
            delegation=None if delegation is None else Prefix.parse(delegation),
            state=SubnetState.BOUND,
            first=Prefix.parse(first),
            count=count,
            number=number,
        )
        for name, number, count, first, delegation in json.loads(data)
    ]
