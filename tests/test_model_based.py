"""Anything may happen to a host in any order, and the tables still come right: see tests/lab/naive.py.

Every run of the tests tries the same histories, so that what turns red is the change and not the dice.
`--hypothesis-profile=long` (see conftest.py) looks elsewhere each time.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Callable
from ipaddress import IPv6Network

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from anyipd import here
from tests.lab.naive import Shown, ours
from tests.lab.naive_ledger import INFINITE, Discard
from tests.lab.policies import POLICIES, UNUSABLE
from tests.lab.reports import elsewhere, file_name
from tests.lab.uplinks import UPLINKS as NAMES
from tests.lab.world import LINK, World

PREFIXES = st.sampled_from(
    [
        IPv6Network(text)
        for text in (
            *["2001:db8:100::/61"] * 4,
            *["2001:db8:200::/62"] * 2,
            "2001:db8:100::/60",  # overlaps the first
            "2001:db8:300::/64",
            "fd00:400::/61",
            "2001:db8:500::/66",
            "64:ff9b::/60",  # nobody delegates that
        )
    ]
)
UPLINKS = st.sampled_from([NAMES[0], *NAMES])
CLIENTS = st.sampled_from(["dhclient", "dhclient", "dhcpcd"])
LIFETIMES = st.sampled_from(
    [
        (600, 6000),
        (300, 900),
        (1, 600),
        (1, 2),
        (2, 3),
        (0, 600),
        (5, 5),
        (INFINITE, INFINITE),
        (600, INFINITE),
        (30_000_000, 30_000_000),
    ]
)
AGES = st.sampled_from([0, 0, 0, 1, 2, 400])
PLACES = st.sampled_from(
    [
        f"{base}{number:x}::/{length}".replace(":0::", "::")
        for base in ("2001:db8:100:", "2001:db8:100:", "2001:db8:200:", "2001:db8:300:", "fd00:400:")
        for number, length in ((0, 64), (1, 64), (2, 64), (4, 62), (5, 64), (6, 66), (3, 128))
    ]
)
"""Destinations inside of delegated prefixes, or of what may be one."""
COVERS = st.sampled_from(
    [
        "2001:db8:100::/61",
        "2001:db8:100::/62",
        "2001:db8:100:2::/63",
        "2001:db8:100:4::/62",
        "2001:db8:200::/62",
    ]
)
"""Destinations of routes that may bind several subnets."""

JUNK = [
    *(b"", b"\0" * 2000, b"client=dhclient\n", b"prefix=2001:db8:100::/61; reboot\n", b"\xff\xfe"),
    *(elsewhere("1", here.boot()), elsewhere("", "0" * 32)),
]
"""Files that are no lease files, or of another network namespace or boot."""


def is_up(machine: Delegations) -> bool:
    return machine.world.lo_up


def is_alive(machine: Delegations) -> bool:
    return machine.world.alive


class Delegations(RuleBasedStateMachine):
    """What may happen to delegated prefixes, to their uplinks, and to the daemon."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.undo: list[Callable[[], None]] = []

    def teardown(self) -> None:
        world = self.world
        try:
            if not sys.exception():
                if not world.alive:
                    world.start()
                world.settle()
                world.check_status()
        finally:
            world.close()

    @initialize(policy=POLICIES, silent=st.booleans())
    def begin(self, *, policy: Shown, silent: bool) -> None:
        world = self.world
        world.host.sysctl("net.ipv6.route.skip_notify_on_dev_down", int(silent))
        world.configure(json.dumps(policy), policy)
        world.start()
        world.write_lease(IPv6Network("2001:db8:100::/61"), "up0", (600, 6000))
        self.client_route("unreachable", IPv6Network("2001:db8:200::/62"), "dhcp", 1024)

    # Delegations.

    @rule(client=CLIENTS, prefix=PREFIXES, uplink=UPLINKS, lifetimes=LIFETIMES, age=AGES)
    def lease(
        self, client: str, prefix: IPv6Network, uplink: str, lifetimes: tuple[int, int], age: int
    ) -> None:
        self.world.write_lease(prefix, uplink, lifetimes, age, client)

    @rule(prefixes=st.lists(PREFIXES, min_size=2, max_size=3), uplink=UPLINKS, lifetimes=LIFETIMES)
    def one_reply(self, prefixes: list[IPv6Network], uplink: str, lifetimes: tuple[int, int]) -> None:
        """Several prefixes, or one of them twice."""
        second = self.world.reports.second()
        for prefix in prefixes:
            self.world.write_lease(prefix, uplink, lifetimes, second=second)

    @rule(left_out=PREFIXES, granted=PREFIXES, uplink=UPLINKS, lifetimes=LIFETIMES)
    def reply_leaves_out(
        self, left_out: IPv6Network, granted: IPv6Network, uplink: str, lifetimes: tuple[int, int]
    ) -> None:
        """dhclient reports what was left out, too, as it was granted before."""
        self.world.call_hook("RENEW6", left_out, uplink, lifetimes, again=True)
        self.world.call_hook("RENEW6", granted, uplink, lifetimes)

    @rule(client=CLIENTS, prefix=PREFIXES, uplink=UPLINKS)
    def taken_back(self, client: str, prefix: IPv6Network, uplink: str) -> None:
        self.world.take_back(prefix, uplink, client)

    @precondition(is_alive)
    @rule(prefix=PREFIXES)
    def forget(self, prefix: IPv6Network) -> None:
        """Of what is delegated, if there is anything, else of what is not."""
        delegated = sorted({each.report.prefix for each in self.world.book.accounts.values() if each.lives})
        self.world.forget(delegated[0] if prefix not in delegated and delegated else prefix)

    @rule(client=CLIENTS, uplink=UPLINKS)
    def client_starts(self, client: str, uplink: str) -> None:
        self.world.reports.restart(client, uplink)

    @rule(by=st.sampled_from([-100_000, 100_000]))
    def wall_clock_is_set(self, by: int) -> None:
        self.world.reports.wall += by

    @rule(prefix=PREFIXES, uplink=UPLINKS)
    def lease_file_goes(self, prefix: IPv6Network, uplink: str) -> None:
        self.world.remove_lease(prefix, uplink)

    @rule(uplink=UPLINKS, there=st.booleans())
    def uplink(self, uplink: str, *, there: bool) -> None:
        links = self.world.uplinks
        self.world.change_links(uplink, change=lambda: (links.come if there else links.go)(uplink))

    @rule(uplink=UPLINKS, new=UPLINKS)
    def uplink_is_renamed(self, uplink: str, new: str) -> None:
        self.world.change_links(uplink, new, change=lambda: self.world.uplinks.rename(uplink, new))

    @rule(uplink=UPLINKS, changes=st.sampled_from([[False], [True], [False, True]]))
    def carrier(self, uplink: str, changes: list[bool]) -> None:
        def change() -> None:
            for there in changes:
                self.world.uplinks.carrier(uplink, there=there)

        self.world.change_links(uplink, change=change)

    @rule(
        reason=st.sampled_from(["BOUND6", "RENEW6", "REBIND6", "DEPREF6", "EXPIRE6", "RELEASE6", "STOP6"]),
        prefix=PREFIXES,
        uplink=UPLINKS,
        lifetimes=LIFETIMES | st.just((0, 0)),
        again=st.booleans(),
    )
    def hook(
        self, reason: str, prefix: IPv6Network, uplink: str, lifetimes: tuple[int, int], *, again: bool
    ) -> None:
        """Of the next Reply, or held up, or of a client that started with a lease it kept."""
        self.world.call_hook(reason, prefix, uplink, lifetimes, again=again)

    @rule(name=st.sampled_from(["junk", None]), prefix=PREFIXES, uplink=UPLINKS, junk=st.sampled_from(JUNK))
    def junk(self, name: str | None, prefix: IPv6Network, uplink: str, junk: bytes) -> None:
        """A file that is no lease, or no longer."""
        self.world.spoil_lease(name or file_name(prefix, uplink), junk)

    @rule(
        kind=st.sampled_from(["unreachable", "unreachable", "blackhole", "prohibit"]),
        prefix=PREFIXES,
        protocol=st.sampled_from(["dhcp", "dhcp", "static"]),
        metric=st.sampled_from([1024, 1001]),
    )
    def client_route(self, kind: str, prefix: IPv6Network, protocol: str, metric: int) -> None:
        """networkd or dhcpcd."""
        self.add_route(f"{kind} {prefix} dev lo proto {protocol} metric {metric}")

    @rule(prefix=PREFIXES, metric=st.sampled_from([1025, 1026]))
    def message(self, prefix: IPv6Network, metric: int) -> None:
        """The hook's, beside a lease file or where none could be written."""
        with self.world.routing(Discard(prefix, metric)):
            self.world.ip(
                f"-6 route replace unreachable {prefix} dev lo table 150 proto dhcp metric {metric}"
            )

    @precondition(is_alive)
    @rule(old=PREFIXES, new=PREFIXES, uplink=UPLINKS)
    def renumbering(self, old: IPv6Network, new: IPv6Network, uplink: str) -> None:
        """One prefix in another's place, both seen by one pass."""
        self.world.write_lease(old, uplink, (300, 900))
        self.world.pause()
        self.world.take_back(old, uplink)
        self.world.write_lease(new, uplink, (300, 900))
        self.world.settle()

    # Time, and quiet.

    @rule()
    def time_passes(self) -> None:
        """Up to the next moment at which something changes by itself."""
        wait = self.world.next_boundary(within=2.5)
        if wait is not None:
            time.sleep(wait)

    @rule()
    def quiet(self) -> None:
        self.world.settle()

    @precondition(lambda machine: machine.world.alive and not machine.world.paused)
    @rule()
    def pause(self) -> None:
        """All that happens from here on is seen in one pass."""
        self.world.pause()

    @rule()
    def operator_looks(self) -> None:
        self.world.settle()
        self.world.check_status()

    def add_route(self, words: str) -> None:
        """Add a foreign route, which is to be removed at some time."""
        destination = next(word for word in words.split() if "/" in word or word == "default")
        shown = destination.removesuffix("/128")

        place = re.fullmatch(r"\w+ (\S+) dev lo proto \w+ metric (\d+)", words)
        places = [Discard(IPv6Network(place[1]), int(place[2]))] if place else []

        def change(verb: str) -> None:
            with (
                self.world.routing(*places) if verb == "replace" else self.world.routing(),
                self.world.touching(lambda route: route["dst"] == shown),
            ):
                self.world.ip(f"-6 route {verb} {words}")

        change("replace")
        self.undo.append(lambda: change("delete"))

    @precondition(lambda machine: machine.undo)
    @rule(which=st.integers(0, 20))
    def something_foreign_goes(self, which: int) -> None:
        """A route or an address that one of the rules added."""
        self.undo.pop(which % len(self.undo))()

    # Its end, and its beginning.

    @precondition(is_alive)
    @rule(number=st.sampled_from([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
    def end(self, number: signal.Signals) -> None:
        self.world.end(number)

    @precondition(lambda machine: not machine.world.alive)
    @rule()
    def start(self) -> None:
        self.world.start()

    @precondition(is_alive)
    @rule(number=st.sampled_from([signal.SIGKILL, signal.SIGTERM]))
    def restart(self, number: signal.Signals) -> None:
        self.world.restart(number)


class Host(Delegations):
    """What may happen to a host besides."""

    def __init__(self) -> None:
        super().__init__()
        self.floods = 0

    # The policy.

    @rule(policy=POLICIES, at_once=st.booleans())
    def edit(self, *, policy: Shown, at_once: bool) -> None:
        self.world.configure(json.dumps(policy), policy)
        self.reload_if(at_once=at_once)

    @rule(text=st.sampled_from(UNUSABLE), at_once=st.booleans())
    def edit_badly(self, *, text: str, at_once: bool) -> None:
        self.world.configure(text, None)
        self.reload_if(at_once=at_once)

    @rule(at_once=st.booleans())
    def no_policy(self, *, at_once: bool) -> None:
        self.world.configure(None, {})
        self.reload_if(at_once=at_once)

    def reload_if(self, *, at_once: bool) -> None:
        if at_once and self.world.alive:
            self.world.reload()

    # Interference.

    @rule(which=st.integers(0, 20))
    def one_of_ours_goes(self, which: int) -> None:
        present = ours(self.world.routes())
        if present:
            route = present[which % len(present)]
            words = f"{route['type']} {route['dst']} dev lo table {route['table']} metric {route['metric']}"
            self.world.ip(f"-6 route delete {words} proto 150")

    @rule(table=st.sampled_from(["local", "main", "all"]))
    def ours_are_flushed(self, table: str) -> None:
        self.world.ip(f"-6 route flush table {table} proto 150")

    @rule(
        kind=st.sampled_from(["local", "local", "unreachable", "blackhole"]),
        place=PLACES | COVERS,
        metric=st.sampled_from([1024, 1024, 1024, 7]),
    )
    def foreign_local_route(self, kind: str, place: str, metric: int) -> None:
        """Mostly in a place that is or could be ours."""
        self.add_route(f"{kind} {place} dev lo table local proto static metric {metric}")

    @rule(kind=st.sampled_from(["unreachable", "blackhole", "prohibit", "unicast"]), prefix=PREFIXES)
    def foreign_discard_route(self, kind: str, prefix: IPv6Network) -> None:
        """In the place of ours."""
        self.add_route(f"{kind} {prefix} dev lo proto static metric 2048")

    @rule(
        stray=st.sampled_from(
            [
                "local {} dev lo table local proto 150 metric 1024",
                "local {} dev lo table local proto 150 metric 7",
                "unreachable {} dev lo table local proto 150 metric 1024",
                "unreachable {} dev lo table main proto 150 metric 2048",
                "blackhole {} dev lo table main proto 150 metric 2048",
                "prohibit {} dev lo table main proto 150 metric 7",
                f"{{}} dev {LINK} proto 150 metric 1024",
                "local {} dev lo table main proto 150 metric 1024",
                "local {} dev lo table local proto 150 metric 1024 expires 7",
            ]
        ),
        place=PLACES | st.just("2001:db8:900::/64") | PREFIXES.map(str),
    )
    def stray(self, stray: str, place: str) -> None:
        """Somebody plays us, maybe in the place of somebody else."""
        shown = place.removesuffix("/128")
        with self.world.routing(), self.world.touching(lambda route: route["dst"] == shown):
            self.world.ip(f"-6 route replace {stray.format(place)}")

    @rule(
        place=PLACES | st.just("2001:db8:900::/64") | PREFIXES.map(str) | st.just("default"),
        how=st.sampled_from(
            [
                f"dev {LINK}",
                f"via fe80::1 dev {LINK}",
                "dev lo",
                f"nexthop via fe80::1 dev {LINK} nexthop via fe80::2 dev {LINK}",
            ]
        ),
        protocol=st.sampled_from(["static", "kernel", "ra", "dhcp"]),
        metric=st.sampled_from([1024, 2048, 5]),
        table=st.sampled_from(["main", "main", "100"]),
    )
    def foreign_route(self, place: str, how: str, protocol: str, metric: int, table: str) -> None:
        self.add_route(f"{place} table {table} proto {protocol} metric {metric} {how}")

    @rule(
        which=st.integers(0, 20),
        how=st.sampled_from(
            [
                "local {} dev lo table local proto static metric 1024",
                f"{{}} dev {LINK} proto kernel metric 256",
                f"{{}} via fe80::1 dev {LINK} proto static metric 1024",
            ]
        ),
    )
    def somebody_is_in_the_way(self, which: int, how: str) -> None:
        """Where a subnet is bound somebody else uses its addresses."""
        self.world.settle()
        present = [route["dst"] for route in ours(self.world.routes()) if route["table"] == "local"]
        if present:
            self.add_route(how.format(present[which % len(present)]))

    @rule(
        place=PLACES,
        peer=st.sampled_from(["", "", "", "2001:db8:900::7 peer "]),
        link=st.sampled_from([LINK, LINK, "lo"]),
        option=st.sampled_from(["", "noprefixroute"]),
    )
    def address(self, place: str, peer: str, link: str, option: str) -> None:
        start, _, length = place.partition("/")

        def change(verb: str) -> None:
            if link == "lo" and not self.world.lo_up:
                return
            with self.world.touching(lambda route: route.get("dev") == link):
                self.world.ip(f"-6 addr {verb} {peer}{start}5/{length} dev {link} nodad {option}")
                self.world.await_addresses()

        change("replace")
        self.undo.append(lambda: change("delete"))

    @rule(up=st.booleans())
    def link(self, *, up: bool) -> None:
        with self.world.touching(lambda route: route.get("dev") in {LINK, "other"} or "nexthops" in route):
            self.world.ip(f"link set {LINK} {'up' if up else 'down'}")
            self.world.await_addresses()

    @precondition(is_up)
    @rule(flap=st.booleans())
    def lo_falls(self, *, flap: bool) -> None:
        self.world.lo_falls()
        if flap:
            self.world.lo_rises()

    @precondition(lambda machine: not machine.world.lo_up)
    @rule()
    def lo_rises(self) -> None:
        self.world.lo_rises()

    @precondition(lambda machine: machine.floods < 2)
    @rule(base=st.sampled_from(["2001:db8:900:1:", "2001:db8:100:1:"]), count=st.sampled_from([300, 3000]))
    def flood(self, base: str, count: int) -> None:
        """Foreign routes come and go, faster than anyone looks."""
        self.floods += 1
        if self.world.again:  # what is lost in it is not seen to be added anew
            self.world.settle()
        for verb in ("add", "delete"):
            self.world.batch(
                [f"route {verb} {base}:{n:x}/128 dev {LINK} proto static" for n in range(1, count)]
            )


@pytest.mark.long
@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(("happens", "times"), [(Delegations, 6), (Host, 14)])
def test_whatever_happens_the_tables_come_right(happens: type[Delegations], times: int) -> None:
    short = settings(max_examples=times, stateful_step_count=15, derandomize=True)
    long = settings(max_examples=settings().max_examples * times // 20)
    chosen = short if settings.get_current_profile_name() in {"default", "ci"} else long
    run_state_machine_as_test(
        happens, settings=settings(chosen, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    )
