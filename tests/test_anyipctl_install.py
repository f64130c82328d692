"""`anyipctl install` and `uninstall` on a machine that has the programs from `uv tool install`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.machine import Machine
from tests.lab.make import ROOT, make
from tests.lab.namespace import wait_until
from tests.lab.service import Service, machine_with_uplink, subnets

FOR_ALL = {"UV_TOOL_DIR": "/opt/uv", "UV_TOOL_BIN_DIR": "/usr/local/bin"}
FOR_ROOT = {"UV_TOOL_DIR": "/root/uv", "UV_TOOL_BIN_DIR": "/root/bin"}
UVS = ("/opt/uv", "/root/uv", "/root/bin", "/usr/local/bin/anyip")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A machine that is up, with uv and the wheels, and on which nothing was installed yet."""
    make("wheel", dist=tmp_path)
    with machine_with_uplink() as (machine, uplink):
        wheels = machine.root / "wheels"
        shutil.copytree(ROOT / ".cache/wheels", wheels)
        shutil.copytree(tmp_path / "install", wheels, dirs_exist_ok=True)
        shutil.copy(Path(sys.executable).parent / "uv", machine.root / "usr/local/bin")
        machine.boot()
        yield Service(machine, uplink)


def uv_tool_install(machine: Machine, places: dict[str, str]) -> None:
    settings = ["UV_CACHE_DIR=/tmp/uv", "UV_OFFLINE=1", "UV_NO_INDEX=1", "UV_FIND_LINKS=/wheels"]
    told = [f"{name}={value}" for name, value in places.items()]
    machine.run("env", *settings, *told, "uv", "tool", "install", "--python", "/usr/bin/python3", "anyipd")


def written(machine: Machine) -> set[str]:
    """List what is on the machine besides uv's own."""
    return {line for line in machine.written() if not line.startswith(UVS)}


def test_it_installs_and_undoes_all_of_it(service: Service) -> None:
    machine = service.machine
    before = written(machine)
    uv_tool_install(machine, FOR_ALL)
    said = machine.run("sh", "-c", "umask 077; exec anyipctl install").stdout
    new = written(machine) - before
    laid = [line.split() for line in new if line.startswith(("/usr/", "/etc/dhcp", "/etc/ip"))]
    assert len(laid) > 20
    assert [path for path, mode, *_ in laid if mode[7] != "r"] == []
    assert said.splitlines()[-1] == "Next: edit /etc/anyipd.yaml and systemctl enable --now anyipd"
    service.systemctl("enable", "--now", "anyipd")
    service.delegate()
    wait_until(lambda: service.bound() == subnets(0))
    assert machine.run("cat", "/proc/sys/net/ipv6/ip_nonlocal_bind").stdout == "1\n"
    # Once more, as after an upgrade: what runs goes on with what is there now.
    daemon = service.show("MainPID")
    configuration = machine.run("cat", "/etc/anyipd.yaml").stdout
    service.configure("subnets: [{nam: web}]\n")
    refused = machine.run("anyipctl", "install", check=False)
    assert refused.returncode == 78
    assert "/etc/anyipd.yaml:1:12: subnets[0].nam: " in refused.stderr
    assert "what ran runs on" in refused.stderr
    assert service.show("MainPID") == daemon
    service.configure(configuration)
    machine.run("anyipctl", "install")
    assert service.show("MainPID") not in {"0", daemon}
    assert service.bound() == subnets(0)

    machine.run("anyipctl", "uninstall")
    assert service.bound() == []
    assert "proto dhcp" not in machine.namespace.ip("-6 route show table main")
    assert machine.run("cat", "/proc/sys/net/ipv6/ip_nonlocal_bind").stdout == "0\n"
    assert before ^ written(machine) == set()


def test_it_refuses_what_the_service_could_not_run(service: Service) -> None:
    machine = service.machine
    before = written(machine)
    uv_tool_install(machine, FOR_ROOT)
    done = machine.run("/root/bin/anyipctl", "install", check=False)
    assert done.returncode == 69
    (line,) = done.stderr.splitlines()
    assert "the programs are in /root/uv/anyipd" in line
    assert "(ProtectHome=yes)" in line
    assert "`pipx install --global`" in line

    uv_tool_install(machine, FOR_ALL)
    machine.run("chmod", "o-x", "/opt/uv")
    done = machine.run("anyipctl", "install", check=False)
    assert done.returncode == 69
    assert "/opt/uv is closed to other users than its own" in done.stderr

    machine.run("chmod", "o+x", "/opt/uv")
    for command in ("install", "uninstall"):
        as_daemon = ["setpriv", "--reuid=daemon", "--clear-groups", "anyipctl", command]
        done = machine.run(*as_daemon, check=False)
        assert (done.returncode, done.stderr) == (77, f"anyipctl {command}: run it as root\n")
    assert before ^ written(machine) == set()
