"""The JSON form of a View, as it is published and as the ledger file keeps it.

Prefixes are text, runs of subnets stay runs. A time is in microseconds of CLOCK_BOOTTIME under a name that
ends in `_usec`, null where it is not known; beside a deadline a bool says whether it is infinite. Among
`uplinks` an unknown one is empty. `except` of a run are the holes in each of its subnets, as the bits below
it, and `gateways` the routers in there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from anyipd.model import INFINITE, Delegation, DelegationState, Prefix, Subnets, SubnetState, address_text
from anyipd.view import View

Json = dict[str, Any]

_USEC = 1_000_000


def view_to_json(view: View, many: Callable[[Iterator[Json]], object] = list) -> Json:
    """Return a View as objects of JSON; `many` makes an array of those that there may be thousands of."""
    return {
        "time_usec": _usec(view.time),
        "network_namespace": view.network_namespace,
        "configuration": view.configuration,
        "policy": view.policy.model_dump(mode="json"),
        "delegations": many(map(_delegation_to_json, view.delegations)),
        "subnets": many(map(_subnets_to_json, view.subnets)),
        "deadline_usec": _usec(view.deadline),
    }


def view_from_json(found: Mapping[str, Any]) -> View:
    """Return the View that such objects describe. Raises ValueError, with the reason, if they do not."""
    from anyipd.policy import Policy  # noqa: PLC0415  reading a policy takes longer than all else

    try:
        deadline = found["deadline_usec"]
        return View(
            time=_seconds(found["time_usec"]),
            network_namespace=int(found["network_namespace"]),
            configuration=str(found["configuration"]),
            policy=Policy.model_validate(found["policy"]),
            delegations=tuple(map(_delegation_from_json, found["delegations"])),
            subnets=subnets_from_json(found["subnets"]),
            deadline=INFINITE if deadline is None else _seconds(deadline),
        )
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"is no View of this version: {error!r}") from None


def subnets_from_json(found: Iterable[Mapping[str, Any]]) -> tuple[Subnets, ...]:
    """Return the subnets of a View alone, which takes no policy."""
    return tuple(map(_subnets_from_json, found))


def _delegation_to_json(delegation: Delegation) -> Json:
    return {
        "prefix": str(delegation.prefix),
        "source": delegation.source,
        "state": delegation.state.value,
        "uplink": delegation.uplink,
        "uplinks": sorted(uplink or "" for uplink in delegation.uplinks),
        "iaid": delegation.iaid,
        **_deadline_to_json("preferred", delegation.preferred_until),
        **_deadline_to_json("valid", delegation.valid_until),
        "began_usec": _usec(delegation.began),
        "exclude": _text(delegation.exclude),
        "reason": delegation.reason,
        "left_out": delegation.left_out,
    }


def _delegation_from_json(found: Mapping[str, Any]) -> Delegation:
    return Delegation(
        prefix=Prefix.parse(found["prefix"]),
        source=found["source"],
        state=DelegationState(found["state"]),
        uplink=found["uplink"],
        iaid=found["iaid"],
        preferred_until=_deadline_from_json("preferred", found),
        valid_until=_deadline_from_json("valid", found),
        began=-INFINITE if found["began_usec"] is None else _seconds(found["began_usec"]),
        uplinks=frozenset(uplink or None for uplink in found["uplinks"]),
        exclude=_prefix(found["exclude"]),
        reason=found["reason"],
        left_out=found["left_out"],
    )


def _subnets_to_json(subnets: Subnets) -> Json:
    return {
        "name": subnets.name,
        "delegation": _text(subnets.delegation),
        "uplink": subnets.uplink,
        "deprecated": subnets.deprecated,
        "state": subnets.state.value,
        "first": _text(subnets.first),
        "count": subnets.count,
        "number": subnets.number,
        **_deadline_to_json("valid", subnets.valid_until),
        "reason": subnets.reason,
        "address": None if subnets.address is None else address_text(subnets.address),
        "address_reason": subnets.address_reason,
        "except": [str(each) for each in subnets.holes],
        "gateways": [str(each) for each in subnets.gateways],
    }


def _subnets_from_json(found: Mapping[str, Any]) -> Subnets:
    return Subnets(
        name=found["name"],
        delegation=_prefix(found["delegation"]),
        state=SubnetState(found["state"]),
        first=_prefix(found["first"]),
        count=int(found["count"]),
        number=found["number"],
        valid_until=_deadline_from_json("valid", found),
        reason=found["reason"],
        uplink=found["uplink"],
        deprecated=found["deprecated"],
        address=None if found["address"] is None else Prefix.parse(found["address"]).address,
        address_reason=found["address_reason"],
        holes=tuple(map(Prefix.parse, found["except"])),
        gateways=tuple(map(Prefix.parse, found["gateways"])),
    )


def _deadline_to_json(name: str, deadline: float | None) -> Json:
    return {
        f"{name}_until_usec": None if deadline is None else _usec(deadline),
        f"{name}_forever": deadline == INFINITE,
    }


def _deadline_from_json(name: str, found: Mapping[str, Any]) -> float | None:
    if found[f"{name}_forever"]:
        return INFINITE
    microseconds = found[f"{name}_until_usec"]
    return None if microseconds is None else _seconds(microseconds)


def _usec(seconds: float) -> int | None:
    """Return microseconds, None of what is infinite."""
    return None if seconds in {INFINITE, -INFINITE} else round(seconds * _USEC)


def _seconds(microseconds: int) -> float:
    return microseconds / _USEC


def _prefix(text: str | None) -> Prefix | None:
    return None if text is None else Prefix.parse(text)


def _text(prefix: Prefix | None) -> str | None:
    return None if prefix is None else str(prefix)
