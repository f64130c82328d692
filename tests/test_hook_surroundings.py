"""What a lease file says of where and when it was written, and that nobody waited for it."""

import re
import time
from pathlib import Path

import pytest

from tests.lab import dhclient, dhcpcd
from tests.lab.hook_caller import BOUND, KEYS, LEASE, Caller
from tests.lab.programs import need
from tests.test_hook_dhcpcd import BOUND as DHCPCD_BOUND

CALLS = {"dhclient": (dhclient.HOOK, BOUND), "dhcpcd": (dhcpcd.HOOK, DHCPCD_BOUND)}
HERE = "import os; print(os.stat('/proc/self/ns/net').st_ino)"


def test_the_network_namespace_and_boot_are_those_of_the_caller(caller: Caller) -> None:
    python = f'{need("python3")} -c "{HERE}"'
    outcome = caller.run(BOUND, after=f"{python}; cat /proc/sys/kernel/random/boot_id")
    lease = outcome.lease()
    assert [lease["netns"], lease["boot"]] == outcome.printed.splitlines()
    assert lease["netns"] != str(Path("/proc/self/ns/net").stat().st_ino)


def test_a_kernel_before_5_14_names_its_network_namespace_too(caller: Caller) -> None:
    hook = caller.directory / "hook"
    hook.write_text(caller.hook.read_text().replace("in ino:*)", "in no-such-line:*)"))
    outcome = Caller(caller.shell, caller.directory, hook).run(BOUND, after="readlink /proc/self/ns/net")
    assert outcome.printed == f"net:[{outcome.lease()['netns']}]\n"


@pytest.mark.parametrize("client", CALLS)
@pytest.mark.parametrize("by_lxcfs", [False, True])
def test_the_uptime_is_that_of_the_kernel(caller: Caller, client: str, *, by_lxcfs: bool) -> None:
    """That of a container, which lxcfs has in its place, is of the container's start."""
    hook, bound = CALLS[client]
    other = caller.directory / "uptime"
    other.write_text("1.23 4.56\n")
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    hidden = f"mount --bind {other} /proc/uptime; cat /proc/uptime" if by_lxcfs else ""
    outcome = Caller(caller.shell, caller.directory, hook).run(bound, before=hidden)
    assert outcome.printed == ("1.23 4.56\n" if by_lxcfs else "")
    for text in outcome.leases.values():
        uptime = float(dict(line.split("=", 1) for line in text.splitlines())["uptime"])
        assert before - 0.02 <= uptime <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert outcome.leases


@pytest.mark.parametrize("pid", ["1\nvalid_lifetime=1", "x", "9" * 11, "$(touch executed)"])
@pytest.mark.parametrize("hidden", ["", "mount -t tmpfs none /proc/sys/kernel/random"])
def test_a_malformed_pid_is_left_out(caller: Caller, pid: str, hidden: str) -> None:
    outcome = caller.run(BOUND | {"pid": pid}, before=hidden)
    assert [line.split("=")[0] for line in outcome.leases[LEASE].splitlines()] == KEYS
    assert outcome.lease()["pid"] == ""
    assert bool(outcome.lease()["boot"]) is not bool(hidden)
    assert list(caller.directory.iterdir()) == [caller.runtime_dir]


@pytest.mark.parametrize("client", CALLS)
@pytest.mark.parametrize("publishes", ["ln", "mv"])
def test_nothing_else_runs_before_a_lease_is_published(caller: Caller, client: str, publishes: str) -> None:
    """Somebody waits for it: no program is started but the one that puts the file in its place."""
    hook, bound = CALLS[client]
    caller.leases.mkdir(parents=True)
    if publishes == "mv":
        Caller(caller.shell, caller.directory, hook).run(bound)
    trace = caller.directory / "trace"
    calls = "execve,clone,clone3,fork,vfork,link,linkat,rename,renameat,renameat2"
    traced = [need("strace"), "-f", "-qq", "-e", f"trace={calls}", "-o", str(trace), *caller.shell]
    Caller(traced, caller.directory, hook).run(bound)
    seen = re.findall(r'^\d+ +(\w+)\((?:"[^"]*/(\w+)")?', trace.read_text(), re.MULTILINE)
    published = next(i for i, (call, _) in enumerate(seen) if call.startswith(("link", "rename")))
    subshell = next(i for i, (call, _) in enumerate(seen) if call != "execve")
    started = seen[subshell:published]
    assert [program for call, program in started if call == "execve"] == [publishes]
    # That of dhcpcd has another subshell for each prefix.
    assert len([call for call, _ in started if call != "execve"]) == {"dhclient": 2, "dhcpcd": 3}[client]
