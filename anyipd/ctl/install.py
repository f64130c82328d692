"""`anyipctl install`: all that the programs need around them, wherever they came from."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from anyipd import arguments, policy
from anyipd.ctl.system_files import (
    SYSTEM,
    SYSTEMD_SYSCTL,
    File,
    Layout,
    call,
    is_running,
    require_root,
)

HIDDEN = {
    Path("/home"): "ProtectHome=yes",
    Path("/root"): "ProtectHome=yes",
    Path("/run/user"): "ProtectHome=yes",
    Path("/tmp"): "PrivateTmp=yes",  # noqa: S108  nothing is written there
    Path("/var/tmp"): "PrivateTmp=yes",  # noqa: S108  likewise
}
"""What the service cannot see, and the setting of the unit that hides it."""

FOR_ALL = 0o022
"""The umask for what the service, an ordinary user, is to read, whatever root's own is."""

SEARCH = 0o001
"""A directory's permission for others to pass through."""


def run(options: argparse.Namespace) -> None:
    """Lay all files below `options.root`, and tell the running system of them."""
    root, layout = options.root, Layout(options.prefix)
    require_root(root, "install")
    os.umask(FOR_ALL)
    if root == SYSTEM:
        _refuse_what_the_service_cannot_run(options.prefix)
    for file in layout.files:
        _write(root, file, layout.content(file))
    if not (root / layout.config.path).exists():
        _write(root, layout.config, layout.content(layout.config))
    if is_running(root):
        call("systemd-sysusers", f"/{layout.sysusers.path}")
        call("systemd-tmpfiles", "--create", f"/{layout.tmpfiles.path}")
        call(SYSTEMD_SYSCTL, f"/{layout.sysctl.path}")
        call("systemctl", "daemon-reload")
        _refuse_a_bad_policy(root / layout.config.path)
        # Where it runs already, it goes on with what is installed now; no route changes.
        call("systemctl", "try-restart", "anyipd", "anyipd-neighbour")
        print(f"Next: edit /{layout.config.path} and systemctl enable --now anyipd")


def _write(root: Path, file: File, content: str) -> None:
    path = root / file.path
    print("write", path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # As a new file: a program may be reading the old one, and a link leads to somebody else's.
    new = path.with_name(f".{path.name}.new")
    new.write_text(content)
    new.chmod(file.mode)
    new.replace(path)


def _refuse_what_the_service_cannot_run(prefix: Path) -> None:
    """End the program where the service, as an ordinary user with no home, could not start `prefix`/bin."""
    for what, place, instead in (
        (
            "the programs are",
            prefix,
            "`pipx install --global`, or UV_TOOL_DIR=/opt/uv UV_TOOL_BIN_DIR=/usr/local/bin for uv",
        ),
        ("their Python is", Path(sys.base_prefix), "to install with `--python /usr/bin/python3`"),
    ):
        reason = _unreachable(place.resolve())
        if reason:
            arguments.fail(
                arguments.UNAVAILABLE,
                f"anyipctl install: {what} in {place}, {reason}; right would be {instead}",
            )


def _refuse_a_bad_policy(path: Path) -> None:
    """End the program where a daemon of before would be gone, and the new one not start."""
    try:
        policy.read(path)
    except policy.PolicyError as error:
        todo = "anyipctl install: all is in place, and what ran runs on; mend this and install again"
        arguments.fail(arguments.CONFIGURATION, *error.lines, todo)


def _unreachable(place: Path) -> str | None:
    if not place.is_dir():
        return "which is not there"
    for hidden, setting in HIDDEN.items():
        if place.is_relative_to(hidden):
            return f"and the service cannot see {hidden} ({setting})"
    for folder in (place, *place.parents):
        if not folder.stat().st_mode & SEARCH:
            return f"and {folder} is closed to other users than its own"
    return None
