"""Our programs in processes of their own, but not in a Python of their own: tests start thousands of them.

A process that has imported them forks one each time. That each starts by itself is seen in test_start.py, and
where it is installed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.lab.namespace import LIBC, NAMESPACES, PR_SET_PDEATHSIG, checked, set_namespace

ANYIPCTL, STATUS = "anyipd.ctl.__main__", "anyipd.ctl.status"

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload([__name__, "anyipd.__main__", "anyipd.neighbour.__main__", ANYIPCTL, STATUS])


class Forked:
    """A program that runs, with what subprocess.Popen has of it.

    `module` has its `main()`, `words` are its command line, `outputs` the files in place of its
    descriptors, and `environment` replaces this process's.
    """

    stdin: None = None
    stdout: None = None
    stderr: None = None

    def __init__(
        self,
        module: str,
        words: Sequence[str],
        namespace: str,
        outputs: Mapping[int, Path],
        environment: Mapping[str, str],
    ) -> None:
        self.args = list(words)
        self._process = FORKS.Process(
            target=_run, args=(module, self.args, namespace, dict(outputs), dict(environment)), daemon=True
        )
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or what signal ended it as a negative number, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Give the exit code so far."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; give its exit code. Raises TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self._process.exitcode

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """End it as a crash does."""
        self.send_signal(signal.SIGKILL)


def anyipctl(namespace: str, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run it in the named network namespace to its end."""
    with TemporaryDirectory() as folder:
        printed, reported = outputs = Path(folder, "stdout"), Path(folder, "stderr")
        process = Forked(ANYIPCTL, ["anyipctl", *words], namespace, dict(enumerate(outputs, 1)), os.environ)
        code = process.wait()
        return subprocess.CompletedProcess(
            process.args, code, printed.read_bytes().decode(), reported.read_bytes().decode()
        )


def _run(
    module: str, words: list[str], namespace: str, outputs: dict[int, Path], environment: dict[str, str]
) -> None:
    # As namespace.popen has it: no process outlives the tests, however they end.
    checked(LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    for number, path in outputs.items():
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
    close_all_from(3)
    with (NAMESPACES / namespace).open() as inside:
        set_namespace(inside)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    import_module(module).main()


def close_all_from(first: int) -> None:
    """Keep no other descriptors, as from a shell.

    Among them is what keeps the server of forks alive: it and its child would keep each other when a worker
    is killed.
    """
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
