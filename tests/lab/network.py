"""The picture of every test: an ISP, a host, and a line between them."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import time
from collections.abc import Iterable

from anyipd.kernel import bpf
from anyipd.model import Prefix, address_text
from tests.lab.namespace import Namespace

ISP_LINK_LOCAL = "fe80::1"
HOST_LINK_LOCAL = "fe80::2"
ECHO_REQUEST, ECHO_REPLY = 128, 129  # RFC 4443


class Uplink:
    """A veth pair from `isp` to `host`, with link-local addresses and a default route of the host's.

    The ends are named `interface` in the host and `customer` in the ISP. The ISP answers and pings
    from `address`, an address on its `lo`.
    """

    customer = "customer"

    def __init__(
        self,
        isp: Namespace,
        host: Namespace,
        interface: str = "uplink",
        address: str = "2001:db8:ffff::1",
        metric: int = 1024,
    ) -> None:
        self.isp, self.host = isp, host
        self.interface, self.address, self.metric = interface, address, metric
        isp.ip(f"link add {self.customer} type veth peer name {interface} netns {host.name}")
        isp.ips(
            f"link set {self.customer} up",
            f"addr add {ISP_LINK_LOCAL}/64 dev {self.customer} nodad",
            f"addr add {address}/128 dev lo nodad",
        )
        host.ips(
            f"link set {interface} up",
            f"addr add {HOST_LINK_LOCAL}/64 dev {interface} nodad",
            f"route add default via {ISP_LINK_LOCAL} dev {interface} metric {metric}",
        )
        self._await_line()

    def _await_line(self) -> None:
        """Ping until the host answers.

        Carriers and addresses are announced before they work: workers of the kernel see to the rest, and they
        wait while another namespace goes with half a million routes.
        """
        with self.isp.entered():
            identifier = random.getrandbits(16)
            pings = open_pings(identifier)
            host = (HOST_LINK_LOCAL, 0, 0, socket.if_nametoindex(self.customer))
        with pings:
            deadline = time.monotonic() + 20
            while not read_replies(pings, identifier):
                assert time.monotonic() < deadline, f"the host does not answer on {self.interface}"
                with contextlib.suppress(OSError):  # as long as there is no carrier
                    pings.sendto(_request(identifier), host)
                select.select([pings], [], [], 0.05)

    def route(self, *prefixes: Prefix) -> None:
        """Have the ISP route `prefixes` to the host, as it does for what it delegated."""
        to_host = f"via {HOST_LINK_LOCAL} dev {self.customer}"
        self.isp.ips(*(f"route replace {prefix} {to_host}" for prefix in prefixes))

    def unroute(self, *prefixes: Prefix) -> None:
        """Undo `route`."""
        to_host = f"via {HOST_LINK_LOCAL} dev {self.customer}"
        self.isp.ips(*(f"route delete {prefix} {to_host}" for prefix in prefixes))

    def answering(self, addresses: Iterable[int], timeout: float = 2) -> set[int]:
        """Ping all `addresses` at once from the ISP; give those that answered within `timeout` seconds."""
        asked = set(addresses)
        identifier = random.getrandbits(16)
        with self.isp.entered():
            pings = open_pings(identifier)
        with pings:
            pings.bind((self.address, 0))
            request = _request(identifier)
            answered: set[int] = set()
            deadline = time.monotonic() + timeout
            for address in asked:
                with contextlib.suppress(OSError):  # no route: no answer
                    pings.sendto(request, (address_text(address), 0))
                answered |= read_replies(pings, identifier)
            while answered != asked and (left := deadline - time.monotonic()) > 0:
                select.select([pings], [], [], left)
                answered |= read_replies(pings, identifier)
            answered |= read_replies(pings, identifier)  # what came while this process did not run
            return answered & asked

    def answers(self, prefix: Prefix, n: int = 8, timeout: float = 2) -> int:
        """Ping `n` addresses of `prefix`, its first and last among them; give how many answered."""
        some = {prefix.address, prefix.end - 1}
        while len(some) < n:
            some.add(random.randrange(prefix.address, prefix.end))
        return len(self.answering(some, timeout))


def open_pings(identifier: int) -> socket.socket:
    """Open a socket for pings that hears the replies to its own alone.

    Every raw socket hears all of them: what somebody else pings by the thousand would fill its buffer.
    """
    pings = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
    bpf.attach(pings, bpf.assemble([(bpf.LD_HALF, 0, 0, 4), *bpf.accept_if(identifier), bpf.DROP]))
    return pings


def _request(identifier: int) -> bytes:
    return struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identifier, 0)


def read_replies(pings: socket.socket, identifier: int) -> set[int]:
    """Take all Echo Replies that are there already; give the addresses that they came from."""
    answered: set[int] = set()
    while True:
        try:
            packet, (source, *_) = pings.recvfrom(2048)
        except BlockingIOError:
            return answered
        kind, _, _, found, _ = struct.unpack_from("!BBHHH", packet)
        if (kind, found) == (ECHO_REPLY, identifier):
            answered.add(int.from_bytes(socket.inet_pton(socket.AF_INET6, source)))
