"""The nameservers that this host asks, which no delegated prefix may cut it off from.

In: resolv.conf(5), and the one in which systemd-resolved writes its upstreams (systemd-resolved.service(8)).
Out: their IPv6 addresses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv6Address
from pathlib import Path

FILES = Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")

MAX_BYTES = 64 << 10

_COMMENT = re.compile("[;#].*")


class Nameservers:
    """The IPv6 nameservers in some files; a file that did not change is not read again."""

    def __init__(self, files: Sequence[Path] = FILES) -> None:
        self.addresses: frozenset[int] = frozenset()
        self._files = files
        self._versions: list[tuple[int, ...] | None] = []

    def look(self) -> None:
        """Read the files anew if one of them changed; one that cannot be read names nobody."""
        versions = [_version(file) for file in self._files]
        if versions != self._versions:
            self._versions = versions
            self.addresses = frozenset(address for file in self._files for address in _read(file))


def _version(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _read(file: Path) -> list[int]:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return parse(os.read(descriptor, MAX_BYTES))
        finally:
            os.close(descriptor)
    except OSError:
        return []


def parse(text: bytes) -> list[int]:
    """Return the IPv6 addresses of the `nameserver` lines; what is none is no concern of ours.

    A comment may follow one without a blank, as glibc has it (res_vinit_1 in resolv/res_init.c).
    """
    found = []
    for line in text.decode("latin-1").splitlines():
        match _COMMENT.sub("", line).split():
            case ["nameserver", address, *_]:
                try:
                    found.append(int(IPv6Address(address.partition("%")[0])))
                except AddressValueError:
                    continue
    return found
