"""The faults of the chaos run: what each does, what it may cost, and how it is seen to be over.

A fault names in `trouble` the subnets whose probes may be lost while it lasts, and those that may be
unbound; most may lose none. Here are those of the daemon, the kernel and the files; the others are in
faults_delegation.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from anyipd.model import Prefix
from tests.lab import faults_delegation as delegation
from tests.lab.behind import SHOP
from tests.lab.delegated import holder, take_away
from tests.lab.namespace import wait_until
from tests.lab.stage import OPTIONAL, OPTIONAL_LINE, POLICY, RESERVED, WHOLE_WITHIN, Stage
from tests.lab.windows import Covers

FLOOD, OVERRUN = 3000, 10_000
"""Foreign routes: those that the filter keeps away, and those that make events."""

SPARSE = 100 << 20  # octets


@dataclass(frozen=True)
class Fault:
    """`happen` makes it happen and returns when all is whole again; `loses` says which probes it may cost."""

    name: str
    loses: str
    happen: Callable[[Stage], None]


def everything(_: Prefix) -> bool:
    return True


def only(place: Prefix) -> Covers:
    return place.covers


def kill(stage: Stage) -> None:
    with stage.trouble() as trouble:
        stage.daemon.kill()
        stage.a_while()
        trouble.lifted()
        stage.lift_off()


def terminate(stage: Stage) -> None:
    with stage.trouble() as trouble:
        code = stage.daemon.terminate()
        if code:
            raise RuntimeError(f"anyipd ended with {code} on SIGTERM")
        trouble.lifted()
        stage.lift_off()


def second_daemon(stage: Stage) -> None:
    with stage.trouble():
        second = stage.host.run(*stage.daemon.command(), check=False, env=stage.daemon.environment())
        if not second.returncode:
            raise RuntimeError("a second anyipd was not refused")


def good_policy(stage: Stage) -> None:
    with stage.trouble():
        stage.daemon.configure(POLICY + f"# {stage.random.random()}\n")
        reload(stage, "reloaded")


def bad_policy(stage: Stage) -> None:
    bad = stage.random.choice(["subnets: [", "subnet: []", POLICY.replace("id: 4", "id: 0"), "\0", "[]"])
    with stage.trouble():
        stage.daemon.configure(bad)
        reload(stage, "the old configuration stays")
        stage.daemon.configure(POLICY)


def reload(stage: Stage, line: str) -> None:
    since = len(stage.daemon.lines())
    stage.daemon.running.send_signal(signal.SIGHUP)
    stage.wait_for_line(line, since)


def drop_a_subnet(stage: Stage) -> None:
    def optional(prefix: Prefix) -> bool:
        return prefix.address >> 64 & 0xF == OPTIONAL

    with stage.trouble(unbinds=optional) as trouble:
        stage.optional = False
        stage.daemon.configure(POLICY.replace(OPTIONAL_LINE, ""))
        reload(stage, "reloaded")
        stage.wait_until_whole()
        stage.optional = True
        stage.daemon.configure(POLICY)
        trouble.lifted()
        reload(stage, "reloaded")


def remove_a_route(stage: Stage) -> None:
    place = stage.pick()
    with stage.trouble(unbinds=Prefix.parse(holder(stage.host, place)).covers):
        take_away(stage.host, place)


def flush(stage: Stage) -> None:
    with stage.trouble(unbinds=everything):
        stage.host.ip("-6 route flush table local proto 150")


def foreign_route(stage: Stage) -> None:
    place = stage.pick()
    kind = stage.random.choice(["unreachable", "blackhole", "local"])
    route = f"{kind} {place} dev lo table local proto static metric 1024"
    with stage.trouble(unbinds=only(place)) as trouble:
        stage.absent = frozenset({place})
        stage.host.ip(f"-6 route replace {route}")
        stage.a_while()
        stage.wait_until_whole()
        stage.absent = frozenset()
        trouble.lifted()
        stage.host.ip(f"-6 route delete {route}")


def address_on_a_link(stage: Stage) -> None:
    place = stage.pick((0, 4, 5))
    address = f"{Prefix(place.address + 2, 128)}".replace("/128", "/64")
    with stage.trouble(unbinds=only(place)) as trouble:
        stage.absent = frozenset({place})
        stage.host.ip(f"addr add {address} dev lan nodad")
        stage.wait_until_whole()
        stage.a_while()
        stage.absent = frozenset()
        trouble.lifted()
        stage.host.ip(f"addr delete {address} dev lan")


def flood(stage: Stage) -> None:
    with stage.trouble() as trouble:
        for verb in ("add", "delete"):
            stage.host.ips(*(f"route {verb} 2001:db9:{n:x}::/64 dev lan proto static" for n in range(FLOOD)))
        trouble.lifted()


def overrun(stage: Stage) -> None:
    """What it could not hear while it stood still it must see by looking: a route of ours that went last."""
    crowded, place = stage.pick((RESERVED,)), stage.pick()
    network = str(crowded).removesuffix("::/64")
    with stage.trouble(unbinds=Prefix.parse(holder(stage.host, place)).covers) as trouble:
        stage.daemon.running.send_signal(signal.SIGSTOP)
        for verb in ("add", "delete"):
            routes = (f"route {verb} {network}::{n:x} dev lo proto static" for n in range(OVERRUN))
            stage.host.ips(*routes)
        take_away(stage.host, place)
        trouble.lifted()
        stage.daemon.running.send_signal(signal.SIGCONT)


def strays(stage: Stage) -> None:
    with stage.trouble():
        strange = (
            "local 2001:db8:eeee:1::/64 table local metric 1024",
            "local 2001:db8:eeee:2::/64 table local metric 77",
            "unreachable 2001:db8:eeee:3::/64 table local metric 1024",
            "unreachable 2001:db8:eeee:4::/64 metric 2048",
            "blackhole 2001:db8:eeee:5::/64 metric 1024",
        )
        stage.host.ips(*(f"route add {route} dev lo proto 150" for route in strange))
        wait_until(lambda: not stage.host.ip("-6 route show table all root 2001:db8:eeee::/48"), WHOLE_WITHIN)


def lo_down(stage: Stage) -> None:
    # Without events for what goes with it, or with them.
    stage.host.sysctl("net.ipv6.route.skip_notify_on_dev_down", stage.random.randrange(2))
    with stage.trouble(unbinds=everything) as trouble:
        stage.host.ip("link set lo down")
        stage.a_while(0.5)
        trouble.lifted()
        stage.host.ip("link set lo up")


def bad_lease_files(stage: Stage) -> None:
    leases = stage.daemon.runtime / "leases"
    with stage.trouble():
        files = [leases / f"2001:db8:eeee::_60@bad{n}" for n in range(5)]
        since = len(stage.daemon.lines())
        files[0].write_bytes(bytes(4096))
        os.mkfifo(files[1])
        files[2].mkdir()
        with files[3].open("w") as sparse:
            sparse.truncate(SPARSE)
        files[4].symlink_to(files[4])
        for file in files:
            stage.wait_for_line(str(file), since)
        remove(files)


def remove(files: Iterable[Path]) -> None:
    for file in files:
        if file.is_dir():
            file.rmdir()
        else:
            file.unlink()


def leases_unreadable(stage: Stage) -> None:
    """Put a file in the place of their directory: what was read counts, and the hook writes nothing."""
    leases = stage.daemon.runtime / "leases"
    with stage.trouble() as trouble:
        aside = leases.rename(leases.with_name("aside"))
        leases.touch()
        stage.a_while(4)
        trouble.lifted()
        leases.unlink()
        aside.rename(leases)


def runtime_full(stage: Stage) -> None:
    ballast = stage.daemon.runtime / "ballast"
    with stage.trouble() as trouble:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        stage.a_while(4)
        trouble.lifted()
        ballast.unlink()


def runtime_read_only(stage: Stage) -> None:
    with stage.trouble() as trouble:
        stage.remount("ro")
        stage.a_while(4)
        trouble.lifted()
        stage.remount("rw")


def responder_killed(stage: Stage) -> None:
    def shop(prefix: Prefix) -> bool:
        return prefix.address >> 64 & 0xF == SHOP

    with stage.trouble(shop) as trouble:
        stage.neighbour.kill()
        stage.a_while()
        trouble.lifted()
        stage.neighbour.start()


FAULTS = (
    Fault("SIGKILL and restart", "none", kill),
    Fault("SIGTERM and restart", "none", terminate),
    Fault("SIGKILL of anyipd-neighbour", "what is on-link", responder_killed),
    Fault("a second daemon", "none", second_daemon),
    Fault("SIGHUP, good policy", "none", good_policy),
    Fault("SIGHUP, bad policy", "none", bad_policy),
    Fault("a subnet dropped and brought back", "that subnet", drop_a_subnet),
    Fault("a route removed", "that subnet", remove_a_route),
    Fault("all routes flushed", "all", flush),
    Fault("a foreign route in our place", "that subnet", foreign_route),
    Fault("an address on a link", "that subnet", address_on_a_link),
    Fault("a flood of foreign routes", "none", flood),
    Fault("SIGSTOP and an overrun", "a removed subnet", overrun),
    Fault("strays of protocol 150", "none", strays),
    Fault("lo down and up", "all", lo_down),
    Fault("an uplink down and up", "that uplink", delegation.uplink_down),
    Fault("an uplink without carrier", "that uplink", delegation.carrier_lost),
    Fault("an uplink with another router", "none", delegation.router_replaced),
    Fault("an uplink renamed and back", "that uplink", delegation.uplink_renamed),
    Fault("an uplink removed and returned", "that uplink", delegation.uplink_removed),
    Fault("client killed", "none", delegation.client_killed),
    Fault("client killed, its lease lost", "none", delegation.client_killed_lease_lost),
    Fault("flash renumbering", "none", delegation.flash_renumbered),
    Fault("released, started again", "that uplink", delegation.released),
    Fault("renumbered with overlap", "none", delegation.renumbered),
    Fault("renumbered inside the old prefix", "none", delegation.shrunk),
    Fault("renumbered by lifetimes 0", "the old prefix", delegation.withdrawn),
    Fault("lifetimes renewed", "none", delegation.renewed),
    Fault("Kea stopped", "none", delegation.server_stopped),
    Fault("bad lease files", "none", bad_lease_files),
    Fault("lease files unreadable", "none", leases_unreadable),
    Fault("runtime directory full", "none", runtime_full),
    Fault("runtime directory read-only", "none", runtime_read_only),
)
