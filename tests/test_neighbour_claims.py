"""Forged claims: what a hostile node of the link can do to anyipd-neighbour's answers, and what it cannot."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import cycle, islice
from threading import Event, Thread

import pytest

from anyipd.neighbour.message import Advertiser
from bench.rig import resident
from tests.lab.daemon import Daemon
from tests.lab.lan import SUBNET, Lan
from tests.lab.namespace import Namespace, wait_until
from tests.lab.solicitor import Answer, Solicitor

POLICY = "subnets: []\nstatic: [{prefix: '2001:db8:5::/64', neighbours: [uplink]}]\n"
LINK_LOCAL = 0xFE80 << 112
OVERRIDE, SOLICITED = 0x20, 0x40
FORGED, CLAIMED = 4096, 200


def somewhere() -> int:
    return random.randrange(SUBNET.address + 0x1000, SUBNET.end)


@pytest.fixture
def attacker(lan: Lan, lab: Callable[[str], Namespace]) -> Iterator[Solicitor]:
    hostile = lab("hostile")
    lan.connect(hostile, "hostile", "fe80::66")
    with Solicitor(hostile, "hostile", LINK_LOCAL + 0x66) as opened:
        yield opened


@pytest.fixture
def router(lan: Lan) -> Iterator[Solicitor]:
    with Solicitor(lan.router, "lan", LINK_LOCAL + 1) as opened:
        yield opened


@pytest.fixture
def running(lan: Lan, daemon: Daemon, neighbour: Daemon, router: Solicitor) -> Daemon:
    daemon.configure(POLICY)
    daemon.start()
    neighbour.start()
    assert router.ask([somewhere()])
    lan.ping(lan.owned)
    return neighbour


def link_layer(namespace: Namespace, link: str) -> bytes:
    (found,) = namespace.ip_json(f"link show dev {link}")
    return bytes.fromhex(str(found["address"]).replace(":", ""))


def told(answer: Answer) -> tuple[bytes, int]:
    """Who is said to have it, and with which flags."""
    return answer.frame[80:86], answer.frame[58]


def ask(router: Solicitor, targets: AbstractSet[int]) -> dict[int, Answer]:
    """Ask once, at a pace that loses nothing, and give the answers up to that to a question behind them."""
    router.answers()
    behind = somewhere()
    router.pelt([router.solicitation(target) for target in (*targets, behind)], 2000)
    found = {
        each.target: each for each in reversed(router.hear_of({behind}))
    }  # of an address the first counts
    return {target: answer for target, answer in found.items() if target in targets}


def resolve(router: Solicitor, targets: AbstractSet[int]) -> dict[int, Answer]:
    """Ask as a router does: thrice, a second apart (RFC 4861, 7.2.2)."""
    found = ask(router, targets)
    for _ in range(2):
        time.sleep(1)
        found |= ask(router, targets - found.keys())
    return found


def who_answers(router: Solicitor, target: int) -> set[tuple[bytes, int]]:
    """Ask for an address, and give everybody who answers, up to our answer to the next question."""
    list(router.advertisements())
    behind = somewhere()
    for each in (target, behind):
        router.socket.send(router.solicitation(each))
    return {told(each) for each in router.hear_of({target, behind}) if each.target == target}


def belongs_to_its_owner(lan: Lan) -> bool:
    """Have the router find the owned address anew, and say whether its owner is reached."""
    before = lan.reached()
    lan.router.ip("-6 neigh flush dev lan")
    lan.ping(lan.owned)
    return lan.reached() == before + 1 and lan.neighbour() == link_layer(lan.other, "other").hex(":")


@contextlib.contextmanager
def flood(attacker: Solicitor, frames: Callable[[], Sequence[bytes]]) -> Iterator[Callable[[], int]]:
    """Send what `frames` gives, two hundred times a second; give what says how many frames were sent."""
    over, sent = Event(), [0]

    def send() -> None:
        begun = time.monotonic()
        for number in range(1_000_000):
            if over.wait(max(0.0, begun + number / 200 - time.monotonic())):
                return
            for frame in frames():
                attacker.socket.send(frame)
                sent[0] += 1

    thread = Thread(target=send)
    thread.start()
    try:
        yield lambda: sent[0]
    finally:
        over.set()
        thread.join()


@pytest.mark.usefixtures("running")
def test_forged_advertisements_once(lan: Lan, attacker: Solicitor, router: Solicitor) -> None:
    """What was claimed is answered for when a router asks for the third time, two seconds after the first."""
    forger = Advertiser(attacker.link_layer, attacker.source)
    targets = [lan.owned, *(somewhere() for _ in range(FORGED - 1))]
    claimed = set(targets[-CLAIMED:])
    for start in range(0, FORGED, 128):  # no more than its buffer holds before they are taken
        attacker.pelt([forger.announce(target) for target in targets[start : start + 128]], 5000)
        ask(router, set())
    ours = (link_layer(lan.host, "uplink"), SOLICITED)
    at_once = ask(router, claimed)
    # It is the claims that are tried here: they do silence us at first.
    assert len(at_once) < CLAIMED / 10
    found = at_once
    for _ in range(2):
        time.sleep(1)
        found |= ask(router, claimed - found.keys())
    assert found.keys() == claimed
    assert {told(answer) for answer in found.values()} == {ours}
    # He who really has one keeps it, and we keep silent about it.
    assert belongs_to_its_owner(lan)
    owner = (link_layer(lan.other, "other"), SOLICITED | OVERRIDE)
    for _ in range(3):
        assert who_answers(router, lan.owned) == {owner}


@pytest.mark.alone
def test_forged_advertisements_without_end(
    lan: Lan, running: Daemon, attacker: Solicitor, router: Solicitor
) -> None:
    """Two thousand a second for five seconds, to us alone: half for 300 addresses, half for ever new ones."""
    forger = Advertiser(attacker.link_layer, attacker.source)
    to_us = link_layer(lan.host, "uplink")
    claimed = [lan.owned, *(somewhere() for _ in range(CLAIMED))]
    next_claimed = cycle(claimed)

    def frames() -> list[bytes]:
        targets = [*islice(next_claimed, 5), *(somewhere() for _ in range(5))]
        return [to_us + forger.announce(target)[6:] for target in targets]

    ours = set(claimed) - {lan.owned}
    before = resident(running.running.pid)
    with flood(attacker, frames) as sent:
        wait_until(lambda: sent() > 2 * len(claimed))
        assert router.ask([somewhere()], 20)  # a busy machine has read all these claims by then
        assert resolve(router, ours).keys() == ours
        while sent() < 10_000:
            found = ask(router, ours)
            assert found.keys() == ours
            assert {told(answer) for answer in found.values()} == {(to_us, SOLICITED)}
            assert belongs_to_its_owner(lan)
    assert resident(running.running.pid) < before + 3
