"""What nobody should send, fed to everything that anyipd reads: `make fuzz`.

A target guided by coverage is a module with `run(data)`, which raises where an input did what none
may, and a DICTIONARY of words that mutations may insert. Where it helps it has `mutate(data, mutated,
chance)`, which gives a better mutation of `data` than libFuzzer's `mutated`, and LONGEST, the bytes that
an input may have.
"""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SEEDS, FOUND = CHECKOUT / "fuzz" / "corpus", CHECKOUT / ".cache" / "fuzz"
