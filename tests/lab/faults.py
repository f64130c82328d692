"""The faults of the chaos run: what each does, what it may cost, and how it is seen to be over.

A fault names in `trouble` the subnets whose probes may be lost while it lasts; most may lose none.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from anyipd.model import Prefix
from tests.lab.kea import Offer
from tests.lab.namespace import stop, wait_until
from tests.lab.stage import (
    BEYOND_END,
    OPTIONAL,
    OPTIONAL_LINE,
    POLICY,
    PREFERRED,
    RESERVED,
    SHORT_OF_END,
    VALID,
    WHOLE_WITHIN,
    Ending,
    Line,
    Stage,
)
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


def a_while(stage: Stage, longest: float = 1.0) -> None:
    """Leave a fault alone, for a random time."""
    time.sleep(stage.random.uniform(0, longest))


def everything(_: Prefix) -> bool:
    return True


def only(place: Prefix) -> Covers:
    return lambda prefix: prefix == place


def kill(stage: Stage) -> None:
    with stage.trouble() as trouble:
        stage.daemon.kill()
        a_while(stage)
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

    with stage.trouble(optional) as trouble:
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
    with stage.trouble(only(place)):
        stage.host.ip(f"-6 route delete local {place} dev lo table local proto 150")


def flush(stage: Stage) -> None:
    with stage.trouble(everything):
        stage.host.ip("-6 route flush table local proto 150")


def foreign_route(stage: Stage) -> None:
    place = stage.pick()
    kind = stage.random.choice(["unreachable", "blackhole", "local"])
    route = f"{kind} {place} dev lo table local proto static metric 1024"
    with stage.trouble(only(place)) as trouble:
        stage.absent = frozenset({place})
        stage.host.ip(f"-6 route replace {route}")
        a_while(stage)
        stage.wait_until_whole()
        stage.absent = frozenset()
        trouble.lifted()
        stage.host.ip(f"-6 route delete {route}")


def address_on_a_link(stage: Stage) -> None:
    place = stage.pick((0, 4, 5))
    address = f"{Prefix(place.address + 1, 128)}".replace("/128", "/64")
    with stage.trouble(only(place)) as trouble:
        stage.absent = frozenset({place})
        stage.host.ip(f"addr add {address} dev lan nodad")
        stage.wait_until_whole()
        a_while(stage)
        stage.absent = frozenset()
        trouble.lifted()
        stage.host.ip(f"addr delete {address} dev lan")


def batch(stage: Stage, lines: Iterable[str]) -> None:
    file = stage.folder / "batch"
    file.write_text("".join(f"{line}\n" for line in lines))
    stage.host.run("ip", "-6", "-batch", file)


def flood(stage: Stage) -> None:
    with stage.trouble() as trouble:
        for verb in ("add", "delete"):
            batch(stage, (f"route {verb} 2001:db9:{n:x}::/64 dev lan proto static" for n in range(FLOOD)))
        trouble.lifted()


def overrun(stage: Stage) -> None:
    """What it could not hear while it stood still it must see by looking: a route of ours that went last."""
    crowded, place = stage.pick((RESERVED,)), stage.pick()
    network = str(crowded).removesuffix("::/64")
    with stage.trouble(only(place)) as trouble:
        stage.daemon.running.send_signal(signal.SIGSTOP)
        for verb in ("add", "delete"):
            batch(stage, (f"route {verb} {network}::{n:x} dev lo proto static" for n in range(OVERRUN)))
        stage.host.ip(f"-6 route delete local {place} dev lo table local proto 150")
        trouble.lifted()
        stage.daemon.running.send_signal(signal.SIGCONT)


def strays(stage: Stage) -> None:
    with stage.trouble():
        batch(
            stage,
            (
                f"route add {route} dev lo proto 150"
                for route in (
                    "local 2001:db8:eeee:1::/64 table local metric 1024",
                    "local 2001:db8:eeee:2::/64 table local metric 77",
                    "unreachable 2001:db8:eeee:3::/64 table local metric 1024",
                    "unreachable 2001:db8:eeee:4::/64 metric 2048",
                    "blackhole 2001:db8:eeee:5::/64 metric 1024",
                )
            ),
        )
        wait_until(lambda: not stage.host.ip("-6 route show table all root 2001:db8:eeee::/48"), WHOLE_WITHIN)


def lo_down(stage: Stage) -> None:
    # Without events for what goes with it, or with them.
    stage.host.sysctl("net.ipv6.route.skip_notify_on_dev_down", stage.random.randrange(2))
    with stage.trouble(everything) as trouble:
        stage.host.ip("link set lo down")
        a_while(stage, 0.5)
        trouble.lifted()
        stage.host.ip("link set lo up")


def uplink_down(stage: Stage) -> None:
    line = stage.pick_line()
    with stage.trouble(line.covers) as trouble:
        stage.host.ip(f"link set {line.uplink.interface} down")
        a_while(stage, 0.5)
        trouble.lifted()
        stage.host.ip(f"link set {line.uplink.interface} up")
        line.connect()


def uplink_renamed(stage: Stage) -> None:
    line = stage.pick_line()
    name = line.uplink.interface
    with stage.trouble(line.covers) as trouble:
        stage.host.ip(f"link set {name} down")
        stage.host.ip(f"link set {name} name elsewhere")
        a_while(stage, 0.5)
        stage.host.ip(f"link set elsewhere name {name}")
        trouble.lifted()
        stage.host.ip(f"link set {name} up")
        line.connect()


def uplink_removed(stage: Stage) -> None:
    """Take the host's end away, as a card is pulled, and put it back without its addresses and routes."""
    line = stage.pick_line()
    name, isp, host = line.uplink.interface, line.uplink.isp, stage.host
    with stage.trouble(line.covers) as trouble:
        host.ip(f"link set {name} netns {isp.name}")
        a_while(stage)
        isp.ip(f"link set {name} netns {host.name}")
        trouble.lifted()
        host.ip(f"link set {name} up")
        line.connect()


def client_killed(stage: Stage) -> None:
    """With its lease file, or without: dhclient never drops a line of it, and asks for all that it ever had.

    With some fifty prefixes, that is after an hour here, Kea's hook answers without an IAID.
    """
    line = stage.pick_line()
    with stage.trouble() as trouble:
        line.dhclient.kill()
        if stage.random.randrange(2):
            line.dhclient.forget()
        a_while(stage)
        trouble.lifted()
        line.dhclient.start()


def released(stage: Stage) -> None:
    line = stage.pick_line()
    with stage.trouble(line.covers) as trouble:
        prefix, line.current = line.current, None
        # What it still knows of it gives back, too; what it forgot stays until its time is over.
        line.endings = {each: Ending(0, ending.must) for each, ending in line.endings.items()}
        line.dhclient.release()
        stage.wait_until_whole()
        line.current = prefix
        trouble.lifted()
        line.dhclient.start()


def renumber(stage: Stage, line: Line, *withdrawn: Offer) -> float:
    """Have Kea delegate another prefix from now on; wait until it is bound, and is wanted then."""
    new = line.fresh()
    since = time.monotonic()
    line.offer(*withdrawn, Offer(new, PREFERRED, VALID))
    stage.wait_for_subnets(new)
    line.current = new
    return since


def renumbered(stage: Stage) -> None:
    line = stage.pick_line()
    line.wait_for_renewal()
    renewed = time.monotonic()
    old = line.current
    assert old
    with stage.trouble():
        line.endings = {**line.endings, old: Ending(renewed + VALID - SHORT_OF_END, renewed + 10 * VALID)}
        renumber(stage, line)
        may = line.endings[old].may
        line.endings = {**line.endings, old: Ending(may, time.monotonic() + VALID + BEYOND_END)}


def withdrawn(stage: Stage) -> None:
    line = stage.pick_line()
    line.wait_for_renewal()
    old = line.current
    assert old
    with stage.trouble(old.covers):
        renumber(stage, line, Offer(old, 0, 0))


def renewed(stage: Stage) -> None:
    line = stage.pick_line()
    with stage.trouble() as trouble:
        line.wait_for_renewal()
        trouble.lifted()


def server_stopped(stage: Stage) -> None:
    line = stage.pick_line()
    assert line.current
    line.wait_for_renewal()
    with stage.trouble() as trouble:
        stop(line.kea.process, signal.SIGKILL)
        a_while(stage, 4)
        trouble.lifted()
        line.start_kea(line.current)


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
        a_while(stage, 4)
        trouble.lifted()
        leases.unlink()
        aside.rename(leases)


def runtime_full(stage: Stage) -> None:
    ballast = stage.daemon.runtime / "ballast"
    with stage.trouble() as trouble:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        a_while(stage, 4)
        trouble.lifted()
        ballast.unlink()


def runtime_read_only(stage: Stage) -> None:
    with stage.trouble() as trouble:
        stage.remount("ro")
        a_while(stage, 4)
        trouble.lifted()
        stage.remount("rw")


FAULTS = (
    Fault("SIGKILL and restart", "none", kill),
    Fault("SIGTERM and restart", "none", terminate),
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
    Fault("an uplink down and up", "that uplink", uplink_down),
    Fault("an uplink renamed and back", "that uplink", uplink_renamed),
    Fault("an uplink removed and returned", "that uplink", uplink_removed),
    Fault("dhclient killed", "none", client_killed),
    Fault("released, started again", "that uplink", released),
    Fault("renumbered with overlap", "none", renumbered),
    Fault("renumbered by lifetimes 0", "the old prefix", withdrawn),
    Fault("lifetimes renewed", "none", renewed),
    Fault("Kea stopped", "none", server_stopped),
    Fault("bad lease files", "none", bad_lease_files),
    Fault("lease files unreadable", "none", leases_unreadable),
    Fault("runtime directory full", "none", runtime_full),
    Fault("runtime directory read-only", "none", runtime_read_only),
)
