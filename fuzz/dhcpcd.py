"""What dhcpcd-run-hooks has in its environment: some IAs, with some prefixes each."""

from __future__ import annotations

import random
from collections.abc import Mapping

from fuzz.environment import INTERFACES, PIDS, PREFERRED, VALID, Client, any_address, choose, mutate
from tests.lab.dhcpcd import HOOK

REASONS = (
    ["BOUND6", "RENEW6", "REBIND6", "REBOOT6", "EXPIRE6", "RELEASE6", "STOP6"],
    ["DEPREF6", "PREINIT", "x", ""],
)
OF_ALL = {"reason": REASONS, "interface": INTERFACES, "pid": PIDS}
IAIDS = ["629d010a", "00000002"], ["", "0", "62:9d:01:0a", "629D010A"]
OF_A_PREFIX = {
    "": (["2001:db8:100::", "fd00::", "1:2:3:4:5:6:7:8", "2001:db8::1", "::"], ["", "/", "2001:db8::/56"]),
    "_length": (["60", "8", "128", "56"], ["0", "129", "", "060", "-1"]),
    "_pltime": PREFERRED,
    "_vltime": VALID,
    "_pd_exclude_prefix_len": (["64", "61", "128", "57"], ["0", "129", "", "064", "8"]),
    "_pd_exclude_subnetID": (["00", "0f", "ff", "0001", "ffffff"], ["", "0", "FF", "0x1", "f" * 40]),
}
"""Each is there behind `new_dhcp6_ia_pdN_prefixM` or the same with `old_`."""

SOME = 1, 2
NAMES = [
    name
    for which in ("new", "old")
    for ia in (f"{which}_dhcp6_ia_pd{number}" for number in SOME)
    for name in (f"{ia}_iaid", *(f"{ia}_prefix{number}{end}" for number in SOME for end in OF_A_PREFIX))
]


def make_up(chance: random.Random) -> dict[str, str]:
    made = {name: choose(chance, values) for name, values in OF_ALL.items()}
    which = "old" if made["reason"] in {"EXPIRE6", "RELEASE6", "STOP6"} else "new"
    for ia in (f"{which}_dhcp6_ia_pd{number}" for number in SOME[: chance.randint(1, 2)]):
        made[f"{ia}_iaid"] = choose(chance, IAIDS)
        for prefix in (f"{ia}_prefix{number}" for number in SOME[: chance.randint(1, 2)]):
            made |= {f"{prefix}{end}": choose(chance, values) for end, values in OF_A_PREFIX.items()}
            if chance.random() < 0.3:
                made |= {prefix: any_address(chance), f"{prefix}_length": str(chance.randrange(130))}
            if chance.random() < 0.3:
                make_exclude_up(made, prefix, chance)
    mutate(made, chance)
    return made


def make_exclude_up(made: dict[str, str], prefix: str, chance: random.Random) -> None:
    """Have a part excluded whose length goes with that of the prefix: RFC 6603, 4.2."""
    length = made[f"{prefix}_length"]
    bits = chance.randint(1, 60)
    if length.isdecimal() and int(length) + bits <= 128:
        made[f"{prefix}_pd_exclude_prefix_len"] = str(int(length) + bits)
        made[f"{prefix}_pd_exclude_subnetID"] = chance.randbytes((bits + 7) // 8).hex()


def prefixes(made: Mapping[str, str]) -> list[str]:
    return [
        f"{value}/{made.get(f'{name}_length', '')}"
        for name, value in made.items()
        if name[:-1].endswith("prefix")
    ]


CLIENT = Client(HOOK, [*OF_ALL, *NAMES], make_up, prefixes)
