"""What comes from the system bus: a message, or an error that asking networkd foresees."""

from __future__ import annotations

import io
import random
import sys
from contextlib import suppress

from anyipd.observe import dbus

DICTIONARY = (
    *(
        "l\x02\x01\x01",
        "l\x03\x01\x01",
        "\x05\x01u\x00",
        "\x07\x01s\x00",
        "\x08\x01g\x00",
        ":1.7",
        "\x01t\x00",
    ),
)

FIXED, LENGTHS = 16, (4, 12)
"""Bytes that a message begins with, and where in them the lengths of its body and of its fields are."""


def run(data: bytes) -> None:
    """Read all messages that there are, and every body as what it may be."""
    stream = io.BytesIO(data)
    with suppress(ValueError, ConnectionError):
        while True:
            message = dbus.receive(stream)
            if message is None:  # a signal, or a call
                continue
            assert len(message.body) <= dbus.MOST_BYTES
            for read in dbus.text, dbus.number:
                with suppress(ValueError):
                    read(message.body)


def mutate(_: bytes, mutated: bytes, chance: random.Random) -> bytes:
    """Write lengths into the first header that its message has room for, so that what is behind gets read."""
    whole = bytearray(mutated)
    if len(whole) >= FIXED:
        for place in LENGTHS:
            length = chance.randint(0, len(whole) - FIXED)
            whole[place : place + 4] = length.to_bytes(4, sys.byteorder)
    return bytes(whole)
