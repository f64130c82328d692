"""A machine with a systemd of its own, booted over this machine's files and thrown away."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import uuid
import zlib
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, NamedTuple, Self

from tests.lab import debian
from tests.lab.namespace import NAMESPACES, LabError, Namespace, stop, wait_until

BOOT, HALT = 30.0, 10.0
"""Seconds that each may take; usually both together take one."""

NEEDED = ("lib/systemd/systemd", "sbin/ip")
"""What a machine cannot do without; where this one has not got it, the lab's packages have."""

NEEDLESS = ("dbus.service", "dbus.socket", "getty.target", "systemd-logind.service")
"""What starts at boot and would only take time."""

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""What commands inside get, as from a login, and nothing of the lab's."""

HIERARCHIES = {
    "": ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
    "name=systemd": ("/sys/fs/cgroup/systemd",),
}
"""Where the cgroups may be that systemd sorts processes into, by their name in /proc/PID/cgroup."""

ENTER_CGROUPS = """\
while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs" || exit; shift; done
shift
exec "$@"
"""
"""Cgroups, `--`, and the command to run in them."""


FOUND = "%P %M %U:%G %l\\n"
"""Of `find -printf`."""

OF_NO_MATTER = re.compile(
    # What dpkg and the machine's own life write, whatever is installed,
    r"/(var/cache/man|var/lib/dpkg|var/log|run/log|run/systemd)(/.*)?"
    # and what userdel keeps: its lock, and copies of what was there before.
    r"|/etc/(passwd-|group-|shadow-|gshadow-|\.pwd\.lock)"
)
"""Paths that `written` passes over."""


class Entry(NamedTuple):
    """A line of the journal: who wrote it (`anyipd`, `systemd`), syslog priority, text."""

    source: str
    priority: int
    message: str


def obstacle() -> str | None:
    """Say in one line why no machine can boot here; None where nothing is known against it."""
    # In a user namespace everybody is root; the real one maps all users to themselves.
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        return "systemd boots for root alone: run the tests as root"
    return None


class Machine:
    """A machine whose network is `namespace`. It runs from `boot` on until the `with` block ends.

    `root` holds its files: those of `system`, below a layer that takes all writes. Lay out there
    what it is to boot with.
    """

    def __init__(self, namespace: Namespace, system: Path = Path("/")) -> None:
        self.namespace, self.system = namespace, system
        self.folder = Path(mkdtemp(dir="/run"))
        self.root, self.log = self.folder / "root", self.folder / "console.log"
        self.cgroups = own_cgroups(self.folder.name)
        self.leader = ""
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.mount("-t", "tmpfs", "machine", self.folder)
        layers = {"lowerdir": self.system, "upperdir": self.folder / "upper", "workdir": self.folder / "work"}
        for folder in (self.root, *layers.values()):
            folder.mkdir(exist_ok=True)
        options = ",".join(f"{layer}={folder}" for layer, folder in layers.items())
        self.mount("-t", "overlay", "machine", "-o", options, self.root)
        if not all((self.root / program).exists() for program in NEEDED):
            self.unpack(debian.CACHE / "root")
        self.strip()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def mount(self, *arguments: str | Path) -> None:
        """Mount until the `with` block ends. Raises LabError where that is not allowed."""
        done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"no machine can boot here: {done.stderr.strip()}")
        self.stack.callback(subprocess.run, ["umount", arguments[-1]], check=True)

    def unpack(self, packages: Path) -> None:
        """Lay what is below `packages`, a root of its own, over `root`, through its links to folders."""
        write = ["tar", "--create", f"--directory={packages}", "."]
        read = ["tar", "--extract", "--no-same-owner", "--keep-directory-symlink", f"--directory={self.root}"]
        with subprocess.Popen(write, stdout=subprocess.PIPE) as archive:
            subprocess.run(read, stdin=archive.stdout, check=True)

    def copy(self, directory: Path) -> None:
        """Lay a DESTDIR over its files."""
        subprocess.run(["cp", "--archive", f"{directory}/.", self.root], check=True)

    def strip(self) -> None:
        """Take out what this machine's administrator has it start, and what only takes time."""
        units = self.root / "etc/systemd/system"
        for folder in (units, self.root / "etc/init.d"):
            shutil.rmtree(folder, ignore_errors=True)
        units.mkdir(parents=True)
        # Container images have one that lets packages start nothing.
        (self.root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
        for unit in NEEDLESS:
            (units / unit).symlink_to("/dev/null")
        # Without one it would boot for the first time, and enable all units there are.
        (self.root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        # While this is newer than /usr, systemd-sysusers takes it that there is nothing to do.
        (self.root / "etc/.updated").unlink(missing_ok=True)

    def boot(self) -> None:
        """Start it, and wait until everything is up. Raises LabError where it does not come up."""
        address = str(self.folder / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, self.log.open("w") as log:
            notify.bind(address)
            try:
                process = self.start(address, log)
                wait_until(lambda: is_up(process, notify), BOOT)
                self.leader = wait_until(self.find_leader)
            except OSError as error:
                raise LabError(f"no machine can boot here: {error}\n{self.log.read_text()}") from None

    def start(self, address: str, log: IO[str]) -> subprocess.Popen[str]:
        """Start nspawn, which tells the notify socket at `address` when all is up."""
        for cgroup in self.cgroups:
            cgroup.mkdir()
            self.stack.callback(remove_cgroup, cgroup)
        process = self.namespace.popen(
            "sh",
            "-c",
            ENTER_CGROUPS,
            "sh",
            *self.cgroups,
            "--",
            # What runs in the machine would outlive an nspawn that is killed; this way it does not.
            *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
            "systemd-nspawn",
            f"--directory={self.root}",
            f"--network-namespace-path={NAMESPACES / self.namespace.name}",
            "--boot",
            "--notify-ready=yes",
            "--capability=CAP_NET_ADMIN",
            "--register=no",
            "--keep-unit",
            "--link-journal=no",
            "--console=pipe",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={
                **debian.environment(),
                "NOTIFY_SOCKET": address,
                # Else /proc/sys/net is read-only, as it is on no real machine.
                "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
            },
        )
        self.stack.callback(self.halt, process)
        return process

    def find_leader(self) -> str | None:
        """Give the pid, out here, of its init. A child is in the same cgroup while it gets started."""
        pids = (self.cgroups[0] / "payload/init.scope/cgroup.procs").read_text().split()
        return pids[0] if len(pids) == 1 else None

    def halt(self, process: subprocess.Popen[str]) -> None:
        """Shut it down in good order, or else switch it off."""
        # By its cgroup, where nothing else can be: a pid kept from before may be somebody else's by now.
        with contextlib.suppress(FileNotFoundError, subprocess.TimeoutExpired):
            for nspawn in (self.cgroups[0] / "supervisor/cgroup.procs").read_text().split():
                os.kill(int(nspawn), signal.SIGTERM)
            process.wait(HALT)
        stop(process, signal.SIGKILL)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `command` inside as root to its end, with what it printed as text.

        Raises CalledProcessError, its stderr noted, where it fails and `check` is true.
        """
        enter = ["nsenter", f"--target={self.leader}", "--all", "--"]
        return self.namespace.run(*enter, *command, check=check, env=ENVIRONMENT)

    def written(self) -> set[str]:
        """List what its files have that those of `system` have not, and all below /run.

        Each with kind, permissions, owner, and contents or target.
        """
        found = {
            f"/run/{line}" for line in self.run("find", "/run", "-xdev", "-printf", FOUND).stdout.splitlines()
        }
        upper = self.folder / "upper"
        for folder, names, files in os.walk(upper):
            for path in (Path(folder, name) for name in (*names, *files)):
                name = path.relative_to(upper)
                if (told := describe(path)) != describe(self.system / name):
                    found.add(f"/{name} {told}")
        return {line for line in found if not OF_NO_MATTER.fullmatch(line.split()[0])}

    def journal(self, unit: str, after: str = "") -> list[Entry]:
        """Give what the journal has of `unit` since the cursor `after`, systemd's words about it too."""
        since = [f"--after-cursor={after}"] if after else []
        lines = self.run("journalctl", f"--unit={unit}", "--output=json", *since).stdout.splitlines()
        return [
            Entry(entry["SYSLOG_IDENTIFIER"], int(entry["PRIORITY"]), entry["MESSAGE"])
            for entry in map(json.loads, lines)
        ]

    def journal_cursor(self) -> str:
        """Give the end of the journal as it is now."""
        (entry,) = self.run("journalctl", "--lines=1", "--output=json").stdout.splitlines()
        return str(json.loads(entry)["__CURSOR"])


def describe(path: Path) -> str:
    """Say what is at `path`, a link not followed; of a folder not what is in it. Nothing where nothing is."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return ""
    told = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
    if path.is_symlink():
        return f"{told} {path.readlink()}"
    return f"{told} {zlib.crc32(path.read_bytes()):x}" if path.is_file() else told


def is_up(nspawn: subprocess.Popen[str], notify: socket.socket) -> bool:
    """Say whether nspawn told that all is up. Raises ChildProcessError when it ended instead."""
    if nspawn.poll() is not None:
        raise ChildProcessError(f"systemd-nspawn ended with {nspawn.returncode}")
    try:
        return "READY=1" in notify.recv(4096, socket.MSG_DONTWAIT).decode().splitlines()
    except BlockingIOError:
        return False


def own_cgroups(name: str) -> list[Path]:
    """Give the folders of a cgroup `name` below this process's: two where cgroup v1 is in use, else one.

    Without one, nspawn would share its `payload` with everyone who runs it from the same cgroup.
    """
    found: list[Path] = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        found += [Path(f"{hierarchy}{path}") for hierarchy in HIERARCHIES.get(controllers, ())]
    return [folder / name for folder in found if (folder / "cgroup.procs").exists()]


def remove_cgroup(cgroup: Path) -> None:
    """Remove a cgroup whose processes have ended or were killed, and all below it."""
    wait_until(lambda: not any(processes.read_text() for processes in cgroup.rglob("cgroup.procs")))
    for folder, _, _ in os.walk(cgroup, topdown=False):
        Path(folder).rmdir()
