"""What the hooks of DHCPv6 clients report in a test: lease files, some of them by a real hook."""

from __future__ import annotations

import os
import time
from ipaddress import IPv6Network
from pathlib import Path

from anyipd import here
from tests.lab import debian
from tests.lab.delegated import next_second
from tests.lab.dhclient import HOOK
from tests.lab.naive_ledger import Report
from tests.lab.namespace import Namespace

UNIQUE_LOCAL = IPv6Network("fc00::/7")

GRANTS = {"BOUND6", "RENEW6", "REBIND6"}
GIVEN_UP = {"EXPIRE6", "STOP6", "DEPREF6"}
"""Takes nothing back."""

TICK = 0.02
"""Seconds between two reports, so that it is known which came first: an uptime has hundredths."""


def file_name(prefix: IPv6Network, uplink: str) -> str:
    return f"{prefix.network_address}_{prefix.prefixlen}@{uplink}"


class Reports:
    """The clients on `host` and what they wrote; `wall` is what their clock is ahead of the real one."""

    def __init__(self, host: Namespace, runtime: Path) -> None:
        self.host, self.runtime, self.leases = host, runtime, runtime / "leases"
        self.leases.mkdir()
        self.wall = 0
        self.pids: dict[tuple[str, str], int] = {}
        self.granted: dict[str, int] = {}  # life_starts of the last grant, by file
        self.last = 0.0

    def pid(self, client: str, uplink: str) -> int:
        return self.pids.setdefault((client, uplink), 1000 + len(self.pids))

    def restart(self, client: str, uplink: str) -> None:
        """Have another process be the client from now on."""
        self.pids[client, uplink] = self.pid(client, uplink) + 1000

    def second(self) -> int:
        """Give the second in which the next Reply comes, by the clients' clock."""
        return next_second() + self.wall

    def uptime(self) -> float:
        """Give the time now, which is another one than that of the report before."""
        while (now := time.clock_gettime(time.CLOCK_BOOTTIME)) < self.last + TICK:
            time.sleep(TICK / 2)
        return now

    def write(
        self,
        client: str,
        prefix: IPv6Network,
        uplink: str,
        lifetimes: tuple[int, int],
        age: int,
        *,
        second: int | None = None,
    ) -> Report:
        """Write a lease file as the hook does; `second` is that of the Reply, which several may share."""
        uptime, modified = self.uptime(), time.time() + self.wall
        life_starts = int(modified) - age if age else second or self.second()
        fields = {
            "client": client,
            "prefix": prefix,
            "uplink": uplink,
            "iaid": iaid(prefix, age),
            "life_starts": life_starts,
            "preferred_lifetime": lifetimes[0],
            "valid_lifetime": lifetimes[1],
            "uptime": f"{uptime:.2f}",
            "pid": self.pid(client, uplink),
            "netns": "",
            "boot": here.boot(),
        }
        if client != "dhclient":  # which alone counts it
            del fields["life_starts"]
        # Under a hook's name it would be read as soon as it is closed, with the time stamp of the real clock.
        new = self.leases / (".of-another-clock" if self.wall else f".{file_name(prefix, uplink)}.1")
        new.write_text("".join(f"{key}={value}\n" for key, value in fields.items()))
        os.utime(new, (modified, modified))
        new.rename(self.leases / file_name(prefix, uplink))
        return self.read(prefix, uplink)

    def call_hook(
        self, reason: str, prefix: IPv6Network, uplink: str, lifetimes: tuple[int, int], *, again: bool
    ) -> Report | None:
        """Have dhclient's script call our hook; None where it wrote nothing.

        With `again` the Reply that granted it last is reported once more. The hook goes by the real clock.
        """
        self.wall = 0
        self.uptime()
        file = self.leases / file_name(prefix, uplink)
        known = self.granted.get(file.name) if again else None
        which = "new" if reason in GRANTS else "old"
        variables = {
            "ip6_prefix": prefix,
            "iaid": iaid(prefix, 0),
            "life_starts": known or next_second(),
            "preferred_life": lifetimes[0],
            "max_life": lifetimes[1],
        }
        environment = {
            "PATH": debian.environment()["PATH"],
            "ANYIPD_RUNTIME_DIR": str(self.runtime),
            "reason": reason,
            "interface": uplink,
            "pid": str(self.pid("dhclient", uplink)),
            **{f"{which}_{key}": str(value) for key, value in variables.items()},
        }
        before = file.stat().st_ino if file.exists() else None
        self.host.run("dash", "-c", f". {HOOK}", env=environment)
        if before == (file.stat().st_ino if file.exists() else None):
            # What was reported before need not be written down.
            assert reason in GIVEN_UP or (reason in GRANTS and known)
            return None
        assert reason not in GIVEN_UP
        report = self.read(prefix, uplink)
        assert (report.valid > 0) == (which == "new" and lifetimes[1] > 0)
        if which == "new":
            assert report.reply == variables["life_starts"]
        return report

    def read(self, prefix: IPv6Network, uplink: str) -> Report:
        """Read a lease file that was written just now."""
        file = self.leases / file_name(prefix, uplink)
        told = dict(line.split("=", 1) for line in file.read_text().splitlines())
        assert (told["prefix"], told["uplink"]) == (str(prefix), uplink)
        modified, written = file.stat().st_mtime, float(told["uptime"])
        life_starts = int(told["life_starts"]) if "life_starts" in told else None
        if life_starts and told["valid_lifetime"] != "0":
            self.granted[file.name] = life_starts
        self.last = written
        return Report(
            told["client"],
            int(told["pid"]),
            prefix,
            uplink,
            told["iaid"],
            written if life_starts is None else life_starts,
            int(told["preferred_lifetime"]),
            int(told["valid_lifetime"]),
            written,
            # It may have begun at the end of the second that life_starts names.
            0.0 if life_starts is None else max(modified - life_starts - 1, 0),
            0.0 if life_starts is None else modified - written,
            anew=told.get("reason") == "BOUND6",
        )


def elsewhere(netns: str, boot: str) -> bytes:
    """Give a lease file of a client that is in another network namespace or boot than this."""
    lines = (
        *("client=dhclient", "prefix=2001:db8:100::/61", "uplink=up0", "iaid=00:00:00:01", "life_starts=1"),
        *("preferred_lifetime=600", "valid_lifetime=6000", "uptime=1.00", f"netns={netns}", f"boot={boot}"),
    )
    return "".join(f"{line}\n" for line in lines).encode()


def iaid(prefix: IPv6Network, age: int) -> str:
    """Give the IAID of a prefix, "" where the client does not name one."""
    if prefix.network_address in UNIQUE_LOCAL:
        return ""
    # What is older than what came before is not of the same exchange.
    return "00:00:00:02" if age or prefix.prefixlen in {64, 66} else "00:00:00:01"
