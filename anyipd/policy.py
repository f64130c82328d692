"""The configuration: what /etc/anyipd.yaml may say, and its reading.

Everything that is wrong with a file is told at once, each mistake with its place, what was found
there and what would be right.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from anyipd.model import Prefix
from anyipd.policy_inside import hole_mistakes, own_address_mistakes
from anyipd.policy_value import (
    LONGEST_LABEL,
    PROTOCOLS,
    AtLeastOne,
    DelegablePrefix,
    Glob,
    HoleBits,
    HostBits,
    Interface,
    IPPrefix,
    Label,
    RouteProtocol,
    StaticPrefix,
    right,
)
from anyipd.yaml_position import Document, Loc, Mistake, place

LARGEST_FILE = 1 << 20
"""Bytes of a configuration; a longer file is not one."""

MOST_SUBNETS = 65_536
"""The largest `count`: a /48 carved whole."""

_E = TypeVar("_E", bound=BaseModel)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    @classmethod
    def yaml_keys(cls) -> list[str]:
        """Return the keys as they are in YAML."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @model_validator(mode="before")
    @classmethod
    def _nothing_means_default(cls, data: object) -> object:
        if isinstance(data, dict):
            return {k: v for k, v in data.items() if v is not None or k not in cls.yaml_keys()}
        return data


class SubnetPolicy(_Section):
    """Subnets to carve out of every accepted delegated prefix.

    `id` counts in subnets of `length` bits; without it the lowest free is meant. `count` subnets
    are named `name-0`, `name-1` and on, one without a count is `name`. With an `uplink` only
    delegations that came in there are carved. `address` is this host's own in it, on lo. `bind: false`
    reserves. `neighbours` are the interfaces on which neighbour solicitations for the subnet are answered;
    with `bind: false` for what is routed on. `holes`, in YAML `except`, are parts of each subnet that are
    left to other routes, as the bits below it.
    """

    name: Label
    id: Annotated[
        Annotated[int, Field(strict=True, ge=0, lt=1 << 128)] | None,
        right("a subnet ID: a whole number from 0, of at most 128 bits"),
    ] = None
    count: Annotated[
        Annotated[int, Field(strict=True, ge=1, le=MOST_SUBNETS)] | Literal["all"] | None,
        right("a whole number from 1 to 65536, or all"),
    ] = None
    length: Annotated[int, Field(strict=True, ge=1, le=128), right("a subnet length from 1 to 128")] = 64
    uplink: Interface | None = None
    address: HostBits | None = None
    bind: Annotated[bool, Field(strict=True), right("true or false")] = True
    neighbours: tuple[Interface, ...] = ()
    holes: tuple[HoleBits, ...] = Field((), alias="except")

    @field_validator("neighbours")
    @classmethod
    def _of_a_place_that_stays(cls, links: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if links and info.data.get("bind") is False and info.data.get("id", 0) is None:
            raise ValueError(
                "found links and no ID; one beside `bind: false`, else it moves off what is routed on"
            )
        return links


class Accept(_Section):
    """Which delegated prefixes to use.

    Those that came in by an uplink that one of the globs matches, that lie within one of the
    prefixes and are no shorter than `shortest`, and whose discard route bears one of the protocols; of
    each uplink `at_most` so many.
    """

    uplinks: Annotated[tuple[Glob, ...], AtLeastOne] = ("*",)
    within: Annotated[tuple[DelegablePrefix, ...], AtLeastOne] = (
        Prefix.parse("2000::/3"),
        Prefix.parse("fc00::/7"),
    )
    shortest: Annotated[int, Field(strict=True, ge=1, le=128), right("a prefix length from 1 to 128")] = 32
    at_most: Annotated[int, Field(strict=True, ge=1), right("a number from 1 on")] = 16
    protocols: Annotated[tuple[RouteProtocol, ...], AtLeastOne] = (PROTOCOLS["dhcp"],)


class Static(_Section):
    """A prefix to bind with no DHCP server involved, IPv4 or IPv6; in YAML also its text alone.

    With `bind: false` it is not bound, and solicitations are answered for what of it is routed on. `holes`,
    in YAML `except`, are parts of it that are left to other routes, as whole prefixes.
    """

    prefix: StaticPrefix
    name: Label | None = None
    neighbours: tuple[Interface, ...] = ()
    bind: Annotated[bool, Field(strict=True), right("true or false")] = True
    holes: tuple[IPPrefix, ...] = Field((), alias="except")

    @field_validator("neighbours")
    @classmethod
    def _only_of_ipv6(cls, links: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        prefix = info.data.get("prefix")
        if links and prefix and prefix.width == 32:  # noqa: PLR2004  the width of IPv4
            raise ValueError(f"found links for {prefix}; none, for Neighbor Solicitations are of IPv6 alone")
        return links

    @field_validator("bind")
    @classmethod
    def _or_answered_for(cls, bind: bool, info: ValidationInfo) -> bool:  # noqa: FBT001  pydantic's call
        if not bind and info.data.get("neighbours") == ():
            raise ValueError(
                "found false; true, or links in `neighbours` that an IPv6 prefix is answered for on"
            )
        return bind

    @model_validator(mode="before")
    @classmethod
    def _text_is_prefix(cls, data: object) -> object:
        return {"prefix": data} if isinstance(data, str) else data


class Policy(_Section):
    """The whole configuration.

    `unassigned` is the type of the discard routes of our own. `source_routes` says when what is sent from a
    delegated prefix gets a default route of its own, by its uplink. `listen` are the uplinks on which the
    DHCPv6 exchange itself is listened to.
    """

    subnets: tuple[SubnetPolicy, ...] = (SubnetPolicy(name="default"),)
    accept: Accept = Accept()
    unassigned: Annotated[
        Literal["unreachable", "blackhole", "prohibit", "none"],
        right("unreachable, blackhole, prohibit or none"),
    ] = "unreachable"
    source_routes: Annotated[Literal["auto", "always", "never"], right("auto, always or never")] = "auto"
    static: tuple[Static, ...] = ()
    listen: tuple[Interface, ...] = ()

    @property
    def proxied(self) -> tuple[str, ...]:
        """Names of subnets that are routed on, whole or in their holes, and answered for all the same."""
        entries: list[tuple[str, SubnetPolicy | Static]] = [(each.name, each) for each in self.subnets]
        entries += [(each.name or str(each.prefix), each) for each in self.static]
        return tuple(name for name, each in entries if each.neighbours and (each.holes or not each.bind))

    @property
    def links(self) -> frozenset[str]:
        """The interfaces on which neighbour solicitations are to be answered, for whatever subnet."""
        named = [each.neighbours for each in self.subnets] + [each.neighbours for each in self.static]
        return frozenset(chain.from_iterable(named))


class InForce(_Section):
    """What a daemon works by, as it tells whoever asks; `configuration` is the absolute path of its file."""

    configuration: str
    policy: Policy


TURN_NEIGHBOURS_ON = "neighbours asked for: systemctl enable --now anyipd-neighbour"
"""What to do where a policy has links; nobody here can know whether it is done."""

DEFAULT = Policy()
"""What no file means: the lowest free /64 of every accepted delegated prefix, named `default`."""


class PolicyError(Exception):
    """A configuration is not to be used; `lines` tell all of why, as FILE:LINE:COL: PATH: WHAT."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class UnreadableError(PolicyError):
    """What a configuration says is not known."""


def read(path: Path) -> Policy:
    """Read a configuration file; where there is none, DEFAULT itself.

    Raises PolicyError where it says what it must not, UnreadableError where it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        return DEFAULT
    except OSError as error:
        reason = f"{path}: cannot be read: {error.strerror}; a file of YAML, or none"
        raise UnreadableError([reason]) from None
    if len(data) > LARGEST_FILE:
        raise PolicyError([f"{path}: found more than {LARGEST_FILE} bytes; at most so many"])
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line, column = place(data[: error.start].decode())
        byte = data[error.start]
        raise PolicyError([f"{path}:{line}:{column}: found the byte {byte:#04x}; text in UTF-8"]) from None
    return parse(text, str(path))


def parse(text: str, file: str) -> Policy:
    """Read a configuration; `file` is its name in the lines of the PolicyError that it may raise."""
    document = Document(text)
    data = {} if document.data is None else document.data
    mistakes = document.mistakes.copy()
    policy = DEFAULT
    try:
        policy = Policy.model_validate(data)
    except ValidationError as error:
        mistakes += [_explain(document, detail) for detail in error.errors()]
    if isinstance(data, dict):
        mistakes += [document.mistake(loc, text) for loc, text in _clashes(data)]
    if mistakes:
        raise PolicyError([f"{file}:{line}:{column}: {text}" for line, column, text in sorted(mistakes)])
    return policy


def _explain(document: Document, detail: ErrorDetails) -> Mistake:
    loc = detail["loc"]
    sections: dict[str | int, type[_Section]] = {"subnets": SubnetPolicy, "accept": Accept, "static": Static}
    match detail["type"]:
        case "missing":
            return document.mistake(loc, "found nothing; this key is required")
        case "extra_forbidden":
            known = sections[loc[0]].yaml_keys() if len(loc) > 1 else Policy.yaml_keys()
            near = difflib.get_close_matches(str(loc[-1]), known, 1)
            wanted = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}"
            return document.mistake_of_key(loc, f"unknown key; {wanted}")
        case "value_error":
            return document.mistake(loc, str(detail["ctx"]["error"]))
        case "model_type":
            known = sections[loc[0]].yaml_keys() if loc else Policy.yaml_keys()
            wanted = f"a mapping with the keys {', '.join(known)}"
        case "right":
            wanted = detail["msg"]
        case kind:
            wanted = {
                "tuple_type": "a list",
                "is_instance_of": "an IP prefix, such as 2001:db8::/48",
            }[kind]
    return document.mistake(loc, f"found {document.found(loc)}; {wanted}")


def _clashes(data: dict[str, Any]) -> Iterator[tuple[Loc, str]]:
    """Tell how entries that are right by themselves do not go together, whatever the others are."""
    given = {key: section for key, section in data.items() if section is not None}
    subnets = _sound(SubnetPolicy, given.get("subnets", DEFAULT.subnets))
    static = _sound(Static, given.get("static", ()))
    accept = _sound(Accept, [given.get("accept", {})]).get(0)
    yield from _names(subnets, static)
    yield from _leftovers(subnets)
    yield from own_address_mistakes(subnets)
    yield from hole_mistakes(subnets, static)
    if accept is not None:
        yield from _room(subnets, min(prefix.length for prefix in accept.within))
    pinned = [
        (s.id << (128 - s.length), (s.id + (s.count or 1)) << (128 - s.length), s.uplink, i)
        for i, s in subnets.items()
        if s.id is not None and s.count != "all"
    ]
    for i, other in _overlaps(pinned):
        text = f"found {subnets[i].id}, which overlaps subnets[{other}]; an ID clear of it"
        yield ("subnets", i, "id"), text
    prefixes = {i: s.prefix for i, s in static.items()}
    for width in (32, 128):
        spans = [(p.address, p.end, None, i) for i, p in prefixes.items() if p.width == width]
        for i, other in _overlaps(spans):
            text = f"found {prefixes[i]}, which overlaps {prefixes[other]} of static[{other}]; one of the two"
            yield ("static", i, "prefix"), text


def _sound(model: type[_E], section: object) -> dict[int, _E]:
    sound = {}
    for i, entry in enumerate(section if isinstance(section, list | tuple) else ()):
        with suppress(ValidationError):  # told by Policy's own
            sound[i] = model.model_validate(entry)
    return sound


def _names(subnets: Mapping[int, SubnetPolicy], static: Mapping[int, Static]) -> Iterator[tuple[Loc, str]]:
    named = [(("subnets", i), s.name) for i, s in subnets.items()]
    named += [(("static", i), s.name) for i, s in static.items() if s.name is not None]
    counted = {s.name: (i, s.count) for i, s in subnets.items() if s.count is not None}
    first: dict[str, str] = {}
    for (section, i), name in named:
        loc = (section, i, "name")
        if name in first:
            yield loc, f"found {name}, the name of {first[name]}; one that is not taken"
        first.setdefault(name, f"{section}[{i}]")
        base, _, number = name.rpartition("-")
        if base in counted and re.fullmatch("0|[1-9][0-9]*", number):
            other, count = counted[base]
            if count == "all" or int(number) < count:
                yield loc, f"found {name}, which subnets[{other}] makes by count; one that is not taken"
    for name, (i, count) in counted.items():
        longest = LONGEST_LABEL - len(f"-{(MOST_SUBNETS if count == 'all' else count) - 1}")
        if len(name) > longest:
            text = f"found {len(name)} characters; at most {longest}, for the count adds to them"
            yield ("subnets", i, "name"), text


def _leftovers(subnets: Mapping[int, SubnetPolicy]) -> Iterator[tuple[Loc, str]]:
    takers: dict[str | None, int] = {}
    for i, s in subnets.items():
        if s.count != "all":
            continue
        if s.id is not None:
            yield ("subnets", i, "id"), "found an ID beside `count: all`; one of the two"
        rival = next((j for uplink, j in takers.items() if _meet(uplink, s.uplink)), None)
        if rival is not None:
            yield (
                ("subnets", i, "count"),
                f"found all, as in subnets[{rival}]; a number, or an uplink each",
            )
        takers.setdefault(s.uplink, i)


def _room(subnets: Mapping[int, SubnetPolicy], shortest: int) -> Iterator[tuple[Loc, str]]:
    for i, s in subnets.items():
        if s.length < shortest:
            wanted = f"at least {shortest}, the shortest length of accept.within"
            yield ("subnets", i, "length"), f"found {s.length}; {wanted}"
            continue
        count = s.count if isinstance(s.count, int) else 1
        room = 1 << (s.length - shortest)
        why = f"as the shortest of accept.within, a /{shortest}, has room for {room} of /{s.length}"
        if count > room:
            yield ("subnets", i, "count"), f"found {count}; at most {room}, {why}"
        elif s.id is not None and s.id + count > room:
            yield ("subnets", i, "id"), f"found {s.id}; at most {room - count}, {why}"


def _overlaps(runs: Iterable[tuple[int, int, str | None, int]]) -> Iterator[tuple[int, int]]:
    """Find runs of addresses [start, end) that overlap where their uplinks meet.

    Gives the index of the later in the file, then of the earlier; a run is compared with the
    furthest reaching one before it only.
    """
    reach: dict[str | None, tuple[int, int]] = {}
    for start, end, uplink, i in sorted(runs, key=itemgetter(0)):
        furthest = max((far for other, far in reach.items() if _meet(other, uplink)), default=(0, 0))
        if furthest[0] > start:
            yield max(i, furthest[1]), min(i, furthest[1])
        reach[uplink] = max(reach.get(uplink, (0, 0)), (end, i))


def _meet(uplink: str | None, other: str | None) -> bool:
    """Whether one delegation may be for both."""
    return uplink is None or other is None or uplink == other
