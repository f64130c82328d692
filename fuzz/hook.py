"""The hooks: their environment, made up, in every shell that may be somebody's /bin/sh.

No coverage guides here, since a shell has none to give: the inputs are the hook's own words, well
formed or mutated. One shell sources the hook for many inputs, with the real `ip` in a network of its
own; then all that it left is looked at.
"""

from __future__ import annotations

import json
import random
import shlex
import subprocess
import time
from collections.abc import Iterable
from ipaddress import AddressValueError, IPv6Network
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from anyipd import clock, here
from anyipd.observe.lease import Where, parse
from fuzz import FOUND, dhclient, dhcpcd, progress
from fuzz.environment import Client
from tests.lab import debian
from tests.lab.hook_caller import SHELLS, STAMP, in_namespaces, shell_command

CLIENTS = {"dhclient": dhclient.CLIENT, "dhcpcd": dhcpcd.CLIENT}

BATCH = 250
"""Inputs a shell gets, before it is seen what it did."""

SCRIPT = """\
cd {folder} || exit
PATH={path}
export PATH ANYIPD_RUNTIME_DIR={runtime}
IFS={blanks}
variables={names}
state() {{
    set | grep -v -E '^(_|BASH|PIPESTATUS|LINENO|OPTIND)'
    set -o
}}
call() {{
    . {hook}
    code=$?
    [ "$code" = 0 ] || echo "the hook ended with $code"
}}
state >../before
{calls}
unset $variables code
state | diff ../before -
echo --routes--
messages=$(ip -json -6 route show table 150 2>/dev/null) || messages='[]'
echo "$messages"
ip -json -6 route show table main
exec readlink /proc/self/ns/net
"""


def fuzz(target: str, runs: int, seconds: int) -> tuple[int, str | None]:
    """Feed the shells in turn; give how many inputs they had, and what the first wrong one was."""
    client = CLIENTS[target]
    chance, begun, done = random.Random(time.time_ns()), time.monotonic(), 0
    for shell in cycle(SHELLS):
        inputs = [client.make_up(chance) for _ in range(min(BATCH, runs - done) if runs else BATCH)]
        wrong = run_batch(client, shell, inputs)
        done += len(inputs)
        progress.show(target, done, f"{done / (time.monotonic() - begun):.0f} a second")
        if wrong:
            FOUND.mkdir(parents=True, exist_ok=True)
            crash = FOUND / f"{target}-{shell}-{time.time_ns()}.json"
            crash.write_text(json.dumps({"shell": shell, "wrong": wrong, "inputs": inputs}))
            return done, f"{wrong}: see {crash}"
        if (runs and done >= runs) or (seconds and time.monotonic() - begun > seconds):
            return done, None
    raise AssertionError("there are shells")


def run_batch(client: Client, shell: str, inputs: list[dict[str, str]]) -> str | None:
    """Have a shell source the hook with each input, and say what is wrong with what that left."""
    with TemporaryDirectory(prefix="fuzz-hook-") as name:
        folder = Path(name)
        work = folder / "work"
        work.mkdir()
        script = SCRIPT.format(
            folder=work,
            blanks="' \t\n'",
            path=shlex.quote(debian.environment()["PATH"]),
            runtime=folder / "run",
            names=shlex.quote(" ".join(client.names)),
            hook=client.hook,
            calls="\n".join(f"unset $variables; {assignments(each)} call" for each in inputs),
        )
        (folder / "script").write_bytes(script.encode("utf-8", "surrogateescape"))
        done = subprocess.run(
            in_namespaces([*shell_command(shell), str(folder / "script")]),
            env={"PATH": debian.environment()["PATH"]},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=300,
        )
        printed, _, rest = done.stdout.partition(b"--routes--\n")
        if done.returncode or printed:
            return f"exit {done.returncode}: {printed[:200]!r} {done.stderr[-200:]!r}"
        messages, main, netns = rest.decode().splitlines()
        named = {network for each in inputs for network in networks(client.prefixes(each))}
        return (
            wrong_words(done.stderr)
            or wrong_files(folder)
            or wrong_leases(folder / "run" / "leases", int(netns.strip("net:[]")))
            or wrong_messages(json.loads(messages), named)
            or (f"it changed table main: {main}" if json.loads(main) else None)
        )


def assignments(made: dict[str, str]) -> str:
    """Write them as the shell takes them, byte by byte."""
    return " ".join(f"{name}={shlex.quote(value)};" for name, value in made.items())


def wrong_words(errors: bytes) -> str | None:
    """Find what neither the hook says of bad values, nor iproute2 of prefixes that it does not take."""
    for line in errors.splitlines():
        if not line.startswith((b"anyip", b"RTNETLINK answers: ")) or not line.isascii():
            return f"it said {line!r}"
    return None


def wrong_files(folder: Path) -> str | None:
    """Find a file that is no lease file, or not where one belongs."""
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.parent.name != "leases"}
    if odd := left - {"work", "run", "run/leases", "script", "before"}:
        return f"it left {sorted(odd)}"
    leases = folder / "run" / "leases"
    hidden = [path for path in leases.glob(".*") if not path.name.startswith(STAMP)]
    if hidden:
        return f"it left {hidden} in the making"
    return None


def wrong_leases(leases: Path, network_namespace: int) -> str | None:
    """Find a lease file that the daemon of that namespace would not take, or would pass over."""
    now = clock.now()
    where = Where(here.boot(), network_namespace, time.time() - now)
    for path in leases.glob("[!.]*"):
        try:
            if parse(path.read_bytes(), path.stat().st_mtime, now, where) is None:
                return f"it wrote a lease file of somewhere else: {path.read_bytes()!r}"
        except ValueError as error:
            # That is for the daemon to find.
            if "longer than the valid lifetime" not in str(error):
                return f"it wrote what is no lease file: {path.name}: {error}"
    return None


def wrong_messages(routes: list[dict[str, str]], named: set[IPv6Network]) -> str | None:
    """Find a message that no input asked for."""
    for route in routes:
        network = IPv6Network("::/0" if route["dst"] == "default" else route["dst"])
        if route.get("type") != "unreachable" or route["protocol"] != "dhcp" or network not in named:
            return f"it made the route {route}"
    return None


def networks(texts: Iterable[str]) -> list[IPv6Network]:
    """Give the prefixes among these."""
    found = []
    for text in texts:
        try:
            found.append(IPv6Network(text, strict=False))
        except (AddressValueError, ValueError):
            continue
    return found
