"""Wake-ups by lease files: a hook wrote one, put it in its place, or removed it.

A hook writes under a name with a dot in front, and then starts a program to rename it: a millisecond in which
somebody waits for his addresses. What was written and closed is whole, and is read at once.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from anyipd import libc
from anyipd.model import Prefix

_IN_CLOSE_WRITE, _IN_MOVED_FROM, _IN_MOVED_TO = 0x8, 0x40, 0x80
_IN_CREATE, _IN_DELETE, _IN_MOVE_SELF = 0x100, 0x200, 0x800
_IN_ONLYDIR = 0x01000000
_EVENT = struct.Struct("=iIII")  # inotify_event: watch, mask, cookie, length of the name that follows
_EVENTS = 4096  # bytes read at once


class LeaseMonitor:
    """An inotify descriptor, readable when a lease file came or went. See inotify(7)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._watched = False  # the directory itself
        self.written: set[str] = set()
        """Names of files that are whole, and not in their places yet."""
        self._fd = libc.call("inotify_init1", os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._fd

    def watch(self) -> None:
        """Watch the directory, or the one above; to be called before reading it, as often as it is read.

        The first hook makes it. Where neither can be watched, leases are merely seen a little later.
        """
        events = _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE | _IN_MOVE_SELF
        events |= _IN_ONLYDIR
        for directory in () if self._watched else (self._directory, self._directory.parent):
            with contextlib.suppress(OSError):
                libc.call("inotify_add_watch", self._fd, os.fsencode(directory), events)
                self._watched = directory == self._directory
                return

    def read(self) -> bool:
        """Take in events; say whether any was about a lease file that is whole.

        What one read leaves keeps the descriptor readable.
        """
        changed = False
        with contextlib.suppress(BlockingIOError):
            for mask, name in _events(os.read(self._fd, _EVENTS)):
                if not name:  # the directory itself went, or events were lost
                    self._watched = False
                    self.written.clear()
                if not name.startswith(b"."):
                    # Of the directory itself: another one may be about to take its place.
                    changed |= not mask & (_IN_MOVE_SELF | _IN_CLOSE_WRITE)
                elif mask & _IN_CLOSE_WRITE and _is_of_a_lease(name):
                    self.written.add(os.fsdecode(name))
                    changed = True
                elif mask & (_IN_DELETE | _IN_MOVED_FROM):
                    self.written.discard(os.fsdecode(name))
        return changed


def _is_of_a_lease(name: bytes) -> bool:
    """Whether a hook gave this name to what becomes a lease file: .2001:db8:a::_48@eth0.4711 and so on."""
    address, _, rest = name[1:].partition(b"_")
    try:
        Prefix.parse_with_host(f"{address.decode('ascii')}/{rest.partition(b'@')[0].decode('ascii')}")
    except ValueError:
        return False
    return True


def _events(events: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(events):
        _, mask, _, length = _EVENT.unpack_from(events, start)
        start += _EVENT.size + length
        yield mask, events[start - length : start].rstrip(b"\0")
