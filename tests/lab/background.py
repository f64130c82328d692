"""What goes on beside a test, in a thread of its own while a `with` block lasts."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import Self


class Background(ABC):
    """Does `run`, which looks whether it is `ended`, and afterwards `close`."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        self.close()

    @abstractmethod
    def run(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


class Asking(Background):
    """Asks every `interval` seconds; answers are waited for up to `answers_within` seconds at the end."""

    def __init__(self, interval: float, answers_within: float) -> None:
        super().__init__()
        self.interval, self.answers_within = interval, answers_within

    def run(self) -> None:
        due = time.monotonic()
        while not self.ended.is_set():
            self.ask()
            due += self.interval
            while (left := due - time.monotonic()) > 0:
                self.receive(left)
            self.receive(0)
        deadline = time.monotonic() + self.answers_within
        while self.is_waiting() and (left := deadline - time.monotonic()) > 0:
            self.receive(left)
        self.receive(0)  # what came while this thread did not run

    @abstractmethod
    def ask(self) -> None:
        """Ask everybody once."""

    @abstractmethod
    def receive(self, timeout: float) -> None:
        """Wait for something to come, and take all that did."""

    @abstractmethod
    def is_waiting(self) -> bool:
        """Whether there are questions without an answer."""
