"""Discard routes: the word of DHCPv6 clients that a prefix is delegated to this host.

In: table main. Out: every unreachable, blackhole or prohibit route of the protocols that the policy
accepts. Such a route names neither uplink nor lifetime.
"""

from __future__ import annotations

from collections.abc import Iterable

from anyipd.kernel import wire
from anyipd.kernel.routes import Routes
from anyipd.model import Discard


def discards(routes: Routes, protocols: Iterable[int]) -> set[Discard]:
    """Read the clients' discard routes. Raises OSError as `Routes` does."""
    kinds = wire.DISCARDS.values()
    return {
        Discard(found.prefix, found.metric)
        for protocol in protocols
        for chunk in routes.dump(wire.TABLE_MAIN, protocol)
        for start, _, end in wire.messages(chunk)
        for found in [wire.route(chunk, start, end)]
        if found.type in kinds
    }
