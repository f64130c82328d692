"""Whether a value is what an interface definition of varlink says (https://varlink.org/Interface-Definition)."""

from __future__ import annotations

import re
from typing import Any

from anyipd.varlink.service import description

_COMMENT = re.compile(r"#.*")
_TYPE = re.compile(r"^type (\w+) \(([^)]*)\)", re.MULTILINE)
_PLAIN: dict[str, type] = {"bool": bool, "int": int, "string": str, "object": dict}


Types = dict[str, dict[str, str | None]]
"""By name: fields with their types, or an enumeration's words with none."""


def types(interface: str) -> Types:
    """Give the types that an interface defines."""
    text = _COMMENT.sub("", description(interface))
    return {
        name: {
            field.strip(): kind.strip() or None
            for field, _, kind in (part.partition(":") for part in fields.split(","))
        }
        for name, fields in _TYPE.findall(text)
    }


def mistakes(value: Any, kind: str, known: Types, at: str = "") -> list[str]:  # noqa: ANN401  as JSON has it
    """Say where `value` is not what `kind` is."""
    if kind.startswith("?"):
        return [] if value is None else mistakes(value, kind[1:], known, at)
    if kind.startswith("[]"):
        if not isinstance(value, list):
            return [f"{at} is no array"]
        found = (mistakes(each, kind[2:], known, f"{at}[{i}]") for i, each in enumerate(value))
        return [each for some in found for each in some]
    if kind in _PLAIN:
        return [] if type(value) is _PLAIN[kind] else [f"{at} is {value!r}, not {kind}"]
    return _mistakes_of_fields(value, known[kind], known, at)


def _mistakes_of_fields(value: object, fields: dict[str, str | None], known: Types, at: str) -> list[str]:
    if None in fields.values():
        return [] if value in fields else [f"{at} is {value!r}, not one of {', '.join(fields)}"]
    if not isinstance(value, dict) or value.keys() != fields.keys():
        return [f"{at} is {value!r}, not {', '.join(fields)}"]
    found = (mistakes(value[field], str(kind), known, f"{at}.{field}") for field, kind in fields.items())
    return [each for some in found for each in some]
