"""Which Replies are for this host: those that answer a request that it was seen to send.

Pure. Whoever is on the uplink may send us a Reply, so one counts by transaction ID and client DUID,
as with the client itself (RFC 9915, 16.10), and but once.
"""

from __future__ import annotations

from typing import NamedTuple

from anyipd.observe.dhcpv6 import ASKING, GIVING_BACK, DelegatedPrefix, Kind, Message

MOST_REQUESTS = 64
"""Requests that may wait for their Reply; beyond that the oldest is forgotten."""

LONGEST_WAIT = 600.0
"""Seconds until a request is forgotten: the longest between two transmissions, REN_MAX_RT (RFC 9915, 7.6)."""


class Told(NamedTuple):
    """What this host was told of a prefix on an uplink; a valid lifetime of 0 says that it is gone.

    `client` is the DUID of the client that asked for it, or gave it back.
    """

    uplink: str
    delegated: DelegatedPrefix
    client: bytes


class Exchanges:
    """The requests that wait for their Reply. Times are seconds of CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, bytes, bytes], float] = {}

    def sent(self, uplink: str, message: Message, now: float) -> list[Told]:
        """Take note of what this host sent; say what it gives back.

        That is out of use before it is sent, whatever the answer (RFC 9915, 18.2.7).
        """
        if message.kind in GIVING_BACK:
            given_back = [each._replace(preferred=0, valid=0) for each in message.prefixes]
            return [Told(uplink, each, message.client) for each in given_back]
        rapid = message.kind == Kind.SOLICIT and message.rapid_commit
        if message.client and (rapid or message.kind in ASKING):
            request = uplink, message.transaction, message.client
            self._asked.pop(request, None)
            self._asked[request] = now
            if len(self._asked) > MOST_REQUESTS:
                del self._asked[next(iter(self._asked))]
        return []

    def received(self, uplink: str, message: Message, now: float) -> list[Told]:
        """Say what this host is told by a message that came in: nothing, if it did not ask."""
        if message.kind != Kind.REPLY or not message.from_server:
            return []
        asked = self._asked.pop((uplink, message.transaction, message.client), None)
        if asked is None or now - asked > LONGEST_WAIT or message.failed:
            return []
        return [Told(uplink, each, message.client) for each in message.prefixes]
