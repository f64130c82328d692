"""Mutations of JSON that leave it JSON, so that what is behind the parser gets read."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 128, 129, 1 << 32, 1 << 63, 1 << 64, 10**400, 0.5, -0.0, 1e300),
    *(float("inf"), float("-inf"), float("nan"), "", "\ud800", "\x1b[31m", "a" * 300, [], {}, [[]]),
)
"""What may stand where something else belongs; Python's parser takes NaN and Infinity as well."""

OWN = 0.9
"""Of the mutations keep the structure."""


def mutate(data: bytes, mutated: bytes, chance: random.Random) -> bytes:
    """Replace, drop, repeat or exchange values; `mutated` where `data` is no JSON."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return mutated
    if chance.random() > OWN:
        return mutated
    for _ in range(chance.choice([1, 1, 2, 4])):
        places = list(_places(tree))
        if not places:
            return mutated
        inside, key = chance.choice(places)
        match chance.choice(["odd", "odd", "copy", "near", "drop", "repeat"]):
            case "odd":
                inside[key] = deepcopy(chance.choice(ODD))
            case "copy":
                other, place = chance.choice(places)
                inside[key] = deepcopy(other[place])  # else one might hold itself
            case "near":
                inside[key] = _near(inside[key], chance)
            case "drop":
                del inside[key]
            case "repeat" if isinstance(inside, list):
                inside.insert(key, deepcopy(inside[key]))
    return json.dumps(tree, separators=(",", ":")).encode()


def _near(value: Any, chance: random.Random) -> Any:  # noqa: ANN401  whatever JSON holds
    if isinstance(value, str) and value:
        place = chance.randrange(len(value))
        return value[:place] + chance.choice(["", *"0f:/-g \n", value[place:] * 2]) + value[place + 1 :]
    if isinstance(value, (int, float)):
        return chance.choice([-value, value + 1, value * 2, value % 1000, str(value)])
    return deepcopy(chance.choice(ODD))


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401  whatever JSON holds
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])
