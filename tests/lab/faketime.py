"""A wall clock of its own for one program, by libfaketime: the machine's stays what it is."""

from __future__ import annotations

from pathlib import Path

from tests.lab import debian


class FakeClock:
    """The clock that a program sees which is started with `environment`; its files are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.setting = folder / "faketime"
        self.ahead("0")
        [library] = (debian.CACHE / "root" / "usr" / "lib").glob("*/faketime/libfaketime.so.1")
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.setting),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def ahead(self, by: str) -> None:
        """Set the clock to be ahead of the machine's: `10y`, `3d`, or a number of seconds."""
        self.setting.write_text(f"+{by}\n")
