"""Wake-ups by lease files: a hook put one in its place, or removed it.

The hook's discard route brings an event, too, but `ip` takes longer to start than we to bind.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from anyipd import libc
from anyipd.model import Prefix

_IN_MOVED_FROM, _IN_MOVED_TO, _IN_CREATE, _IN_DELETE, _IN_MOVE_SELF = 0x40, 0x80, 0x100, 0x200, 0x800
_IN_ONLYDIR = 0x01000000
_EVENT = struct.Struct("=iIII")  # inotify_event: watch, mask, cookie, length of the name that follows
_EVENTS = 4096  # bytes read at once


class LeaseMonitor:
    """An inotify descriptor, readable when a lease file came or went. See inotify(7)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._watched = False  # the directory itself
        self.coming: list[Prefix] = []
        """The prefixes that the files in the making are about, which the last read was told of."""
        self._fd = libc.call("inotify_init1", os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._fd

    def watch(self) -> None:
        """Watch the directory, or the one above; to be called before reading it, as often as it is read.

        The first hook makes it. Where neither can be watched, leases are merely seen a little later.
        """
        events = _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE | _IN_MOVE_SELF | _IN_ONLYDIR
        for directory in () if self._watched else (self._directory, self._directory.parent):
            with contextlib.suppress(OSError):
                libc.call("inotify_add_watch", self._fd, os.fsencode(directory), events)
                self._watched = directory == self._directory
                return

    def read(self) -> bool:
        """Take in events; say whether any was about a lease file, not about one in the making.

        What one read leaves keeps the descriptor readable.
        """
        changed = False
        self.coming = []
        with contextlib.suppress(BlockingIOError):
            for mask, name in _events(os.read(self._fd, _EVENTS)):
                if not name:  # the directory itself went, or events were lost
                    self._watched = False
                if name.startswith(b"."):
                    self.coming += _prefix(name[1:])
                elif not mask & _IN_MOVE_SELF:  # another one may be about to take its place
                    changed = True
        return changed


def _prefix(name: bytes) -> list[Prefix]:
    """Read the prefix in a lease file's name, if there is one: 2001:db8:a::_48@eth0 and so on."""
    text, _, _ = name.partition(b"@")
    try:
        return [Prefix.parse_with_host(text.replace(b"_", b"/").decode("ascii")).masked()]
    except ValueError:
        return []


def _events(events: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(events):
        _, mask, _, length = _EVENT.unpack_from(events, start)
        start += _EVENT.size + length
        yield mask, events[start - length : start]
