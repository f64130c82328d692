"""What is heard of single routes comes to the same as a look at all of them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyipd import clock, policy
from anyipd.decide.delegations import delegations
from anyipd.decide.ledger import Ledger
from anyipd.kernel.monitor import Hint, Stale
from anyipd.model import Assigned, Covering, Discard, Prefix
from anyipd.observations import Observations
from anyipd.observe.discard import Discards
from anyipd.observe.onlink import Routed
from anyipd.observer import Observer
from tests.lab.namespace import Namespace

DELEGATED = [Prefix.parse("2001:db8::/56"), Prefix.parse("2001:db8:ff00::/60")]
DHCP = 16
DESTINATIONS = [
    "2001:db8::/64",
    "2001:db8:0:1::/64",
    "2001:db8::/40",
    "2001:db8:ff00::1",
    "2001:db8:0:100::/64",
]
HOPS = [
    "dev one",
    "dev two",
    "via fe80::7 dev one",
    "via fe80::8 dev one",
    "via fe80::9 dev two",
    "nexthop via fe80::7 dev one nexthop via fe80::9 dev two",
    "dev lo",
]
TABLES = ["main", "main", "77", "51820"]
PROTOCOLS = ["static", "ra", "kernel", "bird", "redirect"]
LINKS = ["one", "two"]


class Listener:
    """A host with the links one and two, and an observer that hears and hardly ever looks."""

    def __init__(self, host: Namespace, folder: Path) -> None:
        self.host = host
        for link, other in (("one", "one-peer"), ("two", "two-peer")):
            host.pair(link, other)
        with host.entered():
            self.seen_so_far = Observations(folder / "anyipd.yaml", policy.DEFAULT, folder, Ledger(), {})
            self.observer = Observer(self.seen_so_far)
        self.monitor, self.routes = self.seen_so_far.monitor, self.seen_so_far.routes
        self.monitor.watch(self.routes.port, [DHCP], DELEGATED)
        self.monitor.subscribe()
        self.looks = 0
        self.hear(Hint(Stale.ALL))

    def hear(self, hint: Hint) -> None:
        """Do what the daemon does with a hint, as far as other people's routes go."""
        stale = self.seen_so_far.hear(hint)
        with self.host.entered():  # names of links are the thread's
            if Stale.DISCARDS in stale:
                self.seen_so_far.look_at_discards()
            if Stale.ROUTES in stale:
                self.looks += 1
                asyncio.run(self.seen_so_far.look_at_routes(DELEGATED))

    def seen(self) -> tuple[set[Assigned | Covering], set[Discard]]:
        """Look at all of it, with fresh eyes."""
        with self.host.entered():
            routed, discards = Routed(), Discards()
            asyncio.run(routed.look(self.routes, DELEGATED))
            discards.look(self.routes, [DHCP])
        return routed.assigned | routed.covering, set(discards.standing)

    def heard(self) -> tuple[set[Assigned | Covering], set[Discard]]:
        with self.host.entered():
            self.hear(self.monitor.read())
        routed, discards = self.seen_so_far._routed, self.seen_so_far._discards  # noqa: SLF001  what a decision is made of
        return routed.assigned | routed.covering, set(discards.standing)


@pytest.fixture
def listener(host: Namespace, tmp_path: Path) -> Iterator[Listener]:
    made = Listener(host, tmp_path)
    with contextlib.closing(made.monitor), contextlib.closing(made.routes):
        yield made


def change(chance: random.Random) -> str:
    """Make up something that somebody does to a route or a link."""
    if chance.random() < 0.1:
        return f"link set {chance.choice(LINKS)} {chance.choice(['up', 'down'])}"
    if chance.random() < 0.3:
        prefix, metric = chance.choice(["2001:db8::/56", "2001:db8:ff00::/60"]), chance.choice([7, 1024])
        verb, protocol = chance.choice(["add", "replace", "delete"]), chance.choice(["dhcp", "static"])
        table = chance.choice(TABLES)
        return f"-6 route {verb} unreachable {prefix} proto {protocol} metric {metric} table {table}"
    verb = chance.choice(["add", "add", "append", "replace", "delete", "delete"])
    hop = chance.choice(HOPS) if verb != "delete" or chance.random() < 0.7 else ""
    protocol = f"proto {chance.choice(PROTOCOLS)}" if verb != "delete" else ""
    where = f"metric {chance.choice([7, 1024])} table {chance.choice(TABLES)}"
    return f"-6 route {verb} {chance.choice(DESTINATIONS)} {protocol} {where} {hop}"


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("silent", [0, 1], ids=["told", "skip-notify"])
def test_hearing_is_as_good_as_looking(listener: Listener, seed: int, silent: int) -> None:
    chance = random.Random(seed)
    listener.host.sysctl("net.ipv6.route.skip_notify_on_dev_down", silent)
    for number in range(40):
        done = change(chance)
        listener.host.run("ip", *done.split(), check=False)
        if chance.random() < 0.7:  # or several at once
            assert listener.heard() == listener.seen(), f"{number}: {done}"
    assert listener.looks < 20


def test_single_routes_take_no_look(listener: Listener) -> None:
    before = listener.looks
    for verb in ("add", "replace", "delete"):
        listener.host.ip(f"-6 route {verb} 2001:db8:0:1::/64 dev one proto static")
        assert listener.heard() == listener.seen()
    assert listener.looks == before


def holders(listener: Listener) -> list[str]:
    return [each.holder for each in listener.heard()[0] if isinstance(each, Assigned)]


def test_what_is_left_of_several_next_hops_takes_one(listener: Listener) -> None:
    listener.host.ip("-6 route add 2001:db8:0:1::/64 proto static via fe80::7 dev one")
    listener.host.ip("-6 route append 2001:db8:0:1::/64 proto static via fe80::9 dev two")
    assert holders(listener) == ["routed to several links"]
    before = listener.looks
    listener.host.ip("-6 route delete 2001:db8:0:1::/64 proto static via fe80::7 dev one")
    assert holders(listener) == ["routed to two"]
    assert listener.looks == before + 1


def test_a_decision_is_made_of_the_routes_that_it_hinges_on(listener: Listener) -> None:
    """Of many inside a wide delegation: what one that comes elsewhere costs does not depend on how many."""
    listener.host.ip("-6 route add unreachable 2001:db8::/32 proto dhcp metric 1024")
    listener.host.run(
        *("ip", "-6", "-batch", "-"),
        input="".join(f"route add 2001:db8:7:{n:x}::/64 dev one proto static\n" for n in range(500)),
    )
    observer = listener.observer
    routed = observer.seen._routed  # noqa: SLF001  what a decision is made of

    def place() -> str:
        with listener.host.entered():
            observer.hear()
            observer.look_again(Stale.LEASES)
            decision = asyncio.run(observer.look()).decision
        [subnet] = decision.view.subnets
        return str(subnet.first)

    assert place() == "2001:db8::/64"
    assert (len(routed.assigned), len(routed.mattering)) == (500, 500)  # it had to find a place
    assert place() == "2001:db8::/64"
    assert (len(routed.assigned), len(routed.mattering)) == (500, 0)
    listener.host.ip("-6 route add 2001:db8:7:fff::/64 dev one proto static")
    assert place() == "2001:db8::/64"
    assert (len(routed.assigned), len(routed.mattering)) == (501, 0)
    for obstacle in ("2001:db8:0:1::/64", "2001:db8::7"):
        listener.host.ip(f"-6 route add {obstacle} dev one proto static")
    assert place() == "2001:db8:0:2::/64"


def test_a_word_taken_back_soon_after_lo_came_back_is_heard(listener: Listener) -> None:
    client = f"unreachable {DELEGATED[0]} proto dhcp metric 1024"
    listener.host.ip(f"-6 route add {client}")
    listener.heard()
    for command in (
        "link set lo down",
        "link set lo up",
        f"-6 route add {client}",
        f"-6 route delete {client}",
    ):
        listener.host.ip(command)
    listener.heard()
    assert listener.observer.seen.ledger.routes == {}


def test_what_fell_with_lo_counts_until_its_client_says_more(listener: Listener) -> None:
    prefix = DELEGATED[0]
    client = f"unreachable {prefix} proto dhcp metric 1024"
    standing, ledger = listener.seen_so_far._discards, listener.observer.seen.ledger  # noqa: SLF001  what a decision is made of
    for silent in (0, 1):
        listener.host.sysctl("net.ipv6.route.skip_notify_on_dev_down", silent)
        listener.host.ip(f"-6 route add {client}")
        listener.heard()
        listener.host.ip("link set lo down")
        listener.heard()
        listener.host.ip("link set lo up")
        listener.heard()
        assert (set(standing.standing), set(ledger.routes)) == (set(), {Discard(prefix, 1024)})
        listener.host.ip(f"-6 route add {client}")
        listener.heard()
        listener.host.ip(f"-6 route delete {client}")
        listener.heard()
        assert ledger.routes == {}


def test_what_an_event_has_yet_to_tell_of_is_forgotten_as_well(listener: Listener) -> None:
    prefix, ledger = DELEGATED[0], listener.observer.seen.ledger
    listener.host.ip(f"-6 route add unreachable {prefix} proto dhcp metric 1024")
    assert listener.observer.forget(prefix)
    listener.heard()
    assert delegations(ledger, clock.now()) == []
