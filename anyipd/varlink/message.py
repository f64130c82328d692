"""Varlink's messages: objects of JSON that end with a NUL (https://varlink.org/Method-Call)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Never

Json = dict[str, Any]

INTERFACE = "io.anyipd"

MAX_CALL, MAX_REPLY = 64 * 1024, 16 * 1024 * 1024
"""Bytes of a message: those that clients send, and those that the daemon does."""

MAX_VALUES = 256
"""Values in a call, counted by the commas: a message that is nothing else takes 2 ms to read."""

MAX_NAME = 255
"""Characters of a name, of those that are nobody's too."""

_MAX_DIGITS = 20  # with a sign
_METHOD = re.compile(r"[A-Za-z][A-Za-z0-9-]*(\.[A-Za-z0-9][A-Za-z0-9-]*)+\.[A-Z][A-Za-z0-9]*", re.ASCII)
_FLAGS = ("oneway", "more", "upgrade")


class ProtocolError(ValueError):
    """What no peer may send: it ends the connection."""


class VarlinkError(Exception):
    """An error as a reply names it, `name` with its interface."""

    def __init__(self, name: str, /, **parameters: object) -> None:
        super().__init__(name, parameters)
        self.name, self.parameters = name, parameters


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a method, which is named with its interface."""

    method: str
    parameters: Json = field(default_factory=dict)
    oneway: bool = False
    more: bool = False
    upgrade: bool = False

    @property
    def interface(self) -> str:
        """The interface that the method is of."""
        return self.method.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that is no error; where it `continues`, others follow."""

    parameters: Json
    continues: bool = False


class Messages:
    """Cuts what comes into messages of `limit` bytes at most."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._come = bytearray()
        self._end = -1

    @property
    def has_whole(self) -> bool:
        """Whether a message is to be taken."""
        return self._end >= 0

    @property
    def holds_any(self) -> bool:
        """Whether anything came that was not taken."""
        return bool(self._come)

    @property
    def room(self) -> int:
        """How many bytes to receive at most: where they hold no end, the message is too long."""
        return max(0, self._limit + 1 - len(self._come))

    def feed(self, data: bytes | memoryview) -> None:
        """Take in bytes. Raises ProtocolError where they are more than a message may have."""
        known = len(self._come)
        self._come += data
        if not self.has_whole:
            self._look_for_end(known)

    def take(self) -> bytes | None:
        """Give the next message, without its NUL; None where it is not whole."""
        if not self.has_whole:
            return None
        message = bytes(self._come[: self._end])
        del self._come[: self._end + 1]
        self._look_for_end(0)
        return message

    def _look_for_end(self, known: int) -> None:
        self._end = self._come.find(0, known)
        if (self._end if self.has_whole else len(self._come)) > self._limit:
            raise ProtocolError(f"a message of more than {self._limit} bytes")


def parse_call(message: bytes) -> Call:
    """Return the call that a message is. Raises ProtocolError where it is none.

    What else a message says is passed over: it is for extensions.
    """
    if message.count(b",") >= MAX_VALUES:
        raise ProtocolError(f"a call with more than {MAX_VALUES} values")
    found = _parse(message)
    method = found.get("method")
    if not isinstance(method, str) or len(method) > MAX_NAME or not _METHOD.fullmatch(method):
        raise ProtocolError("a call without the name of a method")
    call = Call(method, _parameters(found), **{name: _flag(found, name) for name in _FLAGS})
    if call.oneway and (call.more or call.upgrade):
        raise ProtocolError("a call for one and for no reply")
    return call


def parse_reply(message: bytes) -> Reply:
    """Return the reply that a message is. Raises VarlinkError where that is one, else ProtocolError."""
    found = _parse(message)
    error, parameters = found.get("error"), _parameters(found)
    if isinstance(error, str):
        raise VarlinkError(error, **parameters)
    if error is not None:
        raise ProtocolError("an error without a name")
    return Reply(parameters, continues=_flag(found, "continues"))


def encode_call(call: Call) -> bytes:
    """Return a call as a message, with its NUL."""
    flags = {name: True for name in _FLAGS if getattr(call, name)}
    return encode({"method": call.method, "parameters": call.parameters, **flags}) + b"\0"


def encode_reply(parameters: Mapping[str, object]) -> bytes:
    """Return the last reply to a call as a message, with its NUL."""
    return encode({"parameters": parameters}) + b"\0"


def encode_error(error: VarlinkError) -> bytes:
    """Return an error as a message, with its NUL."""
    return encode({"error": error.name, "parameters": error.parameters}) + b"\0"


def encode(value: object) -> bytes:
    """Return JSON. Raises ValueError for numbers that JSON has not; what is no Unicode becomes `?`."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode(errors="replace")


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError("more digits than a number of 64 bits has")
    return int(digits)


def _fraction(digits: str) -> float:
    if len(digits) > MAX_NAME:
        raise ValueError("more digits than a number has")
    return float(digits)


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_int=_integer, parse_float=_fraction)


def _parse(message: bytes) -> Json:
    try:
        found = _DECODER.decode(message.decode())
    except (ValueError, RecursionError):
        raise ProtocolError("no JSON") from None
    if not isinstance(found, dict):
        raise ProtocolError("JSON, but no object")
    return found


def _parameters(found: Json) -> Json:
    parameters = found.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise ProtocolError("parameters that are no object")
    return parameters


def _flag(found: Json, name: str) -> bool:
    flag = found.get(name)
    if flag is None:
        return False
    if not isinstance(flag, bool):
        raise ProtocolError(f"`{name}` is neither true nor false")
    return flag
