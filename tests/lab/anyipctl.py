"""`anyipctl` in a process of its own, but not in a Python of its own: tests run it thousands of times.

A process that has imported what most subcommands need forks one each time. That the program itself starts is
seen in test_start.py, and where it is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from anyipd.ctl.__main__ import main
from tests.lab.namespace import NAMESPACES, set_namespace

_forks = get_context("forkserver")
_forks.set_forkserver_preload([__name__, "anyipd.ctl.status"])


def run(namespace: str, words: Sequence[str], *, check: bool) -> subprocess.CompletedProcess[str]:
    """Run it in the named network namespace; with `check`, raise CalledProcessError when it fails."""
    with TemporaryDirectory() as folder:
        printed, reported = Path(folder, "stdout"), Path(folder, "stderr")
        process = _forks.Process(target=_run, args=(namespace, words, printed, reported))
        process.start()
        process.join()
        assert process.exitcode is not None
        done = subprocess.CompletedProcess(
            ["anyipctl", *words],
            process.exitcode,
            printed.read_bytes().decode(),
            reported.read_bytes().decode(),
        )
    if check:
        done.check_returncode()
    return done


def _run(namespace: str, words: Sequence[str], printed: Path, reported: Path) -> None:
    for number, path in ((1, printed), (2, reported)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    with (NAMESPACES / namespace).open() as inside:
        set_namespace(inside)
    sys.argv = ["anyipctl", *words]
    main()
