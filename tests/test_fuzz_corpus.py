"""The inputs that fuzzing starts from, and those that it once found: each stays harmless."""

from __future__ import annotations

import random
from importlib import import_module
from pathlib import Path

import pytest

from fuzz import SEEDS, hook
from fuzz.__main__ import COVERED
from tests.lab.hook_caller import SHELLS

CORPUS = [(target, seed) for target in COVERED for seed in sorted((SEEDS / target).iterdir())]


@pytest.mark.parametrize(("target", "seed"), CORPUS, ids=[f"{target}-{seed.name}" for target, seed in CORPUS])
def test_corpus(target: str, seed: Path) -> None:
    import_module(f"fuzz.{target}").run(seed.read_bytes())


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("client", hook.CLIENTS)
@pytest.mark.parametrize("shell", SHELLS)
def test_a_handful_of_environments(client: str, shell: str) -> None:
    chance, of = random.Random(shell), hook.CLIENTS[client]
    assert hook.run_batch(of, shell, [of.make_up(chance) for _ in range(50)]) is None
