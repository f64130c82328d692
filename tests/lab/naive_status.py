"""What `anyipctl status --json` must show, by the naive model."""

from __future__ import annotations

from typing import Any

from tests.lab import naive
from tests.lab.naive import Facts, Shown
from tests.lab.naive_ledger import NEVER


def subnets_shown(facts: Facts, routes: list[Shown], when: float) -> list[tuple[Any, ...]]:
    """Give what is to be shown of each subnet, where these routes are present."""
    present = [route for route in routes if route["table"] == "local" and route["metric"] == 1024]
    local = [route for route in naive.ours(present) if route["type"] == "local"]
    ours, foreign = (
        {naive.network(route["dst"]) for route in some} for some in (local, naive.foreign(present))
    )

    def state(subnet: naive.Subnet) -> str:
        if subnet.state != "wanted" or not subnet.prefix:
            return subnet.state
        if subnet.prefix in foreign - ours:
            return "conflict"
        return "bound" if any(subnet.prefix.subnet_of(cover) for cover in ours) else "missing"

    return sorted(
        (each.name, str(each.delegation), str(each.prefix) if each.prefix else None, state(each))
        for each in naive.subnets(facts, when)
    )


def states(delegations: list[naive.Delegation]) -> dict[str, tuple[str, str, str | None]]:
    return {str(each.prefix): (each.state, each.source, each.uplink) for each in delegations}


def assert_delegations(
    shown: list[dict[str, Any]], expected: list[naive.Delegation], since: float, until: float
) -> None:
    """Hold what was shown between two times against what the model says."""
    by_prefix = {one["prefix"]: one for one in shown}
    assert len(by_prefix) == len(shown)
    told = {prefix: (one["state"], one["source"], one["uplink"]) for prefix, one in by_prefix.items()}
    assert told == states(expected), f"shown {shown}\nexpected {expected}\nfrom {since} to {until}"
    for each in expected:
        one = by_prefix[str(each.prefix)]
        if each.state != "refused":
            names_forget = f"anyipctl forget {each.prefix}" in (one["reason"] or "")
            assert names_forget == each.unconfirmed, f"shown {one}\nexpected {each}"
        for key, end in (("preferred_lifetime", each.preferred_until), ("valid_lifetime", each.valid_until)):
            if end is None:
                assert one[key] is None
            elif end == NEVER:
                assert one[key] == "infinite"
            else:
                least, most = max(end - until, 0) - 1, max(end - since, 0)
                told_right = one[key] not in {None, "infinite"} and least <= one[key] <= most
                assert told_right, f"shown {one}\nexpected {each}\nfrom {since} to {until}"
