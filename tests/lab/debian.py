"""The lab's programs, from Debian packages that are unpacked and never installed.

Installing would change the machine: kea's package starts a server, isc-dhcp-client's hooks into
ifupdown. So apt-get downloads as whoever runs this, root or not, with lists and a cache of its
own; `dpkg-deb` unpacks, and a folder `bin` of starters makes the result fit for PATH.

It runs before there is a virtual environment: `python3 debian.py DEST PACKAGE...`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "debian"

PROGRAMS = {
    "bash": "bash",
    "busybox": "busybox",
    "curl": "curl",
    "dash": "dash",
    "dbus-daemon": "dbus-daemon",
    "dhcpcd-base": "dhcpcd",
    "dnsmasq-base": "dnsmasq",
    "iproute2": "ip",
    "iputils-ping": "ping",
    "isc-dhcp-client": "dhclient",
    "isc-dhcp-server": "dhcpd",
    "kea-dhcp6-server": "kea-dhcp6",
    "nftables": "nft",
    "nginx": "nginx",
    "procps": "sysctl",
    "shellcheck": "shellcheck",
    "strace": "strace",
    "systemd": "systemd-networkd",
    "systemd-container": "systemd-nspawn",
    "tinyproxy-bin": "tinyproxy",
    "unbound": "unbound",
}
"""The program that each package is wanted for; a package not named here is always fetched."""

CONFINED = ("dhclient", "dhclient-script", "dhcpd", "kea-dhcp6", "unbound")
"""Debian's AppArmor profiles bind these, by path, to files in /etc and /var; a copy is free."""

SYSTEM_PATH = os.pathsep.join(
    [os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/lib/systemd", "/lib/systemd"]
)

APT_CONFIGURATION = """\
Dir::State "{apt}";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "{apt}";
Debug::NoLocking "true";
APT::Sandbox::User "root";
Acquire::Languages "none";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
"""
"""Nothing of the machine's is written, and nothing that it hooked into apt-get runs."""

STARTER = """\
#!/bin/sh
LD_LIBRARY_PATH={libraries} exec {program} "$@"
"""


PERL_STARTER = """\
#!/bin/sh
PERL5LIB={modules} LD_LIBRARY_PATH={libraries} exec perl {program} "$@"
"""


def environment() -> dict[str, str]:
    """Give the environment in which the lab's programs are found by name."""
    return {**os.environ, "PATH": f"{CACHE / 'bin'}{os.pathsep}{SYSTEM_PATH}"}


def missing_programs() -> list[str]:
    """Name the programs of the lab that this machine has not got and the cache neither."""
    path = environment()["PATH"]
    return [program for program in PROGRAMS.values() if not shutil.which(program, path=path)]


def fetch(destination: Path, packages: list[str]) -> None:
    """Bring what is missing of `packages` into `destination`: `root` unpacked, `bin` to be started.

    Raises CalledProcessError when apt-get fails (it has said why), FileNotFoundError without one.
    """
    programs = destination / "bin"
    shutil.rmtree(programs, ignore_errors=True)
    programs.mkdir(parents=True)
    wanted = [p for p in packages if p not in PROGRAMS or not shutil.which(PROGRAMS[p], path=SYSTEM_PATH)]
    if wanted:
        download(destination / "apt", wanted)
        for package in sorted((destination / "apt" / "archives").glob("*.deb")):
            subprocess.run(["dpkg-deb", "--extract", package, destination / "root"], check=True)
        shutil.rmtree(destination / "apt")
        write_starters(destination / "root", programs)
    for confined in CONFINED:
        found = shutil.which(confined, path=SYSTEM_PATH)
        if found and not (programs / confined).exists():
            shutil.copy(found, programs)


def download(apt: Path, packages: list[str]) -> None:
    """Let apt-get put `packages`, and what they need that is not installed, into `apt`/archives."""
    shutil.rmtree(apt, ignore_errors=True)
    for folder in ("lists", "archives"):
        (apt / folder / "partial").mkdir(parents=True)
    configuration = apt / "apt.conf"
    configuration.write_text(APT_CONFIGURATION.format(apt=apt))
    # Reinstall: a package can be installed and lack its files, as in many container images.
    install = ["install", "--reinstall", "--download-only", "--no-install-recommends", "--yes"]
    quiet = [] if sys.stderr.isatty() else ["-qq"]
    apt_get = ["apt-get", *quiet, "-c", str(configuration)]
    # An update that fails for one source, somebody's forgotten one, may do for all that is wanted.
    subprocess.run([*apt_get, "update"], check=False, stdout=sys.stderr)
    subprocess.run([*apt_get, *install, *packages], check=True, stdout=sys.stderr)


def write_starters(root: Path, programs: Path) -> None:
    """For every program below `root` write one into `programs` that starts it with its libraries."""
    found = (file.parent for file in root.rglob("lib*.so*") if file.suffix != ".gz")  # a manual page
    libraries = ":".join(sorted({shlex.quote(str(folder)) for folder in found}))
    modules = ":".join(shlex.quote(str(folder)) for folder in perl_modules(root))
    for folder in ("bin", "sbin", "usr/bin", "usr/sbin", "lib/systemd", "usr/lib/systemd"):
        for program in (root / folder).glob("*"):
            starter = programs / program.name
            if not program.is_file():
                continue  # a folder, or an absolute link to a program in another of these folders
            kind, _, _ = program.read_bytes().partition(b"\n")
            if kind.startswith(b"#!/usr/bin/perl"):
                form = PERL_STARTER
            elif kind.startswith(b"#!"):
                shutil.copy(program, starter)
                continue
            else:
                form = STARTER
            starter.write_text(
                form.format(modules=modules, libraries=libraries, program=shlex.quote(str(program.resolve())))
            )
            starter.chmod(0o755)


def perl_modules(root: Path) -> list[Path]:
    """Give the folders below `root` that Debian's perl looks for modules in."""
    return [
        root / "usr/share/perl5",
        *(root / "usr/lib").glob("*/perl5/5.*"),
        *(root / "usr/share").glob("perl/5.*"),
    ]


def main(destination: str, *packages: str) -> int:
    """Fetch, and say in one line what cannot be had."""
    if not shutil.which("apt-get"):
        missing = [p for p in packages if not shutil.which(PROGRAMS.get(p, p), path=SYSTEM_PATH)]
        if missing:
            print(
                f"Not a Debian: install what these Debian packages hold: {' '.join(missing)}", file=sys.stderr
            )
            return 1
    try:
        fetch(Path(destination).resolve(), list(packages))
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
