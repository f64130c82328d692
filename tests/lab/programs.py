"""What a test cannot do without."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

from tests.lab import debian


def missing(reason: str) -> NoReturn:
    """End the test for want of something: skipped on somebody's laptop, failed in CI."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def need(program: str) -> str:
    """Give the path of `program`, the lab's or the machine's own.

    Where it is missing the test ends: skipped on somebody's laptop, failed in CI.
    """
    found = shutil.which(program, path=debian.environment()["PATH"])
    if found is None:
        missing(f"{program} is not installed")
    return found
