"""anyipd-neighbour as a service: off until somebody turns it on, and then with one privilege."""

from __future__ import annotations

import shutil

import pytest

from anyipd.model import Prefix
from tests.lab.machine import Machine
from tests.lab.make import installed, output
from tests.lab.namespace import wait_until
from tests.lab.network import Uplink
from tests.lab.service import machine_with_uplink, system_python

SUBNET = Prefix.parse("2001:db8:5::/64")
SECOND = Prefix.parse("2001:db8:6::/64")
POLICY = f"subnets: []\nstatic:\n  - {{prefix: '{SUBNET}', neighbours: [uplink]}}\n"
CAP_NET_RAW = 1 << 13  # linux/capability.h


@pytest.mark.long
def test_the_service(tmp_path_factory: pytest.TempPathFactory) -> None:
    with machine_with_uplink() as (machine, uplink):
        machine.copy(installed(tmp_path_factory, system_python()))
        output(["systemctl", f"--root={machine.root}", "enable", "anyipd"])
        (machine.root / "etc/anyipd.yaml").write_text(POLICY)
        uplink.isp.ip(f"-6 route add {SUBNET} dev {uplink.customer}")
        machine.boot()
        judge(machine, uplink)


def judge(machine: Machine, uplink: Uplink) -> None:
    def show(name: str) -> str:
        words = ("systemctl", "show", "--value", f"--property={name}", "anyipd-neighbour")
        return machine.run(*words).stdout.strip()

    # `systemctl enable --now anyipd-neighbour` is what the daemon says it takes.
    assert (show("ActiveState"), show("UnitFileState")) == ("inactive", "disabled")
    assert [each for each in machine.journal("anyipd") if "enable --now anyipd-neighbour" in each.message]
    assert uplink.answers(SUBNET) == 0
    started = machine.run("systemctl", "enable", "--now", "anyipd-neighbour", check=False)
    assert started.returncode == 0, "\n".join(each.message for each in machine.journal("anyipd-neighbour"))
    uplink.isp.ip(f"-6 neigh flush dev {uplink.customer}")
    assert uplink.answers(SUBNET, timeout=5) == 8

    status = machine.run("cat", f"/proc/{show('MainPID')}/status").stdout.splitlines()
    found = {key: value.split() for key, _, value in (line.partition(":") for line in status)}
    assert {int(found[name][0], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {CAP_NET_RAW}
    assert "0" not in found["Uid"]
    assert found["NoNewPrivs"] == ["1"]

    assert (show("MemoryMax"), show("TasksMax")) == (str(512 << 20), "1024")
    shutil.copy("/bin/true", machine.root / "etc/true")
    for command in ("/etc/true", "touch /tmp/new", "touch /var/tmp/new", "touch /dev/shm/new"):
        as_nobody = ["setpriv", "--reuid=nobody", "--clear-groups", "sh", "-c", command]
        among_its_mounts = ["nsenter", f"--target={show('MainPID')}", "--mount", "--", *as_nobody]
        assert "Permission denied" in machine.run(*among_its_mounts, check=False).stderr, command

    before = show("MainPID")
    machine.run("systemctl", "restart", "anyipd")
    # O5: of a reload there it hears by itself. O11: how things are is said in words.
    (machine.root / "etc/anyipd.yaml").write_text(
        f"{POLICY}  - {{prefix: '{SECOND}', neighbours: [uplink]}}\n"
    )
    uplink.isp.ip(f"-6 route add {SECOND} dev {uplink.customer}")
    machine.run("systemctl", "reload", "anyipd")
    wait_until(lambda: uplink.answers(SECOND) == 8)
    text = machine.run("systemctl", "show", "--value", "--property=StatusText", "anyipd").stdout
    assert text == "2 of 2 subnets bound\n"
    assert machine.run("anyipctl", "status", "--check").stdout == "OK: 2 of 2 subnets bound\n"
    assert show("MainPID") == before
    # Without a daemon it answers on, also where it is started then.
    machine.run("systemctl", "stop", "anyipd")
    uplink.isp.ip(f"-6 neigh flush dev {uplink.customer}")
    assert uplink.answers(SUBNET, timeout=5) == 8
    machine.run("systemctl", "kill", "--signal=KILL", "anyipd-neighbour")
    wait_until(lambda: show("NRestarts") == "1" and show("ActiveState") == "active", 10)
    uplink.isp.ip(f"-6 neigh flush dev {uplink.customer}")
    assert uplink.answers(SUBNET, timeout=5) == 8
    machine.run("systemctl", "stop", "anyipd-neighbour")
    assert show("Result") == "success"
