"""What the demo says: a line a step, who did what and the figure that was measured."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WHO, WHAT, FIGURE = 6, 54, 14  # widths of columns, 79 altogether
GREEN, RED, DIM, PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[0m"
START_OF_LINE = "\r\x1b[K"

FAILURES = (TimeoutError, RuntimeError, OSError, subprocess.CalledProcessError)
"""What the lab raises when one of its programs does not do what it was started for."""


class StepError(Exception):
    """A step of the story did not come true: its words, what was expected, and what was seen."""

    def __init__(self, step: str, expected: str, seen: str) -> None:
        super().__init__(f"{step}: expected {expected}, seen {seen}")
        self.step, self.expected, self.seen = step, expected, seen


class Step:
    """A step that is being taken. `figure` is what was measured, for the end of its line."""

    def __init__(self, story: Story, who: str, what: str) -> None:
        self.story, self.who, self.what = story, who, what
        self.figure = ""

    def expect(self, expected: str, so: object, seen: str) -> None:
        """Raise StepError where it is not so."""
        if not so:
            raise StepError(self.what, expected, seen)

    def wait_for(
        self, expected: str, condition: Callable[[], object], seen: Callable[[], str], timeout: float = 3.0
    ) -> None:
        """Wait, and on a terminal show what is `seen` meanwhile; StepError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not condition():
            self.show_progress(seen())
            self.expect(f"{expected} within {timeout:.1f} s", time.monotonic() < deadline, seen())
            time.sleep(0.01)

    def show_progress(self, figure: str) -> None:
        """Show how far it is, on a terminal; elsewhere a line is written once."""
        if self.story.terminal:
            line = self.line("-", figure)[: shutil.get_terminal_size().columns - 1]
            print(f"{START_OF_LINE}{DIM}{line}{PLAIN}", end="", flush=True)

    def line(self, mark: str, figure: str) -> str:
        """Write it as one line."""
        return f"{mark} {self.who:<{WHO}} {self.what:<{WHAT}} {figure:>{FIGURE}}".rstrip()


class Story:
    """Tells on stdout: with colour and progress on a terminal, in plain lines elsewhere."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        try:
            "✓✗".encode(sys.stdout.encoding)
            self.seen, self.unseen = "✓", "✗"
        except UnicodeEncodeError:
            self.seen, self.unseen = "+", "!"

    def say(self, text: str = "") -> None:
        """Say something between the steps."""
        print(text, flush=True)

    def show(self, text: str) -> None:
        """Show what a program or a file holds, set off from what is told."""
        self.say()
        for line in text.splitlines():
            self.say(f"  {line}".rstrip())
        self.say()

    @contextmanager
    def step(self, who: str, what: str) -> Iterator[Step]:
        """Take a step, and tell how it ended. Raises StepError where it failed."""
        step = Step(self, who, what)
        step.show_progress("")
        try:
            yield step
        except (StepError, *FAILURES) as error:
            self.end(step, self.unseen, RED)
            if isinstance(error, StepError):
                raise
            raise StepError(
                what, "the lab's programs to do their part", str(error).partition("\n")[0]
            ) from error
        self.end(step, self.seen, GREEN)

    def end(self, step: Step, mark: str, colour: str) -> None:
        line = step.line(mark, step.figure)
        if self.terminal:
            line = START_OF_LINE + line.replace(mark, f"{colour}{mark}{PLAIN}", 1)
        self.say(line)
