"""A DHCPv6 exchange frame by frame, as whoever is on the uplink or on the host itself may forge one."""

from __future__ import annotations

import os
import socket

from scapy.config import conf

from tests.lab.namespace import Namespace
from tests.lab.network import HOST_LINK_LOCAL, ISP_LINK_LOCAL, Uplink

conf.route_autoload = conf.route6_autoload = False  # else it reads the whole routing table

from scapy.layers import dhcp6  # noqa: E402
from scapy.layers.inet import UDP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.layers.l2 import Dot1Q, Ether  # noqa: E402

CLIENT, SERVER = bytes.fromhex("00030001020304050607"), bytes.fromhex("0003000102ffffffffff")


class Wire:
    """Writes frames by hand, as whoever is on the uplink or on the host itself may do."""

    def __init__(self, uplink: Uplink) -> None:
        self.uplink = uplink
        self.host_mac = uplink.host.ip_json(f"link show {uplink.interface}")[0]["address"]
        self.isp_mac = uplink.isp.ip_json(f"link show {uplink.customer}")[0]["address"]

    def ask(self, message: dhcp6.DHCP6, port: int = 546, by: str | None = None) -> None:
        """Send from the host, as its client does; `by` is another link than the uplink."""
        packet = IPv6(src=HOST_LINK_LOCAL, dst="ff02::1:2") / UDP(sport=port, dport=547)
        frame = Ether(src=self.host_mac, dst="33:33:00:01:00:02") / packet / message
        self.send(self.uplink.host, by or self.uplink.interface, frame)

    def answer(
        self,
        message: dhcp6.DHCP6,
        udp: UDP | None = None,
        to: str = HOST_LINK_LOCAL,
        tag: Dot1Q | None = None,
    ) -> None:
        """Send from the ISP, as a server does."""
        frame = Ether(dst=self.host_mac, src=self.isp_mac)
        if tag is not None:
            frame /= tag
        packet = IPv6(src=ISP_LINK_LOCAL, dst=to) / (udp or UDP(sport=547, dport=546))
        self.send(self.uplink.isp, self.uplink.customer, frame / packet / message)

    def send(self, where: Namespace, interface: str, frame: Ether) -> None:
        # Each processor has a queue: what two of them send may change places.
        processors = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(processors)})
        with where.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((interface, 0))
            sock.send(bytes(frame))
        os.sched_setaffinity(0, processors)


def request(transaction: int = 0xABCDEF, client: bytes = CLIENT) -> dhcp6.DHCP6:
    return dhcp6.DHCP6_Request(trid=transaction) / dhcp6.DHCP6OptClientId(duid=client)


def reply(prefix: str, transaction: int = 0xABCDEF, client: bytes = CLIENT, iaid: int = 1) -> dhcp6.DHCP6:
    address, length = prefix.split("/")
    iaprefix = dhcp6.DHCP6OptIAPrefix(preflft=100, validlft=200, plen=int(length), prefix=address)
    message = dhcp6.DHCP6_Reply(trid=transaction) / dhcp6.DHCP6OptClientId(duid=client)
    message /= dhcp6.DHCP6OptServerId(duid=SERVER)
    return message / dhcp6.DHCP6OptIA_PD(iaid=iaid, T1=50, T2=80, iapdopt=[iaprefix])


def release(prefix: str, client: bytes = CLIENT) -> dhcp6.DHCP6:
    address, length = prefix.split("/")
    iaprefix = dhcp6.DHCP6OptIAPrefix(preflft=0, validlft=0, plen=int(length), prefix=address)
    message = dhcp6.DHCP6_Release(trid=5) / dhcp6.DHCP6OptClientId(duid=client)
    return message / dhcp6.DHCP6OptIA_PD(iaid=9, T1=0, T2=0, iapdopt=[iaprefix])
