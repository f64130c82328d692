"""Errors that the kernel gives at the worst moment, put into a running program's system calls by strace."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.lab.namespace import stop, wait_until
from tests.lab.programs import need


@contextlib.contextmanager
def injected(pid: int, folder: Path, fault: str) -> Iterator[None]:
    """Have system calls of process `pid` fail while the `with` block lasts; it waits for the first to do so.

    `fault` is what strace's `--inject` takes: `sendto:error=ENOMEM:when=1` has the first send of the
    block fail, `sendto:retval=64:when=1` has it swallowed.
    """
    trace = folder / "strace"
    calls = fault.partition(":")[0]
    command = [
        need("strace"),
        f"--attach={pid}",
        f"--trace={calls}",
        f"--inject={fault}",
        f"--output={trace}",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        attached = process.stderr.readline()
        assert "attached" in attached, attached
        yield
        wait_until(lambda: "(INJECTED)" in trace.read_text())
    finally:
        stop(process, signal.SIGTERM)
