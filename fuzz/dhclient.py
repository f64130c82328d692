"""What dhclient-script has in its environment."""

from __future__ import annotations

import random
from collections.abc import Mapping

from fuzz.environment import INTERFACES, PIDS, PREFERRED, VALID, Client, any_address, choose, mutate
from tests.lab.dhclient import HOOK

REASONS = ["BOUND6", "RENEW6", "REBIND6", "EXPIRE6", "RELEASE6", "STOP6"], ["DEPREF6", "PREINIT6", "x", ""]
OF_ALL = {"reason": REASONS, "interface": INTERFACES, "pid": PIDS}
OF_A_LEASE = {
    "ip6_prefix": (
        ["2001:db8:100::/60", "fd00::/8", "1:2:3:4:5:6:7:8/128", "2001:db8::1/56"],
        ["::/0", "", "/", "::"],
    ),
    "iaid": (["62:9d:01:0a", "a:0:1:ff", '"eth0"', '"$(i"', '"""'], ["", "0:0:0:0"]),
    "life_starts": (
        ["1700000000", "1700000100", "4000000000", "0"],
        ["-1", "08", "99999999999999", "", "1e9"],
    ),
    "preferred_life": PREFERRED,
    "max_life": VALID,
}
"""Each is there with `new_`, `old_` or `cur_` before it."""


def make_up(chance: random.Random) -> dict[str, str]:
    which = chance.choice(["new", "new", "new", "old", "cur"])
    made = {name: choose(chance, values) for name, values in OF_ALL.items()}
    made |= {f"{which}_{name}": choose(chance, values) for name, values in OF_A_LEASE.items()}
    if chance.random() < 0.3:
        made[f"{which}_ip6_prefix"] = f"{any_address(chance)}/{chance.randrange(130)}"
    mutate(made, chance)
    return made


def prefixes(made: Mapping[str, str]) -> list[str]:
    return [value for name, value in made.items() if name.endswith("ip6_prefix")]


CLIENT = Client(
    HOOK,
    [*OF_ALL, *(f"{which}_{name}" for which in ("new", "old", "cur") for name in OF_A_LEASE)],
    make_up,
    prefixes,
)
