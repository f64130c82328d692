"""The installed service on a machine with a systemd: what a test does to it, and what it finds."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from anyipd.model import Prefix
from tests.lab import machine as machines
from tests.lab import namespace
from tests.lab.delegated import covered
from tests.lab.local_routes import local_routes
from tests.lab.machine import Entry, Machine
from tests.lab.namespace import LabError, Namespace, wait_until
from tests.lab.network import Uplink
from tests.lab.programs import missing

DELEGATED = Prefix.parse("2001:db8:100::/60")
POLICY = "subnets: [{name: web, id: 0}, {name: proxies, count: 3}]\n"
HOOK = "/etc/dhcp/dhclient-exit-hooks.d/anyipd"


def subnets(*numbers: int) -> list[str]:
    """Give the subnets of DELEGATED with these IDs, in order."""
    return [str(Prefix(DELEGATED.address + (number << 64), 64)) for number in sorted(numbers)]


def told(prefix: Prefix, interface: str) -> dict[str, str]:
    """Give the variables with which dhclient tells its hook of `prefix`, delegated just now."""
    return {
        "reason": "BOUND6",
        "interface": interface,
        "new_ip6_prefix": str(prefix),
        "new_iaid": "62:9d:01:0a",
        "new_life_starts": str(int(time.time())),
        "new_preferred_life": "3600",
        "new_max_life": "7200",
    }


@contextmanager
def machine_with_uplink(system: Path = Path("/")) -> Iterator[tuple[Machine, Uplink]]:
    """Give a machine with the files of `system` that has not booted, and its uplink.

    Where none can boot the test ends: skipped on somebody's laptop, failed in CI.
    """
    reason = namespace.obstacle() or machines.obstacle()
    if reason:
        pytest.skip(reason)
    try:
        with Namespace("isp") as isp, Namespace("host") as host, Machine(host, system) as machine:
            yield machine, Uplink(isp, host)
    except LabError as error:
        missing(str(error))


@dataclass
class Service:
    """The unit anyipd on `machine`."""

    machine: Machine
    uplink: Uplink
    cursor: str = ""
    """Where the journal was when the test began."""

    def reset(self) -> None:
        """Stop it and take away everything that a test may have left."""
        self.systemctl("stop", "anyipd")
        self.systemctl("reset-failed")
        self.machine.run("sh", "-c", "rm -rf /etc/systemd/system/anyipd.service.d /run/anyipd/*/*")
        self.systemctl("daemon-reload")
        for protocol in ("150", "dhcp"):
            for table in ("local", "main"):
                self.machine.namespace.ip(f"-6 route flush proto {protocol} table {table}")
        self.configure(POLICY)
        self.cursor = self.machine.journal_cursor()

    def systemctl(self, *words: str) -> str:
        return self.machine.run("systemctl", *words).stdout.strip()

    def start(self) -> None:
        done = self.machine.run("systemctl", "start", "anyipd", check=False)
        assert done.returncode == 0, "\n".join(entry.message for entry in self.said())

    def show(self, name: str) -> str:
        """Give one of the unit's properties, such as MainPID."""
        return self.systemctl("show", "--value", f"--property={name}", "anyipd")

    def configure(self, policy: str) -> None:
        (self.machine.root / "etc/anyipd.yaml").write_text(policy)

    def drop_in(self, *settings: str) -> None:
        """Have the unit's [Service] section say something else."""
        folder = self.machine.root / "etc/systemd/system/anyipd.service.d"
        folder.mkdir()
        (folder / "test.conf").write_text("\n".join(["[Service]", *settings, ""]))
        self.systemctl("daemon-reload")

    def delegate(self) -> None:
        """Do what dhclient does with a prefix: call the installed hook, as root."""
        self.uplink.route(DELEGATED)
        variables = [f"{name}={value}" for name, value in told(DELEGATED, self.uplink.interface).items()]
        self.machine.run("env", *variables, "sh", "-c", f". {HOOK}")

    def exposure(self) -> float:
        """Give how much of it systemd finds open to attack, from 0 to 10."""
        verdict = self.machine.run("systemd-analyze", "security", "--no-pager", "anyipd").stdout
        found = re.search(r"Overall exposure level for anyipd.service: ([\d.]+)", verdict)
        assert found, verdict
        return float(found[1])

    def bound(self) -> list[str]:
        return list(map(str, sorted(covered(local_routes(self.machine.namespace)))))

    def status(self) -> dict[str, str]:
        """Give what the kernel says of the daemon: proc_pid_status(5)."""
        lines = self.machine.run("cat", f"/proc/{self.show('MainPID')}/status").stdout.splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def said(self, source: str = "anyipd") -> list[Entry]:
        """Give what the journal got from `source` since the test began."""
        return [entry for entry in self.machine.journal("anyipd", self.cursor) if entry.source == source]

    def wait_for(self, text: str, source: str = "anyipd", timeout: float = 20.0) -> Entry:
        return wait_until(
            lambda: next((entry for entry in self.said(source) if text in entry.message), None), timeout
        )


def system_python() -> Path:
    """Find a Python that a service may see, of the version that the wheels were fetched for."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (Path("/usr/bin") / version, Path(sys.executable).resolve()):
        if python.exists() and python.parts[1] not in {"home", "root"}:
            return python
    raise LabError(f"{version} is in a home directory, which ProtectHome=yes hides: install another")
