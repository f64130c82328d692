"""The Debian package: built, judged by lintian, and installed, upgraded, removed and purged on a machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyipd import __version__
from anyipd.model import Prefix
from tests.lab.machine import Machine
from tests.lab.make import CLOSED, ROOT, closed, make, output
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import wait_until
from tests.lab.pings import Pings
from tests.lab.programs import missing, need
from tests.lab.service import HOOK, Service, machine_with_uplink, subnets

POLICY = "subnets: [{name: web, id: 0}, {name: proxies, count: 3}]\n"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make deb` builds."""
    need("dpkg-deb")
    dist = tmp_path_factory.mktemp("dist")
    make("deb", "MAINTAINER=anyipd <anyipd@debian.org>", dist=dist, umask=CLOSED)
    (built,) = dist.glob(f"anyipd_{__version__}_*.deb")
    return built


SYSTEMS = {"this system": Path("/"), "Debian 13": ROOT / ".cache/debian13/root"}


@pytest.fixture(params=SYSTEMS)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """A machine that is up, and on which nothing was installed yet."""
    system = SYSTEMS[request.param]
    if not system.exists():
        missing(f"no {request.param}: run `make .cache/debian13` as root")
    with machine_with_uplink(system) as (machine, uplink):
        machine.boot()
        yield Service(machine, uplink)


def dpkg(machine: Machine, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    # Where the lab's programs are unpacked and not installed, dpkg may miss what is there.
    force = ["--force-depends"] if machine.system == Path("/") else []
    return machine.run("sh", "-c", 'umask 077; exec dpkg "$@"', "sh", *force, *words, check=check)


def install(machine: Machine, package: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    here = machine.root / package.name
    shutil.copy(package, here)
    done = dpkg(machine, "--install", f"/{package.name}", check=check)
    here.unlink()
    return done


def newer(package: Path, folder: Path) -> Path:
    """Give the same package as a later version, whose unit says something else."""
    unpacked = folder / "newer"
    subprocess.run(["dpkg-deb", "--raw-extract", package, unpacked], check=True)
    control = unpacked / "DEBIAN/control"
    control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 1:"))
    unit = unpacked / "usr/lib/systemd/system/anyipd.service"
    unit.write_text(unit.read_text().replace("\nRestartSec=3s\n", "\nRestartSec=4s\n"))
    built = folder / "newer.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "--build", unpacked, built], check=True)
    return built


def sysctl(machine: Machine) -> str:
    return machine.run("cat", "/proc/sys/net/ipv6/ip_nonlocal_bind").stdout.strip()


def routes(service: Service) -> list[str]:
    """Give all routes of the daemon's or the hook's."""
    found = service.machine.namespace.ip("-6 -oneline route show table all").splitlines()
    return [line for line in found if "proto anyipd" in line or "proto 150" in line or "proto dhcp" in line]


def test_lintian_finds_nothing(package: Path) -> None:
    own = ROOT / ".cache/lintian/bin"
    path = f"{own}:{os.environ['PATH']}"
    if not shutil.which("lintian", path=path):
        missing("no lintian: run `make .cache/lintian`")
    command = ["lintian", "--allow-root", "--display-info", "--fail-on=error,warning,info", str(package)]
    verdict = output(["env", f"PATH={path}", *command])
    assert verdict == ""


def test_every_user_may_read_what_was_built_under_a_umask_that_lets_none(
    package: Path, tmp_path: Path
) -> None:
    assert package.stat().st_mode & 0o777 == 0o644  # apt reads it as user _apt
    subprocess.run(["dpkg-deb", "--raw-extract", package, tmp_path / "package"], check=True)
    assert closed(tmp_path / "package") == []


def test_it_serves_the_python_of_both_debians(package: Path) -> None:
    contents = output(["dpkg-deb", "--contents", str(package)])
    for module in ("_pydantic_core", "_yaml"):
        for python in ("311", "313"):
            assert f"/{module}.cpython-{python}-" in contents
    assert " ./usr/lib/anyipd/lib/python3.13 -> python3.11\n" in contents


def test_its_life_on_a_machine(service: Service, package: Path, tmp_path: Path) -> None:
    machine = service.machine
    before, sysctl_before = machine.written(), sysctl(machine)

    install(machine, package)
    assert service.systemctl("is-enabled", "anyipd") == "enabled"
    service.wait_for("event=ready")
    assert service.show("ActiveState") == "active"
    assert service.exposure() <= 1.3
    assert sysctl(machine) == "1"
    service.configure(POLICY)
    service.systemctl("reload", "anyipd")
    service.delegate()
    wait_until(lambda: service.bound() == subnets(0, 1, 2, 3))

    for command in ("install", "uninstall"):
        refused = machine.run("anyipctl", command, check=False)
        assert (refused.returncode, refused.stdout) == (69, "")
        assert "for a Debian package they are dpkg's" in refused.stderr

    daemon, monitor = service.show("MainPID"), RouteMonitor(machine.namespace, tmp_path)
    with Pings(service.uplink, map(Prefix.parse, service.bound()), 0.01) as pings:
        service.configure("subnets: [{nam: web}]\n")  # O8
        refused = install(machine, newer(package, tmp_path), check=False)
        assert "/etc/anyipd.yaml:1:12: subnets[0].nam: " in refused.stderr
        assert "runs on; mend the configuration" in refused.stderr
        assert (refused.returncode, service.show("MainPID")) == (1, daemon)
        service.configure(POLICY)
        dpkg(machine, "--configure", "anyipd")
        wait_until(lambda: service.show("MainPID") not in {"0", daemon})
        wait_until(lambda: service.show("ActiveState") == "active")
    assert service.show("RestartUSec") == "4s"
    assert monitor.changes() == []
    assert pings.lost()[0] == 0
    assert service.machine.run("cat", "/etc/anyipd.yaml").stdout.startswith("subnets:")

    dpkg(machine, "--remove", "anyipd")
    assert service.show("ActiveState") == "inactive"
    assert routes(service) == []
    assert sysctl(machine) == sysctl_before
    assert machine.run("test", "-e", HOOK, check=False).returncode == 1
    assert service.machine.run("cat", "/etc/anyipd.yaml").stdout.startswith("subnets:")

    dpkg(machine, "--purge", "anyipd")
    assert before ^ machine.written() == set()
