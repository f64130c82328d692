"""S6: a server may delegate thousands of prefixes. What is too much of an uplink costs nothing for long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anyipd.decide.delegations import delegations
from anyipd.decide.ledger import JUDGED_AFTER, MAX_NEW, Ledger
from anyipd.model import INFINITE, DelegationState, Discard, Lease, Prefix

MOST = 4
THOUSANDS = 5000


def prefix(number: int) -> Prefix:
    return Prefix((0x20010DB8 << 96) + (number << 64), 60)


class Server:
    """What it delegates on an uplink, Reply by Reply; every report stays at hand, as a lease file does."""

    def __init__(self) -> None:
        self.ledger, self.now = Ledger(), 1000.0
        self.at_hand: dict[Prefix, Lease] = {}

    def reply(self, *prefixes: Prefix, valid: float = INFINITE, iaid: str = "00:00:00:01") -> None:
        """Grant these, call by call of the client's hook."""
        reply = self.now
        for each in prefixes:
            self.now += 0.001
            until = self.now + valid
            self.at_hand[each] = Lease(
                each, "dhclient", "eth0", iaid, self.now, valid, until, until, reply=reply
            )
        self.look()
        self.now += JUDGED_AFTER
        self.look()

    def look(self) -> None:
        self.ledger.take(self.at_hand.values(), self.now, max_live=MOST)

    def states(self) -> dict[Prefix, str]:
        return {each.prefix: each.state.value for each in delegations(self.ledger, self.now)}


@pytest.fixture
def server() -> Server:
    return Server()


def test_the_first_stay(server: Server) -> None:
    server.reply(*map(prefix, range(0, THOUSANDS * 16, 16)))
    first = dict.fromkeys([prefix(16 * number) for number in range(MOST)], "granted")
    assert server.states() == first
    assert list(server.ledger.overfull) == ["eth0"]
    assert len(server.ledger.records) == MOST


def test_once_judged_nothing_changes_at_another_look(server: Server) -> None:
    server.reply(*map(prefix, range(0, THOUSANDS * 16, 16)))
    version = server.ledger.version
    for _ in range(3):
        server.now += 1
        server.look()
    assert server.ledger.version == version


def test_what_comes_later_displaces_what_it_supersedes(server: Server) -> None:
    """After the attacker left: his prefixes never end, and the right server's is not kept out by them."""
    server.reply(*map(prefix, range(0, THOUSANDS * 16, 16)))
    right = prefix(THOUSANDS * 16)
    server.reply(right)
    states = server.states()
    assert states.pop(right) == "granted"
    assert set(states.values()) == {"superseded"}
    assert len(states) == MOST - 1


def test_the_oldest_superseded_go_first(server: Server) -> None:
    for number in range(MOST + 2):
        server.reply(prefix(16 * number))
    assert list(server.states()) == [prefix(16 * number) for number in range(2, MOST + 2)]


def test_incumbents_of_another_iaid_stay(server: Server) -> None:
    for number in range(MOST):
        server.reply(prefix(16 * number), iaid=f"00:00:01:0{number}")
    server.reply(*map(prefix, range(MOST * 16, THOUSANDS * 16, 16)))
    assert server.states() == dict.fromkeys([prefix(16 * number) for number in range(MOST)], "granted")


def test_what_is_passed_over_was_not_taken_back(server: Server) -> None:
    for number in range(MOST + 1):
        server.reply(prefix(16 * number))
    assert server.ledger.ending(prefix(0)) == ("passed over", "more is delegated on its uplink than is kept")
    assert server.ledger.ending(prefix(16 * THOUSANDS))[0] == "withdrawn"


def test_a_renewal_moves_nobody(server: Server) -> None:
    all_of_it = list(map(prefix, range(0, (MOST + 3) * 16, 16)))
    server.reply(*all_of_it)
    before = server.states()
    server.now += 100
    server.reply(*all_of_it)
    assert server.states() == before


def test_where_one_ends_another_comes_in(server: Server) -> None:
    server.reply(prefix(0), valid=10)
    server.reply(*map(prefix, range(16, (MOST + 1) * 16, 16)), iaid="00:00:00:02")
    assert prefix(MOST * 16) not in server.states()
    server.now += 10
    server.look()
    server.look()
    assert prefix(MOST * 16) in server.states()


def test_meanwhile_so_many_are_known(server: Server) -> None:
    reports = [prefix(16 * number) for number in range(THOUSANDS)]
    for each in reports:
        server.at_hand[each] = Lease(each, "dhclient", "eth0", None, server.now, 9, None, INFINITE)
    server.at_hand[reports[-1]] = replace(server.at_hand[reports[-1]], iaid="00:00:00:01", reply=server.now)
    server.look()
    assert len(server.ledger.records) <= MOST + MAX_NEW


def test_of_mere_routes_the_first_count(server: Server) -> None:
    early, late = ([prefix(16 * n) for n in numbers] for numbers in (range(3, 6), range(3)))
    server.ledger.see_routes(set(), server.now)
    for each in (*early, *late):
        server.now += 1
        server.ledger.route_added(Discard(each, 1024), server.now)
    found = delegations(server.ledger, server.now, max_bare=3)
    assert [each.prefix for each in found] == early
    assert {each.state for each in found} == {DelegationState.GRANTED}


def test_the_routes_of_what_is_passed_over_say_nothing(server: Server) -> None:
    """A client that adds discard routes itself, and dies with thousands of them, which nobody removes."""
    attack = [prefix(16 * number) for number in range(THOUSANDS)]
    server.ledger.see_routes(set(), server.now)
    for each in attack:
        server.ledger.route_added(Discard(each, 1001), server.now)
    server.reply(*attack, valid=30)
    for looks, known in ((3, MOST), (1, 0)):
        for _ in range(looks):
            server.look()
            found = delegations(server.ledger, server.now)
            assert (len(found), {each.source for each in found} - {"dhclient"}) == (known, set())
        assert server.ledger.ending(attack[-1])[0] == "passed over"
        server.now += 100
    # One that is added again since is evidence as ever.
    server.ledger.route_added(Discard(attack[-1], 1001), server.now)
    assert server.states() == {attack[-1]: "granted"}


def test_once_all_is_over_nothing_changes_at_another_look(server: Server) -> None:
    server.reply(*map(prefix, range(0, THOUSANDS * 16, 16)), valid=30)
    server.now += 100
    for _ in range(2):
        server.look()
    version = server.ledger.version
    server.look()
    assert server.ledger.version == version
