"""A host with anyipd, with all that a test did to it written down, to be held against the naive model."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv6Network
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from tests.lab import debian, naive
from tests.lab.daemon import Daemon
from tests.lab.dhclient import HOOK
from tests.lab.monitor import RouteMonitor
from tests.lab.naive import Discard, Facts, Lease, Shown
from tests.lab.namespace import Namespace, wait_until

LINK = "link0"
"""A link of the host that is nobody's uplink."""

SETTLED = 5.0
"""Seconds until the tables must be right; mostly it takes milliseconds."""

REST = 0.1
"""Seconds for which they must stay so: longer than the daemon's rest between two passes."""


class World:
    """A namespace with the link `LINK`, anyipd in it, and `ip monitor` as a witness."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()
        self.host = self.stack.enter_context(Namespace("model"))
        self.host.ip(f"link add {LINK} type veth peer name other")
        for link in (LINK, "other"):
            self.host.ip(f"link set {link} up")
        folder = Path(mkdtemp(dir="/run"))
        self.stack.callback(rmtree, folder)
        self.daemon = self.stack.enter_context(Daemon(self.host, folder))
        self.leases = self.daemon.runtime / "leases"
        self.leases.mkdir()
        self.monitor = RouteMonitor(self.host, folder)
        self.written: dict[str, Lease] = {}
        self.policy: Shown = {}  # in force
        self.configuration: Shown | None = {}  # in the file; None where that is not to be used
        self.fallen: set[Discard] = set()
        self.alive = self.paused = False
        self.lo_up = True
        self.foreign = self.foreign_routes()

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
            if route["type"] != "multicast"
        )

    def facts(self, routes: list[Shown], policy: Shown | None = None) -> Facts:
        return Facts(
            policy=self.policy if policy is None else policy,
            leases=list(self.written.values()),
            routes=naive.foreign(routes),
            addresses=self.host.ip_json("-6 addr show"),
            lo_up=self.lo_up,
            fallen=set() if policy is not None else self.fallen,
        )

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
        self.forget_fallen()

    def forget_fallen(self) -> None:
        """What is told again has not fallen any more."""
        told = {each.prefix for each in naive.discards(self.facts(self.routes()))}
        self.fallen = {each for each in self.fallen if each.prefix not in told}

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

    def write_lease(self, prefix: IPv6Network, uplink: str, lifetimes: tuple[int, int], age: int) -> None:
        """Write a lease file as the hook does."""
        uptime, modified = time.clock_gettime(time.CLOCK_BOOTTIME), time.time()
        life_starts = int(modified) - age
        new = self.leases / f".{lease_name(prefix, uplink)}.1"
        new.write_text(lease_text(prefix, uplink, life_starts, lifetimes, f"{uptime:.2f}"))
        os.utime(new, (modified, modified))
        new.rename(self.leases / lease_name(prefix, uplink))
        self.note_lease(prefix, uplink, life_starts, lifetimes)

    def note_lease(
        self, prefix: IPv6Network, uplink: str, life_starts: int, lifetimes: tuple[int, int]
    ) -> None:
        """Keep in mind a lease file that was written just now; only its times are read off it."""
        file = self.leases / lease_name(prefix, uplink)
        told, _, uptime = file.read_text().rstrip().rpartition("uptime=")
        assert told == lease_text(prefix, uplink, life_starts, lifetimes, "").removesuffix("uptime=\n")
        # It may have begun at the end of the second that life_starts names.
        age = max(file.stat().st_mtime - life_starts - 1, 0)
        self.written[file.name] = Lease(prefix, uplink, *lifetimes, float(uptime), age)

    def remove_lease(self, prefix: IPv6Network, uplink: str) -> None:
        (self.leases / lease_name(prefix, uplink)).unlink(missing_ok=True)
        self.written.pop(lease_name(prefix, uplink), None)

    def call_hook(self, reason: str, prefix: IPv6Network, uplink: str, lifetimes: tuple[int, int]) -> None:
        """Have dhclient's script call our hook."""
        which = (
            "new" if reason in {"BOUND6", "RENEW6", "REBIND6"} else "cur" if reason == "DEPREF6" else "old"
        )
        life_starts = int(time.time())
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
        with self.touching(lambda route: route["dst"] == str(prefix) and route["metric"] in {1025, 1026}):
            self.host.run("dash", "-c", f". {HOOK}", env=environment)
        if which == "old" or lifetimes[1] == 0:
            assert not (self.leases / lease_name(prefix, uplink)).exists()
            self.written.pop(lease_name(prefix, uplink), None)
        else:
            self.note_lease(
                prefix, uplink, life_starts, (0 if which == "cur" else lifetimes[0], lifetimes[1])
            )

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
        self.daemon.reload()
        if self.configuration is not None:
            self.policy = self.configuration
        self.forget_fallen()

    # The daemon's life.

    def start(self) -> None:
        if self.configuration is None:
            assert self.daemon.launch().wait(SETTLED) == 78
            self.configure(json.dumps(self.policy), self.policy)
        assert self.configuration is not None
        self.policy = self.configuration
        self.daemon.launch()
        self.daemon.wait_for_ready(SETTLED)
        self.alive = True

    def end(self, number: signal.Signals) -> None:
        self.resume()
        self.daemon.running.send_signal(number)
        assert self.daemon.running.wait(SETTLED) in {0, -signal.SIGKILL}
        self.alive = False
        self.fallen = set()

    def pause(self) -> None:
        """Keep it from seeing what happens until `settle`, or until something cannot do without it."""
        self.settle()
        self.daemon.running.send_signal(signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        if self.paused:
            self.daemon.running.send_signal(signal.SIGCONT)
            self.paused = False

    def restart(self, number: signal.Signals) -> None:
        """End it between two quiet moments, and see that its return changes no route."""
        self.settle()
        before, seen = self.outlook(), len(self.monitor.changes())
        forgets = bool(self.fallen)
        self.end(number)
        self.start()
        self.settle()
        if not forgets and before == self.outlook():
            changes = [line for line in self.monitor.changes()[seen:] if "proto 150" in line]
            assert changes == []

    # The rest of the host.

    def lo_falls(self) -> None:
        """Have lo lose all its routes; a daemon that saw clients' discard routes does not forget them."""
        self.settle()
        if self.alive:
            self.fallen |= naive.discards(self.facts(self.routes()))
        with self.touching(lambda route: route.get("dev") == "lo"):
            self.host.ip("link set lo down")
            self.lo_up = False

    def lo_rises(self) -> None:
        with self.touching(lambda route: route.get("dev") == "lo"):
            self.host.ip("link set lo up")
            self.lo_up = True
            self.await_addresses()

    def batch(self, lines: list[str]) -> None:
        """Have one `ip` do many things, whatever it can."""
        self.host.run("ip", "-6", "-force", "-batch", "-", input="\n".join(lines), check=False)

    # What must be so.

    def settle(self) -> None:
        """Wait until the tables are right, and see that they stay so; after a pause, in which order."""
        if not self.alive:
            return
        order = self.paused and self.only_ours_in_our_places()
        seen = len(self.monitor.changes()) if order else 0
        before = self.outlook()
        self.resume()
        self.wait()
        assert_same(self.foreign, self.foreign_routes())
        if order and before == self.outlook():
            changes = [line for line in self.monitor.changes()[seen:] if "table local proto 150" in line]
            removals = [number for number, line in enumerate(changes) if line.startswith("Deleted")]
            additions = [number for number, line in enumerate(changes) if not line.startswith("Deleted")]
            assert not (removals and additions and removals[0] < additions[-1]), "\n".join(changes)

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
        return "" if not all(wrong) else wrong[1]

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
        coming = [at - begin for at in naive.boundaries(self.facts([])) if begin < at < begin + within]
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
            if expected[0] == expected[1] and routes_alike(routes, self.routes()):
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


def assert_delegations(
    shown: list[dict[str, Any]], expected: list[naive.Delegation], since: float, until: float
) -> None:
    by_prefix = {one["prefix"]: one for one in shown}
    assert len(by_prefix) == len(shown)
    assert {prefix: (one["state"], one["source"], one["uplink"]) for prefix, one in by_prefix.items()} == {
        str(each.prefix): (each.state, each.source, each.uplink) for each in expected
    }
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


def lease_text(
    prefix: IPv6Network, uplink: str, life_starts: int, lifetimes: tuple[int, int], uptime: str
) -> str:
    fields = {
        "client": "dhclient",
        "prefix": prefix,
        "uplink": uplink,
        "iaid": "00:00:00:01",
        "life_starts": life_starts,
        "preferred_lifetime": lifetimes[0],
        "valid_lifetime": lifetimes[1],
        "uptime": uptime,
    }
    return "".join(f"{key}={value}\n" for key, value in fields.items())


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
