"""Calls of the C library that Python's standard library does not make."""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)


def call(function: str, *arguments: object) -> int:
    """Call a function that returns an int. Raises OSError where that is below 0."""
    result: int = getattr(_LIBC, function)(*arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
