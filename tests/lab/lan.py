"""A link with more than two nodes."""

from __future__ import annotations

from anyipd.model import Prefix, address_text
from tests.lab.namespace import Namespace
from tests.lab.network import HOST_LINK_LOCAL, ISP_LINK_LOCAL

SUBNET = Prefix.parse("2001:db8:5::/64")


class Lan:
    """A bridge in the router's namespace, with the subnet on-link there; the host is on it, and another node.

    That one has `owned`, an address of the subnet.
    """

    def __init__(self, router: Namespace, host: Namespace, other: Namespace, subnet: Prefix) -> None:
        self.router, self.host, self.other = router, host, other
        self.owned = subnet.address + 0x77
        router.ips(
            "link add lan type bridge mcast_snooping 0",
            "link set lan up",
            f"addr add {ISP_LINK_LOCAL}/64 dev lan nodad",
            # From outside: to the host, all of the subnet is itself.
            "addr add 2001:db8:ffff::1/128 dev lo nodad",
            f"route add {subnet} dev lan",
        )
        self.connect(host, "uplink", HOST_LINK_LOCAL)
        self.connect(other, "other", "fe80::77")
        other.ip(f"addr add {address_text(self.owned)}/128 dev other nodad")

    def connect(self, node: Namespace, link: str, link_local: str) -> None:
        """Put a node on the bridge, by a new link of this name."""
        self.router.ips(
            f"link add to-{link} type veth peer name {link} netns {node.name}",
            f"link set to-{link} master lan up",
        )
        node.ips(
            f"link set {link} up",
            f"addr add {link_local}/64 dev {link} nodad",
            f"route add default via {ISP_LINK_LOCAL} dev {link}",
        )

    def ping(self, address: int, *options: str) -> None:
        """Ping from the router, once unless options say more. Raises CalledProcessError without an answer."""
        source = ["-I", "2001:db8:ffff::1"]
        self.router.run("ping", *source, "-W2", *(options or ["-c1"]), address_text(address))

    def neighbour(self) -> str | None:
        """Where the router believes the address to be."""
        found = self.router.ip_json(f"-6 neigh show to {address_text(self.owned)} dev lan")
        return found[0].get("lladdr") if found else None

    def reached(self) -> int:
        """Count the echo requests that came to the other node."""
        text = self.other.run("cat", "/proc/net/snmp6").stdout
        return int(next(line for line in text.splitlines() if line.startswith("Icmp6InEchos")).split()[1])
