"""What networkd says of itself, and what becomes of it when it says nothing, too much, or nonsense."""

from __future__ import annotations

import contextlib
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from anyipd.model import INFINITE, Lease, Prefix
from anyipd.observe import dbus, networkd
from anyipd.observe.networkd import RESTFUL, RESTLESS, Link, Said, parse
from tests.lab.daemon import Daemon
from tests.lab.kea import Kea, Offer
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import Uplink
from tests.lab.networkd import BUS, Networkd, crowd

P = Prefix.parse("2001:db8:100::/60")
NOW = 1000.0
UNREACHABLE = 7  # linux/rtnetlink.h


def octets(prefix: Prefix) -> list[int]:
    return list(prefix.address.to_bytes(16))


def parsed(description: str) -> list[Lease]:
    return parse(description, NOW, ":1").leases


def client(**prefix: int | list[int]) -> dict[str, Any]:
    """Describe an interface as networkd does from 255 on."""
    lease = {"Timeout1USec": 1, "LeaseTimestampUSec": 900_000_000}
    known = {"Prefix": octets(P), "PrefixLength": 60}
    return {"Index": 2, "Name": "eth0", "DHCPv6Client": {"Lease": lease, "Prefixes": [known | prefix]}}


def route(**changes: object) -> dict[str, object]:
    """Describe a discard route as networkd does."""
    known = {
        "Destination": octets(P),
        "DestinationPrefixLength": 60,
        "Type": UNREACHABLE,
        "ConfigSource": "DHCPv6",
    }
    return known | {"LifetimeUSec": 1_200_500_000} | changes


def described(*interfaces: dict[str, Any], routes: list[dict[str, object]] | None = None) -> str:
    nothing: dict[str, object] = {"Index": 1, "Name": "lo"}
    return json.dumps({"Interfaces": [nothing, *interfaces]} | ({"Routes": routes} if routes else {}))


LEASE = Lease(P, "networkd", "eth0", None, 900.0, 300.0, 1100.0, 1200.0, reply=900.0)
BARE = Lease(P, "networkd", None, None, NOW, None, None, 1200.5, reply=NOW)


def test_a_new_one_tells_all() -> None:
    told = client(PreferredLifetimeUSec=1_100_000_000, ValidLifetimeUSec=1_200_000_000)
    assert parsed(described(told)) == parsed(described(told, routes=[route()])) == [LEASE]
    [forever] = parsed(described(client()))
    assert (forever.lifetime, forever.preferred_until, forever.valid_until) == (INFINITE,) * 3


def test_an_old_one_tells_of_its_discard_routes() -> None:
    foreign, address = route(ConfigSource="foreign"), route(Type=1)
    assert parsed(described(routes=[foreign, address, route()])) == [BARE]
    assert parsed(described()) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None)
@given(st.text() | JSON.map(json.dumps))
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="networkd describes itself in a way not known"):
        parsed(text)


@settings(deadline=None)
@given(st.sampled_from(["Prefix", "PrefixLength", "ValidLifetimeUSec"]), JSON)
@example("Prefix", 9_223_372_036_854_775_775)
@example("PrefixLength", -69_175_290_276_410_818_193)
def test_nonsense_in_its_place_does_no_harm(name: str, value: Any) -> None:  # noqa: ANN401  anything
    with contextlib.suppress(ValueError):
        for lease in parsed(described(client(**{name: value}))):
            assert Prefix.parse(str(lease.prefix)) == lease.prefix


class Story:
    """What is known from networkd as it says it."""

    def __init__(self) -> None:
        self.networkd = networkd.Networkd()

    def says(self, by: str, *leases: Lease, links: tuple[Link, ...] = (), at: float = NOW) -> list[Lease]:
        before = self.networkd.leases
        assert self.networkd.take(Said(by, at, list(leases), list(links))) == (before != self.networkd.leases)
        return self.networkd.leases

    def is_absent(self) -> list[Lease]:
        assert not self.networkd.take(None)
        return self.networkd.leases


def test_what_it_says_is_reported_and_no_more() -> None:
    """What it does not say takes nothing back: the ledger remembers."""
    story = Story()
    assert story.says(":1", LEASE) == [LEASE]
    assert story.says(":1") == []


def test_the_same_again_is_no_news() -> None:
    story = Story()
    story.says(":1", BARE)
    later = replace(BARE, written=NOW + 10, reply=NOW + 10)
    assert not story.networkd.take(Said(":1", NOW, [later], []))
    assert story.networkd.take(Said(":1", NOW, [replace(later, valid_until=1300)], []))


def test_that_it_is_gone_takes_nothing_back() -> None:
    story = Story()
    story.says(":1", LEASE)
    assert story.is_absent() == [LEASE]


HAS = Link(2, "eth0", managed=True, carrier=True, client=True)
HAS_NONE, NO_CARRIER = HAS._replace(client=False), HAS._replace(carrier=False)


@pytest.mark.parametrize(
    ("then", "times"),
    [
        ([(":1", HAS_NONE)], 1),
        ([(":1", HAS), (":1", HAS_NONE)], 1),
        ([(":1", HAS)], 0),
        ([(":1", NO_CARRIER)], 0),
        ([(":1", NO_CARRIER), (":1", HAS_NONE)], 0),
        ([(":1", NO_CARRIER), (":1", HAS), (":1", HAS_NONE)], 1),
        ([(":1", HAS_NONE._replace(carrier=False)), (":1", HAS_NONE)], 0),
        ([(":2", HAS_NONE)], 0),
        ([(":2", HAS), (":2", HAS_NONE)], 1),
        ([(":1", HAS_NONE._replace(managed=False))], 0),
        ([(":1", HAS_NONE._replace(managed=False)), (":1", HAS_NONE)], 1),
        ([(":1", HAS_NONE._replace(number=3, name="eth1"))], 0),
        ([(":1", HAS_NONE._replace(number=3))], 0),
        ([(":1", HAS._replace(number=3)), (":1", HAS_NONE._replace(number=3))], 1),
    ],
)
def test_a_client_that_was_stopped_took_everything_back(then: list[tuple[str, Link]], times: int) -> None:
    """On the same link, by the same networkd, while it had its carrier: nothing else is a word of it."""
    story = Story()
    story.says(":1", LEASE, links=(HAS,))
    others: list[Lease] = []
    for by, link in then:
        others = story.says(by, links=(link,), at=NOW + 10)
    end = NOW + 10
    gone = replace(LEASE, written=end, lifetime=0, preferred_until=end, valid_until=end)
    assert others == [gone] * times
    assert story.says(":1", links=(NO_CARRIER,), at=NOW + 20) == others  # until it is granted again
    assert story.says(":1", LEASE, links=(HAS,)) == [LEASE]


def test_the_discard_route_of_what_a_stopped_client_had_says_nothing() -> None:
    story = Story()
    story.says(":1", LEASE, links=(HAS,))
    route = replace(BARE, prefix=LEASE.prefix)
    [gone] = story.says(":1", route, links=(HAS_NONE,))
    assert (gone.uplink, gone.lifetime) == (LEASE.uplink, 0)
    assert story.says(":1", route, links=(HAS_NONE,), at=NOW + 1) == [gone]
    assert story.says(":1", LEASE, links=(HAS,)) == [LEASE]


def test_of_thousands_those_stay_that_were_there_first() -> None:
    def thousands(first: int, uplink: str) -> list[Lease]:
        return [
            replace(LEASE, prefix=Prefix((0x2001 << 112) + (first + number << 64), 64), uplink=uplink)
            for number in range(networkd.MAX_LEASES)
        ]

    story, other = Story(), replace(LEASE, uplink="eth1")
    story.says(":1", *thousands(5000, "eth0"))
    again = [*thousands(0, "eth0"), *thousands(5000, "eth0"), other]
    assert set(story.says(":1", *again)) == {*thousands(5000, "eth0"), other}
    assert set(story.says(":1", *thousands(0, "eth0"))) == set(thousands(0, "eth0"))
    # What it does not say any more is kept in mind, but for what is too much.
    story.says(":1", links=(HAS,))
    gone = story.says(":1", links=(HAS_NONE,))
    assert {each.prefix for each in gone} == {each.prefix for each in thousands(0, "eth0")}


def test_it_is_asked_in_time_for_every_renewal() -> None:
    story = Story()
    story.says(":1")
    assert story.networkd.ask_again_after(NOW) == RESTFUL
    story.says(":1", LEASE)
    assert story.networkd.ask_again_after(LEASE.valid_until - 40) == 5
    assert story.networkd.ask_again_after(LEASE.valid_until - 1) == RESTLESS
    assert story.networkd.ask_again_after(LEASE.valid_until + 1) == RESTFUL


def test_one_that_never_was_there_is_not_asked_again_and_again() -> None:
    story = Story()
    assert story.networkd.ask_again_after(NOW) == INFINITE
    story.is_absent()
    assert story.networkd.ask_again_after(NOW) == INFINITE
    story.networkd.understood = False
    assert story.networkd.ask_again_after(NOW) == RESTFUL
    story.networkd.understood = True
    story.says(":1")
    story.is_absent()
    assert story.networkd.ask_again_after(NOW) == RESTFUL


@pytest.fixture
def real(uplink: Uplink, kea: Kea, tmp_path: Path) -> Networkd:
    """A networkd that was delegated P."""
    uplink.route(P)
    kea.start(Offer(P))
    folder = tmp_path / "networkd"
    folder.mkdir()
    started = Networkd(uplink.host, uplink.interface, folder)
    started.start()
    started.wait_until_bound()
    return started


def ask(namespace: Namespace) -> list[Prefix] | None:
    with namespace.entered():
        said = networkd.ask(NOW)
    return None if said is None else [lease.prefix for lease in said.leases]


def knows(namespace: Namespace) -> bool:
    """Say whether networkd tells of its delegation; one that is busy is asked again."""
    with contextlib.suppress(TimeoutError):
        return ask(namespace) == [P]
    return False


def test_another_networks_one_is_not_asked(real: Networkd, uplink: Uplink) -> None:
    wait_until(lambda: knows(uplink.host))
    assert ask(uplink.isp) is None
    real.stop()
    assert ask(uplink.host) is None
    BUS.unlink()
    assert ask(uplink.host) is None


def test_one_that_hangs_holds_nothing_up(real: Networkd, uplink: Uplink, daemon: Daemon) -> None:
    daemon.start()
    daemon.wait_for("source=networkd", 20)
    real.process.send_signal(signal.SIGSTOP)
    uplink.host.ip("-6 route add unreachable 2001:db8:200::/60 proto dhcp")
    daemon.wait_for("bound subnet=default prefix=2001:db8:200::/64")
    daemon.kill()
    daemon.start()
    assert uplink.answers(Prefix(P.address, 64)) == 8
    assert daemon.status()["delegations"][0]["source"] == "networkd"
    real.process.send_signal(signal.SIGCONT)


def test_one_that_is_busy_is_asked_again(real: Networkd, uplink: Uplink, daemon: Daemon) -> None:
    """That it does not answer at first is no sign that there is none."""
    wait_until(lambda: knows(uplink.host))
    real.process.send_signal(signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        ask(uplink.host)
    daemon.start()
    assert daemon.status()["delegations"][0]["source"] == "kernel"
    real.process.send_signal(signal.SIGCONT)
    daemon.wait_for("source=networkd")


@pytest.mark.long
@pytest.mark.usefixtures("real")
def test_one_that_says_too_much_is_told_of_once(uplink: Uplink, daemon: Daemon) -> None:
    daemon.start()
    crowd(uplink.host)
    uplink.host.ip("-6 route add unreachable 2001:db8:200::/60 proto dhcp")  # what it is asked after at once
    line = daemon.wait_for("networkd not understood", 120)
    assert f"more than {dbus.MOST_BYTES}" in line
    assert uplink.answers(Prefix(P.address, 64)) == 8


@pytest.mark.long
def test_what_it_says_too_much_of_does_not_end(
    uplink: Uplink, kea: Kea, daemon: Daemon, tmp_path: Path
) -> None:
    """Where there are thousands of routes its discard route stands for what it renewed."""
    kea.start(Offer(Prefix.parse("2001:db8:1000::/52"), 10, 12), renew=2, rebind=5)
    folder = tmp_path / "networkd"
    folder.mkdir()
    networkd = Networkd(uplink.host, uplink.interface, folder)
    networkd.start()
    networkd.wait_until_bound()
    daemon.start()
    crowd(uplink.host)
    # Within the lifetime that it could tell of: on a busy machine it takes seconds to see all the routes.
    daemon.wait_for("networkd not understood", 30)
    daemon.wait_for("lifetime unknown", 30)
    with pytest.raises(TimeoutError):
        daemon.wait_for("unbound", 5)
