"""This host's own addresses on lo: told from those of others, and changed. Nothing else writes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from anyipd.kernel import address_wire, wire
from anyipd.kernel.address_wire import FOREVER, Address
from anyipd.kernel.routes import Routes
from anyipd.kernel.wire import Refusal
from anyipd.model import INFINITE, Lifetimes, Prefix


def is_own(address: Address) -> bool:
    """Whether an address of a link is one that we assigned."""
    return address.interface == wire.LOOPBACK_INDEX and address.protocol == wire.PROTOCOL


def lifetimes(address: Address, now: float) -> Lifetimes:
    """Return until when an address that was read `now` is preferred and valid."""
    preferred, valid = (
        INFINITE if left == FOREVER else now + left for left in (address.preferred, address.valid)
    )
    return Lifetimes(preferred if address.preferred else 0.0, valid)


def add(routes: Routes, wanted: Mapping[Prefix, Lifetimes], now: float) -> list[Refusal]:
    """Assign addresses. EEXIST among the refusals: lo has it, and not by us."""
    return routes.change(_new(wire.NLM_F_CREATE | wire.NLM_F_EXCL, wanted, now))


def renew(routes: Routes, wanted: Mapping[Prefix, Lifetimes], now: float) -> list[Refusal]:
    """Give addresses of ours that were just seen other lifetimes."""
    return routes.change(_new(wire.NLM_F_REPLACE, wanted, now))


def remove(routes: Routes, addresses: Iterable[Prefix]) -> list[Refusal]:
    """Remove addresses of ours that were just seen. EADDRNOTAVAIL: it is not there any more."""
    return routes.change(
        address_wire.address_request(wire.RTM_DELADDR, 0, Address(wire.LOOPBACK_INDEX, prefix))
        for prefix in addresses
    )


def _new(flags: int, wanted: Mapping[Prefix, Lifetimes], now: float) -> Iterator[bytes]:
    for prefix, (preferred_until, valid_until) in wanted.items():
        address = Address(
            interface=wire.LOOPBACK_INDEX,
            prefix=prefix,
            protocol=wire.PROTOCOL,
            preferred=_left(preferred_until, now),
            valid=max(_left(valid_until, now), 1),
        )
        yield address_wire.address_request(wire.RTM_NEWADDR, flags, address)


def _left(until: float, now: float) -> int:
    """Whole seconds, rounded up, and never what means "for ever" unless it is."""
    return FOREVER if until == INFINITE else min(max(math.ceil(until - now), 0), FOREVER - 1)
