"""A real Kea, delegating exactly the prefixes that a test wants delegated."""

from __future__ import annotations

import json
import signal
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from anyipd.model import Prefix
from tests.lab import debian
from tests.lab.namespace import Namespace, stop, wait_until

IA_PD, IAPREFIX = 25, 26  # RFC 8415, 21.21 and 21.22
STATUS_CODE, NO_PREFIX_AVAIL = 13, 6  # RFC 8415, 21.13
PD_EXCLUDE = 67  # RFC 6603, 4.2
LIBRARIES = ("usr/lib/*/kea/hooks", "usr/lib/kea/hooks", "usr/lib64/kea/hooks")


@dataclass(frozen=True)
class Offer:
    """A prefix as the IA_PD of every Advertise and Reply holds it, lifetimes in seconds.

    A valid lifetime of 0 withdraws it, a preferred lifetime of 0 deprecates it. `exclude` is what the
    server keeps of it for the uplink (RFC 6603), `status` a status code inside it.
    """

    prefix: Prefix
    preferred: int = 3600
    valid: int = 7200
    exclude: Prefix | None = None
    status: int = 0

    @classmethod
    def parse(cls, text: str, preferred: int = 3600, valid: int = 7200) -> Self:
        """Make one of `2001:db8::/56`."""
        return cls(Prefix.parse(text), preferred, valid)

    def __bytes__(self) -> bytes:
        """The IAPREFIX option."""
        options = self.excluding(self.exclude) if self.exclude else b""
        if self.status:
            options += struct.pack("!HHH", STATUS_CODE, 2, self.status)
        address, length = self.prefix.address.to_bytes(16), 25 + len(options)
        content = struct.pack("!IIB16s", self.preferred, self.valid, self.prefix.length, address)
        return struct.pack("!HH", IAPREFIX, length) + content + options

    def excluding(self, exclude: Prefix) -> bytes:
        """The PD_EXCLUDE option inside it."""
        bits = exclude.length - self.prefix.length
        number = (exclude.address - self.prefix.address) >> (128 - exclude.length)
        subnet_id = (number << -bits % 8).to_bytes(-(-bits // 8))
        return struct.pack("!HHB", PD_EXCLUDE, 1 + len(subnet_id), exclude.length) + subnet_id


class Kea:
    """kea-dhcp6, started on `interface` of `namespace`, with its files in `folder`.

    Kea leases by its own rules, then its hook flex_option writes `offers` over the content of the
    IA_PD. Left to itself, Kea withdraws (lifetimes 0) whatever it delegates no more, and puts one
    prefix in an IA; other servers leave the old one out, deprecate it, or delegate several, and
    these are the cases that a client's host must survive.
    """

    def __init__(self, namespace: Namespace, interface: str, folder: Path) -> None:
        self.namespace, self.interface = namespace, interface
        self.configuration, self.log = folder / "kea.json", folder / "kea.log"
        self.folder = folder

    def start(self, *offers: Offer, renew: int = 1000, rebind: int = 2000) -> None:
        """Start it and wait until it serves; T1 is `renew` and T2 `rebind`, in seconds."""
        self.configure(offers, renew, rebind)
        environment = {
            **debian.environment(),
            "KEA_LOCKFILE_DIR": "none",
            "KEA_PIDFILE_DIR": str(self.folder),
            "KEA_HOOKS_PATH": str(hooks_folder()),
        }
        with self.log.open("w") as log:
            self.process = self.namespace.popen(
                "kea-dhcp6", "-c", self.configuration, stdout=log, stderr=log, env=environment
            )
        self.wait_for("DHCP6_STARTED")

    def offer(self, *offers: Offer, renew: int = 1000, rebind: int = 2000) -> None:
        """Offer something else from now on; a client learns it by its next Renew, Rebind or Solicit."""
        self.configure(offers, renew, rebind)
        before = self.log.read_text().count("DHCP6_DYNAMIC_RECONFIGURATION_SUCCESS")
        self.process.send_signal(signal.SIGHUP)
        self.wait_for("DHCP6_DYNAMIC_RECONFIGURATION_SUCCESS", before + 1)

    def stop(self) -> None:
        """End it; `start` starts it again, as the same server and without memory of leases."""
        stop(self.process, signal.SIGTERM)

    def wait_for(self, message: str, times: int = 1) -> None:
        """Wait until its log holds `message`; RuntimeError, with the log, when Kea ends instead."""

        def there() -> bool:
            if self.log.read_text().count(message) >= times:
                return True
            if self.process.poll() is not None:
                raise RuntimeError(f"Kea ended:\n{self.log.read_text()}")
            return False

        wait_until(there, 10)

    def configure(self, offers: tuple[Offer, ...], renew: int, rebind: int) -> None:
        """Write its configuration."""
        content = struct.pack("!II", renew, rebind) + b"".join(map(bytes, offers))
        configuration: dict[str, Any] = {
            "interfaces-config": {"interfaces": [self.interface]},
            "lease-database": {"type": "memfile", "persist": False},
            # A fixed one: a client that renews is answered after a restart, too.
            "server-id": {
                "type": "EN",
                "enterprise-id": 2495,
                "identifier": "0123456789ab",
                "persist": False,
            },
            # The highest: a client need not wait a second for better servers (RFC 8415, 18.2.1).
            "option-data": [{"name": "preference", "data": "255", "always-send": True}],
            "subnet6": [
                {
                    "id": 1,
                    "subnet": "fd00:6b65:61::/64",
                    "interface": self.interface,
                    "pd-pools": [{"prefix": "fd00:6b65:61::", "prefix-len": 48, "delegated-len": 64}],
                }
            ],
            "hooks-libraries": [
                {
                    "library": str(hooks_folder() / "libdhcp_flex_option.so"),
                    "parameters": {
                        "options": [
                            {
                                "code": IA_PD,
                                # The client's own IAID, then what we make of the rest.
                                "supersede": f"concat(substring(option[{IA_PD}].hex,0,4),0x{content.hex()})",
                            }
                        ]
                    },
                }
            ],
            "loggers": [
                {
                    "name": "kea-dhcp6",
                    "severity": "INFO",
                    "output_options": [{"output": "stdout", "flush": True}],
                }
            ],
        }
        self.configuration.write_text(json.dumps({"Dhcp6": configuration}, indent=1))


def hooks_folder() -> Path:
    """Find where Kea's hooks are: beside the unpacked Kea, or the machine's."""
    return next(
        found
        for root in (debian.CACHE / "root", Path("/"))
        for pattern in LIBRARIES
        for found in root.glob(pattern)
    )
