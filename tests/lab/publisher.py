"""A publisher in a process of its own, with nothing else of the daemon, and the words that a test has for it.

It does what each line that it is sent says, and answers with a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from anyipd import __version__, here, log
from anyipd.model import Prefix
from anyipd.varlink.address import NAME
from anyipd.varlink.listening import listen
from anyipd.varlink.publisher import Publisher
from anyipd.varlink.service import Service
from tests.lab.forked import FORKS, close_all_from

GRANTED = "2001:db8::/56"
EVERY, SLICES, WORK = 0.02, 5, 0.001
"""A pass: every so many seconds, in so many slices of so many seconds."""


class Asked:
    """What the daemon does, written down."""

    def __init__(self) -> None:
        self.calls, self.errors = list[str](), list[str]()

    def forget(self, prefix: Prefix) -> bool:
        self.calls.append(f"forget {prefix}")
        return str(prefix) == GRANTED

    def reload(self) -> Sequence[str]:
        self.calls.append("reload")
        return self.errors


class Program:
    """What the lines of input mean."""

    def __init__(self, folder: Path) -> None:
        self.asked = Asked()
        self.network_namespace = here.network_namespace()
        self.listening = listen(folder)
        self.publisher = (
            Publisher(self.listening, Service(self.asked, self.network_namespace, __version__))
            if self.listening
            else None
        )
        self.made = 0

    def publish(self, number: int, size: int = 0) -> None:
        """Publish a View with a number, and so many bytes."""

        def view() -> dict[str, object]:
            self.made += 1
            return {"network_namespace": self.network_namespace, "number": number, "policy": "x" * size}

        assert self.publisher
        self.publisher.publish(view)

    def calls(self) -> list[str]:
        return self.asked.calls

    def times_made(self) -> int:
        return self.made

    def listens(self) -> bool:
        return self.listening is not None

    def memory(self) -> int:
        """Give the bytes that it has in memory."""
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    def descriptors(self) -> int:
        return len(list(Path("/proc/self/fd").iterdir())) - 1

    def limit_descriptors(self, most: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    def processor_time(self) -> float:
        return time.process_time()

    async def passes(self, seconds: float, size: int) -> dict[str, float]:
        """Make passes that publish so many bytes; give the processor time of others in the middle of them."""
        taken, due, end = [], time.monotonic() + EVERY, time.monotonic() + seconds
        while due < end:
            await asyncio.sleep(due - time.monotonic())
            of_others = -time.thread_time()
            for _ in range(SLICES):
                begun = time.thread_time()
                while (now := time.thread_time()) < begun + WORK:
                    pass
                await asyncio.sleep(0)
                of_others -= now - begun
            taken.append(of_others + time.thread_time())
            self.publish(len(taken), size)
            due += EVERY
        return {"median": statistics.median(taken), "most": max(taken), "count": len(taken)}

    def stop(self) -> None:
        if self.publisher:
            self.publisher.close()

    async def run(self, peer: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=peer)
        while line := await reader.readline():
            word, *arguments = json.loads(line)
            answer = getattr(self, word)(*arguments)
            told = json.dumps(await answer if asyncio.iscoroutine(answer) else answer)
            writer.write(f"{told}\n".encode())


class Published:
    """That program, in `folder`, from the start of the `with` block to its end; `user` is whose it is."""

    def __init__(self, folder: Path, user: int = 0) -> None:
        self.folder, self.user = folder, user
        self.socket = folder / NAME

    def __enter__(self) -> Self:
        mine, its = socket.socketpair()
        with mine, its:
            self.process = FORKS.Process(target=_run, args=(self.folder, self.user, its), daemon=True)
            self.process.start()
            self.lines = mine.makefile("rw")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()
        self.lines.close()

    def begin(self, word: str, *arguments: object) -> None:
        """Have it do something."""
        self.lines.write(f"{json.dumps([word, *arguments])}\n")
        self.lines.flush()

    def result(self) -> Any:  # noqa: ANN401  as JSON has it
        """Wait for the answer to the oldest word that has none."""
        return json.loads(self.lines.readline())

    def ask(self, word: str, *arguments: object) -> Any:  # noqa: ANN401  as JSON has it
        """Have it do something, and wait until it has."""
        self.begin(word, *arguments)
        return self.result()


def _run(folder: Path, user: int, peer: socket.socket) -> None:
    peer = socket.socket(fileno=os.dup2(peer.detach(), 3))
    close_all_from(4)
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    log.configure()
    asyncio.run(Program(folder).run(peer))
