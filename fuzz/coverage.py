"""A target that coverage guides, in a process of its own: see engine.py."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from fuzz import CHECKOUT, FOUND, SEEDS, progress

_PULSE = re.compile(r"#(\d+)\s.*cov: (\d+)")


def fuzz(target: str, runs: int, seconds: int) -> tuple[int, str | None]:
    """Run a target; give how many inputs it had, and where the one is kept that was too much for it.

    What reached new code stays in FOUND, for the next time. 0 runs or seconds are no limit.
    """
    corpus = FOUND / target
    corpus.mkdir(parents=True, exist_ok=True)
    dictionary = _write_dictionary(target)
    command = [sys.executable, "-m", "fuzz.engine", target, f"-artifact_prefix={FOUND}/{target}-"]
    command += [f"-runs={runs}"] if runs else []
    command += [f"-max_total_time={seconds}"] if seconds else []
    command += [f"-dict={dictionary}"] if dictionary else []
    log_file = FOUND / f"{target}.log"
    done, crash = 0, None
    with log_file.open("w") as log:
        process = subprocess.Popen(
            [*command, str(corpus), str(SEEDS / target)],
            stderr=subprocess.PIPE,
            stdout=log,
            text=True,
            errors="replace",
            cwd=CHECKOUT,
        )
        assert process.stderr
        for line in process.stderr:
            log.write(line)
            if pulse := _PULSE.match(line):
                done = int(pulse[1])
                progress.show(target, done, f"{pulse[2]} edges")
            elif line.startswith("Done "):
                done = int(line.split()[1])
            elif "Test unit written to " in line:
                crash = line.split("Test unit written to ")[1].strip()
    if process.wait() and not crash:
        crash = f"the fuzzer ended with {process.returncode}: see {log_file}"
    return done, crash


def _write_dictionary(target: str) -> Path | None:
    words: Sequence[str] = import_module(f"fuzz.{target}").DICTIONARY
    if not words:
        return None
    path = FOUND / f"{target}.dict"
    lines = ("".join(f"\\x{byte:02x}" for byte in word.encode()) for word in words)
    path.write_text("".join(f'"{line}"\n' for line in lines))
    return path
