"""`make demo` keeps its word, and says so when it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.namespace import INSIDE, wait_until

CHECKOUT = Path(__file__).resolve().parents[1]
BROKEN = """
import sys
from tests.lab import demo
demo.POLICY = "subnets: [{name: web, bind: false}]"
sys.exit(demo.main())
"""

pytestmark = pytest.mark.usefixtures("lab")


def group_exists(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def start(*words: str) -> subprocess.Popen[str]:
    # Without the mark it enters a lab of its own, inside this one, as from a shell.
    environment = {name: value for name, value in os.environ.items() if name != INSIDE}
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=CHECKOUT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.long
def test_everything_is_seen() -> None:
    with start("-m", "tests.lab.demo") as demo:
        told, _ = demo.communicate(timeout=40)
    assert demo.returncode == 0, told
    steps = [line for line in told.splitlines() if line.startswith(("\N{CHECK MARK}", "+"))]
    assert len(steps) == 19, told
    assert sum(step.endswith("4000 of 4000") for step in steps) == 3
    for key in (
        "to first answers",
        "serves http://[2001:db8:1:0:",
        "still answers in the old one",
        "unbinds it when its valid lifetime ends",
        "kills anyipd with SIGKILL",
        "saw no route change",
    ):
        assert key in told
    assert "README.md" in told.splitlines()[-1]
    assert "\x1b" not in told
    assert "\r" not in told
    # What `anyipctl status` gives as a reason is as long as it is.
    assert max(len(line) for line in told.splitlines() if "superseded by" not in line) <= 80


def test_a_daemon_that_binds_nothing_is_seen() -> None:
    with start("-c", BROKEN) as demo:
        told, _ = demo.communicate(timeout=20)
    assert demo.returncode == 1, told
    failed, expected, seen = told.partition("Failed: ")[2].splitlines()[:3]
    assert "binds 4 /64s" in failed
    assert "an answer from each of 4 /64s of 2001:db8:1::/60" in expected
    assert "0 of 4 answer" in seen
    for log in ("anyipd.log", "dhclient.log", "kea.log"):
        assert f"The end of {log}:" in told
    assert "README.md" not in told


def test_an_interruption_leaves_nothing_behind() -> None:
    with start("-m", "tests.lab.demo") as demo:
        assert demo.stdout
        while "holds local routes" not in demo.stdout.readline():
            pass
        # As a terminal does it: to all of the foreground.
        os.killpg(demo.pid, signal.SIGINT)
        told = demo.stdout.read()
    assert demo.returncode == 130, told
    assert "Traceback" not in told
    # What it started is killed with it, and reaped in its own time.
    wait_until(lambda: not group_exists(demo.pid))
