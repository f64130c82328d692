"""A real systemd-networkd without the rest of systemd, on a D-Bus of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.lab import debian
from tests.lab.mounts import with_mounts
from tests.lab.namespace import Namespace, stop, wait_until
from tests.lab.network import HOST_LINK_LOCAL, ISP_LINK_LOCAL

BUS = Path("/run/dbus/system_bus_socket")
"""Where everybody looks for it; the lab's /run is nobody else's."""

BUS_CONFIGURATION = f"""\
<busconfig>
  <type>system</type>
  <listen>unix:path={BUS}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_destination="*"/> <allow receive_sender="*"/>
  </policy>
</busconfig>
"""

NETWORK = f"""\
[Match]
Name={{interface}}
[Network]
DHCP=ipv6
IPv6AcceptRA=no
Address={HOST_LINK_LOCAL}/64
[Route]
Gateway={ISP_LINK_LOCAL}
[DHCPv6]
WithoutRA=solicit
UseAddress=no
UseHostname=no
DUIDType=link-layer
"""

PLAIN_FILES = 'mount -o remount,ro,bind /sys; exec "$@"'
"""Where /sys is read-only, networkd waits for no udev."""


TELLS_ALL = 255
"""The version of systemd from which on networkd tells of every delegated prefix, uplink and all."""


def crowd(host: Namespace) -> None:
    """Add so many routes of somebody's that a networkd which sees them says more than anybody reads."""
    prefixes = (f"2001:db8:c000:{number:x}::/64" for number in range(4096))
    routes = (f"route add local {each} dev lo table local proto static" for each in prefixes)
    host.run("ip", "-6", "-batch", "-", input="\n".join(routes))


class Networkd:
    """systemd-networkd, minding `interface` of `namespace` alone, with its files in `folder`.

    `command` starts it: the machine's own, or another one's.
    """

    def __init__(
        self,
        namespace: Namespace,
        interface: str,
        folder: Path,
        command: Sequence[str] = ("systemd-networkd",),
    ) -> None:
        self.namespace, self.interface, self.command = namespace, interface, command
        self.run, self.log, self.users = folder / "systemd", folder / "networkd.log", folder / "passwd"
        (self.run / "network").mkdir(parents=True)
        (self.run / "network" / "uplink.network").write_text(NETWORK.format(interface=interface))
        # It gives up root for this user, whom the machine may not know, nor a user namespace allow.
        others = Path("/etc/passwd").read_text().splitlines()
        users = [line for line in others if not line.startswith("systemd-network:")]
        self.users.write_text("\n".join([*users, "systemd-network:x:0:0::/:/usr/sbin/nologin", ""]))
        self.bus = folder / "bus.conf"
        self.bus.write_text(BUS_CONFIGURATION)
        self.bus_daemon: subprocess.Popen[str] | None = None

    def version(self) -> int:
        """Give its version, such as 252."""
        printed = self.namespace.run(*self.command, "--version", env=debian.environment()).stdout
        return int(printed.split()[1])

    def start(self) -> None:
        """Start it in the background of the lab, and once before it the bus; it asks for a prefix."""
        if not self.bus_daemon:
            self.start_bus()
        Path("/run/systemd").mkdir(exist_ok=True)
        mounts = {"/run/systemd": self.run, "/etc/passwd": self.users}
        environment = {"SYSTEMD_LOG_LEVEL": "debug", "SYSTEMD_LOG_TARGET": "console"}
        with self.log.open("a") as log:
            self.process = self.namespace.popen(
                *with_mounts(mounts),
                *("sh", "-ec", PLAIN_FILES, "sh"),
                *self.command,
                stdout=log,
                stderr=log,
                env=debian.environment() | environment,
            )

    def start_bus(self) -> None:
        """Start the bus, and wait until it takes calls."""
        BUS.parent.mkdir(exist_ok=True)
        BUS.unlink(missing_ok=True)
        command = ["dbus-daemon", "--nofork", "--nopidfile", f"--config-file={self.bus}"]
        with self.log.open("a") as log:
            self.bus_daemon = self.namespace.popen(*command, stderr=log, env=debian.environment())
        wait_until(_takes_calls)

    def wait_until_bound(self, times: int = 1) -> None:
        """Wait until it was given a prefix so many times, over all its starts."""
        wait_until(lambda: self.log.read_text().count("State changed: request -> bound") >= times, 20)

    def reload(self, replace: str, by: str) -> None:
        """Change its file for the link, and have it read, as `networkctl reload` does."""
        file = self.run / "network" / "uplink.network"
        file.write_text(file.read_text().replace(replace, by))
        call = (
            *("busctl", "call", "org.freedesktop.network1", "/org/freedesktop/network1"),
            *("org.freedesktop.network1.Manager", "Reload"),
        )
        # It is on the bus some time after it has said what it found.
        wait_until(lambda: self.namespace.run(*call, check=False, env=debian.environment()).returncode == 0)

    def kill(self) -> None:
        """End it as a crash does: nothing is taken back."""
        stop(self.process, signal.SIGKILL)

    def stop(self) -> None:
        """End it as `systemctl stop` does."""
        stop(self.process, signal.SIGTERM)

    def restart(self) -> None:
        """End it and start it anew, as `systemctl restart` does (RestartKillSignal= of its unit)."""
        stop(self.process, signal.SIGUSR2)
        self.start()


def _takes_calls() -> bool:
    with socket.socket(socket.AF_UNIX) as connection:  # it is there before it listens
        return connection.connect_ex(str(BUS)) == 0
