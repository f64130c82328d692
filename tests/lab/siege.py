"""A host that has all it needs by one uplink and a VPN, and another uplink whose DHCPv6 server is hostile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from anyipd.model import Prefix
from tests.lab.daemon import Daemon
from tests.lab.delegated import covered
from tests.lab.dhclient import Dhclient
from tests.lab.dhcpcd import Dhcpcd
from tests.lab.kea import Kea, Offer
from tests.lab.local_routes import local_routes
from tests.lab.mounts import with_mounts
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import ISP_LINK_LOCAL, Uplink
from tests.lab.networkd import Networkd
from tests.lab.pings import Pings
from tests.lab.questions import Questions

GOOD = Prefix.parse("2001:db8:100::/56")
"""What the host is delegated on its good uplink."""

IDS = 0, 1, 0xFF
POLICY = "subnets: [{name: web, id: 0}, {name: mail, id: 1}, {name: last, id: 0xff}]\naccept: {at_most: 4}\n"

PROVIDER, NAMESERVER = "2001:db8:ff00::1", "2001:db8:ff00::53"
"""Reached by the default route, which is by the good uplink."""

VPN, BEHIND_VPN = Prefix.parse("2001:db8:4000::/36"), "2001:db8:4700::53"
"""What is routed to the VPN, and somebody there."""

HOST, HOST_IN_VPN = Prefix.parse("2001:db8:fe00::2/128"), "fd00:4000::2"
"""The host's own addresses."""

INTERVAL = 0.01

CLIENTS = ("dhclient", "dhcpcd", "networkd", "listen")
"""`listen` is a dhclient without our hook, on a link that the daemon listens on."""


def bound_of(delegated: Prefix) -> set[Prefix]:
    """Give what POLICY binds of a prefix."""
    fitting = [number for number in IDS if number < 1 << (64 - delegated.length)]
    return {Prefix(delegated.address + (number << 64), 64) for number in fitting}


class Siege:
    """The host, with anyipd; the other ends of its links; and `client` on the uplink of the hostile `kea`."""

    def __init__(
        self, uplink: Uplink, kea: Kea, daemon: Daemon, lab: Callable[[str], Namespace], client: str
    ) -> None:
        self.uplink, self.kea, self.daemon, self.folder = uplink, kea, daemon, kea.folder
        self.host, self.provider, self.vpn = uplink.host, lab("provider"), lab("vpn")
        self.good = Uplink(self.provider, self.host, "good", PROVIDER, metric=512)
        self.good.route(GOOD, HOST)
        self.provider.ip(f"addr add {NAMESERVER}/128 dev lo nodad")
        self.host.ip(f"addr add {HOST} dev lo nodad")
        self.join_vpn()
        resolv_conf = self.folder / "resolv.conf"
        resolv_conf.write_text(f"nameserver {NAMESERVER}\n")
        daemon.within = with_mounts({"/etc/resolv.conf": resolv_conf})
        daemon.configure(POLICY + (f"listen: [{uplink.interface}]\n" if client == "listen" else ""))
        daemon.start()
        self.client_name, self.client = client, self.make_client(client)
        self.serving, self.since = False, 0
        folder = self.folder / "good"
        folder.mkdir()
        Kea(self.provider, self.good.customer, folder).start(Offer(GOOD))
        Dhclient(self.host, "good", folder, daemon.runtime).start()
        wait_until(self.has_what_it_had)

    def join_vpn(self) -> None:
        self.host.ip(f"link add tun0 type veth peer name tun0 netns {self.vpn.name}")
        for end, address in ((self.host, "fe80::2"), (self.vpn, "fe80::1")):
            end.ip("link set tun0 up")
            end.ip(f"addr add {address}/64 dev tun0 nodad")
        self.host.ip(f"addr add {HOST_IN_VPN}/128 dev tun0 nodad")
        self.host.ip(f"-6 route add {VPN} via fe80::1 dev tun0 proto static")
        self.vpn.ip(f"addr add {BEHIND_VPN}/128 dev lo nodad")
        self.vpn.ip(f"-6 route add {HOST_IN_VPN} via fe80::2 dev tun0")

    def make_client(self, name: str) -> Dhclient | Dhcpcd | Networkd:
        host, interface, runtime = self.host, self.uplink.interface, self.daemon.runtime
        folder = self.folder / name
        folder.mkdir()
        if name == "networkd":
            return Networkd(host, interface, folder)
        if name == "dhcpcd":
            return Dhcpcd(host, interface, folder, runtime)
        if name == "dhclient":
            return Dhclient(host, interface, folder, runtime)
        nothing = folder / "no-hook"
        nothing.touch()
        return Dhclient(host, interface, folder, runtime, nothing)

    @property
    def client_discards(self) -> bool:
        """Whether the client discards what it is delegated by itself, whatever it may be."""
        return isinstance(self.client, Dhcpcd | Networkd)

    def keep_routes(self) -> None:
        """Route to what must be reached on its own, as docs/SECURITY.md advises beside such a client."""
        self.host.ip(f"-6 route add 2001:db8:ff00::/64 via {ISP_LINK_LOCAL} dev good proto static")
        self.host.ip(f"-6 route add {BEHIND_VPN} via fe80::1 dev tun0 proto static")

    # What the attacker does.

    def delegate(self, *prefixes: Prefix, valid: int = 8) -> None:
        """Have the hostile server delegate these from now on; at first the client starts, too."""
        self.since = len(self.daemon.lines())
        offers = [Offer(prefix, valid - 2, valid) for prefix in prefixes]
        if self.serving:
            self.kea.offer(*offers, renew=1, rebind=5)
        else:
            self.kea.start(*offers, renew=1, rebind=5)
            self.client.start()
        self.serving = True

    def leave(self) -> None:
        """End the server, and the client as a crash does, which loses its leases."""
        self.kea.stop()
        self.client.kill()
        if not isinstance(self.client, Networkd):
            self.client.forget()
        self.serving = False

    def remove_what_client_left(self) -> None:
        """Remove the discard routes of a client that was killed, as nobody else does."""
        self.host.ip("-6 route flush table main proto dhcp")

    # What becomes of the host.

    def wait_for(self, text: str) -> None:
        """Wait until the daemon says something of what was delegated last."""
        self.daemon.wait_for(text, since=self.since)

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """See that meanwhile the host answers, and is answered by its nameserver and in the VPN."""
        servers = {NAMESERVER: self.provider, BEHIND_VPN: self.vpn}
        with (
            Pings(self.good, sorted(bound_of(GOOD)), INTERVAL) as pings,
            Questions(self.host, servers, INTERVAL) as questions,
        ):
            yield
        lost, sent = pings.lost()
        assert (lost, questions.lost()) == (0, {}), f"of {sent} pings and {len(questions.asked)} questions"

    def has_what_it_had(self) -> bool:
        """Say whether anyipd's routes are those that there would be without the hostile uplink."""
        # Where a client discards a prefix by itself, we do not.
        return self.bound() == bound_of(GOOD) and self.discarded() <= {GOOD}

    def bound(self) -> set[Prefix]:
        """Give what is bound."""
        return set(covered(local_routes(self.host)))

    def discarded(self) -> set[Prefix]:
        """Give what anyipd discards."""
        return self.prefixes("table main proto 150 type unreachable")

    def messages(self) -> set[Prefix]:
        """Give what the hooks' messages are about."""
        return self.prefixes("table 150")

    def prefixes(self, which: str) -> set[Prefix]:
        return {Prefix.parse(route["dst"]) for route in self.host.ip_json(f"-6 route show {which}")}

    def files(self) -> set[str]:
        """Give the names of all lease files, the hooks' and those of what was heard."""
        return {file.name for file in self.daemon.runtime.glob("*/[!.]*@*")}

    def files_after_sweep(self) -> set[str]:
        """Give the same, and have the hook clear up at its next call, not a minute after it did last."""
        stamp = self.daemon.runtime / "leases" / f".swept@{self.uplink.interface}"
        stamp.unlink(missing_ok=True)
        return self.files()


def lease_file(prefix: Prefix, uplink: str) -> str:
    """Give the name of a lease file."""
    return f"{prefix}@{uplink}".replace("/", "_", 1)
