"""A host with anyipd, with all that a test did to it written down, to be held against the naive model."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from ipaddress import IPv6Network
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from tests.lab import naive, naive_places
from tests.lab.daemon import Daemon
from tests.lab.monitor import RouteMonitor, all_is_heard
from tests.lab.naive import Facts, Shown
from tests.lab.naive_ledger import ALONE, MESSAGE, Book, Discard, Report
from tests.lab.naive_places import Memory
from tests.lab.naive_status import assert_delegations, states, subnets_shown
from tests.lab.namespace import Namespace, wait_until
from tests.lab.reports import Reports, file_name
from tests.lab.uplinks import Uplinks

LINK = "link0"
"""A link of the host that is nobody's uplink."""

SETTLED = 20.0
"""Seconds until the tables must be right; mostly it takes milliseconds."""

REST = 0.1
"""Seconds for which they must stay so: longer than the daemon's rest between two passes."""

LATE = 8.0
"""Seconds after which the daemon must show what it was told, and a flood is doubted as long again."""

KEEP_OFF = 0.15
"""Seconds around a deadline in which nobody could say whether it came before a change."""


class World:
    """A namespace with the link `LINK`, anyipd in it, and `ip monitor` as a witness."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()
        self.host = self.stack.enter_context(Namespace("model"))
        self.host.pair(LINK, "other")
        self.uplinks = Uplinks(self.host)
        folder = Path(mkdtemp(dir="/run"))
        self.stack.callback(rmtree, folder)
        self.daemon = self.stack.enter_context(Daemon(self.host, folder, forked=True))
        self.reports = Reports(self.host, self.daemon.runtime)
        self.ledger_file = (
            self.daemon.runtime
            / "daemon"
            / self.host.run("stat", "-L", "-c", "%i", "/proc/self/ns/net").stdout.strip()
        )
        self.monitor = RouteMonitor(self.host, folder)
        self.book = Book()
        self.unseen: dict[str, Report] = {}  # lease files, by name
        self.moved: set[str] = set()  # uplinks whose changes the daemon did not see yet
        self.again: set[Discard] = set()  # routes added since the daemon's last look
        self.uncertain: set[str] = set()  # lease files that it may have seen before it was killed
        self.unsettled = ""
        self.messages: set[Discard] = set()
        self.policy: Shown = {}  # in force
        self.configuration: Shown | None = {}  # in the file; None where that is not to be used
        self.alive = self.paused = False
        self.lo_up = True
        self.foreign = self.foreign_routes()
        self.remembered: dict[IPv6Network, Memory] = {}  # when it was settled last
        self.batched = False  # something came and went since
        self.settled = self.foreign

    def close(self) -> None:
        if self.paused:
            self.daemon.running.send_signal(signal.SIGCONT)
        self.stack.close()

    # What is there.

    def routes(self) -> list[Shown]:
        return self.host.ip_json("-6 route show table all")

    def foreign_routes(self) -> list[str]:
        """Give all foreign routes as `ip` shows them, but for what follows the carrier of a link, later."""
        return sorted(
            re.sub(r'"flags": \[[^]]*\]', '"flags": []', json.dumps(route))
            for route in naive.foreign(self.routes())
            if route["type"] != "multicast" and route["table"] != "150"
        )

    def tables(self) -> tuple[list[Shown], list[Shown]]:
        """Give all routes and all addresses."""
        both = "route show table all\naddr show"
        shown = self.host.run("ip", "-json", "-details", "-6", "-batch", "-", input=both).stdout
        routes, addresses = map(json.loads, shown.splitlines())
        return routes, addresses

    def facts(
        self,
        tables: tuple[list[Shown], list[Shown]],
        policy: Shown | None = None,
        when: float | None = None,
    ) -> Facts:
        routes, addresses = tables
        policy = self.policy if policy is None else policy
        book = deepcopy(self.book)
        if not self.alive:
            self.note(book, routes, policy, when or now())
        return Facts(policy, book, naive.foreign(routes), addresses, self.memories(), self.lo_up)

    def memories(self) -> dict[IPv6Network, Memory]:
        """Read what the daemon remembers of places, or did when it ended."""
        return naive_places.memories(self.ledger_file)

    # What the daemon sees of it.

    def note(self, book: Book, routes: list[Shown], policy: Shown, when: float) -> None:
        """Write down all that there is to see now."""
        links = self.host.ip_json("link show")
        carriers = {
            link["ifname"]: link["ifindex"] if "LOWER_UP" in link["flags"] else None for link in links
        }
        book.see_links(carriers, self.uplinks.lost, when)
        book.see_routes(naive.standing(routes, policy) | naive.messages(routes), self.again, when)
        for report in sorted(self.unseen.values(), key=lambda each: each.written):
            book.hear(report, when)
        book.pass_time(when)

    def changed(self, what: str) -> None:
        """Take note of a change, which is seen at once, or when the daemon wakes."""
        self.unsettled = what
        if self.alive and not self.paused:
            self.see(now())

    def see(self, when: float) -> None:
        self.note(self.book, self.routes(), self.policy, when)
        self.unseen, self.again, self.moved, self.uplinks.lost = {}, set(), set(), set()

    def sync(self, name: str = "") -> None:
        """Before what must not be seen together with the change before it, nor with a deadline."""
        if (not self.alive and name in self.uncertain) or name.partition("@")[2] in self.moved:
            self.look_first()
        if not self.alive or self.paused:
            return
        if self.unsettled:
            self.settle()
        self.keep_off()

    def look_first(self) -> None:
        """Have the daemon see all before what comes next."""
        if not self.alive:
            self.start()
        self.settle()

    def keep_off(self, ahead: float = KEEP_OFF) -> None:
        while near := [at for at in self.book.deadlines() if -KEEP_OFF < at - now() < ahead]:
            time.sleep(max(near) + KEEP_OFF - now())
        self.book.pass_time(now())

    # What happens to it.

    @contextlib.contextmanager
    def touching(self, mine: Callable[[Shown], bool]) -> Iterator[None]:
        """Do something to foreign routes, to those alone that `mine` is true for."""

        def others(routes: list[str]) -> list[str]:
            return [route for route in routes if not mine(json.loads(route))]

        before = self.foreign
        yield
        self.foreign = self.foreign_routes()
        assert_same(others(before), others(self.foreign))
        self.batched |= not set(before) - set(self.foreign) <= set(self.settled)

    def ip(self, words: str) -> None:
        """Run `ip`, which may find that there is nothing to do, or no way to do it."""
        self.host.run("ip", *words.split(), check=False)

    def await_addresses(self) -> None:
        """Wait for the local routes of new addresses: the kernel adds them in its own time."""

        def in_place() -> bool:
            routes, addresses = self.tables()
            have = {(route.get("dev"), route["dst"]) for route in routes if route["type"] == "local"}
            return have >= {
                (link["ifname"], address["local"])
                for link in addresses
                if self.lo_up or link["ifname"] != "lo"
                for address in link.get("addr_info", [])
            }

        wait_until(in_place)

    @contextlib.contextmanager
    def routing(self, *places: Discard) -> Iterator[None]:
        """Change clients' discard routes; `places` are added anew where they are there afterwards."""
        self.sync()
        yield
        routes = self.routes()
        messages = naive.messages(routes)
        standing = naive.standing(routes, self.policy) | messages
        self.again |= standing & set(places)
        if (self.again and standing & set(places)) or standing != self.book.routes.keys() - self.book.fallen:
            self.messages = messages
            self.changed("routes")

    def write_lease(
        self,
        prefix: IPv6Network,
        uplink: str,
        lifetimes: tuple[int, int],
        age: int = 0,
        client: str = "dhclient",
        *,
        second: int | None = None,
    ) -> None:
        """Write a lease file as the hook does; `second` is that of the Reply, which several may share."""
        self.sync(file_name(prefix, uplink))
        self.note_lease(self.reports.write(client, prefix, uplink, lifetimes, age, second=second))

    def note_lease(self, report: Report) -> None:
        """Keep in mind a lease file that was written just now."""
        name = file_name(report.prefix, report.uplink)
        self.unseen[name] = report
        if self.alive and not self.paused:  # a hook takes its time, and a deadline may come before its file
            self.book.pass_time(report.written)
        self.changed(name)

    def take_back(self, prefix: IPv6Network, uplink: str, client: str = "dhclient") -> None:
        """Write what the hook does when the client or the server takes a prefix back."""
        self.write_lease(prefix, uplink, (0, 0), 0, client)

    def remove_lease(self, prefix: IPv6Network, uplink: str) -> None:
        """Remove a lease file, which says nothing."""
        name = file_name(prefix, uplink)
        self.sync(name)
        (self.reports.leases / name).unlink(missing_ok=True)
        self.unseen.pop(name, None)

    def spoil_lease(self, name: str, junk: bytes) -> None:
        """Put a file that is no lease, or no longer, in the place of one."""
        self.sync(name)
        new = self.reports.leases / ".junk"
        new.write_bytes(junk)
        new.rename(self.reports.leases / name)
        self.unseen.pop(name, None)

    def call_hook(
        self,
        reason: str,
        prefix: IPv6Network,
        uplink: str,
        lifetimes: tuple[int, int],
        *,
        again: bool = False,
    ) -> None:
        """Have dhclient's script call our hook; with `again` for the Reply that granted the prefix last."""
        self.sync(file_name(prefix, uplink))
        with self.touching(lambda _: False):
            report = self.reports.call_hook(reason, prefix, uplink, lifetimes, again=again)
        self.messages = naive.messages(self.routes())
        if report:
            self.again |= self.messages & {Discard(prefix, MESSAGE)}
            self.note_lease(report)
        else:
            self.changed("routes")

    def forget(self, prefix: IPv6Network) -> None:
        """Have the operator forget a prefix."""
        self.sync()
        self.settle()
        self.keep_off(ahead=1.0)  # it takes its time
        done = self.daemon.control("forget", str(prefix), check=False)
        assert done.returncode == (0 if self.book.forget(prefix, now()) else 1), done.stderr
        self.changed("routes")

    def configure(self, text: str | None, policy: Shown | None) -> None:
        """Put a configuration in place, or none; `policy` is what it means, None that it is bad."""
        if text is None:
            self.daemon.configuration.unlink(missing_ok=True)
        else:
            new = self.daemon.configuration.with_suffix(".new")
            new.write_text(text)
            new.rename(self.daemon.configuration)
        self.configuration = policy

    def reload(self) -> None:
        self.resume()
        self.sync()
        self.daemon.reload()
        if self.configuration is not None:
            self.policy = self.configuration
        self.changed("routes")

    # The daemon's life.

    def start(self) -> None:
        if self.configuration is None:
            assert self.daemon.launch().wait(SETTLED) == 78
            self.configure(json.dumps(self.policy), self.policy)
        assert self.configuration is not None
        self.policy = self.configuration
        while near := [at for at in self.book.deadlines() if now() < at < now() + 1]:
            time.sleep(max(near) + KEEP_OFF - now())
        self.again = set()  # while it was away nobody saw them come
        begun = now()
        self.daemon.launch()
        self.daemon.wait_for_ready(SETTLED)
        self.alive = True
        self.see(begun)
        self.uncertain = set()
        self.unsettled = "start"

    def end(self, number: signal.Signals) -> None:
        self.resume()
        if self.unsettled in {"routes", "start"}:
            self.settle()
        self.keep_off()
        self.uncertain, self.unsettled = {self.unsettled}, ""
        self.daemon.running.send_signal(number)
        assert self.daemon.running.wait(SETTLED) in {0, -signal.SIGKILL}
        self.alive = False

    def pause(self) -> None:
        """Keep it from seeing what happens until `settle`, or until something cannot do without it."""
        self.settle()
        self.daemon.running.send_signal(signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        if self.paused:
            self.daemon.running.send_signal(signal.SIGCONT)
            self.paused = False
            self.see(now())
            self.unsettled = "routes"

    def restart(self, number: signal.Signals) -> None:
        """End it between two quiet moments, and see that its return changes no route."""
        self.settle()
        before, seen = self.outlook(), len(self.monitor.changes())
        self.end(number)
        self.start()
        self.settle()
        if before == self.outlook():
            changes = [line for line in self.monitor.changes()[seen:] if "proto 150" in line]
            assert changes == []

    # The rest of the host.

    def lo_falls(self) -> None:
        """Have lo lose all its routes; a daemon that saw clients' discard routes does not forget them."""
        self.sync()
        self.settle()
        if self.alive:
            self.book.lo_falls()
        with self.touching(lambda route: route.get("dev") == "lo"):
            self.host.ip("link set lo down")
            self.lo_up = False
        self.messages = set()
        self.changed("routes")

    def lo_rises(self) -> None:
        with self.touching(lambda route: route.get("dev") == "lo"):
            self.host.ip("link set lo up")
            self.lo_up = True
            self.await_addresses()

    def change_links(self, *names: str, change: Callable[[], None]) -> None:
        """Do something to uplinks, which the daemon sees before it sees what is reported on them later.

        The kernel names no time of it, so nobody could say what was first.
        """
        self.sync()
        if any(report.uplink in names for report in self.unseen.values()):
            self.look_first()
        change()
        self.moved |= set(names)
        self.changed("routes")

    def batch(self, lines: list[str]) -> None:
        """Have one `ip` do many things, whatever it can."""
        self.batched = True
        self.host.run("ip", "-6", "-force", "-batch", "-", input="\n".join(lines), check=False)

    # What must be so.

    def settle(self) -> None:
        """Wait until the tables are right, and see that they stay so; after a pause, in which order."""
        if not self.alive:
            return
        order = self.paused and self.only_ours_in_our_places()
        seen = len(self.monitor.changes()) if order else 0
        self.resume()
        before = self.outlook()
        self.wait()
        assert_same(self.foreign, self.foreign_routes())
        self.unsettled = ""
        self.check_places()
        if order and before == self.outlook():
            changes = [line for line in self.monitor.changes()[seen:] if "table local proto 150" in line]
            removals = [number for number, line in enumerate(changes) if line.startswith("Deleted")]
            additions = [number for number, line in enumerate(changes) if not line.startswith("Deleted")]
            assert not (removals and additions and removals[0] < additions[-1]), "\n".join(changes)

    def check_places(self) -> None:
        """See that every subnet stayed whose place is free, but for `all`, which gives way."""
        facts, memories, when = self.facts(self.tables()), self.memories(), now()
        # What comes and goes in a moment may move something.
        for each in naive.delegations(facts, when) if not self.batched else ():
            if naive.is_delegated(each) and not each.yields and each.source != "kernel":
                before, after = (known.get(each.prefix, Memory()) for known in (self.remembered, memories))
                places = naive.places(facts, each, when)
                for entry in places.entries:
                    if "id" not in entry and entry.get("count") != "all":
                        for member in places.members(entry):
                            spot = before.kept.get(member)
                            if spot and spot.prefixlen == entry.get("length", 64) and places.is_free(spot):
                                assert after.kept.get(member) == spot
        self.remembered, self.batched, self.settled = memories, False, self.foreign

    def wait(self) -> None:
        told = ""

        def right() -> bool:
            nonlocal told
            # What is in a queue yet is, for the daemon, later than what comes next.
            if not all_is_heard(self.host):
                return False
            told = self.look()
            if not told:
                time.sleep(REST)
                told = self.look()
            return not told

        try:
            wait_until(right, SETTLED)
        except TimeoutError:
            ended = self.daemon.running.poll()
            raise AssertionError(
                f"{told}\nexit code {ended}, its log:\n{self.daemon.log.read_text()}"
            ) from None

    def look(self) -> str:
        """Say what is wrong with the tables now, by the model at the begin or at the end of the look."""
        since = now()
        tables = routes, _ = self.tables()
        facts, until = self.facts(tables), now()
        wrong = [
            naive.difference(naive.wanted_routes(facts, when), naive.ours(routes), since, until)
            for when in (since, until)
        ]
        if all(wrong):
            return wrong[1]
        # A message that says nothing any more is removed at some time.
        standing = naive.messages(routes)
        needed = {
            each
            for each in standing | self.messages
            if each in facts.book.routes and not (facts.book.is_stale(each))
        } - facts.book.fallen
        self.messages = self.messages & standing if standing >= needed else self.messages
        for each in facts.book.routes.keys() - standing:
            if each.metric in {MESSAGE, ALONE} and each not in self.book.fallen:
                self.book.routes.pop(each, None)
        odd = (needed - standing) | (standing - self.messages)
        return f"messages: {odd}" if odd else ""

    def outlook(self) -> list[tuple[Shown, float | None]]:
        return naive.wanted_routes(self.facts(self.tables()), now())

    def only_ours_in_our_places(self) -> bool:
        """Whether no stray may be in the way of what we add: it goes first then, and a pass later we come."""
        shapes = [naive.show("local", IPv6Network("::/0"), "local", 1024)] + [
            naive.show(kind, IPv6Network("::/0"), "main", 2048)
            for kind in (self.policy.get("unassigned", "unreachable"),)
        ]
        return all(
            {key: value for key, value in route.items() if key != "expires"} | {"dst": "::/0"} in shapes
            for route in naive.ours(self.routes())
        )

    def next_boundary(self, within: float) -> float | None:
        """Give the seconds until the next time at which what is wanted may change by itself."""
        begin = now()
        coming = [at - begin for at in self.book.deadlines() if begin < at < begin + within]
        return min(coming, default=None)

    def check_status(self) -> None:
        """Hold `anyipctl status --json` against the model; it knows nothing of what fell with lo.

        Where nothing in the tables says that the daemon knows, a busy one may know a moment later.
        """
        late = now() + LATE
        while True:
            try:
                self.compare_status()
            except AssertionError:
                if now() > late:
                    raise
                time.sleep(REST)
            else:
                return

    def compare_status(self) -> None:
        shown_by = self.policy if self.alive else self.configuration
        if shown_by is None:
            assert self.daemon.control("status", "--json", check=False).returncode == 78
            return
        for _ in range(20):  # a lifetime may end meanwhile
            tables, since = self.tables(), now()
            shown = self.daemon.status()
            until = now()
            facts = self.facts(tables, shown_by, until)
            expected = [subnets_shown(facts, tables[0], when) for when in (since, until)]
            delegated = [naive.delegations(facts, when) for when in (since, until)]
            same = expected[0] == expected[1] and states(delegated[0]) == states(delegated[1])
            if same and routes_alike(tables[0], self.routes()):
                break
        else:
            return
        found = sorted(
            (one["name"], one["delegation"], one["prefix"], one["state"]) for one in shown["subnets"]
        )
        assert found == expected[1], f"shown {found}\nexpected {expected[1]}"
        assert_delegations(shown["delegations"], naive.delegations(facts, until), since, until)


def assert_same(before: list[str], after: list[str]) -> None:
    changes = [f"- {route}" for route in before if route not in after]
    changes += [f"+ {route}" for route in after if route not in before]
    assert not changes, "foreign routes changed:\n" + "\n".join(changes)


def routes_alike(some: list[Shown], others: list[Shown]) -> bool:
    return sorted(map(naive.text, some)) == sorted(map(naive.text, others))


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
