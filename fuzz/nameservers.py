"""resolv.conf: addresses that somebody wrote there after `nameserver`, whatever else there is."""

from __future__ import annotations

import socket
from pathlib import Path
from tempfile import TemporaryDirectory

from anyipd.model import address_text
from anyipd.observe.nameservers import Nameservers, parse

DICTIONARY = (
    *("nameserver ", "search ", "options ", "2001:db8::53", "fe80::1%eth0", "::ffff:192.0.2.1", "192.0.2.1"),
    *("#", ";", "\n", "\r", "\x85", "\0", "\t"),
)

_folder = TemporaryDirectory()


def run(data: bytes) -> None:
    """Read it as it is and as a file."""
    found = parse(data)
    words = data.decode("latin-1").split()
    written = {socket.inet_pton(socket.AF_INET6, word) for word in map(_bare, words) if _is_address(word)}
    for address in found:
        assert address.to_bytes(16) in written, address_text(address)
    # What glibc asks is not overlooked: see resolv.conf(5).
    for line in data.split(b"\n"):
        match line.split(b"#")[0].split(b";")[0].split():
            case [b"nameserver", text] if line.startswith(b"nameserver") and _is_address(
                text.decode("latin-1")
            ):
                assert int.from_bytes(socket.inet_pton(socket.AF_INET6, _bare(text.decode()))) in found, line
    file = Path(_folder.name, "resolv.conf")
    file.write_bytes(data)
    nameservers = Nameservers([file, Path("/nonexistent")])
    nameservers.look()
    assert nameservers.addresses == frozenset(found)


def _bare(word: str) -> str:
    return word.partition("%")[0]


def _is_address(word: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, _bare(word))
    except (OSError, ValueError):
        return False
    return True
