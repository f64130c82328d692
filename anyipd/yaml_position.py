"""YAML read by the 1.2 core schema (yaml.org/spec/1.2.2, 10.3.2), with the place of every value.

PyYAML reads YAML 1.1, where `no` is false, `010` is 8 and `1:30` is 90, and lets a second key of
the same name win in silence. Of it only scanner, parser and composer are used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import yaml

Loc = tuple[str | int, ...]
"""The keys and indices that lead to a value: `("subnets", 1, "id")`, as in pydantic's errors."""

_DEEPEST = 16  # three times what a policy needs, and far from where Python's stack ends

_SURROGATE = re.compile("[\ud800-\udfff]")

_CORE: tuple[tuple[re.Pattern[str], Callable[[str], object]], ...] = (
    (re.compile(r"null|Null|NULL|~|"), lambda _: None),
    (re.compile(r"true|True|TRUE|false|False|FALSE"), lambda text: text.lower() == "true"),
    (re.compile(r"[-+]?[0-9]{1,4300}"), int),  # longer ones Python does not read: they stay text
    (re.compile(r"0o[0-7]+"), lambda text: int(text, base=0)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text, base=0)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), lambda text: float(text.replace(".", ""))),
)


class Mistake(NamedTuple):
    """What is wrong at a line and column, both counted from 1."""

    line: int
    column: int
    text: str


class Document:
    """A YAML document as plain Python values in `data`, and where each was written.

    `mistakes` are those of YAML itself, not of a schema: text that is no YAML leaves `data` None
    and one mistake; a key that is repeated or no text is left out of `data`, at one mistake each.
    """

    def __init__(self, text: str) -> None:
        self.data: object = None
        self.mistakes: list[Mistake] = []
        self._values: dict[Loc, yaml.Node] = {}
        self._keys: dict[Loc, yaml.Node] = {}
        try:
            root = _compose(text)
        except _UnreadableError as error:
            self.mistakes.append(error.mistake)
        else:
            if root is not None:
                self.data = self._plain(root, ())

    def mistake(self, loc: Loc, text: str) -> Mistake:
        """Place a mistake at a value, or at the nearest one around it that the file has."""
        return _at(self._nearest(loc).start_mark, _with_path(loc, text))

    def mistake_of_key(self, loc: Loc, text: str) -> Mistake:
        """Place a mistake at the key of a value."""
        return _at(self._keys[loc].start_mark, _with_path(loc, text))

    def found(self, loc: Loc) -> str:
        """Tell a value as it is written, where it is short."""
        return _written(self._nearest(loc))

    def _nearest(self, loc: Loc) -> yaml.Node:
        while loc not in self._values:
            loc = loc[:-1]
        return self._values[loc]

    def _plain(self, node: yaml.Node, loc: Loc) -> object:
        self._values[loc] = node
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, loc)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*loc, i)) for i, item in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, object]:
        data: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = _scalar(key_node)
            mark = key_node.start_mark
            if not isinstance(key, str):
                text = f"found {_written(key_node)} as a key; a key is text"
                self.mistakes.append(_at(mark, _with_path(loc, text)))
                continue
            at = (*loc, key)
            if key in data:
                first = self._keys[at].start_mark
                text = f"found again, after line {first.line + 1}, column {first.column + 1}; a key once"
                self.mistakes.append(_at(mark, _with_path(at, text)))
                continue
            self._keys[at] = key_node
            data[key] = self._plain(value_node, at)
        return data


def place(text: str) -> tuple[int, int]:
    """Tell line and column, from 1, of the character that follows `text`."""
    lines = f"{text}.".splitlines()
    return len(lines), len(lines[-1])


class _UnreadableError(Exception):
    def __init__(self, mistake: Mistake) -> None:
        super().__init__(mistake.text)
        self.mistake = mistake


class _Loader(yaml.SafeLoader):
    """Composes trees that end: no aliases, which make few lines huge, and no abyss."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # types-pyyaml leaves it open
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise _UnreadableError(_at(mark, f"found the alias *{event.anchor}; the value written out"))
        if event.anchor is not None:
            raise _UnreadableError(_at(mark, f"found the anchor &{event.anchor}; the value without one"))
        if event.tag is not None:
            raise _UnreadableError(_at(mark, f"found the tag {_short(event.tag)}; the value without one"))
        if isinstance(event, yaml.ScalarEvent) and _SURROGATE.search(event.value):
            raise _UnreadableError(_at(mark, "found half of a surrogate pair; one escape for one character"))
        if self.depth == _DEEPEST:
            raise _UnreadableError(_at(mark, f"found a value {_DEEPEST + 1} levels deep; at most {_DEEPEST}"))
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(text: str) -> yaml.Node | None:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        problem = f"not YAML: found the character {chr(error.character)!r}"
        raise _UnreadableError(Mistake(*place(text[: error.position]), problem)) from None
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise _UnreadableError(_at(error.problem_mark or loader.get_mark(), f"not YAML: {problem}")) from None
    except (ValueError, OverflowError):
        # What chr() and int() say inside PyYAML to "\UFFFFFFFF" and to %YAML 1.999...
        raise _UnreadableError(_at(loader.get_mark(), "not YAML: found a number beyond its range")) from None


def _scalar(node: yaml.Node) -> object:
    if isinstance(node, yaml.ScalarNode) and node.style is None:  # neither quoted nor a block
        for pattern, value in _CORE:
            if pattern.fullmatch(node.value):
                return value(node.value)
    return node.value


def _written(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list" if node.value else "an empty list"
    if isinstance(node, yaml.ScalarNode) and node.style is None and node.value.isprintable():
        return _short(node.value) or "nothing"
    return repr(_short(node.value))


def _short(text: str) -> str:
    longest = 60
    return text if len(text) <= longest else f"{text[:longest]}..."


def _at(mark: yaml.Mark, text: str) -> Mistake:
    return Mistake(mark.line + 1, mark.column + 1, text)


def _with_path(loc: Loc, text: str) -> str:
    """Write `subnets[1].id: text`."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            key = _short(part)
            path += f".{key}" if re.fullmatch(r"[\w-]+", key) else f"[{key!r}]"
    return f"{path.removeprefix('.')}: {text}" if path else text
