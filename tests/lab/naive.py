"""What must be so, said again: sets of networks and loops over every subnet, with nothing of anyipd's.

The rules are those of the documentation. What there is to go by comes from iproute2 and from the
test's own bookkeeping; small prefixes keep the loops fast.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from ipaddress import IPv6Network
from typing import Any

from tests.lab.naive_ledger import NEVER, Book, Discard
from tests.lab.naive_places import Memory, Places

Shown = dict[str, Any]
"""A route or an address as `ip -json -details` shows it."""

LONGEST = (2**31 - 1) // 100
"""Seconds of the longest lifetime that the kernel tells."""

SHORTEST = 32
"""No shorter prefix is accepted, nor looked at as one that is around."""


@dataclass(frozen=True)
class Delegation:
    prefix: IPv6Network
    state: str
    source: str
    uplink: str | None = None
    preferred_until: float | None = None
    valid_until: float | None = None
    began: float = 0.0
    uplinks: frozenset[str] = frozenset()
    left_out: bool = False
    unconfirmed: bool = False

    @property
    def yields(self) -> bool:
        return self.left_out or self.state == "superseded"


@dataclass(frozen=True)
class Subnet:
    name: str
    entry: str
    delegation: IPv6Network
    prefix: IPv6Network | None
    state: str
    valid_until: float | None = None


@dataclass
class Facts:
    """What there is to go by."""

    policy: Shown
    book: Book
    routes: list[Shown]
    addresses: list[Shown]
    memories: dict[IPv6Network, Memory]
    lo_up: bool = True


def network(shown: str) -> IPv6Network:
    return IPv6Network("::/0" if shown == "default" else shown)


def foreign(routes: list[Shown]) -> list[Shown]:
    return [route for route in routes if route["protocol"] != "150"]


def ours(routes: list[Shown]) -> list[Shown]:
    return [route for route in routes if route["protocol"] == "150"]


def discards(facts: Facts) -> set[Discard]:
    """The clients' discard routes that the policy accepts."""
    return standing(facts.routes, facts.policy)


def standing(routes: list[Shown], policy: Shown) -> set[Discard]:
    return {
        Discard(network(route["dst"]), route["metric"])
        for route in routes
        if route["table"] == "main"
        and route["type"] in {"unreachable", "blackhole", "prohibit"}
        and route["protocol"] in accept(policy, "protocols")
    }


def messages(routes: list[Shown]) -> set[Discard]:
    """What the hook left for the daemon, in a table that no rule looks up."""
    return {Discard(network(each["dst"]), each["metric"]) for each in routes if each["table"] == "150"}


def accept(policy: Shown, key: str) -> list[str]:
    defaults = {"uplinks": ["*"], "within": ["2000::/3", "fc00::/7"], "protocols": ["dhcp"]}
    found: list[str] = policy.get("accept", {}).get(key, defaults[key])
    return found


def entries(facts: Facts) -> list[Shown]:
    found: list[Shown] = facts.policy.get("subnets", [{"name": "default"}])
    return found


def delegations(facts: Facts, now: float) -> list[Delegation]:
    """One for each prefix that anything tells of."""
    book = deepcopy(facts.book)
    book.pass_time(now)
    bare: dict[IPv6Network, float] = {}
    for route, added in book.routes.items():
        if book.speaks(route):
            bare[route.prefix] = max(added, bare.get(route.prefix, 0))
    leased = {each.report.prefix for each in book.accounts.values() if each.lives}
    found = [leased_one(facts, book, prefix, now, unknown=prefix in bare) for prefix in leased]
    found += [
        Delegation(prefix, "granted", "kernel", began=added)
        for prefix, added in bare.items()
        if prefix not in leased
    ]
    found = [refuse(each) if objection(facts, each) else each for each in found]
    superseded = [each for each in found if is_delegated(each) and each.yields]
    found = [
        refuse(each)
        if any(is_held(each, other, book.links) for other in superseded if other.prefix.overlaps(each.prefix))
        else each
        for each in found
    ]
    rivals = [each for each in found if is_delegated(each) and not each.yields]
    lost = {
        loser(one, other, book.links).prefix
        for one in rivals
        for other in rivals
        if one.prefix != other.prefix and one.prefix.overlaps(other.prefix)
    }
    # What had lost before it was superseded.
    lost |= {
        one.prefix
        for one in found
        for other in rivals
        if is_delegated(one) and one.yields and other.prefix not in lost and one.prefix.overlaps(other.prefix)
        if (other.began, other.prefix) < (one.began, one.prefix) and loser(one, other, book.links) == one
    }
    return [refuse(each) if each.prefix in lost else each for each in found]


def leased_one(facts: Facts, book: Book, prefix: IPv6Network, now: float, *, unknown: bool) -> Delegation:
    """What all that report a prefix say together: the one that began first is shown."""
    lives = [each for each in book.of(prefix) if each.lives]
    lives = [each for each in lives if accepts_uplink(facts, each.report.uplink)] or lives
    shown = min(lives, key=lambda each: (each.report.uplink not in book.links, each.began))
    granted = [each.report for each in lives if each.state == "granted"]
    endless = [each for each in lives if each.until == NEVER]
    undecided = [account.report for account, _ in book.left_out()]
    preferred = max((each.ends(each.preferred) for each in granted), default=None)
    state = "granted"
    if preferred is not None and preferred <= now:
        state = "deprecated"
    if not granted and not unknown:
        state, preferred = "superseded", max(each.since for each in lives)
    return Delegation(
        prefix,
        state,
        shown.report.client,
        shown.report.uplink,
        preferred,
        None if unknown else max(each.until for each in lives),
        shown.began,
        frozenset(each.report.uplink for each in lives),
        bool(granted) and not unknown and all(each in undecided for each in granted),
        bool(endless) and all(each.state != "granted" or book.is_unconfirmed(each) for each in endless),
    )


def is_delegated(delegation: Delegation) -> bool:
    return delegation.state != "refused"


def refuse(delegation: Delegation) -> Delegation:
    return replace(delegation, state="refused")


def accepts_uplink(facts: Facts, uplink: str | None) -> bool:
    globs = accept(facts.policy, "uplinks")
    return any(glob == "*" or (uplink and fnmatchcase(uplink, glob)) for glob in globs)


def objection(facts: Facts, each: Delegation) -> bool:
    """Whether the policy does not accept it, or it is a part of what somebody else has."""
    within = [IPv6Network(text) for text in accept(facts.policy, "within")]
    longest = max((entry.get("length", 64) for entry in entries(facts)), default=128)
    return (
        not any(each.prefix.subnet_of(one) for one in within)
        or not any(accepts_uplink(facts, uplink) for uplink in each.uplinks or [None])
        or each.prefix.prefixlen > longest
        or any(
            SHORTEST <= around.prefixlen < each.prefix.prefixlen
            and each.prefix.subnet_of(around)
            and not on_link
            and dev not in each.uplinks
            for around, dev, on_link in away(facts)
        )
    )


def loser(one: Delegation, other: Delegation, links: set[str]) -> Delegation:
    """Of two that share addresses: the mere route; on its own uplinks the earlier, else the later."""
    if (one.source == "kernel") != (other.source == "kernel"):
        return one if one.source == "kernel" else other
    earlier, later = sorted((one, other), key=lambda each: (each.began, each.prefix))
    taken_over = later.source != "kernel" and (earlier.uplink not in links or earlier.uplink in later.uplinks)
    return earlier if taken_over else later


def is_held(later: Delegation, superseded: Delegation, links: set[str]) -> bool:
    """Whether what is superseded does not yield, since another uplink delegated the other one later."""
    return (
        "kernel" not in {later.source, superseded.source}
        and superseded.began < later.began
        and loser(later, superseded, links) is later
    )


def assigned(facts: Facts, delegated: list[IPv6Network]) -> Iterator[IPv6Network]:
    """What is in use for something else."""
    for link in facts.addresses:
        for address in link.get("addr_info", []) if link["ifname"] != "lo" else []:
            yield IPv6Network((address["local"], address["prefixlen"]), strict=False)
            if "address" in address:
                yield IPv6Network(address["address"])
    for prefix, _, on_link in away(facts):
        if on_link or any(prefix.subnet_of(each) for each in delegated):
            yield prefix


def away(facts: Facts) -> Iterator[tuple[IPv6Network, str | None, bool]]:
    """Routes to somebody: where to, by which link, and whether it is on that link."""
    for route in facts.routes:
        if route["table"] != "local" and route["type"] == "unicast" and route.get("dev") != "lo":
            hops = [route, *route.get("nexthops", [])]
            on_link = route["protocol"] in {"kernel", "ra"} and not any("gateway" in hop for hop in hops)
            on_link &= route["dst"] != "default"  # it says where all else is, not what is on the link
            yield network(route["dst"]), route.get("dev"), on_link


def subnets(facts: Facts, now: float) -> list[Subnet]:
    """What the policy makes of all that is delegated: wanted, conflict, reserved, without room."""
    found = [each for each in delegations(facts, now) if is_delegated(each)]
    return [subnet for each in found for subnet in carve(facts, each, now)]


def places(facts: Facts, delegation: Delegation, now: float) -> Places:
    """The entries that a delegation is for, and what is in their way."""
    found = [each for each in delegations(facts, now) if is_delegated(each)]
    in_use = [*assigned(facts, [each.prefix for each in found]), *yielded(delegation, found)]
    mine = [entry for entry in entries(facts) if entry.get("uplink") in {None, *delegation.uplinks}]
    return Places(mine, delegation.prefix, in_use)


def yielded(delegation: Delegation, found: list[Delegation]) -> Iterator[IPv6Network]:
    """What others hold of its addresses, if it is superseded or about to be; of two such the later."""
    for other in found if delegation.yields else []:
        wins = not other.yields or other.began > delegation.began
        if wins and other.prefix != delegation.prefix and other.prefix.overlaps(delegation.prefix):
            yield other.prefix


def carve(facts: Facts, delegation: Delegation, now: float) -> list[Subnet]:
    laid, memory = places(facts, delegation, now), facts.memories.get(delegation.prefix, Memory())
    laid.lay(memory, now, keeps_only=delegation.yields and bool(memory.kept))
    result = []
    for entry in laid.entries:
        members = laid.members(entry)
        if entry.get("count") == "all":
            members = [member for member in members if member in laid.placed] or members[:1]
        for member in members:
            place = laid.placed.get(member)
            clash = "id" in entry and place and any(place.overlaps(one) for one in laid.in_use)
            state = "without room" if not place else "conflict" if clash else "wanted"
            state = "reserved" if place and not entry.get("bind", True) else state
            name = member[0] if member[1] is None else f"{member[0]}-{member[1]}"
            result.append(Subnet(name, member[0], delegation.prefix, place, state, delegation.valid_until))
    return result


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
    taken = {prefix for prefix, metric in local if metric == 1024}
    bound: dict[tuple[str, IPv6Network, float | None], set[IPv6Network]] = {}
    for subnet in subnets(facts, now):
        if subnet.state == "wanted" and subnet.prefix and facts.lo_up and subnet.prefix not in taken:
            bound.setdefault((subnet.entry, subnet.delegation, subnet.valid_until), set()).add(subnet.prefix)
    routes = [
        (show("local", cover, "local", 1024), valid_until)
        for (_, _, valid_until), together in bound.items()
        for cover in covers(together, taken)
    ]
    kind = facts.policy.get("unassigned", "unreachable")
    delegated = [each for each in delegations(facts, now) if is_delegated(each)]
    routed = [
        prefix
        for prefix, _, on_link in away(facts)
        if on_link or any(prefix.subnet_of(each.prefix) for each in delegated)
    ]
    covered = {each.prefix for each in discards(facts)}
    routes += [
        (show(kind, each.prefix, "main", 2048), None)
        for each in delegated
        if kind != "none"
        and each.prefix not in covered
        and (each.prefix, 2048) not in main
        and not any(each.prefix.subnet_of(prefix) for prefix in routed)
    ]
    return routes


def covers(subnets: set[IPv6Network], taken: set[IPv6Network]) -> set[IPv6Network]:
    """Put two halves together for as long as there are such, and no foreign route is there or in both."""
    longest = max(each.prefixlen for each in subnets)
    shorter = [each for each in taken if each.prefixlen < longest]
    found = set(subnets)
    while True:
        for each in found:
            whole = each.supernet() if each.prefixlen else each
            if set(whole.subnets()) <= found and not any(foreign.subnet_of(whole) for foreign in shorter):
                found = found - set(whole.subnets()) | {whole}
                break
        else:
            return found


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
