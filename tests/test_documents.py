"""The documents name tests for what they claim: each is there, and each attacker has one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))

_NAMED = re.compile(r"(?P<file>test_\w+\.py)?(?P<test>::test_\w+)?")
_DEFINED = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


def named(text: str) -> list[tuple[str, str]]:
    """Give the tests that a text names, by file and name; a name alone is of the file named last."""
    found, file = [], ""
    for match in _NAMED.finditer(text):
        if match["file"] or match["test"]:
            file = match["file"] or file
            found.append((file, (match["test"] or "").removeprefix("::")))
    return found


def is_there(file: str, test: str) -> bool:
    path = ROOT / "tests" / file
    return path.is_file() and (not test or test in _DEFINED.findall(path.read_text()))


def attackers() -> list[list[str]]:
    """Give the rows of the threat model's tables: attacker, worst outcome, what limits it, its test."""
    text = (ROOT / "docs/SECURITY.md").read_text()
    part = text.split("## What an attacker can get")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows if row[0].strip() != "attacker"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_test_that_is_named_is_there(document: Path) -> None:
    missing = [each for each in named((ROOT / document).read_text()) if not is_there(*each)]
    assert not missing


@pytest.mark.parametrize("row", attackers(), ids=lambda row: row[0])
def test_every_attacker_has_a_test_or_is_left_to_somebody_else(row: list[str]) -> None:
    *_, limits, test = row
    assert len(row) == 4
    assert named(test) or test == "not ours", limits
