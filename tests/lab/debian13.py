"""DHCPv6 clients of Debian 13, run on this machine by their own loader, with their own libraries."""

from __future__ import annotations

from pathlib import Path

from tests.lab.programs import missing

ROOT = Path(__file__).resolve().parents[2] / ".cache/debian13/root"
_LIBRARIES = ROOT / "usr/lib/x86_64-linux-gnu"


def command(program: str) -> list[str]:
    """Give the command that starts a program, by its path below the root. Without it the test ends."""
    path = ROOT / program
    if not path.exists():
        missing(f"no Debian 13 with {program}: run `make .cache/debian13` as root")
    libraries = f"{_LIBRARIES}:{_LIBRARIES / 'systemd'}"
    return [str(_LIBRARIES / "ld-linux-x86-64.so.2"), "--library-path", libraries, str(path)]
