"""Listening: a real dhclient that tells us nothing asks a real Kea, and the wire alone says the rest."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.config import conf

from anyipd.model import Prefix
from anyipd.observe.dhcpv6 import MalformedError, parse
from anyipd.observe.packet import is_intact, payload
from tests.lab.daemon import Daemon
from tests.lab.delegated import bound, subnets
from tests.lab.dhclient import Dhclient
from tests.lab.exchange import CLIENT, Wire, release, reply, request
from tests.lab.kea import Kea, Offer
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import HOST_LINK_LOCAL, ISP_LINK_LOCAL, Uplink

conf.route_autoload = conf.route6_autoload = False  # else it reads the whole routing table

from scapy.layers import dhcp6  # noqa: E402
from scapy.layers.inet import UDP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.layers.l2 import Dot1Q  # noqa: E402

OLD, NEW = Prefix.parse("2001:db8:100::/60"), Prefix.parse("2001:db8:200::/60")
POLICY = "subnets: [{name: web, id: 0}, {name: proxies, count: 2}]\nlisten: [uplink]\n"


@pytest.fixture
def routed(uplink: Uplink) -> Uplink:
    uplink.route(OLD, NEW)
    return uplink


@pytest.fixture
def silent(uplink: Uplink, daemon: Daemon, tmp_path: Path) -> Dhclient:
    """A dhclient without our hook."""
    nothing = tmp_path / "no-hook"
    nothing.touch()
    return Dhclient(uplink.host, uplink.interface, tmp_path, daemon.runtime, nothing)


def heard(daemon: Daemon) -> set[str]:
    return {path.name for path in (daemon.runtime / "heard").iterdir()}


def first(uplink: Uplink, prefix: Prefix) -> int:
    """Ping the first /64 of a delegated prefix."""
    return uplink.answers(Prefix(prefix.address, 64))


def test_bind(routed: Uplink, kea: Kea, daemon: Daemon, silent: Dhclient) -> None:
    daemon.configure(POLICY)
    daemon.start()
    daemon.wait_for("listening uplink=uplink")
    kea.start(Offer(OLD))
    silent.start()
    daemon.wait_for("bound subnet=web")
    assert bound(routed.host) == subnets(str(OLD), 3)
    assert first(routed, OLD) == 8
    (said,) = daemon.status()["delegations"]
    assert 7190 < said.pop("valid_lifetime") <= 7200
    assert 3590 < said.pop("preferred_lifetime") <= 3600
    assert len(said.pop("iaid").split(":")) == 4
    assert said.pop("reason") is None
    assert said == {"prefix": str(OLD), "source": "listen", "uplink": "uplink", "state": "granted"}
    # As always where the client leaves no discard route.
    discards = wait_until(lambda: routed.host.ip_json("-6 route show type unreachable"))
    assert [(each["dst"], each["protocol"]) for each in discards] == [(str(OLD), "150")]
    assert not (daemon.runtime / "leases").exists()


def test_renew_and_restart(
    routed: Uplink, kea: Kea, daemon: Daemon, silent: Dhclient, tmp_path: Path
) -> None:
    daemon.configure(POLICY)
    daemon.start()
    kea.start(Offer(OLD, 50, 60), renew=2, rebind=40)
    silent.start()
    daemon.wait_for("bound subnet=web")
    lines = len(daemon.lines())
    daemon.wait_for("renewed", 20, since=lines)
    silent.kill()
    wait_until(lambda: routed.host.ip_json("-6 route show type unreachable"))
    before = daemon.status()["delegations"][0]
    monitor = RouteMonitor(routed.host, tmp_path)
    daemon.kill()
    daemon.start()
    after = daemon.status()["delegations"][0]
    assert monitor.changes() == []
    assert before["valid_lifetime"] - 20 < after["valid_lifetime"] <= before["valid_lifetime"]
    assert (after["source"], after["uplink"]) == ("listen", "uplink")


@pytest.mark.long
def test_renumber(routed: Uplink, kea: Kea, daemon: Daemon, silent: Dhclient) -> None:
    daemon.configure(POLICY)
    daemon.start()
    kea.start(Offer(OLD, 16, 18), renew=1, rebind=15)
    silent.start()
    daemon.wait_for("bound subnet=web")
    kea.offer(Offer(NEW), renew=1, rebind=15)
    daemon.wait_for(f"delegated prefix={NEW}", 15)
    wait_until(lambda: bound(routed.host) == subnets(str(OLD), 3) | subnets(str(NEW), 3))
    assert first(routed, OLD) == first(routed, NEW) == 8
    daemon.wait_for(f"expired prefix={OLD}", 30)
    daemon.wait_for(f"unbound subnet=web prefix={Prefix(OLD.address, 64)}")
    assert first(routed, NEW) == 8
    # What is over is cleared up with the next that is heard.
    wait_until(lambda: heard(daemon) == {f"{str(NEW).replace('/', '_')}@uplink"}, 30)


def test_zero_lifetime_withdraws_at_once(routed: Uplink, kea: Kea, daemon: Daemon, silent: Dhclient) -> None:
    daemon.configure(POLICY)
    daemon.start()
    kea.start(Offer(OLD), renew=1, rebind=5)
    silent.start()
    daemon.wait_for("bound subnet=web")
    kea.offer(Offer(OLD, 0, 0), Offer(NEW), renew=1, rebind=5)
    daemon.wait_for(f"withdrawn prefix={OLD}", 15)
    wait_until(lambda: bound(routed.host) == subnets(str(NEW), 3))
    assert [each["prefix"] for each in daemon.status()["delegations"]] == [str(NEW)]


def test_release(routed: Uplink, kea: Kea, daemon: Daemon, silent: Dhclient) -> None:
    daemon.configure(POLICY)
    daemon.start()
    kea.start(Offer(OLD), Offer(NEW))
    silent.start()
    wait_until(lambda: len(bound(routed.host)) == 6, 10)
    silent.release()
    wait_until(lambda: not bound(routed.host), 10)
    assert daemon.status() == {"delegations": [], "subnets": []}
    kept = (daemon.runtime / "heard").iterdir()
    assert all("valid_lifetime=0\n" in file.read_text() for file in kept)


def test_a_delegated_64(routed: Uplink, kea: Kea, daemon: Daemon, silent: Dhclient) -> None:
    delegated = Prefix(OLD.address, 64)
    daemon.configure("listen: [uplink]")
    daemon.start()
    kea.start(Offer(delegated))
    silent.start()
    daemon.wait_for("bound subnet=default")
    assert bound(routed.host) == {str(delegated)}
    assert routed.answers(delegated) == 8


def test_an_excluded_prefix_is_never_bound(
    routed: Uplink, kea: Kea, daemon: Daemon, silent: Dhclient
) -> None:
    excluded = Prefix(OLD.address + (1 << 64), 64)
    daemon.configure("subnets: [{name: pinned, id: 1}, {name: rest, count: all}]\nlisten: [uplink]")
    daemon.start()
    kea.start(Offer(OLD, exclude=excluded))
    silent.start()
    daemon.wait_for("bound subnet=rest")
    assert bound(routed.host) == subnets(str(OLD), 16) - {str(excluded)}
    pinned = daemon.status()["subnets"][0]
    reason = f"{excluded} is excluded by the delegating router (RFC 6603)"
    assert (pinned["name"], pinned["state"], pinned["reason"]) == ("pinned", "conflict", reason)
    discards = wait_until(lambda: routed.host.ip_json("-6 route show type unreachable"))
    assert [each["dst"] for each in discards] == [str(OLD)]


def test_hook_and_ear_agree(routed: Uplink, kea: Kea, daemon: Daemon, dhclient: Dhclient) -> None:
    """What the hook cannot know of the delegation comes from the wire."""
    excluded = Prefix(OLD.address, 64)
    daemon.configure(POLICY)
    daemon.start()
    kea.start(Offer(OLD, exclude=excluded))
    dhclient.start()
    wait_until(
        lambda: (daemon.runtime / "leases").exists() and list((daemon.runtime / "leases").iterdir()), 10
    )
    [delegation] = wait_until(lambda: daemon.status()["delegations"])
    assert delegation["source"] in {"listen", "dhclient"}  # whichever the machine's load lets report first
    wait_until(lambda: bound(routed.host) == subnets(str(OLD), 3) - {str(excluded)})
    dhclient.release()
    wait_until(lambda: not bound(routed.host), 10)
    assert daemon.status() == {"delegations": [], "subnets": []}


def test_the_link_goes_and_comes_back(uplink: Uplink, kea: Kea, daemon: Daemon, silent: Dhclient) -> None:
    host = uplink.host
    daemon.configure(POLICY)
    daemon.start()
    host.ip("link set uplink down")
    host.ip("link set uplink up")
    host.ip(f"addr replace {HOST_LINK_LOCAL}/64 dev uplink nodad")
    kea.start(Offer(OLD))
    silent.start()
    daemon.wait_for("bound subnet=web")
    kea.stop()
    silent.kill()
    silent.forget()
    lines = len(daemon.lines())
    host.ip("link set uplink down")
    host.ip("link set uplink name other")
    host.ip("link delete other")
    Uplink(uplink.isp, host, address="2001:db8:fffe::1")
    daemon.wait_for("listening uplink=uplink", since=lines)
    kea.start(Offer(NEW))
    silent.start()
    daemon.wait_for(f"delegated prefix={NEW}", 15)
    assert [line.split("event=")[1] for line in daemon.lines()[lines:] if "listening" in line] == [
        "listening uplink=uplink"
    ]


def test_reload_turns_it_on_and_off(routed: Uplink, kea: Kea, daemon: Daemon, silent: Dhclient) -> None:
    daemon.start()
    kea.start(Offer(OLD, 50, 60), renew=1, rebind=40)
    assert packet_sockets(daemon) == []
    daemon.configure("listen: [uplink, eth7]")
    daemon.reload()
    daemon.wait_for("listening uplink=uplink")
    daemon.wait_for('so far, listening when it comes" uplink=eth7')
    silent.start()
    daemon.wait_for("bound subnet=default")
    assert len(packet_sockets(daemon)) == 1
    daemon.configure("")
    daemon.reload()
    assert packet_sockets(daemon) == []
    # What was heard holds for its lifetime.
    assert len(bound(routed.host)) == 1


def packet_sockets(daemon: Daemon) -> list[str]:
    """Those of the network namespace, by the types of the packets that they see."""
    table = daemon.namespace.run("cat", f"/proc/{daemon.running.pid}/net/packet").stdout
    return [line.split()[3] for line in table.splitlines()[1:]]


def test_without_the_privilege_it_says_what_to_do(host: Namespace, daemon: Daemon) -> None:
    daemon.within = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", "--"]
    daemon.configure("listen: [eth0, eth1]")
    daemon.start()
    host.ip("link add one type veth peer name other")
    daemon.reload()
    said = [line.split("event=")[1] for line in daemon.lines() if "listening" in line]
    reason = "CAP_NET_RAW is missing: listen.conf gives it to the service, see anyipd.yaml(5)"
    assert said == [f'"not listening" uplinks=eth0,eth1 reason="{reason}"'] * 2


def test_a_forged_reply_is_ignored(routed: Uplink, daemon: Daemon) -> None:
    """Each one by what is wrong with it alone; the right one behind them all is the proof of that."""
    wire = Wire(routed)
    daemon.configure("listen: [uplink]")
    daemon.start()
    daemon.wait_for("listening")
    forged = iter(range(1, 99))

    def prefix() -> str:
        return f"2001:db8:bad:{next(forged):x}::/64"

    wire.answer(reply(prefix()))  # nobody asked yet
    wire.ask(request(1), port=5546)  # not as a client
    wire.answer(reply(prefix(), 1))
    wire.ask(request())
    wire.answer(reply(prefix(), transaction=0xABCDEE))
    wire.answer(reply(prefix(), client=CLIENT[:-1]))
    wire.answer(reply(prefix(), client=b""))
    wire.answer(reply(prefix()), UDP(sport=547, dport=546, chksum=0x1234))
    wire.answer(reply(prefix()), UDP(sport=547, dport=546, len=9))
    wire.answer(reply(prefix()), UDP(sport=547, dport=547))
    wire.answer(reply(prefix()), to="2001:db8::2")
    wire.answer(reply(prefix()), tag=Dot1Q(vlan=7))
    wire.host_mac, right = "02:00:00:00:00:99", wire.host_mac  # to somebody else
    wire.answer(reply(prefix()))
    wire.host_mac = right
    # Taken, with the tag of a mere priority, and but once.
    wire.answer(reply(str(OLD)), tag=Dot1Q(vlan=0, prio=5))
    wire.answer(reply(prefix()))
    wire.ask(request(2))
    wire.answer(reply("2001:db8:300::/64", 2))
    daemon.wait_for("delegated prefix=2001:db8:300::/64")
    assert {each["prefix"] for each in daemon.status()["delegations"]} == {str(OLD), "2001:db8:300::/64"}


def test_a_malformed_message_is_said_once(routed: Uplink, daemon: Daemon) -> None:
    wire = Wire(routed)
    daemon.configure("listen: [uplink]")
    daemon.start()
    daemon.wait_for("listening")
    for _ in range(50):
        wire.answer(dhcp6.DHCP6_Reply(trid=1) / b"\0")
    wire.answer(dhcp6.DHCP6_Reply(trid=1) / b"\0\1\0\7")
    daemon.wait_for("an option is longer than what holds it")
    said = [line.split("event=")[1] for line in daemon.lines() if "dropped" in line]
    assert said == [
        f'"message dropped" uplink=uplink reason="{reason}"'
        for reason in ("an option ends in its header", "an option is longer than what holds it")
    ]


@pytest.mark.parametrize("obstacle", ["a file", "a full disk"])
def test_what_cannot_be_kept_is_said(routed: Uplink, daemon: Daemon, obstacle: str) -> None:
    wire = Wire(routed)
    directory = daemon.runtime / "heard"
    if obstacle == "a file":
        directory.touch()
    else:
        directory.mkdir()
        (directory / "full").write_bytes(b"")
        daemon.namespace.run("mount", "-t", "tmpfs", "-o", "nr_inodes=1", "full", directory)
    try:
        daemon.configure("listen: [uplink]")
        daemon.start()
        daemon.wait_for("listening")
        wire.ask(request())
        wire.answer(reply(str(OLD)))
        assert str(directory) in daemon.wait_for("cannot keep what was heard")
        assert daemon.status()["delegations"] == []
    finally:
        if obstacle != "a file":
            daemon.namespace.run("umount", directory)


@given(st.binary(max_size=80), st.booleans(), st.integers(1, 0xFFFF))
def test_the_checksum(content: bytes, spoiled: bool, change: int) -> None:  # noqa: FBT001  hypothesis passes it
    packet = bytes(IPv6(src=ISP_LINK_LOCAL, dst=HOST_LINK_LOCAL) / UDP(sport=547, dport=546) / content)
    if spoiled and change != 0xFFFF:  # in one's complement that is zero
        (word,) = struct.unpack_from("!H", packet, 46)
        packet = packet[:46] + struct.pack("!H", (word + change) % 0xFFFF) + packet[48:]
    assert is_intact(packet) == (not spoiled or change == 0xFFFF)
    assert payload(packet + b"padding") == content


@given(st.binary(min_size=49, max_size=120))
def test_no_packet_does_harm(packet: bytes) -> None:
    try:
        is_intact(packet)
        parse(payload(packet))
    except MalformedError:
        pass


@pytest.fixture
def granted(uplink: Uplink, daemon: Daemon) -> Wire:
    """What forges an exchange on the uplink, by which NEW was granted to CLIENT and is bound."""
    wire = Wire(uplink)
    daemon.configure("listen: [uplink]")
    daemon.start()
    wire.ask(request())
    wire.answer(reply(str(NEW)))
    daemon.wait_for("bound subnet=default")
    return wire


@pytest.mark.parametrize("own", [True, False], ids=["host", "guest"])
def test_a_guest_gives_nothing_back(granted: Wire, uplink: Uplink, daemon: Daemon, own: bool) -> None:  # noqa: FBT001  a case
    """What a macvlan sends leaves by the uplink, too, and from another address on Ethernet."""
    if not own:
        uplink.host.ip("link add guest link uplink type macvlan mode bridge")
        uplink.host.ip("link set guest up")
        granted.host_mac = uplink.host.ip_json("link show guest")[0]["address"]
    granted.ask(release(str(NEW)), by="uplink" if own else "guest")
    daemon.reload()
    wait_until(lambda: bool(bound(uplink.host)) != own)


def test_a_release_of_another_client_gives_nothing_back(
    granted: Wire, uplink: Uplink, daemon: Daemon
) -> None:
    """Such as by an ordinary user who may send from port 546 (S10)."""
    uplink.host.sysctl("net.ipv4.ip_unprivileged_port_start", 0)
    for restarted in (False, True):
        if restarted:
            daemon.kill()
            daemon.start()
        with uplink.host.entered(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as user:
            user.bind(("::", 546))
            for client in (b"", CLIENT[:-1], CLIENT[::-1]):
                user.sendto(bytes(release(str(NEW), client)), (f"ff02::1:2%{uplink.interface}", 547))
        daemon.reload()
        assert bound(uplink.host) == {str(Prefix(NEW.address, 64))}
    granted.ask(release(str(NEW)))
    daemon.wait_for("event=withdrawn")


def test_an_alternative_name_is_no_uplinks(uplink: Uplink, daemon: Daemon) -> None:
    uplink.host.ip("link property add dev uplink altname enp7s0")
    daemon.configure("listen: [enp7s0]")
    daemon.start()
    daemon.wait_for("no such link so far")
    daemon.reload()
    assert not [line for line in daemon.lines() if "event=listening" in line]
