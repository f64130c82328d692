"""Signals while a program is still being imported, and when it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from tests.lab.daemon import CHECKOUT, Daemon
from tests.lab.namespace import wait_until

MOMENTS = [0, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3]
"""Seconds after the program's first own step. Importing takes 0.2 to 0.4 of them."""

SCRIPTS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["scripts"]


AT_IMPORT = """\
import os, signal, sys

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.{signal})

sys.meta_path.insert(0, Interrupter())
"""
"""Has a signal come at the moment at which a module is about to be imported."""

FIRST = {"anyipd": "anyipd.__main__", "anyipd-neighbour": "anyipd.neighbour", "anyipctl": "anyipd.ctl"}
"""What each imports first."""


def console_script(program: str) -> str:
    module, _, function = SCRIPTS[program].partition(":")
    return f"import sys; from {module} import {function}; sys.exit({function}())"


def launch(daemon: Daemon, program: str, *words: str) -> subprocess.Popen[str]:
    """Start a program as its console script does, and wait for its own first step."""
    # Python's own start is no part of this: nothing of ours runs by then. SIGUSR2 ignored says that it is
    # over.
    begun = "import signal; signal.signal(signal.SIGUSR2, signal.SIG_IGN); "
    command = [sys.executable, "-c", begun + console_script(program), *words, *daemon.files]
    process = daemon.namespace.popen(*command, stderr=subprocess.PIPE, env=daemon.environment())
    wait_until(lambda: took_signals(process.pid, by_default=program == "anyipctl"))
    return process


def took_signals(pid: int, *, by_default: bool) -> bool:
    """Say whether the program settled what SIGINT does: Python itself catches it."""
    masks = re.findall(r"^Sig(Ign|Cgt):\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    found = {name: int(mask, 16) for name, mask in masks}

    def has(name: str, number: signal.Signals) -> bool:
        return bool(found[name] >> (number - 1) & 1)

    if by_default:
        return has("Ign", signal.SIGUSR2) and not has("Cgt", signal.SIGINT)
    # Ignored at first; by now its event loop may handle it.
    return has("Cgt", signal.SIGTERM) and (has("Ign", signal.SIGHUP) or has("Cgt", signal.SIGHUP))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize(
    ("program", "module"),
    [*FIRST.items(), ("anyipd", "asyncio"), ("anyipd", "pydantic"), ("anyipctl", "argparse")],
)
def test_a_signal_at_an_import(daemon: Daemon, program: str, module: str, name: str) -> None:
    script = AT_IMPORT.format(module=module, signal=name) + console_script(program)
    command = [sys.executable, "-c", script, *daemon.files]
    done = daemon.namespace.run(*command, check=False, env=daemon.environment())
    assert done.stderr == ""
    assert done.returncode == (-signal.Signals[name] if program == "anyipctl" else 0)


@pytest.mark.parametrize("program", ["anyipd", "anyipd-neighbour"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_it_starts_is_a_stop(daemon: Daemon, program: str, number: signal.Signals) -> None:
    for moment in MOMENTS:
        process = launch(daemon, program)
        time.sleep(moment)
        process.send_signal(number)
        _, said = process.communicate(timeout=5)
        assert "Traceback" not in said, said
        assert process.returncode == 0, f"after {moment} s: {said}"


@pytest.mark.parametrize("program", ["anyipd", "anyipd-neighbour"])
def test_a_reload_while_it_starts_changes_nothing(daemon: Daemon, program: str) -> None:
    process = launch(daemon, program)
    for _ in range(20):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    assert process.stderr
    process.stderr.close()


def test_many_signals_are_one_stop(daemon: Daemon) -> None:
    process = launch(daemon, "anyipd")
    time.sleep(1)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    _, said = process.communicate()
    assert "Traceback" not in said, said
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_tool_ends_by_the_signal(daemon: Daemon, number: signal.Signals) -> None:
    for moment in MOMENTS:
        process = launch(daemon, "anyipctl", "watch")
        time.sleep(moment)
        process.send_signal(number)
        _, said = process.communicate(timeout=5)
        assert "Traceback" not in said, said
        assert process.returncode == -number
