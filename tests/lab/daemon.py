"""anyipd itself, run from the checkout."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Self

from anyipd.model import Prefix
from tests.lab import debian
from tests.lab.forked import Forked, anyipctl
from tests.lab.namespace import Namespace, Process, stop, wait_until

CHECKOUT = Path(__file__).resolve().parents[2]


def singly(run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give what is said of a run of subnets as if it were said of each."""
    base, dash, number = run["name"].rpartition("-")
    first = Prefix.parse(run["prefix"]) if run["prefix"] else None
    for i in range(run["count"]):
        prefix = str(first._replace(address=first.address + i * first.size)) if first else None
        name = f"{base}{dash}{int(number) + i}" if i else run["name"]
        yield run | {"name": name, "prefix": prefix, "count": 1}


class Daemon:
    """`python -m MODULE` in `namespace`, with configuration, runtime directory and log in `folder`.

    `policy` is the text of its configuration. It has a notify socket, as from systemd. A `with`
    block ends it. `within` is a program that it is started by, such as `unshare`; without one it may
    be `forked` from a process that has imported it, which saves a fifth of a second.
    """

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        policy: str = "",
        module: str = "anyipd",
        *,
        forked: bool = False,
    ) -> None:
        self.namespace, self.module, self.forked = namespace, module, forked
        self.within: list[str] = []
        self.configuration, self.runtime = folder / "anyipd.yaml", folder / "run"
        self.log = folder / f"{module}.log"
        self.files = ["--config", str(self.configuration), "--runtime-dir", str(self.runtime)]
        self.runtime.mkdir(exist_ok=True)
        self.configure(policy)
        # A short path: sockets' names end at 108 bytes, and pytest's folders have long ones.
        self.address = f"{mkdtemp(dir='/run')}/notify"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(self.address)
        self.notified: list[str] = []
        self.process: Process | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process:
            self.kill()
        self.notify.close()

    def configure(self, policy: str) -> None:
        """Write `policy` into its configuration; a running one reads it on `reload`."""
        self.configuration.write_text(policy)

    def start(self, *options: str) -> None:
        """Start it, its log in place of an earlier one's, and wait until it says READY=1.

        Raises RuntimeError, with its log, when it ends instead.
        """
        self.launch(*options)
        self.wait_for_ready()

    def launch(self, *options: str) -> Process:
        """Start it and wait for nothing."""
        with self.log.open("w") as log:
            if self.forked and not self.within:
                self.process = self.fork(*options)
            else:
                command = self.command(*options)
                self.process = self.namespace.popen(*command, stderr=log, env=self.environment())
        return self.process

    def fork(self, *options: str) -> Forked:
        """Start it from a process that has imported it."""
        words = [self.module, *self.files, *options]
        forked = Forked(
            f"{self.module}.__main__", words, self.namespace.name, {2: self.log}, self.environment()
        )
        self.namespace.processes.append(forked)
        return forked

    def command(self, *options: str) -> list[str]:
        """Give the command line."""
        return [*self.within, sys.executable, "-m", self.module, *self.files, *options]

    def environment(self) -> dict[str, str]:
        """Give the environment that goes with it."""
        return {**debian.environment(), "NOTIFY_SOCKET": self.address, "PYTHONPATH": str(CHECKOUT)}

    def reload(self) -> None:
        """Have it read its configuration again, and wait until it says READY=1 once more."""
        self.take_notifications()
        self.running.send_signal(signal.SIGHUP)
        self.wait_for_ready()

    def terminate(self) -> int:
        """End it by SIGTERM; give its exit code."""
        return stop(self.running, signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does."""
        stop(self.running, signal.SIGKILL)

    @property
    def running(self) -> Process:
        """The process, which was started."""
        assert self.process
        return self.process

    def wait_for_ready(self, timeout: float = 20.0) -> None:
        """Read notifications up to the next READY=1."""

        def ready() -> bool:
            if self.running.poll() is not None:
                raise RuntimeError(
                    f"{self.module} ended with {self.running.returncode}:\n{self.log.read_text()}"
                )
            return "READY=1" in self.take_notifications()

        wait_until(ready, timeout)

    def take_notifications(self) -> list[str]:
        """Read what it notified since it was read last: what is more than ten messages is lost."""
        taken: list[str] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                taken += self.notify.recv(4096, socket.MSG_DONTWAIT).decode().splitlines()
        self.notified += taken
        return taken

    def lines(self) -> list[str]:
        """Give its log so far."""
        return self.log.read_text().splitlines()

    def wait_for(self, text: str, timeout: float = 20.0, since: int = 0) -> str:
        """Wait for a log line that holds `text`, after the first `since` lines, and give it."""
        return wait_until(
            lambda: next((line for line in self.lines()[since:] if text in line), None), timeout
        )

    def control(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `anyipctl` with these words beside it, on the same files."""
        done = anyipctl(self.namespace.name, [*words, *self.files])
        with self.log.with_name("anyipctl.log").open("a") as log:
            print(time.strftime("%T"), *words, done.returncode, done.stderr, file=log)
        if check:
            done.check_returncode()
        return done

    def status(self) -> dict[str, Any]:
        """Give what `anyipctl status --json` says, of each subnet by itself."""
        seen: dict[str, Any] = json.loads(self.control("status", "--json").stdout)
        return seen | {"subnets": [each for run in seen["subnets"] for each in singly(run)]}


def awakenings(pid: int) -> int:
    """How often a process went to sleep so far."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0])
