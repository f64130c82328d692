"""anyipd-neighbour on a real link: a router that has the /64 on-link, by itself and by its kernel."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyipd import here
from anyipd.model import Prefix, address_text
from anyipd.neighbour.message import Advertiser
from bench.rig import resident
from tests.lab.daemon import Daemon
from tests.lab.delegated import write_lease
from tests.lab.kea import Kea, Offer
from tests.lab.lan import SUBNET, Lan
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import HOST_LINK_LOCAL, Uplink
from tests.lab.networkd import Networkd, crowd
from tests.lab.solicitor import Answer, Solicitor
from tests.test_neighbour_message import BAD

POLICY = "subnets: []\nstatic:\n  - {prefix: '2001:db8:5::/64', neighbours: [uplink]}\n"
DELEGATED = "subnets: [{name: web, neighbours: [uplink]}]\n"
LINK_LOCAL = 0xFE80 << 112
OVERRIDE, SOLICITED = 0x20, 0x40
OTHER = b"\2\0\0\0\0\x77"


def somewhere(prefix: Prefix = SUBNET) -> int:
    return random.randrange(prefix.address + 2, prefix.end)


@pytest.fixture
def running(uplink: Uplink, daemon: Daemon, neighbour: Daemon) -> Daemon:
    """The neighbour, answering for SUBNET; the router has that on-link."""
    uplink.isp.ip(f"-6 route add {SUBNET} dev {uplink.customer}")
    daemon.configure(POLICY)
    daemon.start()
    neighbour.start()
    return neighbour


@pytest.fixture
def router(uplink: Uplink) -> Iterator[Solicitor]:
    with Solicitor(uplink.isp, uplink.customer, LINK_LOCAL + 1) as opened:
        yield opened


def link_layer(namespace: Namespace, link: str) -> str:
    (found,) = namespace.ip_json(f"link show dev {link}")
    return str(found["address"])


def told(answer: Answer) -> tuple[str, int]:
    """Who is said to have it, and with which flags."""
    return answer.frame[80:86].hex(":"), answer.frame[58]


def answered(router: Solicitor, prefix: Prefix = SUBNET, within: float = 0.2) -> bool:
    return bool(router.ask([somewhere(prefix)], within))


def heard_after(router: Solicitor, *frames: bytes, of: frozenset[int] = frozenset()) -> list[Answer]:
    """Send frames and one good solicitation; give all advertisements up to the answer to that.

    `of` are other addresses that there must be an advertisement of.
    """
    list(router.advertisements())
    behind = somewhere()
    for frame in (*frames, router.solicitation(behind)):
        router.socket.send(frame)
    return [each for each in router.hear_of(of | {behind}) if each.target != behind]


def who_answers(router: Solicitor, target: int) -> set[tuple[str, int]]:
    """Ask for an address, and give everybody who answers: faster ones than we, and we."""
    found = heard_after(router, router.solicitation(target), of=frozenset({target}))
    return {told(each) for each in found if each.target == target}


def stays_silent(router: Solicitor, target: int) -> bool:
    """Ask thrice as a router does, and say that nobody answered."""
    return not any(router.ask([target], 0.3) for _ in range(3))


@pytest.mark.alone
@pytest.mark.usefixtures("running")
def test_ten_thousand_addresses(router: Solicitor, uplink: Uplink) -> None:
    """Asked for as a router does: what is lost on a busy machine, twice more (RFC 4861, 7.2.2)."""
    targets = {somewhere() for _ in range(10_000)}
    found: dict[int, Answer] = {}
    for _ in range(3):
        router.pelt([router.solicitation(each) for each in targets - found.keys()], 10_000)
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: found.update(router.answers()) or targets <= found.keys(), 3)
    assert targets == found.keys()
    ours = link_layer(uplink.host, uplink.interface)
    assert {told(answer) for answer in found.values()} == {(ours, SOLICITED)}


@pytest.mark.usefixtures("running")
def test_the_routers_kernel_is_content(uplink: Uplink) -> None:
    for _ in range(5):
        # The neighbour table is the whole machine's: leave room in it.
        assert uplink.answers(SUBNET, 50, 5) == 50
        uplink.isp.ip(f"-6 neigh flush dev {uplink.customer}")
    target = address_text(somewhere())

    def state() -> str:
        (entry,) = uplink.isp.ip_json(f"-6 neigh show to {target} dev {uplink.customer}")
        return str(entry["state"][0])

    # It stays content: unicast, it asks whether an entry still holds.
    uplink.isp.run("ping", "-c1", "-W2", target)
    lladdr = link_layer(uplink.host, uplink.interface)
    uplink.isp.ip(f"-6 neigh replace {target} lladdr {lladdr} dev {uplink.customer} nud probe")
    wait_until(lambda: state() == "REACHABLE")


@pytest.mark.usefixtures("running")
def test_addresses_of_the_link_are_left_to_the_kernel(router: Solicitor, uplink: Uplink) -> None:
    own = SUBNET.address + 5
    uplink.host.ip(f"addr add {address_text(own)}/128 dev {uplink.interface} nodad")
    # The kernel answers first, and for a moment not alone: we are told of its address by an event.
    wait_until(lambda: {flags for _, flags in who_answers(router, own)} == {SOLICITED | OVERRIDE})
    assert {flags for _, flags in who_answers(router, own)} == {SOLICITED | OVERRIDE}
    uplink.host.ip(f"addr del {address_text(own)}/128 dev {uplink.interface}")
    # For a moment nobody answers.
    wait_until(lambda: {told(answer)[1] for answer in router.ask([own]).values()} == {SOLICITED})


def test_an_address_of_another_node_stays_reachable_there(
    lan: Lan, daemon: Daemon, neighbour: Daemon
) -> None:
    """It was there before, and kept silent."""
    daemon.configure(POLICY)
    daemon.start()
    neighbour.start()
    owner = link_layer(lan.other, "other")
    with Solicitor(lan.router, "lan", LINK_LOCAL + 1) as router:
        lan.ping(lan.owned, "-c3", "-i0.2")
        assert lan.neighbour() == owner
        before = lan.reached()
        for _ in range(20):
            lan.router.ip("-6 neigh flush dev lan")
            lan.ping(lan.owned)
            assert lan.neighbour() == owner
        assert lan.reached() == before + 20
        # By now we know better than to answer.
        assert who_answers(router, lan.owned) == {(owner, SOLICITED | OVERRIDE)}
        lan.ping(somewhere())
    # Where he is gone for good, the address is like any other.
    lan.other.ip("link set other down")
    lan.router.ip("-6 neigh flush dev lan")
    lan.ping(lan.owned, "-c5")
    assert lan.neighbour() == link_layer(daemon.namespace, "uplink")


def test_a_node_may_take_an_address(lan: Lan, daemon: Daemon, neighbour: Daemon) -> None:
    daemon.configure(POLICY)
    daemon.start()
    neighbour.start()
    lan.ping(SUBNET.address + 0x99)
    taken = address_text(SUBNET.address + 0x99)
    lan.other.sysctl("net.ipv6.conf.all.accept_dad", 1)
    lan.other.sysctl("net.ipv6.conf.other.accept_dad", 1)
    lan.other.sysctl("net.ipv6.conf.other.dad_transmits", 4)  # it takes as many seconds
    lan.other.ip(f"addr add {taken}/64 dev other")

    def flags() -> list[str]:
        (entry,) = lan.other.ip_json("-6 addr show dev other")
        (info,) = [each for each in entry["addr_info"] if each["local"] == taken]
        return [name for name in ("tentative", "dadfailed") if info.get(name)]

    assert flags() == ["tentative"]
    wait_until(lambda: flags() != ["tentative"])
    assert flags() == []
    with Solicitor(lan.router, "lan", LINK_LOCAL + 1) as router:
        who = who_answers(router, SUBNET.address + 0x99)
        assert who == {(link_layer(lan.other, "other"), SOLICITED | OVERRIDE)}


def test_bad_packets(running: Daemon, router: Solicitor) -> None:
    lines = running.lines()
    frames = [bad for bad in BAD.values() if bad]
    for _ in range(2000):
        frame = bytearray(router.solicitation(somewhere()))
        if random.random() < 0.5:
            del frame[random.randrange(14, len(frame)) :]
        else:
            frame[random.choice([14, 20, 21, *range(54, 80)])] ^= 1 << random.randrange(4, 8)
        frames.append(bytes(frame))
    frames += [router.solicitation(5)[:54] + random.randbytes(random.randrange(90)) for _ in range(1000)]
    assert heard_after(router, *frames) == []
    assert running.lines() == lines
    assert running.running.poll() is None


def test_renumbering(uplink: Uplink, daemon: Daemon, neighbour: Daemon, router: Solicitor) -> None:
    old, new = Prefix.parse("2001:db8:a::/64"), Prefix.parse("2001:db8:b::/64")
    daemon.configure(DELEGATED)
    uplink.host.ip(f"-6 route add unreachable {old._replace(length=60)} dev lo proto dhcp")
    daemon.start()
    neighbour.start()
    assert answered(router, old, within=5)
    assert not answered(router, new)
    lately = somewhere(new)
    router.ask([lately], 0.1)
    uplink.host.ip(f"-6 route add unreachable {new._replace(length=60)} dev lo proto dhcp")
    wait_until(lambda: answered(router, new))
    assert answered(router, old, within=5)
    # Who asked in vain is told.
    router.answers()
    uplink.host.ip(f"-6 route delete unreachable {old._replace(length=60)} dev lo proto dhcp")
    wait_until(lambda: not answered(router, old))
    assert answered(router, new, within=5)


@pytest.mark.usefixtures("running")
def test_who_asked_before_a_takeover_is_told(daemon: Daemon, uplink: Uplink, router: Solicitor) -> None:
    target = somewhere()
    daemon.configure(POLICY.replace("2001:db8:5::/64", "2001:db8:6::/64"))
    daemon.reload()
    uplink.isp.ip(f"-6 neigh replace {address_text(target)} lladdr {OTHER.hex(':')} dev customer nud stale")
    wait_until(lambda: stays_silent(router, target))
    daemon.configure(POLICY)
    daemon.reload()
    wait_until(lambda: told(router.answers().get(target, Answer(0, 0, bytes(86))))[1] == OVERRIDE)

    def believed() -> str:
        (entry,) = uplink.isp.ip_json(f"-6 neigh show to {address_text(target)} dev customer")
        return str(entry["lladdr"])

    wait_until(lambda: believed() == link_layer(uplink.host, "uplink"))


def test_it_answers_on_without_a_daemon(running: Daemon, daemon: Daemon, router: Solicitor) -> None:
    daemon.kill()
    running.wait_for("the last one holds")
    assert answered(router, within=5)
    running.terminate()
    assert not answered(router)
    running.start()  # now by the ledger file alone
    assert answered(router, within=5)
    daemon.configure("")
    daemon.start()
    wait_until(lambda: not answered(router))
    daemon.configure(POLICY)
    daemon.reload()
    wait_until(lambda: answered(router))


def test_without_a_daemon_and_a_ledger_file_it_waits(
    running: Daemon, daemon: Daemon, router: Solicitor
) -> None:
    for each in (daemon, running):
        each.terminate()
    for file in (daemon.runtime / "daemon").iterdir():
        file.unlink()
    running.start()
    assert not answered(router)
    daemon.start()
    wait_until(lambda: answered(router))


@pytest.mark.parametrize("ledger", ["{", "[]", '{"boot": "BOOT", "view": {"subnets": 1}}'])
def test_a_ledger_file_that_is_none_is_said(neighbour: Daemon, ledger: str) -> None:
    folder = neighbour.runtime / "daemon"
    folder.mkdir()
    inode = neighbour.namespace.run("stat", "-L", "-c", "%i", "/proc/self/ns/net").stdout.strip()
    (folder / inode).write_text(ledger.replace("BOOT", here.boot()))
    neighbour.start()
    neighbour.wait_for("ledger file dropped")


def test_a_route_of_somebody_else_is_not_answered_for(
    uplink: Uplink, daemon: Daemon, neighbour: Daemon, router: Solicitor
) -> None:
    daemon.configure(POLICY)
    uplink.host.ip(f"-6 route add local {SUBNET} dev lo table local proto static metric 1024")
    daemon.start()
    neighbour.start()
    assert not answered(router)


@pytest.mark.parametrize("started_anew", [False, True], ids=["", "started anew"])
def test_the_end_of_a_lifetime_ends_the_answers(
    uplink: Uplink, daemon: Daemon, neighbour: Daemon, router: Solicitor, *, started_anew: bool
) -> None:
    """Also where the daemon is dead, and the kernel has not swept the route yet."""
    prefix = Prefix.parse("2001:db8:100::/64")
    daemon.configure(DELEGATED)
    daemon.start()
    neighbour.start()
    write_lease(daemon.runtime, valid_lifetime=10, preferred_lifetime=10)
    wait_until(lambda: answered(router, prefix))
    daemon.kill()
    if started_anew:
        neighbour.kill()
        neighbour.start()
    assert answered(router, prefix, within=5)
    wait_until(lambda: not answered(router, prefix))
    assert uplink.host.ip("-6 route show table local proto 150")


def test_what_the_daemon_alone_heard(daemon: Daemon, neighbour: Daemon, router: Solicitor) -> None:
    """No hook wakes us then, and no discard route of a client."""
    prefix = Prefix.parse("2001:db8:100::/64")
    daemon.configure(DELEGATED + "unassigned: none\n")
    neighbour.start()
    write_lease(daemon.runtime).parent.rename(daemon.runtime / "heard")
    daemon.start()
    wait_until(lambda: answered(router, prefix))


@pytest.mark.usefixtures("running")
def test_a_tagged_frame_is_another_links(router: Solicitor) -> None:
    frame = router.solicitation(somewhere())
    assert heard_after(router, frame[:12] + b"\x81\0\0\7" + frame[12:]) == []


def test_a_link_may_come_later(running: Daemon, daemon: Daemon, uplink: Uplink, router: Solicitor) -> None:
    daemon.configure(POLICY.replace("[uplink]", "[uplink.7]"))
    daemon.reload()
    running.wait_for("there is no such link")
    assert not answered(router)
    uplink.isp.ip(f"link add customer.7 type veth peer name uplink.7 netns {uplink.host.name}")
    uplink.isp.ip("link set customer.7 up")
    uplink.host.ip("link set uplink.7 up")
    running.wait_for("no link-local address")
    with Solicitor(uplink.isp, "customer.7", LINK_LOCAL + 1) as later:
        assert not answered(later)
        uplink.host.ip(f"addr add {HOST_LINK_LOCAL}/64 dev uplink.7 nodad")
        wait_until(lambda: answered(later))
        assert not answered(router)


def test_a_link_may_go_and_come_back(running: Daemon, uplink: Uplink, router: Solicitor) -> None:
    assert answered(router, within=5)
    for _ in range(3):
        uplink.host.ip("link set uplink down")
        running.wait_for("event=silent")
        uplink.host.ip("link set uplink up")
        uplink.host.ip(f"addr add {HOST_LINK_LOCAL}/64 dev uplink nodad")
        wait_until(lambda: answered(router))
    uplink.host.ip("link set uplink address 02:00:00:00:00:99")
    target = somewhere()

    def who() -> str:
        found = router.ask([target], 0.2)
        return told(found[target])[0] if found else ""

    wait_until(lambda: who() == "02:00:00:00:00:99")
    uplink.isp.ip("link delete customer")
    running.wait_for("there is no such link")
    again = Uplink(uplink.isp, uplink.host, address="2001:db8:fffe::1")
    with Solicitor(again.isp, again.customer, LINK_LOCAL + 1) as anew:
        wait_until(lambda: answered(anew))
    assert running.running.poll() is None


def test_memory_stays_as_it_is(running: Daemon, router: Solicitor, pytestconfig: pytest.Config) -> None:
    """Every solicitation comes from another node, which even has an address of the subnet."""
    askers: int = pytestconfig.getoption("--askers")

    def pelt(number: int) -> None:
        for n in range(number):
            who = Advertiser(random.randbytes(6)[:5].join((b"\2", b"")), somewhere())
            router.socket.send(who.solicit(somewhere()))
            if n % 64 == 0:
                router.answers()
        wait_until(lambda: answered(router))

    pelt(20_000)
    before = resident(running.running.pid)
    pelt(askers)
    assert resident(running.running.pid) < before + 1
    assert not [line for line in running.lines() if "level=warning" in line]


def test_o5_it_hears_of_a_reload(running: Daemon, daemon: Daemon, router: Solicitor) -> None:
    daemon.configure("subnets: [{name: web, neighbors: [uplink]}]")
    daemon.reload()
    daemon.wait_for("the old configuration stays in force")
    assert answered(router, within=5)
    second = Prefix.parse("2001:db8:6::/64")
    daemon.configure(f"{POLICY}  - {{prefix: '{second}', neighbours: [uplink]}}\n")
    daemon.reload()
    wait_until(lambda: answered(router, second))
    assert answered(router, within=5)
    daemon.configure("")
    daemon.reload()
    running.wait_for("names no neighbours")
    wait_until(lambda: not answered(router))
    # What is read anew at a hangup elsewhere came by the View.
    running.running.send_signal(signal.SIGHUP)
    assert running.terminate() == 0


def test_exit_codes(host: Namespace, neighbour: Daemon) -> None:
    def ends(*within: str) -> tuple[int, str]:
        done = host.run(*within, *neighbour.command(), check=False, env=neighbour.environment())
        return done.returncode, done.stderr

    code, text = ends("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")
    assert code == 77
    assert "CAP_NET_RAW is missing" in text
    done = host.run(*neighbour.command("--nonsense"), check=False, env=neighbour.environment())
    assert done.returncode == 64


def test_it_needs_no_more_than_it_says(running: Daemon, router: Solicitor) -> None:
    running.terminate()
    running.within = ["setpriv", "--bounding-set=-all,+net_raw", "--inh-caps=-all,+net_raw"]
    running.start()
    status = Path(f"/proc/{running.running.pid}/status").read_text()
    assert f"CapEff:\t{1 << 13:016x}" in status  # CAP_NET_RAW
    assert answered(router, within=5)


def test_how_to_turn_it_on_is_said(daemon: Daemon) -> None:
    daemon.configure(POLICY)
    hint = "systemctl enable --now anyipd-neighbour"
    daemon.start()
    daemon.wait_for(hint)
    assert hint in daemon.control("check").stdout
    planned = daemon.control("plan", "--json", "--prefix", "2001:db8:100::/60")
    assert hint in planned.stderr
    json.loads(planned.stdout)
    daemon.configure("")
    daemon.reload()
    assert hint not in daemon.control("check").stdout


def test_networkd_starts_anew(
    *, uplink: Uplink, kea: Kea, daemon: Daemon, neighbour: Daemon, router: Solicitor, tmp_path: Path
) -> None:
    """It takes its discard route away and says nothing until it is answered: what it said holds meanwhile."""
    prefix = Prefix.parse("2001:db8:100::/60")
    web = Prefix(prefix.address, 64)
    daemon.configure("subnets: [{name: web, neighbours: [uplink]}]")
    kea.start(Offer(prefix))
    networkd = Networkd(uplink.host, uplink.interface, tmp_path)
    networkd.start()
    networkd.wait_until_bound()
    daemon.start()
    daemon.wait_for("source=networkd", 20)
    neighbour.start()
    wait_until(lambda: answered(router, web))
    kea.process.send_signal(signal.SIGSTOP)
    since = len(neighbour.lines())
    networkd.restart()
    wait_until(lambda: not uplink.host.ip("-6 route show type unreachable proto dhcp"))
    assert all(answered(router, web, within=5) for _ in range(10))
    assert not [line for line in neighbour.lines()[since:] if "silent" in line]
    kea.process.send_signal(signal.SIGCONT)


@pytest.mark.long
def test_c16_networkd_describes_more_than_anybody_reads(
    *, uplink: Uplink, kea: Kea, daemon: Daemon, neighbour: Daemon, router: Solicitor, tmp_path: Path
) -> None:
    """It falls silent no sooner than what is bound goes, and started first it knows no less."""
    prefix = Prefix.parse("2001:db8:1000::/52")
    daemon.configure("subnets: [{name: all, count: all, neighbours: [uplink]}]")
    neighbour.start()
    kea.start(Offer(prefix, 10, 12), renew=2, rebind=5)
    networkd = Networkd(uplink.host, uplink.interface, tmp_path)
    networkd.start()
    networkd.wait_until_bound()
    daemon.start()
    crowd(uplink.host)
    daemon.wait_for("networkd not understood", 30)
    daemon.wait_for("lifetime unknown", 30)
    end = time.monotonic() + 13  # longer than any lifetime that was told
    while time.monotonic() < end:
        assert answered(router, prefix, within=5)
        time.sleep(0.5)
    assert uplink.host.ip("-6 route show table local proto 150").count("\n") >= 1
