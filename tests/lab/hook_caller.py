"""Stands in for a client's script: sources a hook in real shells, in namespaces of their own."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.lab import debian
from tests.lab.dhclient import HOOK
from tests.lab.namespace import Namespace
from tests.lab.programs import need

PREFIX = "2001:db8:100::/60"
LEASE = "2001:db8:100::_60@eth0"
KEYS = [
    "client",
    "prefix",
    "uplink",
    "iaid",
    "life_starts",
    "preferred_lifetime",
    "valid_lifetime",
    "uptime",
    "reason",
    "pid",
    "netns",
    "boot",
]
BOUND = {
    "reason": "BOUND6",
    "interface": "eth0",
    "pid": "4711",
    "new_ip6_prefix": PREFIX,
    "new_iaid": "62:9d:01:0a",
    "new_life_starts": "1700000000",
    "new_preferred_life": "300",
    "new_max_life": "600",
    "new_starts": "1700000000",
    "new_renew": "150",
    "new_rebind": "240",
}
RELEASE = {"reason": "RELEASE6", "interface": "eth0", "old_ip6_prefix": PREFIX}
STAMP = ".swept@"
"""What the names of files begin with that say when the hook cleared up last."""
SHELLS = {
    "dash": ["dash"],
    "bash": ["bash"],
    "bash-as-sh": ["bash", "--posix"],
    "busybox": ["busybox", "sh"],
}


SHOW_AND_FLUSH = "\n".join(
    f"route {verb} table {each}" for each in ("main", "150") for verb in ("show", "flush")
)


@dataclass(frozen=True)
class Outcome:
    """What there is after a call: lines on stderr, routes of tables 150 and main, lease files by name."""

    printed: str
    errors: list[str]
    routes: list[dict[str, object]]
    main: list[dict[str, object]]
    leases: dict[str, str]

    def lease(self, name: str = LEASE) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.leases[name].splitlines())


@dataclass(frozen=True)
class Caller:
    """A dhclient-script, or a dhcpcd-run-hooks, of a few lines, run by `shell` in `directory`."""

    shell: list[str]
    directory: Path
    hook: Path = HOOK

    @property
    def runtime_dir(self) -> Path:
        return self.directory / "run"

    @property
    def leases(self) -> Path:
        return self.runtime_dir / "leases"

    def run(
        self,
        env: Mapping[str, str | bytes],
        *further: Mapping[str, str],
        before: str = "",
        after: str = "",
    ) -> Outcome:
        """Source the hook with `env`, then again for each of `further`.

        Every run begins without routes; the lease files stay.
        """
        again = "".join(
            f"( unset {' '.join(env)}; "
            + "".join(f"export {k}={shlex.quote(v)}; " for k, v in call.items())
            + f". {self.hook}; )\n"
            for call in further
        )
        script = (
            f"{before}\n. {self.hook}\n{again}{after}\n"
            "echo --routes--\n"
            # Until its first route there is no table 150.
            f"{need('ip')} -json -6 -force -batch - 2>/dev/null <<end || :\n"
            f"{SHOW_AND_FLUSH}\nend\n"
        )
        # To copy all mounts takes as long as a shell does, and few need it.
        apart = ["unshare", "--mount"] if "mount " in script else []
        with network().entered():
            done = subprocess.run(
                [*apart, *self.shell, "-c", script],
                env={
                    "PATH": debian.environment()["PATH"],
                    "ANYIPD_RUNTIME_DIR": str(self.runtime_dir),
                    **env,
                },
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=30,
                check=True,
            )
        printed, _, routes = done.stdout.decode().partition("--routes--\n")
        main, *messages = map(json.loads, routes.splitlines())
        return Outcome(
            printed,
            done.stderr.decode(errors="backslashreplace").splitlines(),
            messages[0] if messages else [],
            main,
            {file.name: file.read_text() for file in self.leases.iterdir() if not file.name.startswith(STAMP)}
            if self.leases.is_dir()
            else {},
        )

    def run_watched(
        self, env: Mapping[str, str], *further: Mapping[str, str], before: str, after: str, function: str
    ) -> tuple[Outcome, list[str], list[str]]:
        """The same between two looks at all that the shell knows; give these, line by line.

        `function` is one of the hook's, besides `refuse`, which every hook of ours has.
        """
        state = f"set; set +o; umask; pwd; command -v refuse || :; command -v {function} || :; trap"
        outcome = self.run(
            env,
            *further,
            before=f"{before}; {{ {state}; }} >before",
            after=f"{after}; {{ {state}; }} >after; unset IFS",
        )
        own = re.compile(r"(_|LINENO|PIPESTATUS|BASH_\w+|SECONDS|RANDOM|EPOCH\w+|FUNCNAME)=")
        known, left = (
            [line for line in (self.directory / name).read_text().splitlines() if not own.match(line)]
            for name in ("before", "after")
        )
        return outcome, known, left

    def assert_only_leases(self, outcome: Outcome, uplink: bytes) -> None:
        """See that there is nothing but well-formed lease files of this uplink."""
        assert set(self.directory.iterdir()) <= {self.runtime_dir}
        if self.runtime_dir.exists():
            assert [path.name for path in self.runtime_dir.iterdir()] == ["leases"]
            assert not [name for name in outcome.leases if name.startswith(".")]
        for name, content in outcome.leases.items():
            lease = outcome.lease(name)
            assert content.isascii()
            assert content.replace("\n", "").isprintable()
            assert lease["uplink"].encode() == uplink
            assert name == lease["prefix"].replace("/", "_") + "@" + lease["uplink"]
            assert all(lease[key].isdecimal() for key in KEYS[4:7] if key in lease)


def edit(name: str = LEASE, **changed: str) -> str:
    """Give the command that makes a lease file say something else, and the next call clear up."""
    edits = "; ".join(f"s/^{key}=.*/{key}={value}/" for key, value in changed.items())
    return f"sed -i {shlex.quote(edits)} run/leases/{name}; rm -f run/leases/{STAMP}*"


@cache
def network() -> Namespace:
    """Give the network that hooks are called in: a process has one, and makes no more of them."""
    return Namespace("hooks")


def in_namespaces(command: list[str]) -> list[str]:
    """Give the command line that runs `command` as root of a network, `lo` up, and mounts of its own."""
    up = 'ip link set lo up && exec "$@"'
    return ["unshare", "--map-root-user", "--net", "--mount", "sh", "-c", up, "sh", *command]


def shell_command(name: str) -> list[str]:
    """Give the command line of one of SHELLS."""
    program, *options = SHELLS[name]
    return [need(program), *options]


def discard(prefix: str = PREFIX, metric: int = 1025) -> dict[str, object]:
    """Give the message that the hook leaves in table 150, as `ip -json` shows it."""
    return {
        "type": "unreachable",
        "dst": prefix,
        "dev": "lo",
        "protocol": "dhcp",
        "metric": metric,
        "flags": [],
        "pref": "medium",
    }
