"""Where the subnets of a delegated prefix lie, the obviously right way, by what the daemon remembers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
Member = tuple[str, int | None]
"""A subnet by its entry's name, and its number if that has a count."""


@dataclass
class Memory:
    """The places of a delegated prefix's automatic subnets, and what `all` leaves alone, until when."""

    kept: dict[Member, IPv6Network] = field(default_factory=dict)
    held: list[tuple[IPv6Address, IPv6Address, float]] = field(default_factory=list)


def memories(ledger_file: Path) -> dict[IPv6Network, Memory]:
    """Read what the daemon remembers, by delegated prefix."""
    try:
        written = json.loads(ledger_file.read_text())
    except FileNotFoundError:
        return {}
    found: dict[IPv6Network, Memory] = {}
    for each in written["places"]:
        memory = found[IPv6Network(each["prefix"])] = Memory()
        for run in each["kept"]:
            first = IPv6Network(run["first"])
            for i in range(run["count"]):
                number = None if run["number"] is None else run["number"] + i
                address = int(first.network_address) + i * first.num_addresses
                memory.kept[run["name"], number] = IPv6Network((address, first.prefixlen))
        for span in each["hold_downs"]:
            until = float("inf") if span["until"] is True else span["until"]
            memory.held.append((IPv6Address(span["start"]), IPv6Address(span["last"]), until))
    return found


class Places:
    """The places of `entries` in `prefix`; afterwards they are in `placed`, in conflict or not."""

    def __init__(self, entries: list[Entry], prefix: IPv6Network, in_use: list[IPv6Network]) -> None:
        self.entries, self.prefix, self.in_use, self.taken = entries, prefix, in_use, list(in_use)
        self.placed: dict[Member, IPv6Network] = {}
        for entry in entries:
            if "id" in entry:
                for member in self.members(entry):
                    spots, number = self.spots(entry), entry["id"] + (member[1] or 0)
                    if number < len(spots):
                        self.put(member, spots[number])

    def lay(self, memory: Memory, now: float, *, keeps_only: bool) -> None:
        """Lay what is automatic, `all` last; where it `keeps_only`, nothing gets a place that it had not."""
        automatic = [entry for entry in self.entries if "id" not in entry]
        everything = [entry for entry in automatic if entry.get("count") == "all"]
        others = [entry for entry in automatic if entry.get("count") != "all"]
        self.keep(others, memory)
        self.keep(everything, memory)
        if keeps_only:
            return
        self.find(others)
        if any(member not in self.placed for entry in others for member in self.members(entry)):
            for entry in everything:
                for member in self.members(entry):
                    if member in self.placed:
                        self.taken.remove(self.placed.pop(member))
            self.find(others)
            self.keep(everything, memory)
        for first, last, until in memory.held:
            for entry in everything if until > now else ():
                spots = self.spots(entry)
                self.taken += [spot for spot in spots if spot[0] <= last and first <= spot[-1]]
        self.find(everything)

    def spots(self, entry: Entry) -> list[IPv6Network]:
        """Give all places for an entry's subnets."""
        length = entry.get("length", 64)
        return list(self.prefix.subnets(new_prefix=length)) if length >= self.prefix.prefixlen else []

    def members(self, entry: Entry) -> list[Member]:
        """Name an entry's subnets, of `all` as many as there are places."""
        count = entry.get("count")
        if count is None:
            return [(entry["name"], None)]
        return [(entry["name"], i) for i in range(len(self.spots(entry)) or 1 if count == "all" else count)]

    def is_free(self, spot: IPv6Network) -> bool:
        return not any(spot.overlaps(one) for one in self.taken)

    def put(self, member: Member, spot: IPv6Network) -> None:
        self.placed[member] = spot
        self.taken.append(spot)

    def keep(self, entries: list[Entry], memory: Memory) -> None:
        for entry in entries:
            for member in self.members(entry):
                spot = memory.kept.get(member)
                if spot and spot.prefixlen == entry.get("length", 64) and self.is_free(spot):
                    self.put(member, spot)

    def find(self, entries: list[Entry]) -> None:
        for entry in entries:
            for member in self.members(entry):
                spot = next((one for one in self.spots(entry) if self.is_free(one)), None)
                if member not in self.placed and spot:
                    self.put(member, spot)
