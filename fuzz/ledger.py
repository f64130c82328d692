"""The ledger file: a ledger and places to go on with, or a ValueError of one line."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from anyipd import here
from anyipd.ledger_file import LedgerFile
from fuzz import json_tree
from fuzz.carried_out import carry_out

DICTIONARY = (
    "granted",
    "superseded",
    "withdrawn",
    "expired",
    "2001:db8::/48",
    "true",
    "null",
    "1e999",
    "NaN",
)

LONGEST = 4096

BOOT = b"BOOT"
"""What stands in the inputs for this boot: a file of another one is not read further."""

mutate = json_tree.mutate

_folder = TemporaryDirectory()


def run(data: bytes) -> None:
    """Start from a file, make two passes, and see that what is written then is read."""
    file = LedgerFile(Path(_folder.name))
    file.path.parent.mkdir(exist_ok=True)
    file.path.write_bytes(data.replace(BOOT, here.boot().encode()))
    try:
        ledger, places = file.read()
    except ValueError as error:
        # What a file says must not come out as lines of a log.
        assert "\n" not in str(error), ascii(str(error))
        return
    carry_out(ledger, places)
    file.write(ledger, places, None)
    again, places_again = LedgerFile(Path(_folder.name)).read()
    assert list(again.records) == list(ledger.records)
    assert (again.routes, again.carriers) == (ledger.routes, ledger.carriers)
    assert set(again.fallen) == set(ledger.fallen)
    assert places_again == places
