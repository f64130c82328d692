"""A real ISC dhcpd, delegating one prefix."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.lab import debian
from tests.lab.kea import Offer
from tests.lab.namespace import Namespace, stop, wait_until

LINK = "fd00:6b65:61::"
"""It serves no interface without an address of a subnet that it knows."""

CONFIGURATION = """\
authoritative;
preferred-lifetime {preferred};
default-lease-time {valid};
option dhcp-renewal-time {renew};
option dhcp-rebinding-time {rebind};
option dhcp6.preference 255;
subnet6 {link}/64 {{
  prefix6 {prefix} {prefix} /{length};
}}
"""


class Dhcpd:
    """`dhcpd -6` on `interface` of `namespace`, with its files in `folder`: as `Kea`, but for one prefix."""

    def __init__(self, namespace: Namespace, interface: str, folder: Path) -> None:
        self.namespace, self.interface = namespace, interface
        self.configuration, self.log = folder / "dhcpd.conf", folder / "dhcpd.log"
        self.leases, self.pid_file = folder / "dhcpd.leases", folder / "dhcpd.pid"

    def start(self, offer: Offer, *, renew: int = 1000, rebind: int = 2000) -> None:
        """Start it and wait until it serves; T1 is `renew` and T2 `rebind`, in seconds."""
        self.configuration.write_text(
            CONFIGURATION.format(
                preferred=offer.preferred,
                valid=offer.valid,
                renew=renew,
                rebind=rebind,
                link=LINK,
                prefix=str(offer.prefix).partition("/")[0],
                length=offer.prefix.length,
            )
        )
        self.leases.touch()
        self.namespace.ip(f"addr replace {LINK}1/64 dev {self.interface} nodad")
        files: list[str | Path] = ["-cf", self.configuration, "-lf", self.leases, "-pf", self.pid_file]
        command: list[str | Path] = ["dhcpd", "-6", "-f", "-d", *files, self.interface]
        with self.log.open("w") as log:
            self.process = self.namespace.popen(*command, stdout=log, stderr=log, env=debian.environment())

        def serves() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"dhcpd ended:\n{self.log.read_text()}")
            return "Server starting service" in self.log.read_text()

        wait_until(serves, 10)

    def stop(self) -> None:
        """End it."""
        stop(self.process, signal.SIGTERM)
