"""A host with anyipd, with all that a test did to it written down, to be held against the naive model."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from ipaddress import IPv6Network
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from tests.lab import debian, naive, naive_places
from tests.lab.daemon import Daemon
from tests.lab.delegated import next_second
from tests.lab.dhclient import HOOK
from tests.lab.monitor import RouteMonitor
from tests.lab.naive import Book, Discard, Facts, Report, Shown
from tests.lab.naive_places import Memory
from tests.lab.namespace import Namespace, wait_until

LINK = "link0"
"""A link of the host that is nobody's uplink."""

SETTLED = 20.0
"""Seconds until the tables must be right; mostly it takes milliseconds."""

REST = 0.1
"""Seconds for which they must stay so: longer than the daemon's rest between two passes."""

KEEP_OFF = 0.15
"""Seconds around a deadline in which nobody could say whether it came before a change."""


class World:
    """A namespace with the link `LINK`, anyipd in it, and `ip monitor` as a witness."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()
        self.host = self.stack.enter_context(Namespace("model"))
        self.host.ip(f"link add {LINK} type veth peer name other")
        for link in (LINK, "other"):
            self.host.ip(f"link set {link} up")
        for uplink in ("up0", "up1"):
            self.host.ip(f"link add {uplink} type veth peer name {uplink}-isp")
        folder = Path(mkdtemp(dir="/run"))
        self.stack.callback(rmtree, folder)
        self.daemon = self.stack.enter_context(Daemon(self.host, folder))
        self.leases = self.daemon.runtime / "leases"
        self.leases.mkdir()
        self.ledger_file = (
            self.daemon.runtime
            / "daemon"
            / self.host.run("stat", "-L", "-c", "%i", "/proc/self/ns/net").stdout.strip()
        )
        self.monitor = RouteMonitor(self.host, folder)
        self.book = Book()
        self.unseen: dict[str, Report] = {}  # lease files, by name
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
        self.batched = False

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

    def facts(self, routes: list[Shown], policy: Shown | None = None) -> Facts:
        policy = self.policy if policy is None else policy
        book = deepcopy(self.book)
        if not self.alive:
            self.note(book, routes, policy, now())
        addresses = self.host.ip_json("-6 addr show")
        return Facts(policy, book, naive.foreign(routes), addresses, self.memories(), self.lo_up)

    def memories(self) -> dict[IPv6Network, Memory]:
        """Read what the daemon remembers of places, or did when it ended."""
        return naive_places.memories(self.ledger_file)

    # What the daemon sees of it.

    def note(self, book: Book, routes: list[Shown], policy: Shown, when: float) -> None:
        """Write down all that there is to see now."""
        book.links = {link["ifname"] for link in self.host.ip_json("link show")}
        book.see_routes(naive.standing(routes, policy) | naive.messages(routes), self.again, when)
        for report in sorted(self.unseen.values(), key=lambda each: each.written):
            book.hear(report, when)
        book.wake(when)

    def changed(self, what: str) -> None:
        """Take note of a change, which is seen at once, or when the daemon wakes."""
        self.unsettled = what
        if self.alive and not self.paused:
            self.see(now())

    def see(self, when: float) -> None:
        self.note(self.book, self.routes(), self.policy, when)
        self.unseen, self.again = {}, set()

    def sync(self, name: str = "") -> None:
        """Before what must not be seen together with the change before it, nor with a deadline."""
        if not self.alive and name in self.uncertain:
            self.start()
        if not self.alive or self.paused:
            return
        if self.unsettled:
            self.settle()
        self.keep_off()

    def keep_off(self) -> None:
        while near := [at for at in self.book.deadlines() if abs(at - now()) < KEEP_OFF]:
            time.sleep(max(near) + KEEP_OFF - now())
        self.book.pass_time(now())

    # What happens to it.

    @contextlib.contextmanager
    def touching(self, mine: Callable[[Shown], bool]) -> Iterator[None]:
        """Do something to foreign routes, to those alone that `mine` is true for."""

        def others(routes: list[str]) -> list[str]:
            return [route for route in routes if not mine(json.loads(route))]

        before = others(self.foreign)
        yield
        self.foreign = self.foreign_routes()
        assert_same(before, others(self.foreign))

    def ip(self, words: str) -> None:
        """Run `ip`, which may find that there is nothing to do, or no way to do it."""
        self.host.run("ip", *words.split(), check=False)

    def await_addresses(self) -> None:
        """Wait for the local routes of new addresses: the kernel adds them in its own time."""

        def in_place() -> bool:
            have = {(route.get("dev"), route["dst"]) for route in self.routes() if route["type"] == "local"}
            return have >= {
                (link["ifname"], address["local"])
                for link in self.host.ip_json("-6 addr show")
                if self.lo_up or link["ifname"] != "lo"
                for address in link.get("addr_info", [])
            }

        wait_until(in_place)

    @contextlib.contextmanager
    def routing(self, *places: Discard) -> Iterator[None]:
        """Change clients' discard routes; `places` are added anew where they are there afterwards."""
        self.sync()
        yield
        standing = naive.standing(self.routes(), self.policy) | naive.messages(self.routes())
        self.again |= standing & set(places)
        if (self.again and standing & set(places)) or standing != self.book.routes.keys() - self.book.fallen:
            self.messages = naive.messages(self.routes())
            self.changed("routes")

    def write_lease(
        self,
        prefix: IPv6Network,
        uplink: str,
        lifetimes: tuple[int, int],
        age: int,
        second: int | None = None,
    ) -> None:
        """Write a lease file as the hook does; `second` is that of the Reply, which several may share."""
        self.sync(lease_name(prefix, uplink))
        uptime, modified = now(), time.time()
        life_starts = int(modified) - age if age else second or next_second()
        # What is older than what came before is not of the same exchange.
        iaid = "00:00:00:02" if age or prefix.prefixlen in {64, 66} else "00:00:00:01"
        new = self.leases / f".{lease_name(prefix, uplink)}.1"
        new.write_text(lease_text(Report(prefix, uplink, iaid, life_starts, *lifetimes, uptime, age)))
        os.utime(new, (modified, modified))
        new.rename(self.leases / lease_name(prefix, uplink))
        self.note_lease(prefix, uplink)

    def note_lease(self, prefix: IPv6Network, uplink: str) -> None:
        """Keep in mind a lease file that was written just now."""
        file = self.leases / lease_name(prefix, uplink)
        told = dict(line.split("=", 1) for line in file.read_text().splitlines())
        assert (told["client"], told["prefix"], told["uplink"]) == ("dhclient", str(prefix), uplink)
        life_starts = int(told["life_starts"])
        # It may have begun at the end of the second that life_starts names.
        age = max(file.stat().st_mtime - life_starts - 1, 0)
        self.unseen[file.name] = Report(
            prefix,
            uplink,
            told["iaid"],
            life_starts,
            int(told["preferred_lifetime"]),
            int(told["valid_lifetime"]),
            float(told["uptime"]),
            age,
            anew=told.get("reason") == "BOUND6",
        )
        if self.alive and not self.paused:  # a hook takes its time, and a deadline may come before its file
            self.book.pass_time(self.unseen[file.name].written)
        self.changed(file.name)

    def take_back(self, prefix: IPv6Network, uplink: str) -> None:
        """Write what the hook does when the client or the server takes a prefix back."""
        self.write_lease(prefix, uplink, (0, 0), 0)

    def remove_lease(self, prefix: IPv6Network, uplink: str) -> None:
        """Remove a lease file, which says nothing."""
        self.sync(lease_name(prefix, uplink))
        (self.leases / lease_name(prefix, uplink)).unlink(missing_ok=True)
        self.unseen.pop(lease_name(prefix, uplink), None)

    def call_hook(self, reason: str, prefix: IPv6Network, uplink: str, lifetimes: tuple[int, int]) -> None:
        """Have dhclient's script call our hook."""
        self.sync(lease_name(prefix, uplink))
        which = "new" if reason in {"BOUND6", "RENEW6", "REBIND6"} else "old"
        life_starts = next_second()
        variables = {
            "ip6_prefix": prefix,
            "iaid": "00:00:00:01",
            "life_starts": life_starts,
            "preferred_life": lifetimes[0],
            "max_life": lifetimes[1],
        }
        environment = {
            "PATH": debian.environment()["PATH"],
            "ANYIPD_RUNTIME_DIR": str(self.daemon.runtime),
            "reason": reason,
            "interface": uplink,
            **{f"{which}_{key}": str(value) for key, value in variables.items()},
        }
        file = self.leases / lease_name(prefix, uplink)
        before = file.stat().st_ino if file.exists() else None
        with self.touching(lambda _: False):
            self.host.run("dash", "-c", f". {HOOK}", env=environment)
        self.messages = naive.messages(self.routes())
        self.again |= self.messages & {Discard(prefix, naive.MESSAGE), Discard(prefix, naive.ALONE)}
        if reason in {"EXPIRE6", "STOP6", "DEPREF6"}:
            assert before == (file.stat().st_ino if file.exists() else None)
            self.changed("routes")
            return
        told = dict(line.split("=", 1) for line in file.read_text().splitlines())
        granted = which == "new" and lifetimes[1] > 0
        assert (told["valid_lifetime"] != "0") == granted
        if which == "new":
            assert told["life_starts"] == str(life_starts)
        self.note_lease(prefix, uplink)

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

    def uplink(self, name: str, *, there: bool) -> None:
        """Have an uplink come or go."""
        self.sync()
        self.ip(f"link add {name} type veth peer name {name}-isp" if there else f"link delete {name}")
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
        facts, memories, when = self.facts(self.routes()), self.memories(), now()
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
        self.remembered, self.batched = memories, False

    def wait(self) -> None:
        told = ""

        def right() -> bool:
            nonlocal told
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
        routes = self.routes()
        facts, until = self.facts(routes), now()
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
            if each.metric in {naive.MESSAGE, naive.ALONE} and each not in self.book.fallen:
                self.book.routes.pop(each, None)
        odd = (needed - standing) | (standing - self.messages)
        return f"messages: {odd}" if odd else ""

    def outlook(self) -> list[tuple[Shown, float | None]]:
        return naive.wanted_routes(self.facts(self.routes()), now())

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
        """Hold `anyipctl status --json` against the model; it knows nothing of what fell with lo."""
        shown_by = self.policy if self.alive else self.configuration
        if shown_by is None:
            assert self.daemon.control("status", "--json", check=False).returncode == 78
            return
        for _ in range(20):  # a lifetime may end meanwhile
            routes, since = self.routes(), now()
            shown = self.daemon.status()
            until = now()
            facts = self.facts(routes, shown_by)
            expected = [self.expected_status(facts, routes, when) for when in (since, until)]
            delegated = [naive.delegations(facts, when) for when in (since, until)]
            same = expected[0] == expected[1] and states(delegated[0]) == states(delegated[1])
            if same and routes_alike(routes, self.routes()):
                break
        else:
            return
        found = sorted(
            (one["name"], one["delegation"], one["prefix"], one["state"]) for one in shown["subnets"]
        )
        assert found == expected[1]
        assert_delegations(shown["delegations"], naive.delegations(facts, until), since, until)

    def expected_status(self, facts: Facts, routes: list[Shown], when: float) -> list[tuple[Any, ...]]:
        present = {
            (route["dst"], route["protocol"], route["type"]): None
            for route in routes
            if route["table"] == "local" and route["metric"] == 1024
        }

        def state(subnet: naive.Subnet) -> str:
            if subnet.state != "wanted":
                return subnet.state
            shown = naive.show("local", subnet.prefix, "local", 1024)["dst"] if subnet.prefix else ""
            if (shown, "150", "local") in present:
                return "bound"
            foreign = any(dst == shown and protocol != "150" for dst, protocol, _ in present)
            return "conflict" if foreign else "missing"

        return sorted(
            (each.name, str(each.delegation), str(each.prefix) if each.prefix else None, state(each))
            for each in naive.subnets(facts, when)
        )


def assert_same(before: list[str], after: list[str]) -> None:
    changes = [f"- {route}" for route in before if route not in after]
    changes += [f"+ {route}" for route in after if route not in before]
    assert not changes, "foreign routes changed:\n" + "\n".join(changes)


def states(delegations: list[naive.Delegation]) -> dict[str, tuple[str, str, str | None]]:
    return {str(each.prefix): (each.state, each.source, each.uplink) for each in delegations}


def assert_delegations(
    shown: list[dict[str, Any]], expected: list[naive.Delegation], since: float, until: float
) -> None:
    by_prefix = {one["prefix"]: one for one in shown}
    assert len(by_prefix) == len(shown)
    told = {prefix: (one["state"], one["source"], one["uplink"]) for prefix, one in by_prefix.items()}
    assert told == states(expected), f"shown {shown}\nexpected {expected}\nfrom {since} to {until}"
    for each in expected:
        one = by_prefix[str(each.prefix)]
        for key, end in (("preferred_lifetime", each.preferred_until), ("valid_lifetime", each.valid_until)):
            if end is None:
                assert one[key] is None
            elif end == naive.NEVER:
                assert one[key] == "infinite"
            else:
                assert max(end - until, 0) - 1 <= one[key] <= max(end - since, 0)


def routes_alike(some: list[Shown], others: list[Shown]) -> bool:
    return sorted(map(naive.text, some)) == sorted(map(naive.text, others))


def lease_name(prefix: IPv6Network, uplink: str) -> str:
    return f"{prefix.network_address}_{prefix.prefixlen}@{uplink}"


def lease_text(report: Report) -> str:
    fields = {
        "client": "dhclient",
        "prefix": report.prefix,
        "uplink": report.uplink,
        "iaid": report.iaid,
        "life_starts": report.life_starts,
        "preferred_lifetime": report.preferred,
        "valid_lifetime": report.valid,
        "uptime": f"{report.written:.2f}",
    }
    return "".join(f"{key}={value}\n" for key, value in fields.items())


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
