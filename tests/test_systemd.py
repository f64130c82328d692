"""The installed service under a systemd of its own: what the unit promises, and what it forbids."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from anyipd.model import Prefix
from tests.lab import machine as machines
from tests.lab import namespace
from tests.lab.machine import Entry, Machine
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import LabError, Namespace, wait_until
from tests.lab.network import Uplink
from tests.test_install import make, output

DELEGATED = Prefix.parse("2001:db8:100::/60")
POLICY = "subnets: [{name: web, id: 0}, {name: proxies, count: 3}]\n"
MISTAKE = "subnets: [{name: web, id: 0, idd: 3}]\n"
MISTAKE_AT = "/etc/anyipd.yaml:1:30: subnets[0].idd"
HOOK = "/etc/dhcp/dhclient-exit-hooks.d/anyipd"
CAP_NET_ADMIN = 1 << 12  # linux/capability.h
FILTERED = 2  # Seccomp: in proc_pid_status(5)
WARNING, ERROR, INFO = 4, 3, 6  # syslog(3)


def subnets(*numbers: int) -> list[str]:
    return [str(Prefix(DELEGATED.address + (number << 64), 64)) for number in sorted(numbers)]


@dataclass
class Service:
    """The unit anyipd on `machine`; `at_boot` is the state it was in when that was up."""

    machine: Machine
    uplink: Uplink
    at_boot: str
    since: int = 0

    def reset(self) -> None:
        """Stop it and take away everything that a test may have left."""
        self.systemctl("stop", "anyipd")
        self.systemctl("reset-failed")
        self.machine.run("sh", "-c", "rm -rf /etc/systemd/system/anyipd.service.d /run/anyipd/leases/*")
        self.systemctl("daemon-reload")
        for protocol in ("150", "dhcp"):
            for table in ("local", "main"):
                self.machine.namespace.ip(f"-6 route flush proto {protocol} table {table}")
        self.configure(POLICY)
        self.since = len(self.machine.journal("anyipd"))

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
        variables = {
            "reason": "BOUND6",
            "interface": self.uplink.interface,
            "new_ip6_prefix": str(DELEGATED),
            "new_iaid": "62:9d:01:0a",
            "new_life_starts": str(int(time.time())),
            "new_preferred_life": "3600",
            "new_max_life": "7200",
        }
        told = [f"{name}={value}" for name, value in variables.items()]
        self.machine.run("env", *told, "sh", "-c", f". {HOOK}")

    def bound(self) -> list[str]:
        routes = self.machine.namespace.ip_json("-6 route show table local proto 150")
        return sorted((route["dst"] for route in routes), key=lambda text: Prefix.parse(text).address)

    def status(self) -> dict[str, str]:
        """Give what the kernel says of the daemon: proc_pid_status(5)."""
        lines = self.machine.run("cat", f"/proc/{self.show('MainPID')}/status").stdout.splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def said(self, source: str = "anyipd") -> list[Entry]:
        """Give what the journal got from `source` since the test began."""
        return [entry for entry in self.machine.journal("anyipd")[self.since :] if entry.source == source]

    def wait_for(self, text: str, source: str = "anyipd", timeout: float = 5.0) -> Entry:
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


@pytest.fixture(scope="module")
def booted() -> Iterator[Service]:
    """A machine on which anyipd is installed and enabled; it boots once for all tests."""
    reason = namespace.obstacle() or machines.obstacle()
    if reason:
        pytest.skip(reason)
    try:
        with Namespace("isp") as isp, Namespace("host") as host, Machine(host) as machine:
            make("install", f"DESTDIR={machine.root}", f"SYSTEM_PYTHON={system_python()}")
            output(["systemctl", f"--root={machine.root}", "enable", "anyipd"])
            uplink = Uplink(isp, host)
            machine.boot()
            at_boot = machine.run("systemctl", "is-active", "anyipd", check=False).stdout.strip()
            yield Service(machine, uplink, at_boot)
    except LabError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))


@pytest.fixture
def service(booted: Service) -> Service:
    """The service, stopped, with POLICY and nothing delegated."""
    booted.reset()
    return booted


def test_boot_prepares_everything(booted: Service) -> None:
    assert booted.at_boot == "active"
    assert booted.machine.run("cat", "/proc/sys/net/ipv6/ip_nonlocal_bind").stdout == "1\n"
    for folder in ("/run/anyipd", "/run/anyipd/leases"):
        assert booted.machine.run("stat", "--format=%A %U", folder).stdout == "drwxr-xr-x root\n"
    assert booted.machine.run("id", "--user", "--name", "anyipd").stdout == "anyipd\n"
    assert booted.systemctl("is-enabled", "anyipd") == "enabled"
    assert booted.systemctl("--failed", "--quiet") == ""


def test_systemd_finds_little_to_attack(booted: Service) -> None:
    verdict = booted.machine.run("systemd-analyze", "security", "--no-pager", "anyipd").stdout
    exposure = re.search(r"Overall exposure level for anyipd.service: ([\d.]+)", verdict)
    assert exposure
    assert float(exposure[1]) <= 1.3


def test_started_means_bound(service: Service) -> None:
    service.delegate()
    service.start()
    assert service.bound() == subnets(0, 1, 2, 3)
    assert service.show("ActiveState") == "active"
    assert [service.uplink.answers(Prefix.parse(subnet)) for subnet in service.bound()] == [8, 8, 8, 8]
    (said,) = json.loads(service.machine.run("anyipctl", "status", "--json").stdout)["delegations"]
    assert (said["prefix"], said["uplink"]) == (str(DELEGATED), "uplink")
    assert 7190 < said["valid_lifetime"] <= 7200


def test_a_delegation_wakes_it(service: Service) -> None:
    service.start()
    assert service.bound() == []
    service.delegate()
    wait_until(lambda: service.bound() == subnets(0, 1, 2, 3), 2)


def test_it_may_change_routes_and_nothing_else(service: Service) -> None:
    service.start()
    status = service.status()
    user = service.machine.run("id", "--user", "anyipd").stdout.strip()
    assert status["Uid"].split() == [user] * 4
    capabilities = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    assert {name: int(status[name], 16) for name in capabilities} == dict.fromkeys(
        capabilities, CAP_NET_ADMIN
    )
    assert (int(status["NoNewPrivs"]), int(status["Seccomp"])) == (1, FILTERED)


def test_it_cannot_write_where_the_hook_does(service: Service) -> None:
    service.start()
    write = ["touch", "/run/anyipd/leases/forged"]
    as_its_user = ["setpriv", "--reuid=anyipd", "--clear-groups", *write]
    assert "Permission denied" in service.machine.run(*as_its_user, check=False).stderr
    # Not even as root where it is.
    among_its_mounts = ["nsenter", f"--target={service.show('MainPID')}", "--mount", "--", *write]
    assert "Read-only file system" in service.machine.run(*among_its_mounts, check=False).stderr


def test_the_journal_has_priorities(service: Service) -> None:
    service.delegate()
    service.machine.run("sh", "-c", "echo nonsense >/run/anyipd/leases/nonsense")
    service.start()
    assert service.wait_for("lease file dropped").priority == WARNING
    assert service.wait_for("event=ready").priority == INFO
    assert [entry for entry in service.said() if "<" in entry.message] == []


def test_reload(service: Service) -> None:
    service.delegate()
    service.start()
    daemon = service.show("MainPID")
    service.configure("subnets: [{name: web, id: 0}, {name: extra, id: 9}]\n")
    service.systemctl("reload", "anyipd")
    wait_until(lambda: service.bound() == subnets(0, 9))
    service.configure(MISTAKE)
    service.systemctl("reload", "anyipd")
    assert service.wait_for(MISTAKE_AT).priority == ERROR
    assert service.wait_for("the old configuration stays in force").priority == ERROR
    wait_until(lambda: service.show("ActiveState") == "active")
    assert service.bound() == subnets(0, 9)
    assert service.show("MainPID") == daemon


@pytest.mark.parametrize("verbs", [("stop", "start"), ("restart",)], ids="-".join)
def test_a_restart_changes_no_route(service: Service, tmp_path: Path, verbs: tuple[str, ...]) -> None:
    service.delegate()
    service.start()
    monitor = RouteMonitor(service.machine.namespace, tmp_path)
    daemon = service.show("MainPID")
    for verb in verbs:
        service.systemctl(verb, "anyipd")
        assert service.show("Result") == "success"
    assert service.show("MainPID") != daemon
    assert monitor.changes() == []
    assert service.bound() == subnets(0, 1, 2, 3)


def test_a_crash_is_mended_and_changes_no_route(service: Service, tmp_path: Path) -> None:
    service.delegate()
    service.start()
    monitor = RouteMonitor(service.machine.namespace, tmp_path)
    service.systemctl("kill", "--signal=KILL", "anyipd")
    wait_until(lambda: service.show("NRestarts") == "1")
    wait_until(lambda: service.show("ActiveState") == "active")
    assert monitor.changes() == []


def test_the_watchdog_ends_what_hangs_and_that_alone(service: Service, tmp_path: Path) -> None:
    service.drop_in("WatchdogSec=2s", "RestartSec=100ms")
    service.delegate()
    service.start()
    monitor = RouteMonitor(service.machine.namespace, tmp_path)
    daemon = service.show("MainPID")
    time.sleep(5)
    assert service.show("MainPID") == daemon
    service.machine.run("kill", "-STOP", daemon)
    service.wait_for("Watchdog timeout", source="systemd")
    wait_until(lambda: service.show("NRestarts") == "1")
    wait_until(lambda: service.show("ActiveState") == "active")
    assert monitor.changes() == []


def test_bad_configuration_is_not_tried_again(service: Service) -> None:
    service.configure(MISTAKE)
    assert service.machine.run("systemctl", "start", "anyipd", check=False).returncode
    # Were it to be started again, it would be `activating`.
    assert (service.show("ActiveState"), service.show("ExecMainStatus")) == ("failed", "78")
    assert service.wait_for(MISTAKE_AT).priority == ERROR
    service.configure(POLICY)
    service.start()
    assert service.show("ActiveState") == "active"
