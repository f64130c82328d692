"""What a test cannot do without."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import NoReturn

import pytest

from tests.lab import debian

SERVICES = debian.CACHE.parent / "services"
"""What docs/SERVICES.md sets up besides the lab's programs."""


def missing(reason: str) -> NoReturn:
    """End the test for want of something: skipped on somebody's laptop, failed in CI."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def need(program: str, environment: Mapping[str, str] | None = None) -> str:
    """Give the path of `program`, the lab's or the machine's own, or one that `environment` names.

    Where it is missing the test ends: skipped on somebody's laptop, failed in CI.
    """
    found = shutil.which(program, path=(environment or debian.environment())["PATH"])
    if found is None:
        missing(f"{program} is not installed")
    return found


def services() -> dict[str, str]:
    """Give the environment in which what docs/SERVICES.md sets up is found by name, too."""
    environment = debian.environment()
    return {**environment, "PATH": f"{environment['PATH']}{os.pathsep}{SERVICES / 'bin'}"}
