"""Lease files: what a hook wrote down of a delegation that a discard route cannot carry.

In: a directory that root's hooks write to. Out: reports with their deadlines, and a complaint for each file
that is not one. What clients in other network namespaces reported, or before a reboot, is passed over. The
far end of the wire chose part of what is in them, so nothing is taken for granted: not the kind of file, not
its size, not one value.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from sys import intern
from typing import NamedTuple

from anyipd import here, runtime_file
from anyipd.model import INFINITE, Lease, Prefix
from anyipd.printable import printable

MOST_BYTES = 1024
"""A lease file has about 300."""

INFINITE_LIFETIME = 0xFFFFFFFF  # RFC 9915, 7.7

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}

_HEX_IAID = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){3}")
_QUOTED_IAID = re.compile(r'"([ -~]{4})"')  # as they are, whatever they are: dhclient escapes nothing
_PREFIX = re.compile(r"[0-9a-f:]{2,39}/\d{1,3}")
_FORM = {
    "client": re.compile(r"[a-z0-9-]{1,32}"),
    "prefix": _PREFIX,
    "uplink": re.compile(r"[!-.0-~]{1,15}"),
    "iaid": re.compile(r"[ -~]{0,32}"),
    "life_starts": re.compile(r"\d{1,12}"),
    "preferred_lifetime": re.compile(r"\d{1,10}"),
    "valid_lifetime": re.compile(r"\d{1,10}"),
    "uptime": re.compile(r"\d{1,12}(\.\d{1,9})?"),
    "reason": re.compile(r"[A-Z0-9]{1,16}"),
    "pid": re.compile(r"\d{0,10}"),
    "netns": re.compile(r"\d{0,20}"),
    "boot": re.compile(r"[0-9a-f-]{0,36}"),
    "exclude": _PREFIX,
    "duid_sha256": re.compile(r"[0-9a-f]{64}"),
}
_OPTIONAL = {"duid_sha256", "exclude", "life_starts", "reason", "pid", "netns", "boot"}
"""The last four are missing in files of 0.1.0, `life_starts` where the client does not count it."""

_LONG_BEFORE = 60.0
"""Seconds by which a file of 0.1.0 is older than this boot, on the wall clock, if it is of another."""


class Complaint(NamedTuple):
    """A file that is no lease file, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        """Give a single line: who names a file may put in it what looks like another one."""
        return printable(f"{self.path}: {self.reason}")


class Where(NamedTuple):
    """The boot and network namespace that count, and at which time of the wall clock the boot was."""

    boot: str
    network_namespace: int
    booted: float


class Leases:
    """The lease files of one directory; a file that did not change is not read again."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._network_namespace = here.network_namespace()
        self._versions: dict[str, int] = {}
        self._leases: dict[str, Lease] = {}
        self._unreadable: Complaint | None = None

    @property
    def held(self) -> Collection[Lease]:
        """Return the leases that were read and are wanted."""
        return self._leases.values()

    @property
    def unreadable(self) -> bool:
        """Whether what `read` gave last is what it held before, and worth another try."""
        return self._unreadable is not None

    def read(
        self, now: Callable[[], float], arriving: AbstractSet[str] = frozenset()
    ) -> tuple[list[Lease], list[Complaint]]:
        """Read all leases, and complaints that were not made before.

        `now` asks CLOCK_BOOTTIME, after each file: thousands take seconds, in which hooks write. `arriving`
        are names of files that are whole, though not in their places yet. A directory that is not there holds
        no leases. One that cannot be read holds those that it held.
        """
        complaints: list[Complaint] = []
        try:
            self._read_all(now, arriving, complaints)
        except OSError as error:
            complaint = Complaint(str(self._directory), os.strerror(error.errno or 0))
            complaints += [complaint] if complaint != self._unreadable else []
            self._unreadable = complaint
        else:
            self._unreadable = None
        return list(self._leases.values()), complaints

    def keep(self, is_wanted: Callable[[Lease], bool]) -> None:
        """Hold those leases alone that are wanted: the others are read no more until their files change."""
        self._leases = {name: lease for name, lease in self._leases.items() if is_wanted(lease)}

    def read_anew(self) -> None:
        """Have all files read that are not held."""
        self._versions = {name: self._versions[name] for name in self._leases}

    def _read_all(
        self, now: Callable[[], float], arriving: AbstractSet[str], complaints: list[Complaint]
    ) -> None:
        known, still_there = len(self._versions), 0
        for name in self._names(arriving):
            path = f"{self._directory}/{name}"
            try:
                version = _version(os.lstat(path))
                before = self._versions.get(name)
                if version != before:
                    found = self._read(path, now)
                    self._versions[name] = version
                    self._leases.pop(name, None)
                    if isinstance(found, Lease):
                        self._leases[name] = found
                    elif found:
                        complaints.append(found)
            except FileNotFoundError:
                continue  # the hook was faster
            still_there += before is not None
        if still_there < known:
            for name in self._versions.keys() - set(self._names(arriving)):
                del self._versions[name]
                self._leases.pop(name, None)

    def _read(self, path: str, now: Callable[[], float]) -> Lease | Complaint | None:
        try:
            text, modified = runtime_file.read(path, MOST_BYTES + 1)
            read_at = now()
            where = Where(here.boot(), self._network_namespace, time.time() - read_at)
            return parse(text, modified, read_at, where)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in _EXHAUSTED:
                raise  # not the file's fault: it is not to be forgotten
            return Complaint(path, os.strerror(error.errno or 0))
        except ValueError as error:
            return Complaint(path, str(error))

    def _names(self, arriving: AbstractSet[str]) -> Iterator[str]:
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    # The hook writes under a name with a dot in front, then puts it in place.
                    if not entry.name.startswith(".") or entry.name in arriving:
                        yield entry.name
        except FileNotFoundError:
            return


def _version(status: os.stat_result) -> int:
    return status.st_ino << 64 | status.st_ctime_ns


def compose(fields: Mapping[str, object]) -> bytes:
    """Write what `parse` reads: `fields` by the names that are in the file."""
    return "".join(f"{key}={value}\n" for key, value in fields.items()).encode()


def parse(text: bytes, modified: float, now: float, where: Where) -> Lease | None:
    """Make a report of a file's bytes, None where it is of another boot or network namespace.

    `modified` is the file's time stamp on the wall clock, on which `life_starts` was measured too:
    their difference is the age of the lease, whatever that clock did since. `uptime` is
    CLOCK_BOOTTIME at that moment. A lease may have started at the end of the second that
    `life_starts` names. Raises ValueError that says what is wrong.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"has more than {MOST_BYTES} bytes")
    fields = _fields(text.decode("ascii"))
    if _is_elsewhere(fields, modified, where):
        return None
    # The network may have set host bits; the kernel drops them in the discard route, too.
    prefix = Prefix.parse_with_host(fields["prefix"]).masked()
    preferred, valid = int(fields["preferred_lifetime"]), int(fields["valid_lifetime"])
    if preferred > valid:
        raise ValueError(f"preferred lifetime {preferred} is longer than the valid lifetime {valid}")
    if valid > INFINITE_LIFETIME:
        raise ValueError(f"valid lifetime {valid} is above {INFINITE_LIFETIME}")
    uptime = float(fields["uptime"])
    if uptime > now + 1:
        raise ValueError(f"uptime {uptime} is in the future: written before a reboot")
    life_starts = int(fields["life_starts"]) if "life_starts" in fields else None
    starts = uptime - max(modified - life_starts - 1, 0) if life_starts is not None else uptime
    return Lease(
        prefix=prefix,
        client=intern(fields["client"]),  # thousands may have it in common
        uplink=intern(fields["uplink"]),
        iaid=_iaid(fields["iaid"]),
        written=uptime,
        lifetime=INFINITE if valid == INFINITE_LIFETIME else valid,
        preferred_until=_deadline(starts, preferred),
        valid_until=_deadline(starts, valid),
        exclude=_exclude(fields["exclude"], prefix) if "exclude" in fields else None,
        reply=uptime if life_starts is None else life_starts,
        clock=0.0 if life_starts is None else modified - uptime,
        instance=intern(fields.get("pid", "")) or None,
        anew=fields.get("reason") == "BOUND6",
        duid=intern(fields.get("duid_sha256", "")) or None,
    )


def _is_elsewhere(fields: Mapping[str, str], modified: float, where: Where) -> bool:
    if fields.get("netns", str(where.network_namespace)) not in {"", str(where.network_namespace)}:
        return True
    if fields.get("boot"):
        return here.plain_boot(fields["boot"]) != where.boot
    return modified < where.booted - _LONG_BEFORE


def _fields(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in text.removesuffix("\n").split("\n"):
        key, _, value = line.partition("=")
        if key not in _FORM or key in fields:
            raise ValueError(f"line {len(fields) + 1} is {line[:40]!r}, not one of {', '.join(_FORM)}")
        if not _FORM[key].fullmatch(value):
            raise ValueError(f"{key} is {value[:40]!r}")
        fields[key] = value
    missing = _FORM.keys() - _OPTIONAL - fields.keys()
    if missing:
        raise ValueError(f"lacks {', '.join(sorted(missing))}")
    return fields


def _exclude(text: str, delegated: Prefix) -> Prefix:
    prefix = Prefix.parse_with_host(text).masked()
    if prefix == delegated or not delegated.covers(prefix):
        raise ValueError(f"exclude is {prefix}, no part of {delegated}")
    return prefix


def _deadline(starts: float, lifetime: int) -> float:
    return INFINITE if lifetime == INFINITE_LIFETIME else starts + lifetime


def _iaid(text: str) -> str | None:
    """Write an IAID (four bytes: RFC 9915, 21.21) as colon hex, also where dhclient wrote characters.

    None is what is not one: it decides nothing.
    """
    quoted = _QUOTED_IAID.fullmatch(text)
    if quoted:
        return quoted[1].encode().hex(":")
    return intern(text) if _HEX_IAID.fullmatch(text) else None
