"""What was heard on the wire, kept as lease files of our own, as a hook keeps what it is told.

So a restart, `anyipctl` and the end of a lifetime need nothing new. Here alone they are written; the
hooks' directory is root's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import structlog

from anyipd import clock, here, runtime_file
from anyipd.model import INFINITE, Prefix
from anyipd.observe.dhcpv6 import DelegatedPrefix
from anyipd.observe.exchange import Told
from anyipd.observe.lease import INFINITE_LIFETIME, MOST_BYTES, Leases, compose
from anyipd.observe.listen import DeafError, Listener

CLIENT = "listen"
"""What stands in the place of the client's name."""

MAX_LEASES = 1000
"""Lease files of an uplink that stay: a server may delegate ever more prefixes, each for ever."""

_log = structlog.get_logger()


class _File(NamedTuple):
    """What counts of a lease file; times as in `Lease`."""

    uplink: str
    written: float
    valid_until: float


class HeardLeases:
    """The lease files in a directory, which is made where it is missing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[str, _File] = {}
        self._first_end = -INFINITE  # when one of them is over; what an earlier daemon left may be already

    def take(self, told: Iterable[Told], now: float) -> None:
        """Write a lease file each, also of what was taken back; `now` is CLOCK_BOOTTIME.

        Those of prefixes whose lifetime is over go before, and the oldest of too many after. Nobody takes
        back but the client, by its DUID, that was granted it: where ordinary users may send from port 546,
        they send a Release, too. Raises OSError.
        """
        self._clear_up(now)
        for uplink, delegated, client in told:
            duid = sha256(client).hexdigest()  # not itself: everybody may read it here
            name = _name(delegated.prefix, uplink)
            if delegated.valid or _was_granted_to(duid, self._directory / name):
                self._write(name, uplink, delegated, duid, now)
        self._remove_oldest(now)

    def clear_up(self, now: float) -> None:
        """Remove the files of what is over at `now`. Raises OSError."""
        if now >= self._first_end:
            self._clear_up(now)

    def _write(self, name: str, uplink: str, delegated: DelegatedPrefix, duid: str, now: float) -> None:
        fields = {
            "client": CLIENT,
            "prefix": delegated.prefix,
            "uplink": uplink,
            "iaid": delegated.iaid,
            "preferred_lifetime": delegated.preferred,
            "valid_lifetime": delegated.valid,
            "uptime": f"{now:.6f}",
            "netns": here.network_namespace(),
            "boot": here.boot(),
            "duid_sha256": duid,
        }
        if delegated.exclude:
            fields["exclude"] = delegated.exclude
        until = INFINITE if delegated.valid == INFINITE_LIFETIME else now + delegated.valid
        self._first_end = min(self._first_end, until)
        runtime_file.write(self._directory / name, [compose(fields)])
        self._files[name] = _File(uplink, now, until)

    def _clear_up(self, now: float) -> None:
        if self._first_end == -INFINITE:
            leases, _ = Leases(self._directory).read(lambda: now)
            self._files = {
                _name(lease.prefix, lease.uplink): _File(lease.uplink, lease.written, lease.valid_until)
                for lease in leases
                if lease.uplink
            }
        for name in [name for name, file in self._files.items() if file.valid_until <= now]:
            self._remove(name)
        self._first_end = min((file.valid_until for file in self._files.values()), default=INFINITE)

    def _remove_oldest(self, now: float) -> None:
        kept = Counter[str]()
        for name, file in sorted(self._files.items(), key=_written, reverse=True):
            kept[file.uplink] += file.valid_until > now
            if kept[file.uplink] > MAX_LEASES:
                self._remove(name)

    def _remove(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)
        del self._files[name]


def _name(prefix: Prefix, uplink: str) -> str:
    # A slash is no part of a name.
    return f"{prefix}@{uplink}".replace("/", "_", 1)


def _written(named: tuple[str, _File]) -> float:
    return named[1].written


class Hearing:
    """Packet sockets on uplinks, and lease files of what is heard; `heard` is called after that."""

    def __init__(self, directory: Path, heard: Callable[[], None]) -> None:
        self._listener, self._leases, self._heard = Listener(), HeardLeases(directory), heard
        self._deaf: str | None = None

    def start(self) -> None:
        """Take in what comes, in the running loop."""
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._on_packet)

    def begin(self, uplinks: tuple[str, ...]) -> None:
        """Listen on other uplinks than before, and log which are not there."""
        self._deaf = None
        self.follow(uplinks)
        for uplink in sorted(set(uplinks) - self._listener.uplinks) if not self._deaf else ():
            _log.warning("no such link so far, listening when it comes", uplink=uplink)

    def follow(self, uplinks: tuple[str, ...]) -> None:
        """Listen on those of the uplinks that are there by now."""
        try:
            for uplink in self._listener.follow(uplinks):
                _log.info("listening", uplink=uplink)
        except DeafError as error:
            if str(error) != self._deaf:
                self._deaf = str(error)
                _log.warning("not listening", uplinks=",".join(uplinks), reason=self._deaf)
        else:
            self._deaf = None

    def clear_up(self, looked: float) -> None:
        """Remove what was over when there was a look: what came since is to be read first."""
        try:
            self._leases.clear_up(looked)
        except OSError as error:
            _log.warning("cannot clear up what was heard", path=error.filename, reason=error.strerror)

    def _on_packet(self) -> None:
        found = self._listener.read(clock.now())
        for uplink, reason in found.malformed:
            _log.warning("message dropped", uplink=uplink, reason=reason)
        if found.told:
            try:
                self._leases.take(found.told, clock.now())
            except OSError as error:
                _log.error("cannot keep what was heard", path=error.filename, reason=error.strerror)
            self._heard()


def _was_granted_to(duid: str, path: Path) -> bool:
    try:
        text, _ = runtime_file.read(path, MOST_BYTES)
    except (FileNotFoundError, ValueError):
        return False
    return f"\nduid_sha256={duid}\n".encode() in text
