"""What the daemon does in its next pass with what it read, as far as that goes without a kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from anyipd import clock
from anyipd.decide.carve import carve
from anyipd.decide.covers import local_routes
from anyipd.decide.delegations import delegations
from anyipd.decide.gate import gate
from anyipd.decide.ledger import Ledger
from anyipd.decide.overlap import without_overlaps
from anyipd.decide.plan import discard_routes, plan
from anyipd.model import INFINITE, Delegation, Discard, Lease, Link, Places, Prefix, Subnets
from anyipd.narrate import delegation_lines
from anyipd.policy import Accept, Policy, SubnetPolicy

NOW = 5_000.0
FRESH = Lease(Prefix.parse("2001:db8:900::/56"), "dhclient", "eth0", None, NOW, 60.0, NOW + 30, NOW + 60)
LINKS = {"lo": Link(1, 1), "eth0": Link(2, 3)}
POLICY = Policy(
    subnets=(
        SubnetPolicy(name="web"),
        SubnetPolicy(name="some", count=3),
        SubnetPolicy(name="rest", count="all"),
    ),
    accept=Accept(shortest=1),
)

_alarm = clock.Alarm()


def carry_out(
    ledger: Ledger, places: Mapping[Prefix, Places] | None = None, leases: Iterable[Lease] = ()
) -> None:
    """Have a ledger take leases in and make a pass with it, then another one a while later."""
    before: list[Delegation] = []
    for now in (NOW, NOW + 3600):
        ledger.see_links(LINKS, now)
        standing = [*ledger.routes, Discard(FRESH.prefix, 1001)]
        ledger.see_routes(standing, now)
        ledger.take([*leases, FRESH], now, max_live=32)
        known = without_overlaps(gate(delegations(ledger, now), POLICY), LINKS)
        subnets: list[Subnets] = []
        kept = dict(places or {})
        for each in known:
            assert each.prefix == each.prefix.masked()
            assert each.valid_until is None or now < each.valid_until <= INFINITE
            if each.is_usable:
                carved = carve(each, POLICY, [], kept.get(each.prefix, Places()), now)
                subnets += carved.subnets
                kept[each.prefix] = carved.places
                _alarm.set(carved.deadline)
        plan(local_routes(subnets), {}, now)
        _alarm.set(discard_routes(known, standing, [], now)[1])
        _alarm.set(ledger.next_deadline)
        list(delegation_lines(before, known, now, ledger.ending, [each.prefix for each in before]))
        before = known
