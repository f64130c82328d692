"""A router's redirect for an address of ours: the route that comes of it is no claim on the subnet."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from anyipd.model import Prefix
from tests.lab import debian
from tests.lab import machine as machines
from tests.lab.daemon import Daemon
from tests.lab.delegated import bound, write_lease
from tests.lab.machine import Machine
from tests.lab.make import ROOT
from tests.lab.namespace import LabError, wait_until
from tests.lab.network import Uplink
from tests.lab.programs import missing

DELEGATED = Prefix.parse("2001:db8:100::/60")
WEB = Prefix.parse("2001:db8:100::/64")
POLICY = "subnets: [{name: web, neighbours: [uplink]}]\nunassigned: none\n"

DNSMASQ = [
    "dnsmasq",
    "--no-daemon",
    "--conf-file=/dev/null",
    "--port=0",
    "--enable-ra",
    "--ra-param=*,1,1800",
]
NETWORK = """\
[Match]
Name=uplink
[Network]
IPv6AcceptRA=yes
KeepConfiguration=static
Address=fe80::2/64
"""


@pytest.fixture
def redirected(uplink: Uplink, daemon: Daemon, neighbour: Daemon) -> Daemon:
    """The host, whose router has the subnet on-link and sends a redirect for every packet that it returns."""
    uplink.isp.sysctl("net.ipv6.conf.all.forwarding", 1)
    uplink.isp.ip(f"-6 route add {WEB} dev {uplink.customer}")
    daemon.configure(POLICY)
    write_lease(daemon.runtime, prefix=DELEGATED)
    daemon.start()
    neighbour.start()
    return daemon


def redirects(uplink: Uplink) -> int:
    """Count the redirects that the host received."""
    counters = uplink.host.run("cat", "/proc/net/snmp6").stdout
    (found,) = re.findall(r"^Icmp6InRedirects\s+(\d+)", counters, re.MULTILINE)
    return int(found)


def test_one_that_the_kernel_takes(redirected: Daemon, uplink: Uplink) -> None:
    redirected.control("probe", "web", check=False)
    wait_until(lambda: redirects(uplink) == 3)
    # The kernel keeps what it made of them beside its tables.
    assert (
        len(re.findall("^2001:db8:100:.* dev uplink", uplink.host.ip("-6 route show cache"), re.MULTILINE))
        == 3
    )
    assert "dev uplink" not in uplink.host.ip("-6 route show root 2001:db8:100::/60")
    redirected.reload()
    assert bound(uplink.host) == {str(WEB)}


@pytest.fixture
def networkd(uplink: Uplink) -> Iterator[None]:
    """systemd-networkd of Debian 13 on the host, which makes routes of redirects itself."""
    system = ROOT / ".cache/debian13/root"
    if machines.obstacle():
        pytest.skip(machines.obstacle() or "")
    if not system.exists():
        missing("no Debian 13: run `make .cache/debian13` as root")
    uplink.isp.ip(f"addr add 2001:db8:50::1/64 dev {uplink.customer} nodad")
    try:
        with Machine(uplink.host, system) as machine:
            (machine.root / "etc/systemd/network").mkdir(parents=True, exist_ok=True)
            (machine.root / "etc/systemd/network/uplink.network").write_text(NETWORK)
            enabled = machine.root / "etc/systemd/system/multi-user.target.wants"
            enabled.mkdir(parents=True)
            (enabled / "systemd-networkd.service").symlink_to(
                "/usr/lib/systemd/system/systemd-networkd.service"
            )
            machine.boot()
            router = [*DNSMASQ, f"--interface={uplink.customer}", "--dhcp-range=2001:db8:50::,ra-only"]
            uplink.isp.popen(*router, env=debian.environment(), stderr=subprocess.DEVNULL)
            wait_until(lambda: "default" in uplink.host.ip("-6 route show proto ra"), 20)
            yield
    except LabError as error:
        missing(str(error))


@pytest.mark.usefixtures("networkd")
def test_one_that_networkd_takes(redirected: Daemon, uplink: Uplink) -> None:
    redirected.control("probe", "web", check=False)
    wait_until(lambda: len(uplink.host.ip_json("-6 route show proto redirect")) == 3, 10)
    print(uplink.host.ip("-6 route show"))
    redirected.reload()
    assert bound(uplink.host) == {str(WEB)}
    assert "unbound" not in redirected.log.read_text()
