"""What was heard on the wire, kept as lease files of our own, as a hook keeps what it is told.

So a restart, `anyipctl` and the end of a lifetime need nothing new. Here alone they are written; the
hooks' directory is root's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from operator import attrgetter
from pathlib import Path

from anyipd import here, runtime_file
from anyipd.model import INFINITE, Prefix
from anyipd.observe.dhcpv6 import DelegatedPrefix
from anyipd.observe.exchange import Told
from anyipd.observe.lease import MOST_BYTES, Leases, compose

CLIENT = "listen"
"""What stands in the place of the client's name."""

MAX_LEASES = 1000
"""Lease files of an uplink that stay: a server may delegate ever more prefixes, each for ever."""


class HeardLeases:
    """The lease files in a directory, which is made where it is missing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._leases = Leases(directory)
        self._first_end = -INFINITE  # when one of them is over; what an earlier daemon left may be already

    def take(self, told: Iterable[Told], now: float) -> None:
        """Write a lease file each, also of what was taken back; `now` is CLOCK_BOOTTIME.

        Those of prefixes whose lifetime is over go before, and the oldest of too many. Nobody takes back but
        the client, by its DUID, that was granted it: where ordinary users may send from port 546, they send
        a Release, too. Raises OSError.
        """
        self._clear_up(now)
        for uplink, delegated, client in told:
            duid = sha256(client).hexdigest()  # not itself: everybody may read it here
            path = self._path(delegated.prefix, uplink)
            if delegated.valid or _was_granted_to(duid, path):
                self._write(path, uplink, delegated, duid, now)

    def clear_up(self, now: float) -> None:
        """Remove the files of what is over at `now`. Raises OSError."""
        if now >= self._first_end:
            self._clear_up(now)

    def _write(self, path: Path, uplink: str, delegated: DelegatedPrefix, duid: str, now: float) -> None:
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
        self._first_end = min(self._first_end, now + delegated.valid)
        runtime_file.write(path, compose(fields))

    def _path(self, prefix: Prefix, uplink: str) -> Path:
        # A slash is no part of a name.
        return self._directory / f"{prefix}@{uplink}".replace("/", "_", 1)

    def _clear_up(self, now: float) -> None:
        leases, _ = self._leases.read(lambda: now)
        self._first_end = min(
            (each.valid_until for each in leases if each.valid_until > now), default=INFINITE
        )
        kept = Counter[str | None]()
        for lease in sorted(leases, key=attrgetter("written"), reverse=True):
            kept[lease.uplink] += lease.valid_until > now
            if lease.uplink and (lease.valid_until <= now or kept[lease.uplink] > MAX_LEASES):
                self._path(lease.prefix, lease.uplink).unlink(missing_ok=True)


def _was_granted_to(duid: str, path: Path) -> bool:
    try:
        text, _ = runtime_file.read(path, MOST_BYTES)
    except (FileNotFoundError, ValueError):
        return False
    return f"\nduid_sha256={duid}\n".encode() in text
