"""The chaos run's onlooker tells what is anyipd's from what is not, by who asked for a change."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.lab.daemon import Daemon
from tests.lab.delegated import PREFIX, bound, delegate, subnets
from tests.lab.namespace import Namespace, wait_until
from tests.lab.onlooker import BAIT, Onlooker, lay_bait


class Suspect:
    """A process whose changes are taken for the daemon's: `ip`, which waits for its word."""

    def __init__(self, host: Namespace) -> None:
        self.host, self.pid = host, 0

    def ip(self, words: str) -> None:
        """Run `ip` as the daemon."""
        process = self.host.popen("sh", "-c", f"read go; exec ip {words}", stdin=subprocess.PIPE)
        self.pid = process.pid
        process.communicate("go\n")
        assert process.returncode == 0


@pytest.fixture
def suspect(host: Namespace) -> Suspect:
    host.pair("lan", "lan-peer")
    return Suspect(host)


@pytest.fixture
def onlooker(suspect: Suspect) -> Iterator[Onlooker]:
    lay_bait(suspect.host, "lan")
    with Onlooker(suspect.host, lambda: suspect.pid) as onlooker:
        yield onlooker


def test_what_is_of_our_protocol_is_ours(suspect: Suspect, onlooker: Onlooker) -> None:
    suspect.ip("-6 route add local 2001:db8:1::/64 dev lo table local proto 150")
    wait_until(lambda: onlooker.changes == 1)  # before the suspect is another process
    suspect.ip("-6 route delete local 2001:db8:1::/64 dev lo table local proto 150")
    wait_until(lambda: onlooker.changes == 2)
    assert onlooker.touched == []


@pytest.mark.parametrize(
    "change",
    [
        "-6 route add local 2001:db8:1::/64 dev lo table local",
        "addr add 192.0.2.1/32 dev lo",
        "-6 rule add pref 7 from 2001:db8:1::/64 lookup main",
        *(words.replace(" add ", " delete ").replace(" nodad", "").format(link="lan") for words in BAIT),
    ],
)
def test_what_is_not_ours_is_seen_to_be_touched(suspect: Suspect, onlooker: Onlooker, change: str) -> None:
    suspect.ip(change)
    wait_until(lambda: onlooker.touched)
    # Of an IPv6 address the kernel does not say who asked.
    assert onlooker.touched[0][1].startswith("port 0x0" if "ba17::1/64" in change else "the daemon ")


def test_bait_that_anybody_takes_is_missed(suspect: Suspect, onlooker: Onlooker) -> None:
    suspect.host.ip("-6 route delete 2001:db8:ba17:1::/64 dev lan")
    suspect.host.ip("-6 route add 2001:db8:1::/64 dev lan")  # nobody's business
    wait_until(lambda: onlooker.touched)
    [(_, what)] = onlooker.touched
    assert "port" in what
    assert "RTM_DELROUTE" in what


def test_the_daemon_touches_only_its_own(suspect: Suspect, daemon: Daemon) -> None:
    host = suspect.host
    lay_bait(host, "lan")
    daemon.start()
    with Onlooker(host, lambda: daemon.running.pid) as onlooker:
        delegate(host)
        wait_until(lambda: bound(host) == subnets(PREFIX, 1))
        host.ip("-6 route flush table local proto 150")
        wait_until(lambda: bound(host) == subnets(PREFIX, 1))
        wait_until(lambda: onlooker.changes >= 2)
    assert onlooker.touched == []
