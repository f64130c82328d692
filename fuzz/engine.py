"""One target in one process: libFuzzer by atheris, which ends the process itself."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import atheris

LONGEST = 1536  # bytes of an input where its target says no other: PyYAML is slow
SLOWEST = 5  # seconds that one may take
OWN = 0.7  # of the mutations are the target's, where it has some


def mutator(target: ModuleType) -> Callable[[bytes, int, int], bytes] | None:
    """Have a target's own mutations take the place of libFuzzer's, most of the time."""
    if not hasattr(target, "mutate"):
        return None

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        chance = random.Random(seed)
        mutated: bytes = atheris.Mutate(data, longest)
        if chance.random() < OWN:
            mutated = target.mutate(data, mutated, chance)
        return mutated[:longest]

    return mutate


def main(name: str, *options: str) -> None:
    """Fuzz `name` with libFuzzer's options and corpora."""
    with atheris.instrument_imports(include=["anyipd"]):
        target = import_module(f"fuzz.{name}")
    limits = [
        f"-max_len={getattr(target, 'LONGEST', LONGEST)}",
        f"-timeout={SLOWEST}",
        "-print_final_stats=0",
    ]
    more = {"custom_mutator": mutate} if (mutate := mutator(target)) else {}
    atheris.Setup([name, *limits, *options], target.run, **more)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
