"""The policy: one that can be carried out, or a PolicyError that says where."""

from __future__ import annotations

import random
import re
from pathlib import Path
from tempfile import NamedTemporaryFile

from anyipd import policy
from anyipd.decide.carve import carve
from anyipd.decide.static import static_assigned
from anyipd.model import Delegation, DelegationState, Places, Prefix, SubnetState

DICTIONARY = (
    *(
        "subnets:",
        "listen:",
        "shortest:",
        "at_most:",
        "name:",
        "id:",
        "count:",
        "length:",
        "uplink:",
        "bind:",
        "neighbours:",
        "accept:",
    ),
    *(
        "uplinks:",
        "within:",
        "protocols:",
        "unassigned:",
        "source_routes:",
        "static:",
        "prefix:",
        "all",
        "true",
        "0xf",
        "0o7",
    ),
    *("2001:db8::/48", "192.0.2.0/24", "- ", "\n  ", "{", "}", "[", "]", "&a", "*a", "<<:", "!!", "? ", "|"),
    *("---", "...", "'", '"', "\\", "#", "%YAML 1.2", "\t", "~", "null", "1e9", ".inf", "\ufeff", "\u2028"),
)

DELEGATED = [Prefix.parse(f"2001:db8::/{length}") for length in (48, 60, 64)]
_PLACE = re.compile(r".*?:(\d+):(\d+): ")

_VALUE = re.compile(rb"(?<=: )[^,}#]+")


def run(data: bytes) -> None:
    """Raise where an input is taken for what it is not."""
    with NamedTemporaryFile() as file:
        path = Path(file.name)
        path.write_bytes(data)
        try:
            found = policy.read(path)
        except policy.PolicyError as error:
            check_lines(error.lines, path, data)
            return
    for prefix in DELEGATED:
        check_carving(found, prefix)


def check_lines(lines: list[str], path: Path, data: bytes) -> None:
    """See that every mistake has a place in the file, and a line of its own."""
    assert lines
    for line in lines:
        assert "\n" not in line, ascii(line)
        place = _PLACE.match(line.removeprefix(f"{path.parent}"))
        if place:  # a file that is none has no lines
            # YAML knows more line breaks than bytes do, and a mistake may be behind the last one.
            assert 1 <= int(place[1]) <= len(data) + 2, line
            assert 1 <= int(place[2]) <= len(data) + 2, line


def check_carving(found: policy.Policy, prefix: Prefix) -> None:
    """See that what is carved lies inside the prefix, and no two subnets on each other."""
    delegation = Delegation(prefix, "fuzz", DelegationState.GRANTED)
    placed = sorted(
        (each.first.address, each.first.address + each.count * each.first.size)
        for each in carve(delegation, found, static_assigned(found), Places(), 0.0).subnets
        if each.first and each.state in {SubnetState.WANTED, SubnetState.RESERVED}
    )
    ends = prefix.address
    for start, end in placed:
        assert start >= ends, found
        ends = end
    assert ends <= prefix.end, found


def mutate(data: bytes, _: bytes, chance: random.Random) -> bytes:
    """Edit lines and values, so that most of it stays YAML."""
    lines, values = data.splitlines(), [*_VALUE.findall(data), *(word.encode() for word in DICTIONARY)]
    for kind in chance.choices(("repeat", "drop", "value"), (1, 1, 3), k=chance.randint(1, 4)):
        place, value = chance.randint(0, len(lines)), chance.choice(values)
        if kind == "repeat":
            lines[place:place] = lines[place : place + chance.randint(1, 3)]
        elif kind == "drop":
            del lines[place : place + chance.randint(1, 3)]
        else:
            lines[place : place + 1] = [_with_value(line, value) for line in lines[place : place + 1]]
    return b"\n".join(lines) + b"\n"


def _with_value(line: bytes, value: bytes) -> bytes:
    return _VALUE.sub(lambda _: value, line, count=1)
