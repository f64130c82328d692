"""Lease files of what was heard: whatever is in the place of one, what comes next on the wire counts."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

from anyipd import here
from anyipd.decide.ledger import Ledger
from anyipd.heard import HeardLeases
from anyipd.model import Prefix
from anyipd.observe.dhcpv6 import DelegatedPrefix
from anyipd.observe.exchange import Told
from anyipd.observe.lease import Leases
from fuzz.carried_out import NOW, carry_out

DICTIONARY = (
    *("client=", "prefix=", "uplink=", "iaid=", "preferred_lifetime=", "valid_lifetime=", "uptime="),
    *("exclude=", "netns=NETNS", "boot=BOOT", "duid_sha256=DUID", "\n", "2001:db8::/56", "4294967295", "0"),
)

CLIENTS = b"its client", b"somebody else"
PREFIX = Prefix.parse("2001:db8::/56")
HERE = {
    b"BOOT": here.boot().encode(),
    b"NETNS": str(here.network_namespace()).encode(),
    b"DUID": sha256(CLIENTS[0]).hexdigest().encode(),
}
"""What inputs cannot know."""

_folder = TemporaryDirectory()


def run(data: bytes) -> None:
    """Put it where the file of a prefix is, and hear of that one of four things that may be heard."""
    case = crc32(data)
    client, valid = CLIENTS[case & 1], 300 if case & 2 else 0
    for word, value in HERE.items():
        data = data.replace(word, value)
    directory = Path(_folder.name)
    for each in directory.iterdir():
        each.unlink()
    path = directory / f"{PREFIX}@eth0".replace("/", "_")
    path.write_bytes(data)
    told = DelegatedPrefix("00:00:00:01", PREFIX, valid, valid, None)
    HeardLeases(directory).take([Told("eth0", told, client)], NOW)
    leases, complaints = Leases(directory).read(lambda: NOW)
    assert len(leases) + len(complaints) <= 1
    if valid:
        assert [(each.prefix, each.lifetime) for each in leases] == [(PREFIX, valid)]
    elif path.exists() and b"duid_sha256=" + sha256(client).hexdigest().encode() not in data:
        assert path.read_bytes() == data
    carry_out(Ledger(), leases=leases)
