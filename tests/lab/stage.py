"""The stage of the chaos run: a host with two uplinks, and what must be so on it at any moment.

What must be so is worked out here from what the ISPs delegated and the faults did, never asked of
anyipd.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from anyipd.model import Prefix
from tests.lab.behind import (
    HOLE,
    SHOP,
    WEB,
    Behind,
    hole,
    own_address,
    probed,
    refuse_foreign_sources,
    subnet,
)
from tests.lab.daemon import Daemon
from tests.lab.dhclient import Dhclient
from tests.lab.dhcpcd import Dhcpcd
from tests.lab.kea import Kea, Offer
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import HOST_LINK_LOCAL, ISP_LINK_LOCAL, Uplink
from tests.lab.onlooker import Onlooker, lay_bait
from tests.lab.prober import Prober, Targets
from tests.lab.windows import Covers, Windows
from tests.lab.witness import EARLY, LATE, Witness, bound

PREFERRED, VALID = 20, 40  # seconds: a renewal that met a dead Kea is repeated after ten
RENEW, REBIND = 2, 30
WHOLE_WITHIN = 40.0
"""Seconds until everything must be whole again: what needs a renewal may wait for its repetition."""

POLICY = f"""\
subnets:
  - {{name: web, id: {WEB}, address: "::1", except: ["{HOLE}"]}}
  - {{name: pair, id: 4, count: 2}}
  - {{name: optional, id: 8}}
  - {{name: pool, count: 2}}
  - {{name: shop, id: {SHOP}, bind: false, neighbours: [uplink1, uplink2]}}
  - {{name: reserved, id: 0xf, bind: false}}
  - {{name: far, id: 0x1f}}
"""
CLIENTS: Mapping[int, type[Dhclient | Dhcpcd]] = {1: Dhclient, 2: Dhcpcd}
"""The DHCPv6 client of each uplink."""

OPTIONAL_LINE = "  - {name: optional, id: 8}\n"
PINNED, AUTOMATIC, OPTIONAL, RESERVED, FAR = (WEB, 4, 5), (1, 2), 8, 15, 31
"""Subnet IDs of POLICY; the lowest that are free are the automatic ones. FAR lies behind the end of a /60."""


@dataclass(eq=False)
class Line:
    """An uplink with its ISP; all that is delegated there comes out of `pool`, the only source let through.

    `current` is what is delegated now, `former` what was before; `witness` tells when each ends. What the
    prober reads is replaced and never changed in place: it runs in a thread of its own. `router` is the
    link-local address that the host's default route goes by.
    """

    uplink: Uplink
    kea: Kea
    client: Dhclient | Dhcpcd
    pool: Prefix
    witness: Witness
    number: int = 0
    current: Prefix | None = None
    former: frozenset[Prefix] = frozenset()
    router: str = ISP_LINK_LOCAL

    def fresh(self, length: int = 60) -> Prefix:
        """Give a prefix that was never delegated before."""
        size = 1 << 60 - length
        first = -(-(self.number + 1) // size) * size
        self.number = first + size - 1
        return Prefix(self.pool.address + (first << 68), length)

    def told(self) -> list[tuple[Prefix, float]]:
        """Give what is delegated or was, and for how many seconds it is valid still."""
        now, ends = time.monotonic(), self.witness.ends
        told = {*self.former, *([self.current] if self.current else [])}
        return [(prefix, ends[prefix] - now) for prefix in told]

    def live(self) -> list[Prefix]:
        """What is delegated now beyond doubt."""
        return [prefix for prefix, left in self.told() if left > EARLY]

    def undecided(self) -> list[Prefix]:
        """What may be bound still, or not any more."""
        return [prefix for prefix, left in self.told() if -LATE <= left <= EARLY]

    def replace(self, new: Prefix | None) -> None:
        """Take note that another prefix is delegated now; the one before is bound until it ends."""
        if new:
            wait_until(lambda: new in self.witness.ends)
        ends, now = self.witness.ends, time.monotonic()
        former = {*self.former, *([self.current] if self.current else [])} - {new}
        self.former = frozenset(prefix for prefix in former if ends[prefix] + LATE > now)
        self.current = new

    def offer(self, *offers: Offer) -> None:
        self.kea.offer(*offers, renew=RENEW, rebind=REBIND)

    def start_kea(self, prefix: Prefix) -> None:
        self.kea.start(Offer(prefix, PREFERRED, VALID), renew=RENEW, rebind=REBIND)

    def lease(self, prefix: Prefix) -> Path:
        """Where the hook writes of `prefix`."""
        name = str(prefix).replace("/", "_")
        return self.client.runtime / "leases" / f"{name}@{self.uplink.interface}"

    def wait_for_renewal(self) -> None:
        """Return right after a Renew: one that meets Kea as it reloads is lost, and not soon repeated."""
        assert self.current
        lease = self.lease(self.current)

        def written() -> int:
            return lease.stat().st_mtime_ns if lease.exists() else 0

        before = written()
        wait_until(lambda: written() != before, WHOLE_WITHIN)

    def connect(self) -> None:
        """Give both ends what an interface loses when it goes down."""
        uplink, host, isp = self.uplink, self.uplink.host, self.uplink.isp
        isp.ip(f"addr replace {ISP_LINK_LOCAL}/64 dev {uplink.customer} nodad")
        host.ip(f"addr replace {HOST_LINK_LOCAL}/64 dev {uplink.interface} nodad")
        self.route()
        uplink.route(self.pool)
        for prefix, _ in self.told():
            self.regard_as_on_link(prefix)

    def route(self) -> None:
        """Give the host its default route, as a Router Advertisement does."""
        name, metric = self.uplink.interface, self.uplink.metric
        self.uplink.host.ip(f"-6 route replace default via {self.router} dev {name} metric {metric}")

    def regard_as_on_link(self, delegated: Prefix) -> None:
        """Have the ISP ask for each address of the container's subnet."""
        place = subnet(delegated, SHOP)
        self.uplink.isp.ip(f"-6 route replace {place} dev {self.uplink.customer}")

    def covers(self, prefix: Prefix) -> bool:
        return self.pool.covers(prefix)


@dataclass
class Trouble:
    """A fault at work. Its recovery counts from when it began, or from when what it lasted for ended."""

    since: float

    def lifted(self) -> None:
        """Say that from here on nothing keeps the system from being whole."""
        self.since = time.monotonic()


class Stage:
    """Everything that runs, and what is wanted of it."""

    def __init__(
        self,
        behind: Behind,
        lines: list[Line],
        daemon: Daemon,
        neighbour: Daemon,
        *,
        witness: Witness,
        seed: int,
    ) -> None:
        self.behind, self.host, self.lines = behind, behind.host, lines
        self.daemon, self.neighbour, self.folder = daemon, neighbour, daemon.configuration.parent
        self.random, self.witness = Random(seed), witness
        self.windows = Windows()
        self.prober = Prober([line.uplink for line in lines], self.targets, self.windows)
        self.onlooker = Onlooker(self.host, self.daemons_pid)
        self.absent: frozenset[Prefix] = frozenset()
        self.optional = True
        self.yielded: frozenset[Prefix] = frozenset()
        """Prefixes whose automatic subnets another one took: they begin none anew."""
        self.recovery = 0.0
        self.restarts = 0
        self.history = self.folder / "anyipd.history.log"

    def start(self) -> None:
        """Start everything, and wait until it is whole for the first time."""
        self.daemon.start()
        self.neighbour.start()
        for line in self.lines:
            line.connect()
            prefix = line.fresh()
            line.start_kea(prefix)
            line.client.start()
            self.wait_for_subnets(prefix)
            line.replace(prefix)

    def subnets(self, delegated: Prefix) -> set[Prefix]:
        """What the policy binds of `delegated` now."""
        automatic = () if delegated in self.yielded else AUTOMATIC
        numbers = [*PINNED, *automatic, *([OPTIONAL] if self.optional else []), FAR]
        return {
            each for number in numbers if delegated.covers(each := subnet(delegated, number))
        } - self.absent

    def around(self, delegated: Prefix) -> set[Prefix]:
        """What must answer of `delegated` besides what the policy binds: the container."""
        parts = {probed(subnet(delegated, SHOP))}
        return parts if subnet(delegated, WEB) in self.absent else parts | {probed(hole(delegated))}

    def targets(self) -> Targets:
        """What must answer now, and behind which uplink."""
        return {
            each: line.uplink
            for line in self.lines
            for prefix in line.live()
            for each in self.subnets(prefix) | self.around(prefix)
        }

    def wanted(self) -> set[Prefix]:
        """What must be bound now, and the host's own addresses in it."""
        live = [prefix for line in self.lines for prefix in line.live()]
        wanted = {each for prefix in live for each in self.subnets(prefix)}
        own = {own_address(prefix) for prefix in live if subnet(prefix, WEB) in wanted}
        return wanted | own

    def bound(self) -> set[Prefix]:
        """What the kernel lists, let alone whether it lets anything by it still; own addresses, too."""
        shown = self.host.ip_json("-6 addr show dev lo scope global")
        infos = [each for link in shown for each in link.get("addr_info", ()) if each]
        own = {Prefix.parse(f"{each['local']}/128") for each in infos}
        return set(bound(self.host)) | own

    def difference(self) -> str:
        """Say where the kernel's table is not what it must be; nothing if it is."""
        # What ends meanwhile may count on either side: it is asked for before and after.
        undecided = {prefix for line in self.lines for prefix in line.undecided()}
        wanted, bound = self.wanted(), self.bound()
        undecided |= {prefix for line in self.lines for prefix in line.undecided()}

        def clear(found: set[Prefix]) -> list[str]:
            return sorted(str(each) for each in found if not any(prefix.covers(each) for prefix in undecided))

        misled = {prefix for line in self.lines for prefix in self.misled(line, line.live())}
        found = {
            "missing": clear(wanted - bound),
            "too many": clear(bound - wanted),
            "leaving by another router": clear(misled),
        }
        return "; ".join(f"{what} {', '.join(prefixes)}" for what, prefixes in found.items() if prefixes)

    def misled(self, line: Line, prefixes: Iterable[Prefix]) -> set[Prefix]:
        """Return the prefixes whose packets leave by another router than that of `line`.

        Those of the uplink that is preferred need no route of their own.
        """
        shown = self.host.ip_json("-6 route show table main proto 150")
        ways = {route["from"]: (route["dev"], route["gateway"]) for route in shown if "from" in route}
        right = line.uplink.interface, line.router
        unrouted = right if line is self.lines[0] else None
        return {prefix for prefix in prefixes if ways.get(str(prefix), unrouted) != right}

    def wait_for_subnets(self, delegated: Prefix) -> None:
        """Wait until all of a prefix that was not wanted so far is bound; the container has its part, too."""
        [line] = [line for line in self.lines if line.covers(delegated)]
        wait_until(lambda: self.subnets(delegated) <= self.bound(), WHOLE_WITHIN)
        wait_until(lambda: not self.misled(line, [delegated]), WHOLE_WITHIN)
        self.behind.route(delegated)
        line.regard_as_on_link(delegated)

    def wait_until_whole(self) -> None:
        """Wait until the table is right, and then every subnet has answered once."""
        deadline = time.monotonic() + WHOLE_WITHIN
        while difference := self.difference():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not whole within {WHOLE_WITHIN:.0f} s: {difference}")
            time.sleep(0.02)
        since = time.monotonic()
        wait_until(lambda: self.prober.all_heard(list(self.targets()), since), WHOLE_WITHIN)

    @contextlib.contextmanager
    def trouble(self, loses: Covers | None = None, unbinds: Covers | None = None) -> Iterator[Trouble]:
        """Have a fault happen in the block; behind it wait until all is whole again.

        Until then probes may be lost that `loses` or `unbinds` names, and no others; only what `unbinds`
        names may be unbound before its end.
        """
        windows = [self.windows.open(covers) for covers in (loses, unbinds) if covers]
        unbinding = self.witness.unbinding.open(unbinds) if unbinds else None
        self.prober.wait_for_round()
        trouble = Trouble(time.monotonic())
        yield trouble
        self.wait_until_whole()
        self.recovery = time.monotonic() - trouble.since
        for window in windows:
            window.close()
        if unbinding:
            self.witness.wait_for_look()
            unbinding.close()

    def a_while(self, longest: float = 1.0) -> None:
        """Leave a fault alone, for a random time."""
        time.sleep(self.random.uniform(0, longest))

    def pick_line(self) -> Line:
        return self.random.choice(self.lines)

    def pick(self, numbers: tuple[int, ...] = (*PINNED, *AUTOMATIC)) -> Prefix:
        """Choose one of the subnets with these IDs in a prefix that will stay for now."""
        prefix = self.pick_line().current
        assert prefix
        return subnet(prefix, self.random.choice(numbers))

    def daemons_pid(self) -> int | None:
        """Return the pid of the daemon while it runs."""
        process = self.daemon.process
        return process.pid if process and process.returncode is None else None

    def lift_off(self) -> None:
        """Start the daemon again, its earlier log kept."""
        with self.history.open("a") as history:
            history.write(self.daemon.log.read_text())
        self.restarts += 1
        # What an earlier one said of its reloads is not this one's word.
        with contextlib.suppress(BlockingIOError):
            while True:
                self.daemon.notify.recv(4096, socket.MSG_DONTWAIT)
        self.daemon.launch()
        self.daemon.wait_for_ready(WHOLE_WITHIN)

    def remount(self, mode: str) -> None:
        """Make the runtime directory's file system read-only (`ro`), or writable again (`rw`)."""
        command = ("mount", "-o", f"remount,{mode}", self.daemon.runtime)
        # Somebody may be writing a file there.
        wait_until(lambda: self.host.run(*command, check=False).returncode == 0, WHOLE_WITHIN)

    def wait_for_line(self, text: str, since: int) -> None:
        """Wait for a line in the daemon's log behind the first `since`."""
        self.daemon.wait_for(text, WHOLE_WITHIN, since)


@contextlib.contextmanager
def build(folder: Path, seed: int) -> Iterator[Stage]:
    """Build the stage, its choices made by `seed`, and leave nothing of it behind."""
    with contextlib.ExitStack() as stack:
        enter: Callable[[Namespace], Namespace] = stack.enter_context
        host = enter(Namespace("host"))
        runtime = folder / "run"
        runtime.mkdir()
        host.run("mount", "-t", "tmpfs", "-o", "size=512k", "runtime", runtime)
        stack.callback(host.run, "umount", "--lazy", runtime)
        neighbour = stack.enter_context(Daemon(host, folder, module="anyipd.neighbour"))
        daemon = stack.enter_context(Daemon(host, folder, POLICY))
        # A link of no uplink, for addresses and routes of others.
        host.pair("lan", "lan-peer")
        lay_bait(host, "lan")
        witness = Witness(host, Windows())
        lines = []
        for number in CLIENTS:
            place = folder / f"isp{number}"
            place.mkdir()
            uplink = Uplink(
                enter(Namespace(f"isp{number}")),
                host,
                interface=f"uplink{number}",
                address=f"2001:db8:ffff::{number}",
                metric=1024 * number,
            )
            client = CLIENTS[number](host, uplink.interface, place, daemon.runtime)
            # Its record of all calls is not read here, and grows.
            client.recorder.unlink()
            pool = Prefix.parse(f"2001:db8:{number}000::/36")
            refuse_foreign_sources(uplink, pool)
            lines.append(Line(uplink, Kea(uplink.isp, uplink.customer, place), client, pool, witness))
        behind = Behind(host, enter(Namespace("behind")), [line.pool for line in lines])
        yield Stage(behind, lines, daemon, neighbour, witness=witness, seed=seed)
