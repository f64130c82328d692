"""Policies at random, small enough for the naive model, and files that hold none."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.lab.naive import Shown

UNUSABLE = ["subnets: [{name: web, idd: 3}]", "subnets: [", "{", "\0", "accept: {within: [2001:db8::1/32]}"]


def compatible(drafts: list[Shown]) -> list[Shown]:
    """Leave out the entries that anyipd would refuse beside those before them."""
    entries: list[Shown] = []
    for number, draft in enumerate(drafts):
        given = {key: value for key, value in draft.items() if value is not None}
        entry = {"name": f"subnet{number}", **given}
        if entry.get("count") == "all":
            entry.pop("id", None)
        if not any(clash(entry, other) for other in entries):
            entries.append(entry)
    return entries


def clash(entry: Shown, other: Shown) -> bool:
    if entry.get("count") == other.get("count") == "all":
        return True
    spans = [
        [(one["id"] + number) << (128 - one.get("length", 64)) for number in (0, one.get("count", 1))]
        for one in (entry, other)
        if "id" in one
    ]
    return len(spans) == 2 and spans[0][0] < spans[1][1] and spans[1][0] < spans[0][1]


ENTRIES: st.SearchStrategy[list[Shown]] = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.none() | st.integers(0, 5),
            "count": st.sampled_from([None, 2, 4, "all"]),
            "length": st.sampled_from([64, 64, 64, 63, 62, 66]),
            "bind": st.sampled_from([True, True, True, False]),
            "uplink": st.sampled_from([None, None, None, "up0", "up1"]),
        }
    ),
    max_size=4,
)
ACCEPT: st.SearchStrategy[Shown] = st.sampled_from(
    [
        *[{}] * 4,
        {"uplinks": ["up0"]},
        {"uplinks": ["*1"]},
        {"within": ["fd00::/8"]},
        {"within": ["2001:db8:100::/48", "2001:db8:300::/56"]},
        {"protocols": ["static"]},
        {"protocols": ["dhcp", "static"]},
    ]
)
POLICIES: st.SearchStrategy[Shown] = st.fixed_dictionaries(
    {"subnets": ENTRIES.map(compatible), "accept": ACCEPT},
    optional={"unassigned": st.sampled_from(["unreachable", "blackhole", "prohibit", "none"])},
)
