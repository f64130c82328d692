"""What nobody should send, fed to everything that anyipd reads: `make fuzz`.

A target guided by coverage is a module with `run(data)`, which raises where an input did what none
may, a DICTIONARY of words that mutations may insert, and where it helps `mutate(data, mutated,
chance)`, which gives a better mutation of `data` than libFuzzer's `mutated`.
"""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SEEDS, FOUND = CHECKOUT / "fuzz" / "corpus", CHECKOUT / ".cache" / "fuzz"
