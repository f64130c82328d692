"""resolv.conf: addresses that somebody wrote there after `nameserver`, whatever else there is."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

from anyipd.model import address_text
from anyipd.observe.nameservers import Nameservers, parse

DICTIONARY = (
    *("nameserver ", "search ", "options ", "2001:db8::53", "fe80::1%eth0", "::ffff:192.0.2.1", "192.0.2.1"),
    *("#", ";", "\n", "\r", "\x85", "\0", "\t"),
)

_LINE = re.compile(r"^nameserver[ \t]+([^;# \t\n]+)", re.MULTILINE)
"""As glibc reads it: res_vinit_1 in resolv/res_init.c."""

_folder = TemporaryDirectory()


def run(data: bytes) -> None:
    """Read it as it is and as a file."""
    found = parse(data)
    text = data.decode("latin-1")
    written = {each for each in map(_address, re.split(r"[\s;#]", text)) if each is not None}
    assert set(found) <= written, [address_text(each) for each in found]
    # What glibc asks is not overlooked.
    asked = {each for each in map(_address, _LINE.findall(text)) if each is not None}
    assert asked <= set(found), [address_text(each) for each in asked]
    file = Path(_folder.name, "resolv.conf")
    file.write_bytes(data)
    nameservers = Nameservers([file, Path("/nonexistent")])
    nameservers.look()
    assert nameservers.addresses == frozenset(found)


def _address(word: str) -> int | None:
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET6, word.partition("%")[0]))
    except (OSError, ValueError):
        return None
