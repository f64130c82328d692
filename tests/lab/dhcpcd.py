"""A real dhcpcd, with Debian's own dhcpcd-run-hooks and our hook."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from tests.lab import debian
from tests.lab.mounts import with_mounts
from tests.lab.namespace import Namespace, stop, wait_until

HOOK = Path(__file__).resolve().parents[2] / "dhcpcd-hooks" / "anyipd"
HOOKS = "usr/lib/dhcpcd/dhcpcd-hooks"
"""Where Debian's dhcpcd-run-hooks looks for hooks, and is itself beside."""

RUN = Path("/run/dhcpcd")
"""Where it keeps its socket and process ID; the lab's /run is nobody else's."""

CONFIGURATION = """\
duid ll
ipv6only
noipv6rs
persistent
interface {interface}
  ia_pd 1 -
"""
"""`persistent` as Debian has it; `-`: the prefix goes to no interface."""

RECORD = """\
{{ env; echo; }} >> {calls}
"""


class Dhcpcd:
    """`dhcpcd` on `interface` of `namespace`, with its files in `folder`.

    `hook` is ours, and tells `runtime` what is delegated; None is none. Behind it another hook records
    every call: see `calls`. `command` starts it, and its other files are below one of `roots`.
    """

    def __init__(
        self,
        namespace: Namespace,
        interface: str,
        folder: Path,
        runtime: Path,
        hook: Path | None = HOOK,
        *,
        command: Sequence[str] = ("dhcpcd",),
        roots: Sequence[Path] = (debian.CACHE / "root", Path("/")),
    ) -> None:
        self.namespace, self.interface, self.runtime, self.command = namespace, interface, runtime, command
        self.log, self.record = folder / "dhcpcd.log", folder / "dhcpcd-calls"
        self.configuration, self.script = folder / "dhcpcd.conf", folder / "dhcpcd-run-hooks"
        self.run, self.state, hooks = folder / "dhcpcd-run", folder / "lib", folder / "dhcpcd-hooks"
        for made in (self.run, hooks, self.state / "dhcpcd"):
            made.mkdir(parents=True)
        if hook:
            (hooks / "10-anyipd").symlink_to(hook)
        self.recorder = hooks / "99-record"
        self.recorder.write_text(RECORD.format(calls=self.record))
        found = next(
            script for root in roots if (script := (root / HOOKS).with_name("dhcpcd-run-hooks")).exists()
        )
        # Debian's own, but for where it looks for hooks: the machine's are none of the lab's.
        text = found.read_text().replace(f"/{HOOKS}", str(hooks)).replace("/etc/dhcpcd", f"{folder}/dhcpcd")
        self.script.write_text(text)
        self.script.chmod(0o755)
        self.configuration.write_text(CONFIGURATION.format(interface=interface))
        self.record.touch()

    def start(self) -> None:
        """Start it in the background of the lab; it asks for a prefix, or for the one in its lease file."""
        files: list[str | Path] = ["--config", self.configuration, "--script", self.script]
        environment = ["--env", f"ANYIPD_RUNTIME_DIR={self.runtime}"]
        RUN.mkdir(exist_ok=True)
        with self.log.open("a") as log:
            self.process = self.namespace.popen(
                *with_mounts({str(RUN): self.run, "/var/lib": self.state}),
                *(*self.command, "--debug", "--nobackground"),
                *files,
                *environment,
                self.interface,
                stdout=log,
                stderr=log,
                env=debian.environment(),
            )

    def wait_until_bound(self) -> None:
        """Wait until it was given a prefix."""
        wait_until(lambda: any(call["reason"] == "BOUND6" for call in self.calls()), 20)

    def kill(self) -> None:
        """End it as a crash does: no hook is called, the route and the lease file stay."""
        stop(self.process, signal.SIGKILL)

    def release(self) -> None:
        """Give the prefix back, as `dhcpcd --release` does: RELEASE6, and a Release to the server."""
        stop(self.process, signal.SIGALRM)

    def stop(self) -> None:
        """End it in order, as `systemctl stop` does: `persistent`, it takes nothing back."""
        stop(self.process, signal.SIGTERM)

    def forget(self) -> None:
        """Lose the lease file, as a machine without a disk does in a reboot."""
        for lease in (self.state / "dhcpcd").glob("*.lease6"):
            lease.unlink()

    def calls(self) -> list[dict[str, str]]:
        """Give the environment of every call of the hook so far, oldest first."""
        *blocks, _ = self.record.read_text().split("\n\n")
        return [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks]
