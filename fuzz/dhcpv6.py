"""What comes from the uplink: a message, or MalformedError and nothing else; and lease files of that."""

from __future__ import annotations

import contextlib
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from anyipd.heard import HeardLeases
from anyipd.model import Prefix
from anyipd.observe.dhcpv6 import DelegatedPrefix, MalformedError, parse
from anyipd.observe.exchange import Told
from anyipd.observe.lease import Leases
from anyipd.observe.packet import is_intact, payload

DICTIONARY = (
    *("\x00\x01\x00\x0a", "\x00\x02\x00\x0a", "\x00\x0d\x00\x02\x00\x00", "\x00\x0e\x00\x00"),
    *("\x00\x19\x00\x29", "\x00\x1a\x00\x19", "\x00\x43\x00\x02\x40\x01"),
)

NOW = 5_000.0
GLOBAL = Prefix.parse("2000::/3")
FILES = 64
"""Every so many inputs what one tells is written down."""

_numbers = count()


def run(data: bytes) -> None:
    """Give the same bytes to everything that reads what a packet socket has."""
    with contextlib.suppress(MalformedError):
        is_intact(data)
        parse(payload(data))
    with contextlib.suppress(MalformedError):
        found = parse(data)
        for each in found.prefixes:
            check(each)
        if next(_numbers) % FILES == 0:
            write_down(found.prefixes)


def check(delegated: DelegatedPrefix) -> None:
    """See that a delegated prefix is one."""
    assert delegated.prefix == delegated.prefix.masked()
    assert 0 <= delegated.preferred <= delegated.valid <= 0xFFFFFFFF
    if delegated.exclude:
        assert delegated.exclude == delegated.exclude.masked()
        assert delegated.prefix.covers(delegated.exclude)
        assert delegated.prefix != delegated.exclude


def write_down(prefixes: tuple[DelegatedPrefix, ...]) -> None:
    """See that what is written is read."""
    with TemporaryDirectory() as folder:
        left: set[Prefix] = set()
        for each in prefixes:
            if not GLOBAL.covers(each.prefix):
                continue  # some that lie elsewhere look like IPv4 in writing, and are no lease
            HeardLeases(Path(folder)).take([Told("eth0", each, b"duid")], NOW)
            (left.add if each.valid else left.discard)(each.prefix)
        leases, complaints = Leases(Path(folder)).read(lambda: NOW)
        assert not complaints
        assert {lease.prefix for lease in leases} == left
