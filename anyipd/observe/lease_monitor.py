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
_OF_FILES = _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE | _IN_MOVE_SELF
_OF_THE_WAY = _IN_CREATE | _IN_MOVED_TO | _IN_MOVE_SELF
_EVENT = struct.Struct("=iIII")  # inotify_event: watch, mask, cookie, length of the name that follows
_EVENTS = 4096  # bytes read at once
_LOST = -1  # the watch that events were lost of


class LeaseMonitor:
    """An inotify descriptor, readable when a lease file came or went. See inotify(7).

    Whoever removes the directory, or the one above, and makes it again, or puts another one in its place, is
    noticed: the two above it are watched as well.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._way = directory, directory.parent
        self._watches: dict[int, Path] = {}
        self.written: set[str] = set()
        """Names of files that are whole, and not in their places yet."""
        self._fd = libc.call("inotify_init1", os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._fd

    def watch(self) -> None:
        """Watch the directory, or what is there of the way to it; to be called before reading it.

        The first hook makes it. Where nothing can be watched, leases are merely seen a little later.
        """
        if not self._is_watched():
            self._watch_anew()

    def _watch_anew(self) -> None:
        before, self._watches = self._watches, {}
        # Downwards: what is made meanwhile is seen from above. That the one above was removed it does not say
        # itself while the daemon's socket in there holds it.
        for folder in (self._directory.parent.parent, self._directory.parent):
            self._add(folder, _OF_THE_WAY)
        self._add(self._directory, _OF_FILES)
        for watch in before.keys() - self._watches.keys():
            with contextlib.suppress(OSError):  # it went with what it was of
                libc.call("inotify_rm_watch", self._fd, watch)

    def _is_watched(self) -> bool:
        return self._directory in self._watches.values()

    def _add(self, folder: Path, events: int) -> None:
        with contextlib.suppress(OSError):
            watch = libc.call("inotify_add_watch", self._fd, os.fsencode(folder), events | _IN_ONLYDIR)
            self._watches[watch] = folder

    def read(self) -> bool:
        """Take in events; say whether any was about a lease file that is whole.

        What one read leaves keeps the descriptor readable.
        """
        changed = moved = False
        with contextlib.suppress(BlockingIOError):
            for watch, mask, name in _events(os.read(self._fd, _EVENTS)):
                folder = self._watches.get(watch)
                if watch == _LOST or (folder and not name):  # events were lost, or a folder went
                    changed |= not mask & _IN_MOVE_SELF  # what is in there is still there
                    moved = True
                elif folder == self._directory:
                    changed |= self._take(mask, name)
                elif folder:
                    moved |= folder / os.fsdecode(name) in self._way
        if moved:
            self.written.clear()
            self._watch_anew()
            changed |= self._is_watched()
        return changed

    def _take(self, mask: int, name: bytes) -> bool:
        """Take in an event of a file."""
        if not name.startswith(b"."):
            return not mask & _IN_CLOSE_WRITE
        if mask & _IN_CLOSE_WRITE and _is_of_a_lease(name):
            self.written.add(os.fsdecode(name))
            return True
        if mask & (_IN_DELETE | _IN_MOVED_FROM):
            self.written.discard(os.fsdecode(name))
        return False


def _is_of_a_lease(name: bytes) -> bool:
    """Whether a hook gave this name to what becomes a lease file: .2001:db8:a::_48@eth0.4711 and so on."""
    address, _, rest = name[1:].partition(b"_")
    try:
        Prefix.parse_with_host(f"{address.decode('ascii')}/{rest.partition(b'@')[0].decode('ascii')}")
    except ValueError:
        return False
    return True


def _events(events: bytes) -> Iterator[tuple[int, int, bytes]]:
    start = 0
    while start < len(events):
        watch, mask, _, length = _EVENT.unpack_from(events, start)
        start += _EVENT.size + length
        yield watch, mask, events[start - length : start].rstrip(b"\0")
