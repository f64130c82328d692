"""The environment of a client's hook, made up: mostly well formed, now and then mutated."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv6Address
from pathlib import Path
from typing import NamedTuple

USUAL = 0.9
"""Of the values are good ones."""

INTERFACES = ["eth0", "eth0.7", "br-lan"], ["..", ".", "a/b", "lo", "", "*", "-f", "eth0 x"]
PIDS = ["4711", "1", ""], ["-1", "01", "99999999999", "1 2"]
PREFERRED = ["300", "0"], ["4294967295", "00", "0300", "4294967296", "", "0x10"]
VALID = ["600", "300", "1", "0", "4294967295"], ["4294967296", "0800", "", "000000000000", "-0"]
"""Good values and odd ones."""

PIECES = [
    *(
        "$(touch executed)",
        "`touch executed`",
        "; touch executed",
        "\n",
        "\ntouch executed\n",
        "'",
        '"',
        "\\",
    ),
    *("..", "/", "../../", "*", "?", "[a-z]", "~", " ", "\t", "-", "--", "%s", "%n", "&", "|", ">executed"),
    *("${reason}", "$reason", "!!", "\x1b[31m", "\x7f", "é", "\udcff", "0", "9" * 40, ":", "::", "A" * 300),
]
"""What mutations insert."""


class Client(NamedTuple):
    """A DHCPv6 client: its hook of ours, the variables that it has for it, and how to make up some.

    `prefixes` gives the prefixes that an environment names, well formed or not.
    """

    hook: Path
    names: Sequence[str]
    make_up: Callable[[random.Random], dict[str, str]]
    prefixes: Callable[[Mapping[str, str]], list[str]]


def choose(chance: random.Random, values: tuple[list[str], list[str]]) -> str:
    """Take a good value, mostly."""
    good, odd = values
    return chance.choice(good if chance.random() < USUAL else odd)


def any_address(chance: random.Random) -> str:
    """Make an address up."""
    return str(IPv6Address(chance.getrandbits(128)))


def mutate(made: dict[str, str], chance: random.Random) -> None:
    """Spoil some of the values, mostly one or none."""
    for _ in range(chance.choice([0, 0, 1, 1, 2])):
        name = chance.choice(list(made))
        made[name] = mutated(made[name], chance)


def mutated(value: str, chance: random.Random) -> str:
    """Cut, insert, repeat or exchange something."""
    place, end = sorted(chance.randrange(len(value) + 1) for _ in range(2))
    piece = chance.choice([chance.choice(PIECES), chr(chance.randrange(1, 256)), value[place:end]])
    return value[:place] + piece + value[end if chance.random() < 0.5 else place :]
