"""Programs that a test cannot do without."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.lab import debian


def need(program: str) -> str:
    """Give the path of `program`, the lab's or the machine's own.

    Where it is missing the test ends: skipped on somebody's laptop, failed in CI.
    """
    found = shutil.which(program, path=debian.environment()["PATH"])
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{program} is not installed")
    return found
