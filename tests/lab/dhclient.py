"""A real ISC dhclient, with Debian's own dhclient-script and our hook."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from tests.lab import debian
from tests.lab.namespace import Namespace, stop, wait_until

HOOK = Path(__file__).resolve().parents[2] / "dhclient-hooks" / "anyipd"

RECORD = """\
{{ env; echo; }} >> {calls}
"""


class Dhclient:
    """`dhclient -6 -P` on `interface` of `namespace`, with its files in `folder`.

    `hook` is ours, and tells `runtime` what is delegated. Behind it another exit hook records
    every call: see `calls`.
    """

    def __init__(
        self, namespace: Namespace, interface: str, folder: Path, runtime: Path, hook: Path = HOOK
    ) -> None:
        self.namespace, self.interface, self.runtime = namespace, interface, runtime
        self.leases, self.log, self.record = folder / "leases", folder / "dhclient.log", folder / "calls"
        self.pid_file, self.script, self.configuration = folder / "pid", folder / "script", folder / "conf"
        self.exit_hooks = folder / "dhclient-exit-hooks.d"
        self.exit_hooks.mkdir()
        (self.exit_hooks / "anyipd").symlink_to(hook)
        self.recorder = self.exit_hooks / "record"
        self.recorder.write_text(RECORD.format(calls=self.record))
        found = shutil.which("dhclient-script", path=debian.environment()["PATH"])
        assert found, "dhclient brings its script"
        # Debian's own, but for where it looks for hooks: the machine's are none of the lab's.
        self.script.write_text(Path(found).read_text().replace("/etc/dhcp/", f"{folder}/"))
        self.script.chmod(0o755)
        self.configuration.touch()
        self.record.touch()

    def command(self, *options: str) -> list[str | Path]:
        """Give the command line; `-D LL` makes the DUID from the interface, the same every time."""
        files: list[str | Path] = [
            "-lf",
            self.leases,
            "-pf",
            self.pid_file,
            "-cf",
            self.configuration,
            "-sf",
            self.script,
        ]
        environment = ["-e", f"ANYIPD_RUNTIME_DIR={self.runtime}"]
        return ["dhclient", "-6", "-P", "-v", "-D", "LL", *files, *environment, *options, self.interface]

    def start(self, **environment: str) -> None:
        """Start it in the background of the lab; it asks for a prefix, or for the one in its lease file."""
        with self.log.open("a") as log:
            self.process = self.namespace.popen(
                *self.command("-d"), stdout=log, stderr=log, env=debian.environment() | environment
            )

    def wait_until_bound(self) -> None:
        """Wait until it was given a prefix."""
        self.wait_for("BOUND6", timeout=20)

    def kill(self) -> None:
        """End it as a crash does: no hook is called, the lease file stays."""
        stop(self.process, signal.SIGKILL)

    def terminate(self) -> None:
        """End it as `systemctl stop` does, by SIGTERM: no hook is called either."""
        stop(self.process, signal.SIGTERM)

    def release(self) -> None:
        """Give the prefix back: RELEASE6, and a Release to the server."""
        self.end("-r")

    def stop(self) -> None:
        """End it in order, with STOP6 and no Release."""
        self.end("-x")

    def forget(self) -> None:
        """Lose the lease file, as a machine without a disk does in a reboot."""
        self.leases.unlink(missing_ok=True)

    def end(self, option: str) -> None:
        # It is found by a file that it writes once its hooks have run.
        wait_until(lambda: self.pid_file.exists() and self.pid_file.read_text() == f"{self.process.pid}\n")
        self.namespace.run(*self.command(option), env=debian.environment())
        self.process.wait(20)

    def calls(self) -> list[dict[str, str]]:
        """Give the environment of every call of the hook so far, oldest first."""
        *blocks, _ = self.record.read_text().split("\n\n")
        return [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks]

    def wait_for(
        self, reason: str, prefix: object = None, timeout: float = 20.0, since: int = 0
    ) -> dict[str, str]:
        """Wait for a call with this `reason`, and where given about this prefix, and give it.

        `since` passes over that many calls: take `len(calls())` before doing what should cause it.
        """

        def found() -> dict[str, str] | None:
            for call in self.calls()[since:]:
                about = (call.get("new_ip6_prefix"), call.get("old_ip6_prefix"), call.get("cur_ip6_prefix"))
                if call["reason"] == reason and (prefix is None or str(prefix) in about):
                    return call
            return None

        return wait_until(found, timeout)
