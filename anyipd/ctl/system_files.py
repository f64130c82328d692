"""What anyipd lays into a system beside its programs: the one list, for `install` and `uninstall`."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from anyipd import arguments

SYSTEM = Path("/")
SOURCE = resources.files("anyipd") / "system"
"""Where a wheel has them."""

CONFIG = "etc/anyipd.yaml"
"""Laid where there is none, and taken back unless somebody changed it."""

SYSCTL = "net.ipv6.ip_nonlocal_bind"
SYSTEMD_SYSCTL = "/usr/lib/systemd/systemd-sysctl"


class File(NamedTuple):
    """A file below SOURCE, the path below the root that it goes to, and its mode."""

    source: str
    path: str
    mode: int = 0o644


class Layout:
    """Where everything goes, for programs in `prefix`/bin.

    /usr/lib is a package's; all others share /usr/local/lib, where systemd looks as well. Ends the program
    where the files did not come with it.
    """

    def __init__(self, prefix: Path) -> None:
        if not SOURCE.is_dir():
            arguments.fail(
                arguments.UNAVAILABLE,
                "anyipctl: no files to install came with this one: for a Debian package they are dpkg's, "
                "and a checkout has `make install`",
            )
        self.prefix = prefix
        lib = "usr/lib" if prefix == Path("/usr") else "usr/local/lib"
        share = "usr/share" if prefix == Path("/usr") else "usr/local/share"
        self.unit = File("systemd/anyipd.service", f"{lib}/systemd/system/anyipd.service")
        self.sysusers = File("systemd/anyipd.sysusers", f"{lib}/sysusers.d/anyipd.conf")
        self.tmpfiles = File("systemd/anyipd.tmpfiles", f"{lib}/tmpfiles.d/anyipd.conf")  # noqa: S108  not /tmp
        self.sysctl = File("systemd/anyipd.sysctl", f"{lib}/sysctl.d/60-anyipd.conf")
        hook = "etc/dhcp/dhclient-exit-hooks.d/anyipd"
        self.files = (
            self.unit,
            File("systemd/anyipd.socket", f"{lib}/systemd/system/anyipd.socket"),
            File("systemd/anyipd-neighbour.service", f"{lib}/systemd/system/anyipd-neighbour.service"),
            self.sysusers,
            self.tmpfiles,
            self.sysctl,
            File("systemd/anyipd.rt_protos", "etc/iproute2/rt_protos.d/anyipd.conf"),
            File("dhclient-hooks/anyipd", hook, 0o755),
            # Debian's run-parts passes over names with a dot, Fedora's dhclient-script over others. Where
            # both are run, the second time changes nothing.
            File("dhclient-hooks/anyipd", f"{hook}.sh", 0o755),
            # Where Debian's dhcpcd-run-hooks looks. Early: hooks behind it may take their time.
            File("dhcpcd-hooks/anyipd", "usr/lib/dhcpcd/dhcpcd-hooks/10-anyipd"),
            File("systemd/dhcpcd.conf", f"{lib}/systemd/system/dhcpcd.service.d/anyipd.conf"),
            File("man/anyipd.8", f"{share}/man/man8/anyipd.8"),
            File("man/anyipd-neighbour.8", f"{share}/man/man8/anyipd-neighbour.8"),
            File("man/anyipctl.8", f"{share}/man/man8/anyipctl.8"),
            File("man/io.anyipd.7", f"{share}/man/man7/io.anyipd.7"),
            File("man/anyipd.yaml.5", f"{share}/man/man5/anyipd.yaml.5"),
            # Not in force there: who wants `listen:` copies it beside the unit.
            File("systemd/listen.conf", f"{share}/anyipd/listen.conf"),
        )
        self.config = File("systemd/anyipd.yaml", CONFIG)

    def content(self, file: File) -> str:
        """Give what is to be in `file`."""
        text = (SOURCE / file.source).read_text()
        return text.replace("@BINDIR@", f"{self.prefix}/bin").replace(
            "@EXECPATHS@", " ".join(self._executed())
        )

    def _executed(self) -> list[str]:
        """List the folders of all that the service executes and of the libraries that it loads."""
        # A package's Python is the system's, whichever built it.
        python = self.prefix if self.prefix == Path("/usr") else Path(sys.base_prefix)
        folders = [folder for folder in (self.prefix, python) if not folder.is_relative_to("/usr")]
        # Where /lib and others are links into /usr, that is the same once more.
        return ["/usr", "-/bin", "-/lib", "-/lib64", "-/sbin", *dict.fromkeys(map(str, folders))]


def require_root(root: Path, command: str) -> None:
    """End the program with EX_NOPERM unless this is root, or `root` is somewhere else."""
    if root == SYSTEM and os.geteuid() != 0:
        arguments.fail(arguments.NO_PERMISSION, f"anyipctl {command}: run it as root")


def is_running(root: Path) -> bool:
    """Say whether `root` is this system, and systemd runs it."""
    return root == SYSTEM and Path("/run/systemd/system").is_dir()


def call(*command: str) -> None:
    """Say what is run, and run it. Ends the program where it fails."""
    print(*command)
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)  # noqa: S603  our own words
    if done.returncode:
        arguments.fail(
            arguments.UNAVAILABLE, f"anyipctl: `{' '.join(command)}` failed: {done.stderr.strip()}"
        )
