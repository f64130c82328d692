"""`anyipctl uninstall`: undo `anyipctl install`, and what the daemon and the hook did to the system."""

from __future__ import annotations

import argparse
import contextlib
import grp
import pwd
import shutil
from pathlib import Path

from anyipd.ctl import flush
from anyipd.ctl.system_files import SYSCTL, SYSTEM, SYSTEMD_SYSCTL, Layout, call, is_running, require_root

SHARED = ("usr/share", "usr/local/share")
NOT_OURS = ("etc", "usr/lib", "usr/local/lib", *SHARED, *(f"{folder}/man" for folder in SHARED))
"""Folders that stay, empty or not."""


def run(options: argparse.Namespace) -> None:
    """Take all files below `options.root` away, and from the running system what they brought."""
    root, layout = options.root, Layout(options.prefix)
    require_root(root, "uninstall")
    if is_running(root) and Path("/", layout.unit.path).exists():
        call("systemctl", "disable", "--now", "anyipd", "anyipd-neighbour")
    for file in layout.files:
        _remove(root, file.path)
    config = root / layout.config.path
    if config.exists() and config.read_text() != layout.content(layout.config):
        print(f"Kept: {config}, which you changed")
    else:
        _remove(root, layout.config.path)
    if root == SYSTEM:
        _take_back_what_it_did()
    if is_running(root):
        call("systemctl", "daemon-reload")
        # The kernel's own value, then what other files of the administrator's say.
        Path("/proc/sys", SYSCTL.replace(".", "/")).write_text("0\n")
        call(SYSTEMD_SYSCTL, f"--prefix={SYSCTL}")


def _remove(root: Path, path: str) -> None:
    file = root / path
    if not file.exists():
        return
    print("remove", file)
    file.unlink()
    kept = {root / folder for folder in NOT_OURS}
    with contextlib.suppress(OSError):  # not empty
        for folder in file.parents:
            if folder in kept:
                break
            folder.rmdir()


def _take_back_what_it_did() -> None:
    flush.run(argparse.Namespace(json=False))
    shutil.rmtree("/run/anyipd", ignore_errors=True)
    # No file is the daemon's, so nobody inherits one with its number.
    with contextlib.suppress(KeyError):
        call("userdel", pwd.getpwnam("anyipd").pw_name)
        call("groupdel", grp.getgrnam("anyipd").gr_name)
