"""Text that a terminal may have: what came from outside with every control character escaped.

The name of a link, a file or a user's word may hold ESC, a change of direction, or bytes that are not UTF-8.
Pure but for the streams that are replaced.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

_LAYOUT = "\n\t"
_BYTES = range(0xDC80, 0xDD00)
"""What os.fsdecode makes of the bytes 0x80 to 0xff where they are not UTF-8."""


def printable(text: str, besides: str = "") -> str:
    r"""Escape what is not printable, such as ESC as \x1b, and leave alone what is in `besides`."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in besides else _escaped(each) for each in text)


def is_utf8(name: str) -> bool:
    """Whether a name from the system is text. Python's packet sockets know no other names of links."""
    return not any("\ud800" <= each <= "\udfff" for each in name)


def guard_output() -> None:
    """Escape from here on what this program prints; `sys.__stderr__` takes what it is to pass on as it is."""
    for name in ("stdout", "stderr"):
        # None where the program was started with it closed.
        stream: io.TextIOWrapper = getattr(sys, name) or Path(os.devnull).open("w")  # noqa: SIM115  until the end
        stream.reconfigure(errors="backslashreplace")  # for what this terminal's character set has not got
        setattr(sys, name, _Guarded(stream))


class _Guarded:
    """A text stream that escapes what is written to it, but for ends of lines and tabs."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(printable(text, _LAYOUT))
        return len(text)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  the stream's own
        return getattr(self._stream, name)


def _escaped(character: str) -> str:
    number = ord(character)
    if number in _BYTES:
        return f"\\x{number & 0xFF:02x}"
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
