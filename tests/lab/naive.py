"""What must be so, said again: sets of networks and loops over every subnet, with nothing of anyipd's.

The rules are those of the documentation. What there is to go by comes from iproute2 and from the
test's own bookkeeping; small prefixes keep the loops fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import IPv6Network
from typing import Any

Shown = dict[str, Any]
"""A route or an address as `ip -json -details` shows it."""

INFINITE = 0xFFFFFFFF
NEVER = float("inf")
LONGEST = (2**31 - 1) // 100
"""Seconds of the longest lifetime that the kernel tells."""


@dataclass(frozen=True)
class Lease:
    """A lease file; `written` is the uptime in it, `age` what passed since the lease began by then."""

    prefix: IPv6Network
    uplink: str
    preferred: int
    valid: int
    written: float
    age: float

    def ends(self, lifetime: int) -> float:
        return NEVER if lifetime == INFINITE else self.written - self.age + lifetime


@dataclass(frozen=True)
class Discard:
    """A discard route of a client."""

    prefix: IPv6Network
    metric: int
    protocol: str


@dataclass(frozen=True)
class Delegation:
    prefix: IPv6Network
    state: str
    source: str
    uplink: str | None = None
    preferred_until: float | None = None
    valid_until: float | None = None
    granted: float = NEVER
    told: float | None = None


@dataclass(frozen=True)
class Subnet:
    name: str
    delegation: IPv6Network
    prefix: IPv6Network | None
    state: str
    valid_until: float | None = None


@dataclass
class Facts:
    """What there is to go by. `fallen` went with lo, and its clients did not say it again since."""

    policy: Shown
    leases: list[Lease]
    routes: list[Shown]
    addresses: list[Shown]
    lo_up: bool = True
    fallen: set[Discard] = field(default_factory=set)


def network(shown: str) -> IPv6Network:
    return IPv6Network("::/0" if shown == "default" else shown)


def foreign(routes: list[Shown]) -> list[Shown]:
    return [route for route in routes if route["protocol"] != "150"]


def ours(routes: list[Shown]) -> list[Shown]:
    return [route for route in routes if route["protocol"] == "150"]


def discards(facts: Facts) -> set[Discard]:
    """The clients' discard routes that the policy accepts."""
    return {
        Discard(network(route["dst"]), route["metric"], route["protocol"])
        for route in facts.routes
        if route["table"] == "main"
        and route["type"] in {"unreachable", "blackhole", "prohibit"}
        and route["protocol"] in accept(facts, "protocols")
    }


def accept(facts: Facts, key: str) -> list[str]:
    defaults = {"uplinks": ["*"], "within": ["2000::/3", "fc00::/7"], "protocols": ["dhcp"]}
    found: list[str] = facts.policy.get("accept", {}).get(key, defaults[key])
    return found


def entries(facts: Facts) -> list[Shown]:
    found: list[Shown] = facts.policy.get("subnets", [{"name": "default"}])
    return found


def delegations(facts: Facts, now: float) -> list[Delegation]:
    """One for each prefix that anything tells of."""
    told = [from_lease(facts, lease, now) for lease in facts.leases]
    leased = {lease.prefix for lease in facts.leases}
    # A route of the hook's says nothing beside its lease file (1025), or without one only (1026).
    told += [
        Delegation(each.prefix, judge(facts, each.prefix, None) or "live", "kernel")
        for each in discards(facts)
        | {one for one in facts.fallen if one.protocol in accept(facts, "protocols")}
        if each.metric != 1025 and not (each.metric == 1026 and each.prefix in leased)
    ]
    best = [
        min((one for one in told if one.prefix == prefix), key=preference)
        for prefix in {t.prefix for t in told}
    ]
    carved: list[IPv6Network] = []
    result = []
    for each in sorted(best, key=lambda one: (-one.granted, one.prefix.prefixlen, one.prefix)):
        if is_delegated(each):
            if any(each.prefix.overlaps(one) for one in carved):
                result.append(Delegation(**{**vars(each), "state": "overlapped"}))
                continue
            carved.append(each.prefix)
        result.append(each)
    return result


def is_delegated(delegation: Delegation) -> bool:
    return delegation.state in {"live", "deprecated"}


def from_lease(facts: Facts, lease: Lease, now: float) -> Delegation:
    preferred, valid = lease.ends(lease.preferred), lease.ends(lease.valid)
    state = "deprecated" if preferred <= now else "live"
    return Delegation(
        lease.prefix,
        "expired" if valid <= now else judge(facts, lease.prefix, lease.uplink) or state,
        "dhclient",
        lease.uplink,
        preferred,
        valid,
        NEVER if lease.valid == INFINITE else lease.valid,
        lease.written,
    )


def judge(facts: Facts, prefix: IPv6Network, uplink: str | None) -> str | None:
    if not any(prefix.subnet_of(IPv6Network(within)) for within in accept(facts, "within")):
        return "ignored"
    if not any(glob == "*" or (uplink and fnmatchcase(uplink, glob)) for glob in accept(facts, "uplinks")):
        return "ignored"
    if prefix.prefixlen > max((each.get("length", 64) for each in entries(facts)), default=128):
        return "refused"
    return None


def preference(told: Delegation) -> tuple[object, ...]:
    """Of several that tell of a prefix: what delegates it, a lease file, the one granted for longest."""
    rank = {"expired": 2, "ignored": 1, "refused": 1}.get(told.state, 0)
    ends = -(told.valid_until or 0), -(told.preferred_until or 0)
    return rank, told.source == "kernel", -told.granted, told.uplink or "", ends


def assigned(facts: Facts, delegated: list[IPv6Network]) -> Iterator[IPv6Network]:
    """What is in use for something else."""
    for link in facts.addresses:
        for address in link.get("addr_info", []) if link["ifname"] != "lo" else []:
            yield IPv6Network((address["local"], address["prefixlen"]), strict=False)
            if "address" in address:
                yield IPv6Network(address["address"])
    for route in facts.routes:
        if route["table"] == "main" and route["type"] == "unicast" and route.get("dev") != "lo":
            hops = [route, *route.get("nexthops", [])]
            on_link = route["protocol"] in {"kernel", "ra"} and not any("gateway" in hop for hop in hops)
            on_link &= route["dst"] != "default"  # it says where all else is, not what is on the link
            prefix = network(route["dst"])
            if on_link or any(prefix.subnet_of(each) for each in delegated):
                yield prefix


def subnets(facts: Facts, now: float) -> list[Subnet]:
    """What the policy makes of all that is delegated: wanted, conflict, reserved, without room."""
    found = [each for each in delegations(facts, now) if is_delegated(each)]
    in_use = list(assigned(facts, [each.prefix for each in found]))
    return [subnet for each in found for subnet in carve(entries(facts), each, in_use)]


def carve(policy: list[Shown], delegation: Delegation, in_use: list[IPv6Network]) -> list[Subnet]:
    result, taken = [], list(in_use)
    mine = [entry for entry in policy if entry.get("uplink") in {None, delegation.uplink}]
    # Pinned ones first, `all` last.
    for entry in sorted(mine, key=lambda one: 0 if "id" in one else 2 if one.get("count") == "all" else 1):
        for number, (place, state) in enumerate(lay(entry, delegation.prefix, in_use, taken)):
            name = f"{entry['name']}-{number}" if "count" in entry else entry["name"]
            bind = entry.get("bind", True) or not place
            result.append(
                Subnet(name, delegation.prefix, place, state if bind else "reserved", delegation.valid_until)
            )
            if place:
                taken.append(place)
    return result


def lay(
    entry: Shown, prefix: IPv6Network, in_use: list[IPv6Network], taken: list[IPv6Network]
) -> Iterator[tuple[IPv6Network | None, str]]:
    """Where an entry's subnets lie; each place is put into `taken` before the next is asked for."""
    places, count = split(prefix, entry.get("length", 64)), entry.get("count", 1)
    if "id" in entry:
        for number in range(entry["id"], entry["id"] + count):
            place = places[number] if number < len(places) else None
            clash = place and any(place.overlaps(one) for one in in_use)
            yield place, "without room" if not place else "conflict" if clash else "wanted"
        return
    for number in range(len(places) or 1 if count == "all" else count):
        place = next((one for one in places if not any(one.overlaps(other) for other in taken)), None)
        if place or number == 0 or count != "all":
            yield place, "wanted" if place else "without room"


def split(prefix: IPv6Network, length: int) -> list[IPv6Network]:
    return list(prefix.subnets(new_prefix=length)) if length >= prefix.prefixlen else []


def wanted_routes(facts: Facts, now: float) -> list[tuple[Shown, float | None]]:
    """Our routes as `ip` must show them, and when each is to expire."""
    local, main = (
        {
            (network(route["dst"]), route["metric"])
            for route in foreign(facts.routes)
            if route["table"] == table and "from" not in route
        }
        for table in ("local", "main")
    )
    routes = [
        (show("local", subnet.prefix, "local", 1024), subnet.valid_until)
        for subnet in subnets(facts, now)
        if subnet.state == "wanted" and subnet.prefix and facts.lo_up and (subnet.prefix, 1024) not in local
    ]
    kind = facts.policy.get("unassigned", "unreachable")
    covered = {each.prefix for each in discards(facts)}
    routes += [
        (show(kind, each.prefix, "main", 2048), None)
        for each in delegations(facts, now)
        if is_delegated(each)
        and kind != "none"
        and each.prefix not in covered
        and (each.told is None or each.told + 1 <= now)
        and (each.prefix, 2048) not in main
    ]
    return routes


def show(kind: str, prefix: IPv6Network, table: str, metric: int) -> Shown:
    return {
        "type": kind,
        "dst": str(prefix.network_address) if prefix.prefixlen == 128 else str(prefix),
        "dev": "lo",
        "table": table,
        "protocol": "150",
        "scope": "global",
        "metric": metric,
        "flags": [],
        "pref": "medium",
    }


def difference(
    wanted: list[tuple[Shown, float | None]], present: list[Shown], since: float, until: float
) -> str:
    """Say how routes of ours, seen from `since` to `until`, are not what is wanted; else nothing."""
    found = {text(route): route.get("expires") for route in present}
    ends = {text(route): end for route, end in wanted}
    told = [f"lacks {route}" for route in ends.keys() - found]
    told += [f"has {route}" for route in found.keys() - ends]
    for route in ends.keys() & found:
        end, left = ends[route], found[route]
        if end is None or end == NEVER:
            right = left is None
        else:  # whole seconds both ways, and the kernel's may be up to two seconds late
            least, most = min(end - until, LONGEST) - 1.2, min(end - since, LONGEST) + 2.2
            right = least <= (left or 0) <= most
        if not right:
            told.append(f"expires in {left}, ends in {None if end is None else end - until}: {route}")
    return "\n".join(sorted(told))


def text(route: Shown) -> str:
    return " ".join(f"{key}={value}" for key, value in route.items() if key != "expires")


def boundaries(facts: Facts) -> set[float]:
    """All times at which what is wanted may change by itself."""
    times = {end for each in facts.leases for end in (each.ends(each.preferred), each.ends(each.valid))}
    return times | {each.written + 1 for each in facts.leases}
