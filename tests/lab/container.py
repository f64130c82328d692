"""A container, as far as routing knows: a network namespace behind the host, with addresses of its own."""

from __future__ import annotations

from collections.abc import Callable

from tests.lab.namespace import Namespace

HOST_END = "fe80::1"


class Container:
    """A veth pair from `host`, named `name` there, to a namespace that has a default route by it.

    The host forwards for it, and routes to it what it is given.
    """

    def __init__(self, lab: Callable[[str], Namespace], host: Namespace, name: str = "br0") -> None:
        self.host, self.inside, self.name = host, lab(name), name
        host.sysctl("net.ipv6.conf.all.forwarding", 1)
        host.sysctl("net.ipv4.ip_forward", 1)
        host.ips(
            f"link add {name} type veth peer name eth0 netns {self.inside.name}",
            f"link set {name} up",
            f"addr add {HOST_END}/64 dev {name} nodad",
            f"addr add 10.0.0.1/30 dev {name}",
        )
        self.inside.ips(
            "link set eth0 up",
            "addr add fe80::2/64 dev eth0 nodad",
            "addr add 10.0.0.2/30 dev eth0",
            f"route add default via {HOST_END} dev eth0",
            "route add default via 10.0.0.1",
        )

    def give(self, address: str) -> None:
        """Give it an address, and route that to it."""
        self.inside.ip(f"addr add {address} dev eth0{' nodad' if ':' in address else ''}")
        self.host.ip(f"route add {address} via {'fe80::2' if ':' in address else '10.0.0.2'} dev {self.name}")
