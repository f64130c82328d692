"""What comes from the kernel: values, or MalformedError and nothing else."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable
from functools import partial

from anyipd.kernel import address_wire, link_wire, lock, wire
from anyipd.kernel.monitor import Hint, hint
from anyipd.kernel.routes import ours_and_others
from anyipd.kernel.wire import MalformedError
from anyipd.model import Prefix

DICTIONARY = ()
OVERLAP = wire.Overlap([Prefix.parse("2001:db8::/56"), Prefix.parse("2001:db8:100::/60")])


def run(data: bytes) -> None:
    """Give the same bytes to everything that reads netlink."""
    assert isinstance(hint(data), Hint)
    readers: list[Callable[[bytes], Iterable[object]]] = [
        wire.answers,
        address_wire.addresses,
        lambda data: ours_and_others([data])[1],
        OVERLAP.find,
        lock.members,
        lambda data: [wire.first_table(data)],
        partial(map_messages, lambda start, end: wire.route(data, start, end)),
        partial(map_messages, lambda start, end: link_wire.link(data, start, end)),
        partial(map_messages, lambda start, end: wire.next_hops(data, start, end)),
    ]
    for read in readers:
        with contextlib.suppress(MalformedError):
            list(read(data))
    # A dump that the kernel refused is an error of its own.
    with contextlib.suppress(MalformedError, OSError):
        rest, _ = wire.split_end(data)
        assert data.startswith(rest)


def map_messages(read: Callable[[int, int], object], data: bytes) -> Iterable[object]:
    """Read every message that there is."""
    return [read(start, end) for start, _, end in wire.messages(data)]


def mutate(_: bytes, mutated: bytes, __: random.Random) -> bytes:
    """Write right lengths into the headers of messages, so that what is behind them gets read.

    A mutated length ends the message at the next thing that looks like a header, or with the data.
    """
    whole, start = bytearray(mutated), 0
    while start + 16 <= len(whole):
        length = int.from_bytes(whole[start : start + 4], "little")
        if length < 16 or start + length > len(whole):
            length = len(whole) - start
            whole[start : start + 4] = length.to_bytes(4, "little")
        start += (length + 3) & ~3
    return bytes(whole)
