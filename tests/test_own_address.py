"""An address of the host's own in a delegated subnet: on lo, as long as its delegation is valid."""

from __future__ import annotations

import contextlib
import errno
import math
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count, groupby
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyipd import clock
from anyipd.apply import Changes, apply
from anyipd.decide.addresses import (
    EARLY,
    LATE,
    MISSING,
    UNMARKED,
    AddressPlan,
    own_addresses,
    plan_addresses,
    with_addresses,
    without_missing,
)
from anyipd.decide.plan import Plan
from anyipd.kernel import addresses
from anyipd.kernel.addresses import is_own, lifetimes
from anyipd.kernel.routes import Routes
from anyipd.kernel.wire import Refusal
from anyipd.model import (
    INFINITE,
    Delegation,
    DelegationState,
    HostAddresses,
    Lifetimes,
    Prefix,
    Subnets,
    SubnetState,
)
from anyipd.observe.onlink import host_addresses
from anyipd.policy import parse
from tests.lab.daemon import Daemon
from tests.lab.delegated import PREFIX, take_back, write_lease
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import Uplink

DELEGATED, NEW = Prefix.parse(PREFIX), Prefix.parse("2001:db8:200::/60")
OWN, OTHER = (Prefix(each.address + 1, 128) for each in (DELEGATED, NEW))
POLICY = 'subnets: [{name: web, id: 0, address: "::1"}]'
FOREVER = Lifetimes(INFINITE, INFINITE)

# What is wanted, and what must change.

WEB = Subnets("web", DELEGATED, SubnetState.WANTED, Prefix(DELEGATED.address, 64))
ASKED = parse(POLICY, "f")


def named(subnets: Subnets, found: HostAddresses | None = None) -> Subnets:
    [each] = with_addresses([subnets], ASKED, found or HostAddresses())
    return each


def test_a_subnet_that_is_to_be_bound_has_it() -> None:
    assert named(WEB).address == OWN.address
    assert named(WEB).address_reason is None


@pytest.mark.parametrize("state", [each for each in SubnetState if each is not SubnetState.WANTED])
def test_one_that_is_not_has_none(state: SubnetState) -> None:
    held = Subnets("web", DELEGATED, state, WEB.first)
    assert named(held) == held


def test_what_somebody_else_has_is_not_wanted() -> None:
    found = named(WEB, HostAddresses(others={OWN.address: "eth0"}))
    assert found.address_reason == "2001:db8:100::1 is an address of eth0 already, and not by anyipd"
    assert not own_addresses([found], [Delegation(DELEGATED, "dhclient", DelegationState.GRANTED)])


def test_nothing_is_assigned_that_could_not_be_told_from_what_others_assign() -> None:
    assert named(WEB, HostAddresses(are_marked=False)).address_reason == UNMARKED


@pytest.mark.parametrize(
    ("state", "preferred", "valid", "expected"),
    [
        (DelegationState.GRANTED, 10.0, 20.0, Lifetimes(10, 20)),
        (DelegationState.GRANTED, 30.0, 20.0, Lifetimes(20, 20)),
        (DelegationState.GRANTED, None, 20.0, Lifetimes(20, 20)),
        (DelegationState.GRANTED, None, None, FOREVER),
        (DelegationState.GRANTED, INFINITE, INFINITE, FOREVER),
        (DelegationState.DEPRECATED, 1.0, 20.0, Lifetimes(0, 20)),
        (DelegationState.SUPERSEDED, 10.0, 20.0, Lifetimes(0, 20)),
        (DelegationState.SUPERSEDED, None, None, Lifetimes(0, INFINITE)),
    ],
)
def test_it_lives_as_its_delegation(
    state: DelegationState, preferred: float | None, valid: float | None, expected: Lifetimes
) -> None:
    delegation = Delegation(DELEGATED, "dhclient", state, preferred_until=preferred, valid_until=valid)
    assert own_addresses([named(WEB)], [delegation]) == {OWN: expected}


def test_one_of_another_uplink_than_packets_leave_by_is_deprecated() -> None:
    """The kernel chooses the way first: with such an address packets leave by the wrong provider."""
    delegations = [
        Delegation(each, "dhclient", DelegationState.GRANTED, uplinks=frozenset({uplink}))
        for each, uplink in ((DELEGATED, "up"), (NEW, "other"))
    ]
    both = [named(WEB), named(replace(WEB, delegation=NEW, first=NEW._replace(length=64)))]
    deprecated = Lifetimes(0, INFINITE)
    assert own_addresses(both, delegations, ["up"]) == {OWN: FOREVER, OTHER: deprecated}
    assert own_addresses(both, delegations, ["other"]) == {OWN: deprecated, OTHER: FOREVER}
    for either in (["up", "other"], ["vpn"], []):
        assert own_addresses(both, delegations, either) == {OWN: FOREVER, OTHER: FOREVER}
    # An address that is deprecated itself is no better, and one by an unknown uplink may be right.
    old = replace(delegations[0], state=DelegationState.DEPRECATED)
    assert own_addresses(both, [old, delegations[1]], ["up"]) == {OWN: deprecated, OTHER: FOREVER}
    unknown = replace(delegations[1], uplinks=frozenset({None}))
    assert own_addresses(both, [delegations[0], unknown], ["up"]) == {OWN: FOREVER, OTHER: FOREVER}


def test_an_address_that_lo_lacks_is_missing() -> None:
    assert [each.address_reason for each in without_missing([named(WEB), WEB], [])] == [MISSING, None]
    assert list(without_missing([named(WEB)], [OWN])) == [named(WEB)]


ends = st.floats(0, 1e7) | st.just(INFINITE)
lives = st.builds(lambda one, other: Lifetimes(min(one, other), max(one, other)), ends, ends)


@given(lives, st.floats(0, 1e6), st.floats(0, 1e6))
def test_what_the_kernel_makes_of_lifetimes_is_right_at_any_time_later(
    wanted: Lifetimes, now: float, passed: float
) -> None:
    """It counts whole seconds: those that were asked for, less those that have passed."""
    asked = [INFINITE if end == INFINITE else max(math.ceil(end - now), 0) for end in wanted]
    if wanted.valid_until <= now + passed:
        return  # gone
    left = [each if each == INFINITE else max(each - int(passed), 0) for each in asked]
    present = Lifetimes(*(now + passed + each for each in left))
    assert not plan_addresses({OWN: wanted}, {OWN: present}, now + passed)


@given(lives, lives, st.floats(0, 1e6))
def test_what_is_more_than_seconds_off_is_renewed(wanted: Lifetimes, present: Lifetimes, now: float) -> None:
    found = plan_addresses({OWN: wanted}, {OWN: present}, now)
    assert not found.add
    assert not found.remove
    for until, is_until in zip(wanted, present, strict=True):
        apart = 0.0 if until == is_until else max(is_until - now, 0) - max(until - now, 0)
        if not -EARLY - 0.1 <= apart <= LATE + 0.1:
            assert found.renew == {OWN: wanted}


def test_additions_and_removals() -> None:
    found = plan_addresses({OWN: FOREVER}, {OTHER: FOREVER, Prefix(OWN.address, 64): FOREVER}, 0)
    assert found.add == {OWN: FOREVER}
    assert list(found.remove) == [OTHER, Prefix(OWN.address, 64)]


# The kernel.


def on_lo(routes: Routes) -> dict[Prefix, Lifetimes]:
    return {each.prefix: lifetimes(each, clock.now()) for each in routes.addresses() if is_own(each)}


def test_the_kernel_keeps_what_it_is_given(host: Namespace, routes: Routes) -> None:
    now = clock.now()
    wanted = {OWN: Lifetimes(now + 50.5, now + 100), OTHER: FOREVER}
    assert not addresses.add(routes, wanted, now)
    assert not plan_addresses(wanted, on_lo(routes), clock.now())
    shown = host.ip("-6 addr show dev lo").splitlines()
    assert sum("nodad" in line and "noprefixroute" in line for line in shown) == 2
    assert "2001:db8" not in host.ip("-6 route show table main")
    wanted = {OWN: Lifetimes(0, now + 200), OTHER: Lifetimes(0, INFINITE)}
    assert not addresses.renew(routes, wanted, clock.now())
    assert not plan_addresses(wanted, on_lo(routes), clock.now())
    assert host.ip("-6 addr show dev lo").count("deprecated") == 2
    assert not addresses.remove(routes, [OWN, OTHER])
    assert not on_lo(routes)


def test_the_kernel_ends_it_also_without_a_daemon(host: Namespace, routes: Routes) -> None:
    now = clock.now()
    addresses.add(routes, {OWN: Lifetimes(now + 0.5, now + 6)}, now)
    assert list(on_lo(routes)) == [OWN]
    wait_until(lambda: "deprecated" in host.ip("-6 addr show dev lo"))
    wait_until(lambda: not on_lo(routes))


def test_the_kernel_says_what_it_refuses(host: Namespace, routes: Routes) -> None:
    host.ip(f"addr add {OWN} dev lo")
    assert addresses.add(routes, {OWN: FOREVER, OTHER: FOREVER}, 0) == [Refusal(OWN, errno.EEXIST)]
    host.ip(f"addr delete {OTHER} dev lo")
    assert addresses.remove(routes, [OTHER]) == [Refusal(OTHER, errno.EADDRNOTAVAIL)]
    assert not on_lo(routes)


def test_ours_are_told_from_others(host: Namespace, routes: Routes) -> None:
    addresses.add(routes, {OWN: FOREVER}, 0)
    host.ip(f"addr add {OTHER} dev lo")
    host.ip("link add one type veth peer name two")
    host.ip("addr add 2001:db8:100:1::1 peer 2001:db8:100:2::2 dev one")
    with host.entered():
        found = host_addresses(list(routes.addresses()), [DELEGATED, NEW], 0)
    assert found.own == {OWN: FOREVER}
    one, two = (Prefix.parse(f"2001:db8:100:{each}").address for each in ("1::1", "2::2"))
    assert found.others == {OTHER.address: "lo", one: "one", two: "one"}
    assert found.are_marked
    older = [each._replace(protocol=0) for each in routes.addresses()]
    assert not host_addresses(older, [DELEGATED], 0).are_marked


class Watched(Routes):
    """A request socket that keeps which addresses were on lo after each batch."""

    def change(self, requests: Iterator[bytes]) -> list[Refusal]:
        refused = super().change(requests)
        self.seen = [*getattr(self, "seen", []), set(on_lo(self))]
        return refused


def test_the_next_is_there_before_one_goes(host: Namespace) -> None:
    with host.entered(), closing(Watched()) as routes:
        addresses.add(routes, {OWN: FOREVER}, 0)
        own = AddressPlan(present=[OWN], add={OTHER: FOREVER}, remove=[OWN])
        assert apply(routes, ASKED, Changes((), Plan(), addresses=own)).own == {OTHER}
        found = [each for each, _ in groupby(routes.seen)]
    assert found == [{OWN}, {OWN, OTHER}, {OTHER}]


# H4: an uplink with a link-local address alone, and a routed-on subnet behind a link of 1,420 bytes.

INNER, OUTSIDE = "2001:db8:100:5::2", "2001:db8:aaaa::2"
UNASSIGNED = "2001:db8:100:9::9"
ROUTED_ON = "{name: inner, id: 5, bind: false}"


@pytest.fixture
def inner(uplink: Uplink, lab: Callable[[str], Namespace]) -> Namespace:
    """A host behind ours, which does not know how small the link between is."""
    host, inner = uplink.host, lab("inner")
    uplink.route(DELEGATED)
    host.sysctl("net.ipv6.conf.all.forwarding", 1)
    host.ip(f"link add tunnel mtu 1420 type veth peer name tunnel netns {inner.name}")
    for end, address in ((host, "fe80::a/64"), (inner, "fe80::b/64")):
        end.ip("link set tunnel up")
        end.ip(f"addr add {address} dev tunnel nodad")
    inner.ip(f"addr add {INNER}/64 dev tunnel nodad")
    inner.ip("-6 route add default via fe80::a dev tunnel")
    host.ip("-6 route add 2001:db8:100:5::/64 dev tunnel")
    return inner


@pytest.fixture
def outside(uplink: Uplink, lab: Callable[[str], Namespace]) -> Namespace:
    """A host behind the ISP, which forwards nothing that comes from a link-local address."""
    isp, outside = uplink.isp, lab("outside")
    isp.sysctl("net.ipv6.conf.all.forwarding", 1)
    isp.ip(f"link add far type veth peer name far netns {outside.name}")
    for end, address in ((isp, "2001:db8:aaaa::1/64"), (outside, f"{OUTSIDE}/64")):
        end.ip("link set far up")
        end.ip(f"addr add {address} dev far nodad")
    outside.ip("-6 route add default via 2001:db8:aaaa::1 dev far")
    return outside


def arrives(outside: Namespace, inner: Namespace, size: int = 30_000) -> bool:
    """Send some packets of 1,500 bytes over TCP; say whether they come through in a second."""
    with inner.entered():
        listener = socket.create_server((INNER, 0), family=socket.AF_INET6)
    with listener, outside.entered(), socket.create_connection(listener.getsockname()[:2], 1) as sender:
        receiver, _ = listener.accept()
        with receiver:
            receiver.settimeout(1)
            sender.sendall(bytes(size))
            with contextlib.suppress(TimeoutError):
                while size:
                    size -= len(receiver.recv(size))
    return not size


def refused_by(outside: Namespace) -> str | None:
    """Send a datagram to what is unassigned; return who answers that there is no route to it."""
    answer = outside.run("ping", "-c", "1", "-W", "1", UNASSIGNED, check=False).stdout
    found = re.search("From (\\S+) .*Destination unreachable", answer)
    return found[1] if found else None


def test_h4_an_uplink_with_a_link_local_address_alone(
    daemon: Daemon, inner: Namespace, outside: Namespace
) -> None:
    daemon.configure(f"subnets: [{ROUTED_ON}]")
    write_lease(daemon.runtime)
    daemon.start()
    goes_out = ("ping", "-c", "1", "-W", "1", OUTSIDE)
    assert daemon.namespace.run(*goes_out, check=False).returncode
    assert refused_by(outside) is None
    assert not arrives(outside, inner)
    daemon.configure(f'subnets: [{{name: web, id: 0, address: "::1"}}, {ROUTED_ON}]')
    daemon.reload()
    daemon.namespace.run(*goes_out)
    wait_until(lambda: refused_by(outside) == "2001:db8:100::1")  # the kernel sends so many a second
    assert arrives(outside, inner)
    assert "mtu 1420" in outside.ip(f"-6 route get {INNER}")


# The daemon.


class AddressMonitor:
    """`ip monitor` for addresses; of what there was before it started it says nothing."""

    def __init__(self, host: Namespace, folder: Path) -> None:
        self.host, self.log = host, folder / "addresses.log"
        self.marks = (f"2001:db8:dead::{number:x}/128" for number in count(1))
        with self.log.open("w") as log:
            host.popen("ip", "-6", "-oneline", "monitor", "address", stdout=log)
        self.changes()

    def changes(self) -> list[str]:
        """Give all changes up to now, a line each. The kernel announces an address a moment after it came."""
        mark = next(self.marks)

        def marked() -> bool:
            self.host.ip(f"addr add {mark} dev lo")
            try:
                wait_until(lambda: f"inet6 {mark}" in self.log.read_text(), 0.2)
            except TimeoutError:  # it does not listen yet
                return False
            finally:
                self.host.ip(f"addr delete {mark} dev lo")
            return True

        wait_until(marked)
        return [line for line in self.log.read_text().splitlines() if "2001:db8:dead:" not in line]


@pytest.fixture
def monitor(host: Namespace, tmp_path: Path) -> AddressMonitor:
    return AddressMonitor(host, tmp_path)


@pytest.fixture
def running(daemon: Daemon) -> Daemon:
    """A daemon with a delegation."""
    daemon.configure(POLICY)
    # One that began later than now would end later each time that it is read.
    write_lease(daemon.runtime, life_starts=int(time.time()) - 1)
    daemon.start()
    daemon.wait_for("assigned address=2001:db8:100::1 subnet=web")
    return daemon


def test_it_is_there_with_the_lifetimes_of_its_delegation(running: Daemon, routes: Routes) -> None:
    [(preferred, valid)] = on_lo(routes).values()
    now = clock.now()
    assert 990 < preferred - now <= 1001
    assert 1990 < valid - now <= 2001
    [web] = running.status()["subnets"]
    assert (web["state"], web["address"], web["address_reason"]) == ("bound", "2001:db8:100::1", None)
    assert running.control("status").stdout.splitlines()[-2:] == [
        "SUBNET  PREFIX             ADDRESS          STATE",
        "web     2001:db8:100::/64  2001:db8:100::1  bound",
    ]


def test_a_restart_changes_nothing(monitor: AddressMonitor, running: Daemon, routes: Routes) -> None:
    wait_until(monitor.changes)
    running.terminate()
    assert list(on_lo(routes)) == [OWN]
    running.start()
    assert running.control("plan").stdout == "nothing to change\n"
    running.kill()
    running.start()
    assert len(monitor.changes()) == 1


def test_a_renewal_renews_it(running: Daemon, routes: Routes) -> None:
    write_lease(running.runtime, valid_lifetime=5000, preferred_lifetime=3000)
    wait_until(lambda: on_lo(routes)[OWN].valid_until > clock.now() + 4000)
    assert on_lo(routes)[OWN].preferred_until > clock.now() + 2000


def test_whoever_changes_or_removes_it_sees_it_again(running: Daemon, routes: Routes) -> None:
    assert running.status()["subnets"][0]["address_reason"] is None  # it rests by now
    addresses.renew(routes, {OWN: FOREVER}, 0)
    wait_until(lambda: on_lo(routes)[OWN] != FOREVER)
    for _ in range(3):
        running.namespace.ip(f"addr delete {OWN} dev lo")
        wait_until(lambda: OWN in on_lo(routes))
    running.namespace.ip("link set lo down")
    running.namespace.ip("link set lo up")
    wait_until(lambda: OWN in on_lo(routes))
    wait_until(lambda: "2001:db8:100::1 " in running.namespace.ip("-6 route show table local proto kernel"))


def test_where_lo_takes_none_it_is_missing(running: Daemon, routes: Routes) -> None:
    running.namespace.sysctl("net.ipv6.conf.lo.disable_ipv6", 1)
    wait_until(lambda: running.status()["subnets"][0]["address_reason"] == MISSING)
    running.namespace.sysctl("net.ipv6.conf.lo.disable_ipv6", 0)
    wait_until(lambda: OWN in on_lo(routes))
    wait_until(lambda: running.status()["subnets"][0]["address_reason"] is None)


def test_it_is_answered_for_like_all_of_its_subnet(
    uplink: Uplink, running: Daemon, neighbour: Daemon
) -> None:
    uplink.isp.ip("-6 route add 2001:db8:100::/64 dev customer")
    running.configure('subnets: [{name: web, id: 0, address: "::1", neighbours: [uplink]}]')
    running.reload()
    neighbour.start()
    wait_until(lambda: uplink.answering([OWN.address]))


def test_watch_tells_of_it(running: Daemon, tmp_path: Path) -> None:
    out = tmp_path / "watch"
    with out.open("w") as file:
        command = [sys.executable, "-m", "anyipd.ctl", "watch", *running.files]
        running.namespace.popen(*command, stdout=file, env=running.environment())
    wait_until(
        lambda: "event=bound subnet=web prefix=2001:db8:100::/64 address=2001:db8:100::1\n" in out.read_text()
    )
    running.namespace.ip(f"addr change {OWN} dev lo")
    wait_until(lambda: "address=2001:db8:100::1 reason=" in out.read_text())


def test_what_is_ours_and_should_not_be_there_goes(running: Daemon, routes: Routes) -> None:
    running.namespace.ip("addr add 2001:db8:100::2/128 dev lo")
    addresses.add(routes, {OTHER: FOREVER, Prefix(DELEGATED.address + 3, 64): FOREVER}, 0)
    wait_until(lambda: list(on_lo(routes)) == [OWN])
    assert "2001:db8:100::2/128" in running.namespace.ip("-6 addr show dev lo")
    running.configure("subnets: [{name: web, id: 0}]")
    planned = running.control("plan").stdout.splitlines()
    assert planned[-1] == "remove  address  2001:db8:100::1/128  web"
    running.reload()
    assert not on_lo(routes)
    assert "2001:db8:100::2/128" in running.namespace.ip("-6 addr show dev lo")


def test_somebody_elses_is_a_conflict_of_the_address_alone(daemon: Daemon, routes: Routes) -> None:
    daemon.namespace.ip(f"addr add {OWN} dev lo")
    daemon.configure(POLICY)
    write_lease(daemon.runtime)
    daemon.start()
    reason = "2001:db8:100::1 is an address of lo already, and not by anyipd"
    daemon.wait_for(
        f'level=warning event="not assigned" address=2001:db8:100::1 subnet=web reason="{reason}"'
    )
    write_lease(daemon.runtime, valid_lifetime=5000)
    daemon.wait_for("renewed")
    assert daemon.log.read_text().count("not assigned") == 1
    [web] = daemon.status()["subnets"]
    assert (web["state"], web["address_reason"]) == ("bound", reason)
    checked = daemon.control("status", "--check", check=False)
    assert (checked.returncode, reason in checked.stdout) == (1, True)
    daemon.namespace.ip(f"addr delete {OWN} dev lo")
    daemon.wait_for("assigned address=2001:db8:100::1")
    assert list(on_lo(routes)) == [OWN]
    # Nor is it taken back from whoever takes it over.
    daemon.namespace.ip(f"addr change {OWN} dev lo preferred_lft 100 valid_lft 200")
    wait_until(lambda: daemon.status()["subnets"][0]["address_reason"] == reason)
    daemon.terminate()
    assert "valid_lft" in daemon.namespace.ip(f"-6 addr show dev lo to {OWN}")


def test_what_supersedes_brings_the_next(monitor: AddressMonitor, running: Daemon, routes: Routes) -> None:
    wait_until(monitor.changes)
    write_lease(running.runtime, "new", prefix=str(NEW))
    wait_until(lambda: OTHER in on_lo(routes))
    wait_until(lambda: not on_lo(routes)[OWN].preferred_until)
    assert on_lo(routes)[OWN].valid_until > clock.now() + 1900
    take_back(running.runtime)
    wait_until(lambda: list(on_lo(routes)) == [OTHER])
    texts = [line.split() for line in monitor.changes()]
    seen = [words[0] == "Deleted" for words in texts if "2001:db8:100::1/128" in words]
    assert seen == [False, False, True]  # assigned, deprecated, removed


def test_random_never_gives_it_out(daemon: Daemon) -> None:
    daemon.configure('subnets: [{name: tiny, id: 0, length: 126, address: "::2"}]')
    write_lease(daemon.runtime, prefix="2001:db8:100::/120")
    daemon.start()
    others = {f"2001:db8:100::{end}" for end in ("", "1", "3")}
    for words in ([], ["tiny"], ["2001:db8::/32"]):
        found = daemon.control("random", "-n", "200", *words).stdout.split()
        assert set(found) == others, words
    daemon.configure('subnets: [{name: tiny, id: 0, length: 126, address: "::2", except: ["::1/128"]}]')
    daemon.reload()
    others -= {"2001:db8:100::1"}
    assert set(daemon.control("random", "-n", "200").stdout.split()) == others
    daemon.terminate()
    assert set(daemon.control("random", "-n", "200").stdout.split()) == others


def test_flush_removes_it(running: Daemon, routes: Routes) -> None:
    running.terminate()
    running.namespace.ip("addr add 2001:db8:100::2/128 dev lo")
    assert running.control("flush").stdout == "removed 2 routes, 1 addresses\n"
    assert not on_lo(routes)
    assert "2001:db8:100::2/128" in running.namespace.ip("-6 addr show dev lo")
