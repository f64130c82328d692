"""make, as a user runs it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.programs import need

ROOT = Path(__file__).resolve().parents[2]


CLOSED = 0o077
"""The umask of a careful administrator: what he makes is for nobody else."""


def make(*words: str, dist: Path, umask: int = -1) -> str:
    """Run make as a user would, not as part of the make that may have started the tests.

    It builds in `dist`, so that it may run several times at once.

    The lab has no way out: pip finds here what `make test` fetched before.
    """
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(ROOT / ".cache" / "wheels")}
    # Nobody downloads it.
    environment |= {"DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}
    python = f"SYSTEM_PYTHON={Path(sys.executable).resolve()}"
    ready_made = "--old-file=.venv"
    return output(
        ["make", "--no-print-directory", ready_made, "-C", str(ROOT), python, f"DIST={dist}", *words],
        env=environment,
        umask=umask,
    )


def installed(factory: pytest.TempPathFactory, python: Path) -> Path:
    """Give a DESTDIR filled by `make install` for `python`: made once for all workers, not to be changed."""
    session = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    directory = session / f"installed-{python.name}"
    with Path(f"{directory}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            under_way = Path(f"{directory}.new")
            dist = factory.mktemp("dist")
            make("install", f"DESTDIR={under_way}", f"SYSTEM_PYTHON={python}", dist=dist, umask=CLOSED)
            under_way.rename(directory)
    return directory


def closed(directory: Path) -> list[str]:
    """Give what some user may not read there, or not pass or execute where its owner may."""
    return [
        f"{path.relative_to(directory)} {path.lstat().st_mode & 0o777:o}"
        for path in sorted(directory.rglob("*"))
        if not path.is_symlink() and path.lstat().st_mode & 0o500 != (path.lstat().st_mode & 0o005) << 6
    ]


def output(command: list[str], env: dict[str, str] | None = None, umask: int = -1) -> str:
    """Run a command that must succeed, and give what it printed."""
    program, *arguments = command
    done = subprocess.run(
        [need(program), *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
        umask=umask,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
