"""`make demo`: a prefix is delegated, bound, renumbered and answering, with every program real.

Each step of the story is measured; the exit code is 0 if all of it came true.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from random import randrange
from signal import SIGKILL
from tempfile import TemporaryDirectory
from textwrap import indent
from typing import NamedTuple

from anyipd.model import Prefix, address_text
from tests.lab.daemon import Daemon
from tests.lab.delegated import OURS, bound
from tests.lab.dhclient import Dhclient
from tests.lab.kea import Kea, Offer
from tests.lab.monitor import RouteMonitor
from tests.lab.namespace import LabError, Namespace, enter, wait_until
from tests.lab.network import Uplink
from tests.lab.pings import Pings
from tests.lab.story import Step, StepError, Story

OLD, NEW = Prefix.parse("2001:db8:1::/60"), Prefix.parse("2001:db8:2::/60")
PREFERRED, VALID = 5, 10  # seconds: an ISP's are hours and days
POLICY = """\
subnets:
  - name: web
    id: 0
  - name: proxy
    count: 3
"""
SUBNETS = 4
"""What POLICY binds, from subnet ID 0 on."""

MANY = 1000
SILENCE, TOLERANCE, DEAD = 0.3, 1.5, 1  # seconds
PAGE = "Every address of this /64 is mine.\n"
LOG_LINES = 8

PROLOGUE = """\
anyipd in a network of its own, with a real kernel, Kea and dhclient:

  ISP     Kea, which delegates prefixes; it is from here that we ping and browse
  host    dhclient, with anyipd's hook, and a web server on [::]
  kernel  answers for every address of a /64 that is bound in it (AnyIP)
  anyipd  keeps what is bound in step with what is delegated, by this policy:
"""

CLOCK = 'echo "$(date +%s.%N) ${{new_ip6_prefix-}} ${{new_life_starts-}}" >>{file}\n'
"""An exit hook that runs right before ours, and writes down when."""


def subnets(delegated: Prefix) -> list[Prefix]:
    """Give the /64s of `delegated` that POLICY binds."""
    return [Prefix(delegated.address + (number << 64), 64) for number in range(SUBNETS)]


class Told(NamedTuple):
    """A call of the hook, and the start of the lifetimes that it told of, as a text."""

    when: float
    life_starts: str


class Demo:
    """The stage, and the steps that are taken on it.

    The first that does not come true raises StepError.
    """

    def __init__(self, story: Story, isp: Namespace, host: Namespace, folder: Path) -> None:
        self.story, self.isp, self.host, self.folder = story, isp, host, folder
        self.uplink = Uplink(isp, host)
        self.uplink.route(OLD, NEW)
        self.kea = Kea(isp, self.uplink.customer, folder)
        self.daemon = Daemon(host, folder, POLICY)
        self.dhclient = Dhclient(host, self.uplink.interface, folder, self.daemon.runtime)
        self.clock, self.web_log = folder / "clock", folder / "web.log"
        self.clock.touch()
        (folder / "dhclient-exit-hooks.d" / "00clock").write_text(CLOCK.format(file=self.clock))

    def play(self) -> None:
        """Take all steps."""
        self.start()
        with Pings(self.uplink, subnets(OLD), 0.001) as pings:
            self.delegate(pings)
        self.show_status(SUBNETS)
        self.use()
        with Pings(self.uplink, subnets(OLD), 0.01) as old:
            with Pings(self.uplink, subnets(NEW), 0.001) as new:
                self.renumber(new)
            self.overlap()
            self.expire(old)
        self.crash()

    def start(self) -> None:
        with self.story.step("anyipd", "starts; nothing is delegated, nothing bound") as step:
            begun = time.monotonic()
            self.daemon.start()
            step.figure = seconds(time.monotonic() - begun)
            step.expect("no routes", not bound(self.host), str(bound(self.host)))

    def delegate(self, pings: Pings) -> None:
        with self.story.step("ISP", f"delegates {OLD} to the host's dhclient") as step:
            begun = time.monotonic()
            self.kea.start(Offer(OLD, PREFERRED, VALID), renew=2, rebind=PREFERRED)
            self.dhclient.start()
            self.wait_for_hook(step, OLD)
            step.figure = seconds(time.monotonic() - begun)
        self.bind(OLD, pings)

    def wait_for_hook(self, step: Step, delegated: Prefix, times: int = 1) -> None:
        step.wait_for(
            f"{times} calls of dhclient's hook for {delegated}",
            lambda: len(self.told(delegated)) >= times,
            lambda: f"{len(self.told(delegated))} hook calls",
            timeout=10,
        )

    def bind(self, delegated: Prefix, pings: Pings) -> None:
        """See `pings` to the policy's subnets of `delegated` answered, counted from the hook's start."""
        with self.story.step("anyipd", f"binds {SUBNETS} /64s: delegation to first answers") as step:
            step.wait_for(
                f"an answer from each of {SUBNETS} /64s of {delegated}",
                lambda: len(pings.first_answers()) == SUBNETS,
                lambda: f"{len(pings.first_answers())} of {SUBNETS} answer",
            )
            began = self.told(delegated)[0].when
            step.figure = milliseconds(max(pings.first_answers().values()) - began)

    def show_status(self, expected: int) -> None:
        """See `expected` subnets bound, and show what an administrator would look at."""
        with self.story.step("kernel", "holds local routes with anyipd's protocol number") as step:
            subnets, routes = len(bound(self.host)), len(self.host.ip_json(OURS))
            step.figure = f"{subnets} /64s, {routes} routes"
            step.expect(f"routes over {expected} /64s", subnets == expected, step.figure)
            status = self.daemon.control("status").stdout
        self.story.show(f"$ anyipctl status\n{status}")

    def use(self) -> None:
        self.ping(OLD, f"answers on {MANY} random addresses of each /64")
        with self.story.step("kernel", "refuses addresses beyond the policy's") as step:
            beyond = Prefix(subnets(OLD)[-1].end, 64)
            answers = self.uplink.answers(beyond, MANY, timeout=0.2)
            step.figure = f"{answers} of {MANY}"
            step.expect(f"no answer from {beyond}", answers == 0, step.figure)
        address = address_text(randrange(OLD.address, subnets(OLD)[0].end))
        with self.story.step("host", f"serves http://[{address}]/") as step:
            self.serve()
            begun = time.monotonic()
            page = self.fetch(address)
            step.expect(repr(PAGE), page == PAGE, repr(page))
            step.figure = milliseconds(time.monotonic() - begun)

    def ping(self, delegated: Prefix, what: str) -> None:
        """See addresses all over the policy's subnets of `delegated` answer."""
        with self.story.step("kernel", what) as step:
            answers = sum(self.uplink.answers(subnet, MANY) for subnet in subnets(delegated))
            step.figure = f"{answers} of {SUBNETS * MANY}"
            step.expect("an answer from every one", answers == SUBNETS * MANY, step.figure)

    def serve(self) -> None:
        """Start a web server on the host that knows nothing of AnyIP."""
        site = self.folder / "web"
        site.mkdir()
        (site / "index.html").write_text(PAGE)
        server = [sys.executable, "-u", "-m", "http.server", "--bind", "::", "80"]
        with self.web_log.open("w") as log:
            self.host.popen(*server, cwd=site, stdout=log, stderr=log)
        wait_until(lambda: "Serving" in self.web_log.read_text())

    def fetch(self, address: str) -> str:
        """Fetch the page as somebody at the ISP."""
        connection = HTTPConnection(address, 80, timeout=2)
        with self.isp.entered(), closing(connection):
            connection.request("GET", "/")
            return connection.getresponse().read().decode()

    def renumber(self, pings: Pings) -> None:
        self.story.say()
        with self.story.step("ISP", f"delegates {NEW}, renews the old no more") as step:
            # Right after a Renew: one that meets Kea as it reloads is lost, and not soon repeated.
            self.wait_for_hook(step, OLD, len(self.told(OLD)) + 1)
            begun = time.monotonic()
            self.kea.offer(Offer(NEW))
            self.wait_for_hook(step, NEW)
            step.figure = seconds(time.monotonic() - begun)
        self.bind(NEW, pings)

    def overlap(self) -> None:
        self.ping(NEW, "answers in the new prefix")
        self.ping(OLD, "still answers in the old one")
        with self.story.step("anyipd", "deprecates the old one: it is superseded") as step:
            step.wait_for(
                "a line about it in anyipd's log",
                lambda: f"superseded prefix={OLD}" in self.daemon.log.read_text(),
                lambda: f"{max(self.left(), 0):.0f} s to live",
                timeout=VALID,
            )
            step.figure = f"{self.left():.1f} s to live"
        self.show_status(2 * SUBNETS)

    def told(self, delegated: Prefix) -> list[Told]:
        """Give the calls of the hook for `delegated`, oldest first."""
        calls = [line.split() for line in self.clock.read_text().splitlines()]
        return [Told(float(call[0]), call[2]) for call in calls if call[1:2] == [str(delegated)]]

    def left(self) -> float:
        """Give the seconds left of OLD's valid lifetime."""
        told = self.told(OLD)
        # Told again of the same lease, dhclient has not renewed it.
        renewed = next(call.when for call in told if call.life_starts == told[-1].life_starts)
        return renewed + VALID - time.time()

    def expire(self, pings: Pings) -> None:
        with self.story.step("anyipd", "unbinds it when its valid lifetime ends") as step:
            step.wait_for(
                "silence",
                lambda: all(time.time() - last > SILENCE for last in pings.last_answers().values()),
                lambda: f"{max(self.left(), 0):.0f} s to live",
                timeout=VALID + TOLERANCE,
            )
            late = max(pings.last_answers().values()) - (time.time() + self.left())
            step.figure = f"{abs(late):.2f} s {'late' if late > 0 else 'early'}"
            step.expect(f"the last answer within {TOLERANCE} s of that", abs(late) < TOLERANCE, step.figure)
            # The kernel lets them expire, too, but lists them for a while longer.
            left = bound(self.host)
            step.expect("routes over the new prefix's /64s alone", len(left) == SUBNETS, ", ".join(left))
        with self.story.step("kernel", "answered in the old one up to then, every 10 ms") as step:
            lost, sent = pings.lost_before_the_last_answer()
            step.figure = f"{lost} of {sent} lost"
            step.expect("no loss", lost == 0, step.figure)

    def crash(self) -> None:
        self.story.say()
        monitor = RouteMonitor(self.host, self.folder)
        with Pings(self.uplink, subnets(NEW), 0.01) as pings:
            with self.story.step("host", "kills anyipd with SIGKILL, and leaves it dead") as step:
                time.sleep(0.3)
                self.daemon.kill()
                code = self.daemon.running.returncode
                step.expect("death by SIGKILL", code == -SIGKILL, f"exit code {code}")
                time.sleep(DEAD)
                step.figure = seconds(DEAD)
            with self.story.step("anyipd", "starts again") as step:
                begun = time.monotonic()
                self.daemon.start()
                step.figure = seconds(time.monotonic() - begun)
                time.sleep(0.3)
        with self.story.step("kernel", "answered all the time, every 10 ms in each /64") as step:
            lost, sent = pings.lost()
            step.figure = f"{lost} of {sent} lost"
            step.expect("no loss", lost == 0, step.figure)
        with self.story.step("kernel", "saw no route change, as `ip monitor` tells") as step:
            changes = monitor.changes()
            step.figure = f"{len(changes)} changes"
            step.expect("no change", not changes, "; ".join(changes))


def seconds(duration: float) -> str:
    return f"{duration:.2f} s"


def milliseconds(duration: float) -> str:
    return f"{duration * 1000:.0f} ms"


@contextmanager
def stage(story: Story) -> Iterator[Demo]:
    """Build the stage, and leave nothing of it behind."""
    # In the lab's own /run: it goes with the last process, however that ends.
    with TemporaryDirectory(dir="/run") as folder, Namespace("isp") as isp, Namespace("host") as host:
        demo = Demo(story, isp, host, Path(folder))
        with demo.daemon:
            yield demo


def perform() -> bool:
    """Play, and where something fails say what, with what the programs said; give whether all was seen."""
    story = Story()
    story.say(PROLOGUE.rstrip())
    story.show(indent(POLICY, 8 * " "))
    begun = time.monotonic()
    with stage(story) as demo:
        try:
            demo.play()
        except StepError as error:
            story.say()
            story.say(f"Failed:   {error.step}")
            story.say(f"Expected: {error.expected}")
            story.say(f"Seen:     {error.seen}")
            story.say()
            for log in (demo.daemon.log, demo.dhclient.log, demo.kea.log):
                if log.exists():
                    story.say(f"The end of {log.name}:")
                    story.show("\n".join(log.read_text().splitlines()[-LOG_LINES:]))
            return False
    story.say()
    story.say(
        f"All of it seen, in {time.monotonic() - begun:.0f} s. To have it on this machine: see README.md"
    )
    return True


def main() -> int:
    """Give the exit code: 0, 1 where something failed, 130 where somebody interrupted."""
    try:
        enter()
        return 0 if perform() else 1
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 130


if __name__ == "__main__":
    sys.exit(main())
