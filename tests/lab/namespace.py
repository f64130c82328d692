"""Network namespaces to play networks in, without touching the machine's own.

`enter` moves the whole program into the lab first: a network and a mount namespace of its own,
and a user namespace where it is not root. Whatever happens in there, the machine's routes,
/run and resolv.conf stay as they are, and the kernel clears up behind the last process.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from inspect import getsource
from pathlib import Path
from typing import IO, Any, Protocol, Self, TypeVar

from tests.lab import debian

INSIDE = "ANYIPD_LAB"
"""Set in the environment of everything that runs in the lab."""

NAMESPACES = Path("/run/netns")
THIS = "/proc/thread-self/ns/net"
"""The network namespace of whoever opens it."""

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000  # linux/sched.h
MS_BIND, MNT_DETACH = 4096, 2  # linux/mount.h, linux/fs.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SIOCSIFFLAGS, IFREQ, IFF_UP = 0x8914, struct.Struct("16sH22x"), 1  # linux/sockios.h, linux/if.h
LIBC = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The lab cannot be had here; the message is one line and says what to do."""


def unshare_command() -> list[str]:
    """Give the command that starts another one in new namespaces."""
    return ["unshare", "--net", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--"]


def obstacle() -> str | None:
    """Say in one line why there can be no lab here and what would help; None where nothing does."""
    missing = debian.missing_programs()
    if missing:
        return f"the lab has no {', '.join(missing)}: run `make .cache/debian`"
    probe = [*unshare_command(), "true"]
    if os.environ.get(INSIDE) or subprocess.run(probe, check=False, capture_output=True).returncode == 0:
        return None
    restrictions = {
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": ("1", "0"),
        "/proc/sys/kernel/unprivileged_userns_clone": ("0", "1"),
        "/proc/sys/user/max_user_namespaces": ("0", "10000"),
    }
    for name, (denied, allowed) in restrictions.items():
        path = Path(name)
        if path.exists() and path.read_text().strip() == denied:
            key = name.removeprefix("/proc/sys/").replace("/", ".")
            return f"no user namespaces for ordinary users: run `sysctl {key}={allowed}` as root"
    return "new namespaces are refused: run as root, or in a container with CAP_SYS_ADMIN"


def enter() -> None:
    """Run this program anew inside the lab; in there, do nothing.

    Raises LabError where there can be no lab.
    """
    if os.environ.get(INSIDE) == str(os.getpid()):
        prepare()
    if os.environ.get(INSIDE):
        return
    reason = obstacle()
    if reason:
        raise LabError(reason)
    sys.stdout.flush()
    # unshare executes without a fork, so the process that gets ready in there is this one.
    environment = {**debian.environment(), INSIDE: str(os.getpid())}
    os.execvpe("unshare", [*unshare_command(), sys.executable, *sys.orig_argv[1:]], environment)


def prepare() -> None:
    """Give the lab what it needs on top of new namespaces."""
    os.environ[INSIDE] = "ready"
    if (debian.CACHE / "bin" / "ip").exists():
        # Not on this machine: dhclient and its hooks look for it in the system's own places only.
        layers = f"lowerdir={debian.CACHE / 'bin'}:/usr/sbin"
        subprocess.run(["mount", "-t", "overlay", "lab", "-o", layers, "/usr/sbin"], check=True)
    furnish()


def furnish() -> None:
    """Give this process's namespaces a /run and a resolv.conf to scribble on, and a working `lo`."""
    resolver = Path("/etc/resolv.conf").resolve()
    subprocess.run(["mount", "-t", "tmpfs", "lab", "/run"], check=True)
    if resolver.exists():
        Path("/run/resolv.conf").touch()
        subprocess.run(["mount", "--bind", "/run/resolv.conf", resolver], check=True)
    raise_lo()


def branch_off() -> None:
    """Move this process from the lab that it was started in into one of its own, and die with its parent.

    Call it in the main thread, before there are others that shall come along. Raises OSError.
    """
    checked(LIBC.unshare(CLONE_NEWNET | CLONE_NEWNS), "a lab for a worker")
    checked(LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    furnish()


Value = TypeVar("Value")


def wait_until(condition: Callable[[], Value | None], timeout: float = 20.0) -> Value:
    """Ask `condition` every few milliseconds until it says something true, and give that.

    The longer it takes, the rarer it asks. It rests for twice as long as the condition took, up to 0.2 s:
    many start a program.
    Raises TimeoutError after `timeout` seconds.
    """
    begun = asked = time.monotonic()
    while not (value := condition()):
        now = time.monotonic()
        if asked - begun > timeout:  # an answer is of the time at which it was asked for
            raise TimeoutError(f"not so within {timeout} s: {getsource(condition).strip()}")
        time.sleep(max(0.005, min((now - begun) / 20, 0.1), min(2 * (now - asked), 0.2)))
        asked = time.monotonic()
    return value


class Process(Protocol):
    """What runs: of subprocess.Popen as much as tests need."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    @property
    def stdin(self) -> IO[str] | None: ...
    @property
    def stdout(self) -> IO[str] | None: ...
    @property
    def stderr(self) -> IO[str] | None: ...

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


class Namespace:
    """A network namespace: empty but for `lo`, without duplicate address detection, forwarding nothing.

    It is named as `ip netns` names one, and goes with every process started in it when its `with` block ends.
    """

    def __init__(self, name: str) -> None:
        self.name, self.file = name, NAMESPACES / name
        self.processes: list[Process] = []
        NAMESPACES.mkdir(exist_ok=True)
        self.file.touch(exist_ok=False)
        with Path(THIS).open() as before:
            checked(LIBC.unshare(CLONE_NEWNET), "unshare")
            try:
                checked(LIBC.mount(THIS.encode(), bytes(self.file), None, MS_BIND, None), "mount")
                raise_lo()
            finally:
                set_namespace(before)
        for scope in ("all", "default"):
            # Addresses are usable at once, and links have those alone that a test gives them.
            self.sysctl(f"net.ipv6.conf.{scope}.accept_dad", 0)
            self.sysctl(f"net.ipv6.conf.{scope}.addr_gen_mode", 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            stop(process, signal.SIGKILL)
        checked(LIBC.umount2(bytes(self.file), MNT_DETACH), "umount")
        self.file.unlink()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Have the calling thread inside: sockets opened and programs started there stay there."""
        with Path(THIS).open() as before, self.file.open() as inside:
            set_namespace(inside)
            try:
                yield
            finally:
                set_namespace(before)

    def popen(self, *command: str | Path, **options: Any) -> subprocess.Popen[str]:  # noqa: ANN401  Popen's own
        """Start `command` inside, to be killed at the latest with the namespace or this program."""
        with self.entered():
            # setpriv: no process outlives this one, however it ends.
            process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], text=True, **options)
        self.processes.append(process)
        return process

    def run(
        self,
        *command: str | Path,
        check: bool = True,
        **options: Any,  # noqa: ANN401  run's own
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` inside to its end, with what it printed as text.

        Raises CalledProcessError, its stderr noted, where it fails and `check` is true.
        """
        with self.entered():
            done = subprocess.run(command, check=False, capture_output=True, text=True, **options)
        if check and done.returncode:
            error = subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
            error.add_note(done.stderr)
            raise error
        return done

    def ip(self, arguments: str) -> str:
        """Run `ip` with these words, such as `-6 route show table local`; give what it printed."""
        return self.run("ip", *arguments.split()).stdout

    def ips(self, *lines: str) -> None:
        """Run `ip` once with the words of many."""
        self.run("ip", "-batch", "-", input="\n".join(lines))

    def pair(self, link: str, peer: str) -> None:
        """Add a veth pair that has both ends inside, up."""
        self.ips(f"link add {link} up type veth peer name {peer}", f"link set {peer} up")

    def ip_json(self, arguments: str) -> list[dict[str, Any]]:
        """The same as data: iproute2's own JSON."""
        output = self.run("ip", "-json", "-details", *arguments.split()).stdout
        found: list[dict[str, Any]] = json.loads(output or "[]")
        return found

    def sysctl(self, key: str, value: int) -> None:
        """Set a `net.` sysctl of this namespace."""
        with self.entered():
            Path("/proc/sys", key.replace(".", "/")).write_text(str(value))


def set_namespace(file: IO[str]) -> None:
    """Move the calling thread into the network namespace that `file` is open on."""
    checked(LIBC.setns(file.fileno(), CLONE_NEWNET), "setns")


def raise_lo() -> None:
    """Set `lo` up in the calling thread's network namespace."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, IFREQ.pack(b"lo", IFF_UP))


def checked(result: int, what: str) -> None:
    """Raise OSError where a call of the C library failed, which is `what`."""
    if result:
        raise OSError(ctypes.get_errno(), what)


def stop(process: Process, number: signal.Signals, timeout: float = 5.0) -> int:
    """Send a signal and wait for the end; give the exit code. SIGKILL follows after `timeout` seconds."""
    process.send_signal(number)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
    finally:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()
