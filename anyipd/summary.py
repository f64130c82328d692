"""A View in a sentence, for `systemctl status` and for monitoring. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import IntEnum

from anyipd.model import Delegation, Subnets, SubnetState
from anyipd.view import View

MAX_NAMES = 4
"""Names of a kind that are listed; of more only how many there are is said."""


class Health(IntEnum):
    """How good a View is, as the exit code of a monitoring plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


def summary(view: View) -> str:
    """Say what is bound, what is not and why, and whom the host waits for."""
    counts = Counter[SubnetState]()
    for each in view.subnets:
        counts[each.state] += each.count
    asked = counts.total() - counts[SubnetState.RESERVED]
    parts = [f"{counts[SubnetState.BOUND]} of {asked} subnets bound" if asked else ""]
    usable = [each for each in view.delegations if each.is_usable]
    if usable:
        parts[0] = f"{parts[0] or 'no subnets'} of {_names(map(_from, usable))}"
    else:
        parts.append(f"waiting for {awaited(view)}" if view.policy.subnets else "")
    for state in (SubnetState.CONFLICT, SubnetState.MISSING, SubnetState.WITHOUT_ROOM):
        if counts[state]:
            where = (_subnet(each) for each in view.subnets if each.state is state)
            parts.append(f"{state.value}: {_names(where)}")
    lacking = [f"{each.name} ({each.address_reason})" for each in view.subnets if each.address_reason]
    parts.append(f"no address of the host's own: {_names(lacking)}" if lacking else "")
    refused = [f"{each.prefix} ({each.reason})" for each in view.delegations if not each.is_usable]
    parts.append(f"refused: {_names(refused)}" if refused else "")
    reserved = counts[SubnetState.RESERVED]
    nothing = f"{reserved} reserved" if reserved else "the policy has no subnets"
    return "; ".join(filter(None, parts)) or nothing


def awaited(view: View) -> str:
    """Say whom a delegated prefix may come from."""
    uplinks = ", ".join(view.policy.accept.uplinks)
    where = "any uplink" if "*" in view.policy.accept.uplinks else uplinks
    clients = "a prefix that dhclient, dhcpcd or systemd-networkd is delegated on"
    heard = f", or that is heard on {', '.join(view.policy.listen)}" if view.policy.listen else ""
    return f"{clients} {where}{heard}"


def health(view: View) -> Health:
    """Say whether everything that the policy asks for is there."""
    asked = [each for each in view.subnets if each.state is not SubnetState.RESERVED]
    bound = [each for each in asked if each.state is SubnetState.BOUND]
    if view.policy.subnets and not any(each.is_usable for each in view.delegations):
        return Health.CRITICAL
    if asked and not bound:
        return Health.CRITICAL
    others = {each.name for each in view.policy.subnets} - {each.name for each in view.subnets}
    whole = len(bound) == len(asked) and not others and all(each.is_usable for each in view.delegations)
    whole = whole and not any(each.address_reason for each in view.subnets)
    return Health.OK if whole else Health.WARNING


def _from(delegation: Delegation) -> str:
    told = f"{delegation.source}, {delegation.uplink}" if delegation.uplink else delegation.source
    return f"{delegation.prefix} ({told})"


def _subnet(subnets: Subnets) -> str:
    more = f" and {subnets.count - 1} more" if subnets.count > 1 else ""
    return f"{subnets.subnet_name(0)}{more}" + (f" ({subnets.reason})" if subnets.reason else "")


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - MAX_NAMES} more" if len(listed) > MAX_NAMES else ""
    return ", ".join(listed[:MAX_NAMES]) + more
