"""What stands around the prefixes of the chaos run: a container in a hole, and behind the NDP proxy."""

from __future__ import annotations

from collections.abc import Iterable

from anyipd.model import Prefix
from tests.lab.namespace import Namespace
from tests.lab.network import HOST_LINK_LOCAL, ISP_LINK_LOCAL, Uplink

WEB, SHOP = 0, 14
"""Subnet IDs: of one with a hole and an address of the host's own, and of one that is the container's."""

HOLE = "::c:0:0/96"
"""As `except:` has it."""

PROBED = 124
"""The length of what is probed of each: few addresses, since all neighbour tables hold 1,024 together."""

FOREIGN = """\
table ip6 provider {{
    chain received {{
        type filter hook prerouting priority raw
        iifname "{link}" ip6 saddr != {{ fe80::/10, {prefix} }} drop
    }}
}}
"""
"""A provider's filter: what comes from a customer with a source that is not his is dropped."""


def subnet(delegated: Prefix, number: int) -> Prefix:
    """Give the /64 of this subnet ID."""
    return Prefix(delegated.address + (number << 64), 64)


def hole(delegated: Prefix) -> Prefix:
    """Return the hole in a delegated prefix."""
    return Prefix(subnet(delegated, WEB).address | Prefix.parse(HOLE).address, 96)


def own_address(delegated: Prefix) -> Prefix:
    """Return the host's own address in it."""
    return Prefix(subnet(delegated, WEB).address + 1, 128)


def probed(prefix: Prefix) -> Prefix:
    """Return the addresses of a hole or a container's subnet that are probed."""
    return Prefix(prefix.address + 16, PROBED)


def refuse_foreign_sources(uplink: Uplink, prefix: Prefix) -> None:
    """Have the ISP drop what comes from the host with another source than its prefix."""
    rules = FOREIGN.format(link=uplink.customer, prefix=prefix)
    uplink.isp.run("nft", "-f", "-", input=rules)


class Behind:
    """A container behind `host`, with all addresses that reach it; it owns what comes out of `pools`."""

    def __init__(self, host: Namespace, container: Namespace, pools: Iterable[Prefix]) -> None:
        self.host = host
        host.ip(f"link add behind type veth peer name eth0 netns {container.name}")
        host.ip(f"addr add {ISP_LINK_LOCAL}/64 dev behind nodad")
        host.ip("link set behind up")
        host.sysctl("net.ipv6.conf.all.forwarding", 1)
        container.ip(f"addr add {HOST_LINK_LOCAL}/64 dev eth0 nodad")
        container.ip("link set eth0 up")
        container.ip(f"-6 route add default via {ISP_LINK_LOCAL} dev eth0")
        for pool in pools:
            container.ip(f"-6 route add local {pool} dev lo")

    def route(self, delegated: Prefix) -> None:
        """Route it what it has of a delegated prefix, as Docker does with its networks."""
        for prefix in hole(delegated), subnet(delegated, SHOP):
            self.host.ip(f"-6 route replace {prefix} via {HOST_LINK_LOCAL} dev behind proto static")
