"""Method calls on the system bus, blocking: what is asked here are a few strings now and then.

No library of those that are well kept drops an answer unread for its length. With 65,536 bound subnets
networkd's has tens of megabytes, which would take the daemon's memory and a second of its time.

The D-Bus Specification, 0.43: "Authentication Protocol", "Message Protocol" and "Marshaling".
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from typing import BinaryIO, NamedTuple, Self

BUS = "/run/dbus/system_bus_socket"

TIMEOUT = 1.0
"""Seconds that any single answer may take, whatever else comes meanwhile."""

MOST_BYTES = 1 << 20
"""Of an answer's body; what is longer is not worth its memory."""

_CALL, _RETURN, _ERROR, _NO_AUTO_START = 1, 2, 3, 0x2
_PATH, _INTERFACE, _MEMBER, _REPLY_SERIAL, _DESTINATION, _SENDER, _SIGNATURE = 1, 2, 3, 5, 6, 7, 8
_ORDER = b"l" if sys.byteorder == "little" else b"B"
_FIXED = struct.Struct("=cBBBIII")
"""Byte order, type, flags, version, length of the body, serial, length of the fields."""

_LENGTHS = {b"l": struct.Struct("<4xI4xI"), b"B": struct.Struct(">4xI4xI")}
"""Those of the body and of the fields, by byte order."""

_PIECE = 1 << 16
"""Bytes that are read at once of what nobody wants."""


class CallError(Exception):
    """The call was answered with an error, such as that nobody has that name; the message says which."""


class Answer(NamedTuple):
    """What a call returned: the body, and the bus's own name for the process that gave it."""

    sender: str
    body: bytes


class Message(NamedTuple):
    """An answer as it came: its type, its header fields by their codes, and its body."""

    kind: int
    fields: dict[int, str | int]
    body: bytes


class Bus:
    """A connection to the system bus. Raises OSError where there is none, or it does not answer in time."""

    def __init__(self) -> None:
        self._serial = 0
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(TIMEOUT)
            self._socket.connect(BUS)
            self._stream = self._socket.makefile("rb")
            self._log_in()
            self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")
        except BaseException:
            self._socket.close()
            raise

    def _log_in(self) -> None:
        self._socket.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
        for expected in (b"DATA", b"OK "):
            if not self._stream.readline(256).startswith(expected):
                raise ConnectionError("the system bus refuses us")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self, destination: str, path: str, interface: str, member: str, *words: str) -> Answer:
        """Call a method that takes strings, and wait for its answer.

        Nobody is started for it. Raises CallError where it fails, OSError where no answer comes in time,
        and ValueError for an answer that is malformed or too long.
        """
        self._serial += 1
        body = b"".join(_padded(_string(word), 4) for word in words)
        fields = [
            (_PATH, b"o", _string(path)),
            (_DESTINATION, b"s", _string(destination)),
            (_INTERFACE, b"s", _string(interface)),
            (_MEMBER, b"s", _string(member)),
            (_SIGNATURE, b"g", bytes([len(words)]) + b"s" * len(words) + b"\0"),
        ]
        packed = b""
        for code, kind, value in fields:
            packed = _padded(packed, 8) + bytes([code, 1]) + kind + b"\0" + value
        fixed = _FIXED.pack(_ORDER, _CALL, _NO_AUTO_START, 1, len(body), self._serial, len(packed))
        self._socket.sendall(fixed + _padded(packed, 8) + body)
        deadline = time.monotonic() + TIMEOUT
        while not (message := receive(self._stream)) or message.fields.get(_REPLY_SERIAL) != self._serial:
            if time.monotonic() > deadline:
                raise TimeoutError
        if message.kind == _ERROR:
            raise CallError(f"{destination}: {message.body[4:-1].decode(errors='replace')}")
        return Answer(str(message.fields.get(_SENDER, "")), message.body)


def receive(stream: BinaryIO) -> Message | None:
    """Read the next message; None where it is no answer: any user may send us signals, however long they are.

    Raises OSError where the stream ends, ValueError for one that is malformed.
    """
    fixed = _read(stream, _FIXED.size)
    order, kind = fixed[:1], fixed[1]
    if order not in _LENGTHS:
        raise ValueError("what is no message")
    length, fields = _LENGTHS[order].unpack(fixed)
    if kind not in {_RETURN, _ERROR}:
        _skip(stream, fields + -fields % 8 + length)
        return None
    if order != _ORDER:
        raise ValueError("an answer in another byte order")
    if length > MOST_BYTES or fields > MOST_BYTES:
        raise ValueError(f"an answer of more than {MOST_BYTES} bytes")
    header = _read(stream, fields + -fields % 8)
    return Message(kind, _fields(header[:fields]), _read(stream, length))


def _read(stream: BinaryIO, length: int) -> bytes:
    found = stream.read(length)
    if len(found) < length:
        raise ConnectionError("the system bus closed the connection")
    return found


def _skip(stream: BinaryIO, length: int) -> None:
    while length:
        length -= len(_read(stream, min(length, _PIECE)))


def text(body: bytes) -> str:
    """Read a body that is one string. Raises ValueError where it is not."""
    length = int.from_bytes(body[:4], sys.byteorder)
    if len(body) != length + 5:
        raise ValueError("an answer that is not a string")
    return body[4:-1].decode(errors="replace")


def number(body: bytes) -> int:
    """Read a body that is a variant of a UINT64. Raises ValueError where it is not."""
    if len(body) != 16 or body[:3] != b"\x01t\0":  # noqa: PLR2004  the signature, padded, and the number
        raise ValueError("an answer that is not a number")
    return int.from_bytes(body[8:], sys.byteorder)


def _string(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("=I", len(encoded)) + encoded + b"\0"


def _padded(data: bytes, boundary: int) -> bytes:
    return data + bytes(-len(data) % boundary)


def _fields(header: bytes) -> dict[int, str | int]:
    found: dict[int, str | int] = {}
    start = 0
    try:
        while start < len(header):
            code, kind = header[start], header[start + 2 : start + 3]
            start += 4
            if kind == b"u":
                (found[code],) = struct.unpack_from("=I", header, start)
                start += 4
            else:
                size, skip = (
                    (header[start], 1) if kind == b"g" else (*struct.unpack_from("=I", header, start), 4)
                )
                found[code] = header[start + skip : start + skip + size].decode(errors="replace")
                start += skip + size + 1
            start += -start % 8
    except (IndexError, struct.error):
        raise ValueError("a message whose header is malformed") from None
    return found
