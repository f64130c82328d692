"""`anyipctl` in a process of its own, but not in a Python of its own: tests ask it thousands of times.

A process that has imported it forks one for each question. That the program itself starts is seen where
`Daemon.control` is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

from anyipd.ctl.__main__ import main
from tests.lab.namespace import NAMESPACES, set_namespace

_forks = get_context("forkserver")
_forks.set_forkserver_preload([__name__, "anyipd.ctl.status"])


def output(namespace: str, words: Sequence[str], folder: Path) -> str:
    """Run it in the named network namespace, its output through files in `folder`; give what it prints.

    Raises RuntimeError, with what it reports, when it fails.
    """
    printed, reported = folder / "anyipctl.out", folder / "anyipctl.err"
    process = _forks.Process(target=_run, args=(namespace, words, printed, reported))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"anyipctl ended with {process.exitcode}:\n{reported.read_text()}")
    return printed.read_text()


def _run(namespace: str, words: Sequence[str], printed: Path, reported: Path) -> None:
    for number, path in ((1, printed), (2, reported)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    with (NAMESPACES / namespace).open() as inside:
        set_namespace(inside)
    sys.argv = ["anyipctl", *words]
    main()
