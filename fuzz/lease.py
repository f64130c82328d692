"""Lease files: a Lease that is one, or a ValueError of one line."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from anyipd.decide.ledger import Ledger
from anyipd.model import Lease
from anyipd.observe.lease import Leases, Where, parse
from fuzz.carried_out import carry_out

DICTIONARY = (
    *("client=", "prefix=", "uplink=", "iaid=", "life_starts=", "preferred_lifetime=", "valid_lifetime="),
    *("reason=BOUND6", "reason=RELEASE6", "pid=", "netns=77", "boot=00000000-0000-0000-0000-000000000000"),
    "duid_sha256=",
    *("uptime=", "exclude=", "\n", "2001:db8::/56", "4294967295", "::", "/", '"', "\0", "00:00:00:01"),
)

MODIFIED, NOW = 1_700_000_000.0, 5_000.0
HERE = Where("0" * 32, 77, MODIFIED - NOW)
FILES = 64
"""Every so many inputs one goes the whole way, as a file."""

_numbers = count()


def run(data: bytes) -> None:
    """Raise where an input is taken for what it is not."""
    try:
        lease = parse(data, MODIFIED, NOW, HERE)
        if lease:
            check(lease)
            carry_out(Ledger(), leases=[lease])
    except ValueError as error:
        # What a file says must not come out as lines of a log.
        assert str(error).isprintable(), ascii(str(error))
    if next(_numbers) % FILES == 0:
        with TemporaryDirectory() as folder:
            (Path(folder) / "lease").write_bytes(data)
            leases, complaints = Leases(Path(folder)).read(lambda: NOW)
            assert len(leases) + len(complaints) <= 1  # none of another boot or network namespace


def check(lease: Lease) -> None:
    """See that a lease is one."""
    assert lease.prefix == lease.prefix.masked()
    assert lease.prefix.width == 128
    assert lease.preferred_until is not None
    assert lease.preferred_until <= lease.valid_until
    assert lease.written <= NOW + 1
    assert re.fullmatch("[a-z0-9-]+", lease.client)
    assert lease.uplink is not None
    assert lease.uplink.isprintable()
    assert not re.search(r"[\s/]", lease.uplink)
    if lease.exclude:
        assert lease.exclude == lease.exclude.masked()
        assert lease.prefix.covers(lease.exclude)
        assert lease.prefix != lease.exclude
    assert lease.duid is None or re.fullmatch("[0-9a-f]{64}", lease.duid)
    assert lease.instance is None or lease.instance.isdecimal()
    assert lease.iaid is None or re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2}){3}", lease.iaid)
