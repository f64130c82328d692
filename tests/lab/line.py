"""A host behind one uplink with anyipd on it, and the DHCPv6 client that a test starts there."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from anyipd.model import Prefix
from tests.lab import debian13
from tests.lab.daemon import Daemon
from tests.lab.delegated import OURS, bound
from tests.lab.dhclient import Dhclient
from tests.lab.dhcpcd import Dhcpcd
from tests.lab.kea import Kea
from tests.lab.namespace import wait_until
from tests.lab.network import HOST_LINK_LOCAL, ISP_LINK_LOCAL, Uplink
from tests.lab.networkd import TELLS_ALL, Networkd

OLD, NEW = Prefix.parse("2001:db8:100::/60"), Prefix.parse("2001:db8:200::/60")
POLICY = "subnets: [{name: web, id: 0}, {name: proxies, count: 2}]"

EARLY, LATE = 1.5, 2.5
"""Seconds around a deadline: clients and kernel count whole seconds, and asking for it takes a moment."""

Client = Dhclient | Networkd | Dhcpcd
CLIENTS = ("dhclient", "networkd", "dhcpcd")
NETWORKD_257, DHCPCD_10 = NEWER = "networkd-257", "dhcpcd-10"
"""Clients of Debian 13."""


class Line:
    """A host whose delegations come over `uplink`, with anyipd on it, and what a test starts."""

    def __init__(self, uplink: Uplink, kea: Kea, daemon: Daemon, folder: Path, policy: str = POLICY) -> None:
        self.uplink, self.kea, self.daemon, self.folder = uplink, kea, daemon, folder
        uplink.route(OLD, NEW)
        daemon.configure(policy)
        daemon.start()

    def client(self, name: str) -> Client:
        """Make a client, which has the host's DUID."""
        host, interface, runtime = self.uplink.host, self.uplink.interface, self.daemon.runtime
        folder = self.folder / name
        folder.mkdir()
        if name == NETWORKD_257:
            return Networkd(host, interface, folder, debian13.command("usr/lib/systemd/systemd-networkd"))
        if name == DHCPCD_10:
            command = debian13.command("usr/sbin/dhcpcd")
            return Dhcpcd(host, interface, folder, runtime, command=command, roots=[debian13.ROOT])
        if name == "networkd":
            return Networkd(host, interface, folder)
        return (Dhclient if name == "dhclient" else Dhcpcd)(host, interface, folder, runtime)

    def bound(self) -> list[str]:
        """Give the subnets that are bound."""
        return sorted(bound(self.uplink.host))

    def routes(self) -> list[str]:
        """Give all routes of the host, but for what is left of their lifetimes."""
        lines = self.uplink.host.ip("-6 route show table all").splitlines()
        return sorted(re.sub(r" expires \d+sec", "", line) for line in lines)

    def wait_until_bound(self, *delegated: Prefix, timeout: float = 20.0) -> None:
        """Wait until the policy's subnets of these, and no others, are bound."""
        wait_until(lambda: self.bound() == wanted(*delegated), timeout)

    def wait_until_known(self, client: Client) -> None:
        """Wait until the lifetime of what `client` was delegated is known, too."""
        name = type(client).__name__.lower()
        self.daemon.wait_for(f"source={name}", 20)

    def answers(self, delegated: Prefix) -> list[int]:
        """Ping eight addresses of each subnet; give how many answered."""
        return [self.uplink.answers(subnet, timeout=2) for subnet in subnets(delegated)]

    def end_of(self, delegated: Prefix) -> float:
        """Give when a delegation is over, in seconds of `time.monotonic`."""

        def asked() -> tuple[float, list[dict[str, Any]]] | None:
            now = time.monotonic()
            said = self.daemon.status()["delegations"]
            # An answer that took long may be from the end of that time.
            return (now, said) if time.monotonic() < now + EARLY / 4 else None

        now, said = wait_until(asked)
        [left] = [each["valid_lifetime"] for each in said if each["prefix"] == str(delegated)]
        return now + float(left)

    def assert_ends(self, delegated: Prefix, end: float, *others: Prefix) -> None:
        """See that a prefix is bound until `end`, and then the `others` alone."""
        time.sleep(max(end - EARLY - time.monotonic(), 0))
        found, asked = self.bound(), time.monotonic()
        assert set(wanted(delegated)) <= set(found) or asked > end  # a busy machine may come too late
        self.wait_until_bound(*others, timeout=EARLY + 2 * LATE)
        assert self.uplink.answers(subnets(delegated)[0], timeout=0.2) == 0

    def expires(self, prefix: Prefix) -> float | None:
        """Give when the kernel lets a bound subnet go, in seconds of `time.monotonic`."""
        now = time.monotonic()
        [route] = self.uplink.host.ip_json(f"{OURS} match {prefix}")
        return now + route["expires"] if "expires" in route else None

    def connect(self) -> None:
        """Give both ends what they lost when the link had no carrier."""
        uplink = self.uplink
        uplink.host.ip(f"addr replace {HOST_LINK_LOCAL}/64 dev {uplink.interface} nodad")
        uplink.host.ip(f"-6 route replace default via {ISP_LINK_LOCAL} dev {uplink.interface}")
        uplink.isp.ip(f"addr replace {ISP_LINK_LOCAL}/64 dev {uplink.customer} nodad")
        uplink.route(OLD, NEW)


def subnets(delegated: Prefix) -> list[Prefix]:
    """Give what POLICY binds of a prefix."""
    return [Prefix(delegated.address + (number << 64), 64) for number in range(3)]


def wanted(*delegated: Prefix) -> list[str]:
    """Give the same of several, as `Line.bound` does."""
    return sorted(str(subnet) for prefix in delegated for subnet in subnets(prefix))


def tells_all(client: Client) -> bool:
    """Say whether anyipd can learn all from it; systemd 252 tells little, and of a /64 nothing."""
    return not isinstance(client, Networkd) or client.version() >= TELLS_ALL
