"""`anyipctl probe` against a real router that routes the prefix here, or does otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from anyipd.model import Prefix
from tests.lab.daemon import CHECKOUT, Daemon
from tests.lab.delegated import delegate
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import Uplink
from tests.lab.probing import probe, start_routed

DELEGATED = "2001:db8:100::/60"
WEB = "2001:db8:100:3::/64"
OWNER = "2001:db8:100:3::77"
POLICY = "subnets: [{name: web, id: 3}, {name: some, count: 2}]"


@pytest.fixture
def probed(daemon: Daemon, uplink: Uplink) -> Daemon:
    """With subnets bound, programs that may bind, and an ISP that forwards and routes the prefix here."""
    return start_routed(daemon, uplink, DELEGATED, POLICY)


def refused(daemon: Daemon, *words: str, code: int = 1) -> str:
    done = daemon.control("probe", *words, check=False)
    assert done.returncode == code
    return done.stdout + done.stderr


def test_all_is_well(probed: Daemon) -> None:
    """The router hands every packet back, and every address answers."""
    probes = probe(probed, "-n", "20", code=0)
    assert [each["name"] for each in probes] == ["web", "some-0"]
    for each in probes:
        assert len({found["address"] for found in each["findings"]}) == 20
        assert all(found["echo"] and found["arrived"] for found in each["findings"])
        assert each["around"]["router"] == "fe80::1"
        assert each["verdict"] == {
            "good": True,
            "text": f"All answer, and packets for {each['around']['prefix']} come in by uplink.",
            "next_step": None,
        }


def test_it_leaves_nothing_in_a_home_nor_follows_a_link_there(tmp_path: Path) -> None:
    """HOME may be another user's, where root kept it."""
    cache = tmp_path / ".cache" / "scapy"
    cache.mkdir(parents=True)
    for name in ("bluetoothids", "ethertypes", "manufdb", "protocols", "services"):
        (cache / f"{name}.pickle").symlink_to(tmp_path / "nologin")
    before = set(tmp_path.rglob("*"))
    bare = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    command = [sys.executable, "-c", "import anyipd.probe.outside"]
    subprocess.run(command, check=True, cwd=CHECKOUT, env=bare | {"HOME": str(tmp_path)})
    assert set(tmp_path.rglob("*")) == before


def test_what_is_printed(probed: Daemon) -> None:
    address = "2001:db8:100:3::5"
    printed = probed.control("probe", address).stdout.splitlines()
    assert printed[0] == f"web {WEB} by uplink"
    assert printed[1].split("  ")[0] == "ADDRESS"
    words = printed[2].split()
    assert [words[0], words[2], words[4], words[5]] == [address, "ms", "ms", "works"]
    assert printed[3:] == [
        "1 probed, 1 answered here, 1 came in from outside",
        f"All answer, and packets for {WEB} come in by uplink.",
    ]


@pytest.fixture
def wan(uplink: Uplink) -> None:
    """The host has an address by which the router can reach it whatever it makes of the prefix."""
    uplink.isp.ip(f"addr add 2001:db8:f::1/64 dev {uplink.customer} nodad")
    uplink.host.ip(f"addr add 2001:db8:f::2/64 dev {uplink.interface} nodad")


@pytest.mark.usefixtures("wan")
def test_a_router_without_a_route(probed: Daemon, uplink: Uplink) -> None:
    uplink.unroute(Prefix.parse(DELEGATED))
    [found] = probe(probed, "web", code=1)
    assert "do not arrive: no route to it, says " in found["verdict"]["text"]
    assert f"have the router send {WEB} here" in found["verdict"]["next_step"]


def test_a_router_that_swallows_the_prefix(probed: Daemon, uplink: Uplink) -> None:
    uplink.unroute(Prefix.parse(DELEGATED))
    uplink.isp.ip(f"-6 route add blackhole {DELEGATED}")
    [found] = probe(probed, "web", "-n", "1", code=1)
    assert "neither handed back nor refused" in found["verdict"]["text"]
    assert found["verdict"]["next_step"] == f"ask from elsewhere: ping {found['findings'][0]['address']}"


@pytest.mark.usefixtures("wan")
def test_a_router_that_sends_it_round_in_circles(probed: Daemon, uplink: Uplink, isp: Namespace) -> None:
    """As a home router does that takes another one for the way to the prefix."""
    isp.pair("loop", "pool")
    mac = isp.ip_json("link show pool")[0]["address"]
    isp.ip(f"-6 neigh add fe80::99 lladdr {mac} dev loop nud permanent")
    uplink.unroute(Prefix.parse(DELEGATED))
    isp.ip(f"-6 route add {DELEGATED} via fe80::99 dev loop")
    [found] = probe(probed, "web", code=1)
    assert "it went round in circles, says " in found["verdict"]["text"]


def on_link(uplink: Uplink) -> None:
    uplink.unroute(Prefix.parse(DELEGATED))
    uplink.isp.ip(f"-6 route add {WEB} dev {uplink.customer}")


def test_a_router_that_has_the_prefix_on_link(probed: Daemon, uplink: Uplink) -> None:
    """The kernel answers no solicitation for AnyIP addresses: see FACTS of the kernel, and neighbours."""
    on_link(uplink)
    [found] = probe(probed, "web", code=1)
    assert f"The router fe80::1 takes {WEB} for on-link" in found["verdict"]["text"]
    assert "neighbours: [uplink]" in found["verdict"]["next_step"]


def test_another_node_that_owns_the_address(probed: Daemon, uplink: Uplink) -> None:
    on_link(uplink)
    uplink.isp.ip(f"addr add {OWNER}/128 dev {uplink.customer} nodad")
    mac = uplink.isp.ip_json(f"link show {uplink.customer}")[0]["address"]
    [found] = probe(probed, OWNER, code=1)
    assert f"Another node on uplink, {mac}, says that {OWNER} is its own" in found["verdict"]["text"]


def test_a_port(probed: Daemon) -> None:
    [found] = probe(probed, "web", "--tcp", "8080", code=1)
    assert found["verdict"]["text"] == "TCP port 8080 of any of them: closed."
    listen = (
        "import socket, time; s = socket.create_server(('::', 8080), family=socket.AF_INET6); time.sleep(60)"
    )
    probed.namespace.popen(sys.executable, "-c", listen)
    wait_until(lambda: not probed.control("probe", "web", "--tcp", "8080", check=False).returncode, 20)


def test_programs_that_cannot_bind(probed: Daemon) -> None:
    probed.namespace.sysctl("net.ipv6.ip_nonlocal_bind", 0)
    [found] = probe(probed, "web", code=1)
    assert "cannot bind to any of them: Cannot assign requested address" in found["verdict"]["text"]
    assert "net.ipv6.ip_nonlocal_bind=1" in found["verdict"]["next_step"]


def test_a_host_that_keeps_silent(probed: Daemon) -> None:
    probed.namespace.sysctl("net.ipv6.icmp.echo_ignore_all", 1)
    [found] = probe(probed, "web", code=1)
    assert "does not answer on any of them" in found["verdict"]["text"]
    assert "echo_ignore_all" in found["verdict"]["next_step"]


def test_nobody_outside_to_ask(daemon: Daemon) -> None:
    host = daemon.namespace
    delegate(host, DELEGATED)
    host.sysctl("net.ipv6.ip_nonlocal_bind", 1)
    daemon.configure(f"{POLICY[:-1]}]\nstatic: [192.0.2.0/24]")
    daemon.start()
    probes = probe(daemon, code=1)
    assert {each["name"]: each["around"]["unasked"] for each in probes} == {
        "192.0.2.0/24": "that is done for IPv6 alone",
        "some-0": "there is no default route",
        "web": "there is no default route",
    }
    assert {each["verdict"]["text"] for each in probes} == {
        "Replies do not leave this host: there is no default route."
    }


def test_what_is_not_bound(probed: Daemon) -> None:
    """It says why, in the words of `status`."""
    host = probed.namespace
    host.ip(f"-6 route replace unreachable {WEB} dev lo table local proto static metric 1024")
    wait_until(lambda: "conflict" in {each["state"] for each in probed.status()["subnets"]})
    assert "nothing of web is bound:" in refused(probed, "web")
    assert "conflict" in refused(probed, "2001:db8:100:3::1")
    assert "there is no subnet wep now, but: web, some" in refused(probed, "wep")
    assert "nothing at 2001:db8::1 is bound" in refused(probed, "2001:db8::1")
    assert "-n 0 is below 1" in refused(probed, "web", "-n", "0", code=64)
    assert "2001:::1" in refused(probed, "2001:::1", code=64)
