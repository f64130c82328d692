"""The life of a delegation: each row of the table, by histories of what clients report."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyipd.decide.delegations import delegations
from anyipd.decide.ledger import (
    ALONE_METRIC,
    CLOCK_STEP,
    HOOK_METRIC,
    JUDGED_AFTER,
    KERNEL,
    MAX_ENDED,
    TRANSITIONS,
    Event,
    Ledger,
    State,
)
from anyipd.decide.overlap import without_overlaps, yielded
from anyipd.model import INFINITE, DelegationState, Discard, Lease, Link, Prefix

OLD, NEW, OTHER = (Prefix.parse(f"2001:db8:{n}00::/60") for n in (1, 2, 3))
INSIDE = Prefix.parse("2001:db8:100::/64")
GRANTED, DEPRECATED, SUPERSEDED = (
    DelegationState.GRANTED,
    DelegationState.DEPRECATED,
    DelegationState.SUPERSEDED,
)
DHCPCD, NETWORKD = 1001, 1024
"""Metrics of the discard routes that these clients leave."""


ETH0, LOST, BACK = Link(2, 1), Link(2, None), Link(2, 3)
ANOTHER, ETH1 = Link(7, 1), Link(3, 1)
"""A link, without its carrier, with it again; another of the same name; and one beside it."""


class Story:
    """A ledger, and what is reported to it as time goes on: every report stays until another replaces it."""

    def __init__(self) -> None:
        self.ledger, self.now = Ledger(), 1000.0
        self.reports: dict[tuple[Prefix, str | None], Lease] = {}

    def after(self, seconds: float) -> Story:
        self.now += seconds
        self.ledger.take(self.reports.values(), self.now)
        return self

    def links(self, **links: Link) -> Story:
        self.ledger.see_links(links, self.now)
        return self

    def report(
        self,
        prefix: Prefix,
        valid: float = 600.0,
        *,
        client: str = "dhclient",
        uplink: str | None = "eth0",
        iaid: str | None = "00:00:00:01",
        reply: float | None = None,
        **more: Any,  # noqa: ANN401  fields of a lease
    ) -> Story:
        """Report a prefix as a hook does: a lifetime of 0 takes it back."""
        self.reports[prefix, uplink] = replace(
            Lease(
                prefix=prefix,
                client=client,
                uplink=uplink,
                iaid=iaid,
                written=self.now,
                lifetime=valid,
                preferred_until=self.now + valid / 2,
                valid_until=self.now + valid,
                reply=self.now if reply is None else reply,
            ),
            **more,
        )
        return self.after(0)

    def states(self) -> dict[Prefix, DelegationState]:
        return {each.prefix: each.state for each in delegations(self.ledger, self.now)}

    def restart(self) -> Story:
        """Let a ledger go on that knows no more than what survives."""
        old = self.ledger
        self.ledger = Ledger(old.records, old.routes, old.fallen, old.carriers)
        return self.after(0)

    def stands(self, *routes: Discard) -> Story:
        self.ledger.see_routes(set(routes), self.now)
        return self.after(0)


@pytest.fixture
def story() -> Story:
    return Story()


def test_every_state_and_event_that_is_not_in_the_table_changes_nothing() -> None:
    missing = set(product([None, *State], Event)) - TRANSITIONS.keys()
    assert missing == {
        (None, Event.LEFT_OUT),
        (None, Event.END),
        (State.SUPERSEDED, Event.LEFT_OUT),
        (State.WITHDRAWN, Event.LEFT_OUT),
        (State.EXPIRED, Event.LEFT_OUT),
        (State.WITHDRAWN, Event.END),
        (State.EXPIRED, Event.END),
    }


def test_a_grant_is_valid_until_its_lifetime_ends(story: Story) -> None:
    [granted] = delegations(story.report(OLD).ledger, story.now)
    assert (granted.source, granted.uplink, granted.state) == ("dhclient", "eth0", GRANTED)
    assert (granted.preferred_until, granted.valid_until) == (1300.0, 1600.0)
    assert story.ledger.next_deadline == 1300.0
    assert story.after(300).states() == {OLD: DEPRECATED}
    assert story.ledger.next_deadline == 1600.0
    assert story.after(299).states() == {OLD: DEPRECATED}
    assert story.after(1).states() == {}
    assert story.ledger.ending(OLD) == ("expired", "its valid lifetime is over")
    assert story.ledger.next_deadline == INFINITE


def test_an_infinite_lifetime_never_ends(story: Story) -> None:
    story.report(OLD, INFINITE)
    assert story.after(1e9).states() == {OLD: GRANTED}


def test_it_is_said_where_nobody_confirms_what_never_ends(story: Story) -> None:
    def reason() -> str | None:
        return delegations(story.ledger, story.now)[0].reason

    ends = f"it never expires: `anyipctl forget {OLD}` ends it"
    story.links(eth0=ETH0).report(OLD, INFINITE)
    assert reason() is None
    for links in ({"eth0": LOST}, {"eth0": BACK}):
        assert story.links(**links).after(1).states() == {OLD: GRANTED}
        assert reason() == f"nobody confirms it: eth0 lost its carrier; {ends}"
    story.report(OLD, INFINITE)
    assert reason() is None
    story.links(eth1=ETH1)
    assert reason() == f"nobody confirms it: eth0 is gone; {ends}"
    story.report(OLD, INFINITE, uplink="eth1")
    assert reason() is None


def test_that_is_said_also_where_another_uplink_confirms_a_lifetime_that_ends(story: Story) -> None:
    story.links(eth0=ETH0, eth1=ETH1).report(OLD, INFINITE).after(1).report(NEW).report(OLD, uplink="eth1")
    [old, _] = delegations(story.after(1).ledger, story.now)
    assert old.state is GRANTED
    assert old.reason == (
        f"nobody confirms it: {NEW} was granted instead; it never expires: `anyipctl forget {OLD}` ends it"
    )


def test_what_ends_by_itself_is_not_doubted(story: Story) -> None:
    story.links(eth0=ETH0).report(OLD).links(eth1=ETH1)
    assert delegations(story.ledger, story.now)[0].reason is None


def test_what_is_reported_no_more_ends_with_its_lifetime(story: Story) -> None:
    story.report(OLD).reports.clear()
    assert story.after(599).states() == {OLD: DEPRECATED}
    assert story.after(1).states() == {}


def test_a_renewal_goes_on_with_the_series(story: Story) -> None:
    story.report(OLD).after(100).report(OLD)
    [renewed] = delegations(story.ledger, story.now)
    assert (renewed.began, renewed.valid_until) == (1000.0, 1700.0)


def test_what_a_later_reply_leaves_out_is_superseded_until_its_lifetime_ends(story: Story) -> None:
    story.report(OLD).after(100).report(NEW)
    assert story.states() == {OLD: GRANTED, NEW: GRANTED}
    assert story.ledger.next_deadline == story.now + JUDGED_AFTER
    story.after(JUDGED_AFTER)
    assert story.states() == {OLD: SUPERSEDED, NEW: GRANTED}
    [old, _] = delegations(story.ledger, story.now)
    assert (old.reason, old.valid_until) == (f"superseded by {NEW}", 1600.0)
    assert old.preferred_until is not None
    assert old.preferred_until <= story.now
    assert story.after(500).states() == {NEW: DEPRECATED}


def test_a_new_grant_ends_that_and_begins_a_series(story: Story) -> None:
    story.report(OLD).after(100).report(NEW).after(1).report(OLD)
    assert story.after(1).states() == {OLD: GRANTED, NEW: SUPERSEDED}
    assert delegations(story.ledger, story.now)[0].began == 1101.0


def test_two_prefixes_of_one_reply_stay_both(story: Story) -> None:
    for reply in (1, 2, 3):
        story.report(OLD, reply=reply).after(0.1).report(NEW, reply=reply).after(50)
    assert story.states() == {OLD: GRANTED, NEW: GRANTED}


def test_what_was_due_is_done_before_a_later_report_that_is_read_at_once(story: Story) -> None:
    """A pass may take seconds, or the daemon be away: the report that left it out may be replaced by then."""
    story.report(OLD).after(1).report(NEW).now += 4
    assert story.report(NEW, iaid="00:00:00:02").states() == {OLD: SUPERSEDED, NEW: GRANTED}
    story = Story().report(OLD).after(1).report(NEW)
    story.ledger = Ledger(story.ledger.records)
    story.now += 4
    assert story.report(NEW, iaid="00:00:00:02").states() == {OLD: SUPERSEDED, NEW: GRANTED}
    assert Story().report(OLD).after(1).report(NEW, valid=4).after(10).states() == {OLD: SUPERSEDED}
    story = Story().report(OLD, valid=10)
    story.now += 20
    assert delegations(story.report(OLD).ledger, story.now)[0].began == story.now


def test_a_prefix_left_out_is_called_with_its_old_life_starts(story: Story) -> None:
    """dhclient reports it before the live one (FACTS, dhclient 5)."""
    story.report(OLD, reply=1).after(100).report(OLD, reply=1).report(NEW, reply=101)
    assert story.after(1).states() == {OLD: SUPERSEDED, NEW: GRANTED}
    assert delegations(story.ledger, story.now)[0].valid_until == 1600.0


@pytest.mark.parametrize(
    "other",
    [
        {"iaid": "00:00:00:02"},
        {"iaid": None},
        {"uplink": "eth1"},
        {"client": "dhcpcd"},
        {"uplink": None},
    ],
)
def test_only_the_same_client_uplink_and_iaid_supersede(story: Story, other: dict[str, Any]) -> None:
    story.report(OLD).after(100).report(NEW, **other)
    assert story.after(1).states() == {OLD: GRANTED, NEW: GRANTED}


def test_networkds_key_is_the_link(story: Story) -> None:
    story.report(OLD, client="networkd", iaid=None).after(100).report(NEW, client="networkd", iaid=None)
    assert story.after(1).states() == {OLD: SUPERSEDED, NEW: GRANTED}


def test_unknown_uplinks_never_equal_each_other(story: Story) -> None:
    story.report(OLD, client="networkd", uplink=None).after(9).report(NEW, client="networkd", uplink=None)
    assert story.after(1).states() == {OLD: GRANTED, NEW: GRANTED}


def test_what_a_client_that_started_anew_does_not_ask_for_is_superseded(story: Story) -> None:
    story.report(OLD, instance="10").after(100).report(NEW, iaid="00:00:00:02", instance="11")
    assert story.after(1).states() == {OLD: SUPERSEDED, NEW: GRANTED}


def test_a_client_that_started_anew_within_a_second_leaves_out_what_it_does_not_grant(story: Story) -> None:
    """Of life_starts there is one a second."""
    story.report(OLD, reply=1, instance="10").after(0.3)
    story.report(OLD, reply=1, instance="11").report(NEW, reply=1, instance="11")
    assert story.after(1).states() == {OLD: SUPERSEDED, NEW: GRANTED}


def test_what_is_left_out_so_far_loses_only_what_the_other_holds(story: Story) -> None:
    """The rest of a /56 stays while it is not known yet whether the Reply grants it beside the /60 inside."""
    around, inner = OLD._replace(length=56).masked(), OLD._replace(length=60).masked()
    story.report(around).after(100).report(inner)
    for left_out, state in ((True, GRANTED), (False, SUPERSEDED)):
        first, second = without_overlaps(delegations(story.ledger, story.now), {"eth0"})
        assert (first.prefix, first.state, first.left_out) == (around, state, left_out)
        assert [each.prefix for each in yielded(first, [first, second])] == [inner]
        assert list(yielded(second, [first, second])) == []
        story.after(JUDGED_AFTER)


def kept(story: Story) -> set[Prefix]:
    """The prefixes that did not lose all their addresses to others."""
    found = without_overlaps(delegations(story.ledger, story.now), {"eth0", "eth1"})
    return {each.prefix for each in found if each.is_usable}


def test_who_also_tells_of_a_prefix_takes_nothing_of_it(story: Story) -> None:
    """The equal prefix first, and then one inside: it is the other uplink's all the same (S4)."""
    whole, inner = OLD._replace(length=56).masked(), OLD._replace(length=60).masked()
    story.report(whole).after(100).report(whole, uplink="eth1").after(1).report(inner, uplink="eth1")
    assert kept(story) == {whole}
    assert kept(story.after(1)) == {whole}
    # Its own uplink may.
    assert kept(story.report(inner).after(1)) == {whole, inner}
    assert story.states()[whole] is SUPERSEDED


def test_what_had_lost_does_not_win_by_being_superseded(story: Story) -> None:
    """No subnet of it was ever bound, and none is to be once it is as good as over."""
    around, inner = OLD._replace(length=56).masked(), OLD._replace(length=60).masked()
    story.report(inner).after(100).report(around, uplink="eth1")
    assert kept(story) == {inner}
    story.after(1).report(NEW, uplink="eth1")
    assert kept(story) == {inner, NEW}  # left out so far
    assert kept(story.after(1)) == {inner, NEW}
    assert story.states()[around] is SUPERSEDED


def test_two_processes_on_one_uplink_do_not_supersede_each_other_for_good(story: Story) -> None:
    story.report(OLD, instance="10").after(50).report(NEW, iaid="00:00:00:02", instance="11")
    story.after(50).report(OLD, instance="10").after(1)
    story.after(50).report(NEW, iaid="00:00:00:02", instance="11")
    assert story.after(1).states() == {OLD: GRANTED, NEW: GRANTED}


def test_two_clients_with_the_same_iaid_do_not_supersede_each_other(story: Story) -> None:
    story.report(OLD, client="listen", duid="a").after(5).report(NEW, client="listen", duid="b")
    assert story.after(1).states() == {OLD: GRANTED, NEW: GRANTED}
    story.report(OTHER, client="listen", duid="b")
    assert story.after(1).states() == {OLD: GRANTED, NEW: SUPERSEDED, OTHER: GRANTED}


def test_what_an_exchange_after_the_carrier_came_back_leaves_out_is_superseded(story: Story) -> None:
    story.links(eth0=ETH0).report(OLD).after(100).links(eth0=LOST).after(3).links(eth0=BACK)
    assert story.after(10).states() == {OLD: GRANTED}
    story.report(NEW, iaid="00:00:00:02")
    assert story.after(1).states() == {OLD: SUPERSEDED, NEW: GRANTED}


@pytest.mark.parametrize("now", [BACK, ANOTHER], ids=["the carrier", "the link"])
@pytest.mark.parametrize("restarted", [False, True])
def test_nobody_saw_what_was_lost_and_came_back(story: Story, now: Link, *, restarted: bool) -> None:
    """Between two looks, or while no daemon was there."""
    story.links(eth0=ETH0).report(OLD).after(100)
    if restarted:
        story.restart()
    story.links(eth0=now).after(1).report(NEW, iaid="00:00:00:02")
    assert story.after(1).states() == {OLD: SUPERSEDED, NEW: GRANTED}


@pytest.mark.parametrize("lost", [{"eth0": LOST}, {}], ids=["the carrier", "the link"])
def test_a_restart_while_it_is_lost_does_not_hide_its_return(story: Story, lost: dict[str, Link]) -> None:
    story.links(eth0=ETH0).report(OLD).after(100).links(**lost).restart()
    story.links(**lost).after(5).links(eth0=BACK).after(1).report(NEW, iaid="00:00:00:02")
    assert story.after(1).states() == {OLD: SUPERSEDED, NEW: GRANTED}


def test_a_link_that_comes_after_it_was_reported_on_comes_with_its_carrier(story: Story) -> None:
    """Under a name that a client still went by after its link was renamed."""
    story.links(eth1=ETH1).report(OLD).after(5).links(eth0=ETH0, eth1=ETH1)
    story.after(1).report(NEW, iaid="00:00:00:02")
    assert story.after(1).states() == {OLD: SUPERSEDED, NEW: GRANTED}


def test_a_carrier_that_was_never_lost_says_nothing(story: Story) -> None:
    story.links(eth0=ETH0).report(OLD).after(100).restart().links(eth0=ETH0).after(1)
    story.report(NEW, iaid="00:00:00:02")
    assert story.after(1).states() == {OLD: GRANTED, NEW: GRANTED}


def test_a_lifetime_of_zero_withdraws_at_once(story: Story) -> None:
    story.report(OLD).after(100).report(OLD, 0)
    assert story.states() == {}
    assert story.ledger.ending(OLD) == ("withdrawn", "the server or the client took it back")


def test_a_withdrawal_ends_it_also_under_a_name_that_is_gone(story: Story) -> None:
    story.links(eth0=ETH0, eth1=ETH1)
    for uplink in ("old0", "eth0", "eth1"):
        story.report(OLD, uplink=uplink)
    story.report(OLD, client="dhcpcd", uplink="old1").after(1).report(OLD, 0)
    [left] = delegations(story.ledger, story.now)
    assert left.uplinks == {"eth1", "old1"}


def test_what_was_reported_before_a_withdrawal_is_no_grant(story: Story) -> None:
    story.report(OLD, reply=100).after(5).report(OLD, 0, reply=110)
    assert story.after(1).report(OLD, reply=109).states() == {}
    assert story.after(1).report(OLD, reply=110).states() == {}
    assert story.after(1).report(OLD, reply=110, anew=True).states() == {OLD: GRANTED}


def test_a_call_with_equal_or_older_life_starts_is_no_grant(story: Story) -> None:
    story.report(OLD, reply=100).after(300).report(OLD, reply=100).report(OLD, reply=90)
    assert delegations(story.ledger, story.now)[0].valid_until == 1600.0


def test_one_with_older_life_starts_is_a_grant_if_the_clock_was_set_back(story: Story) -> None:
    story.report(OLD, reply=100, clock=50.0).after(300)
    story.report(OLD, reply=90, clock=50.0 - CLOCK_STEP)
    assert delegations(story.ledger, story.now)[0].valid_until == 1600.0
    story.report(OLD, reply=90, clock=49.0 - CLOCK_STEP)
    assert delegations(story.ledger, story.now)[0].valid_until == 1900.0


def test_one_with_equal_life_starts_is_none_even_then(story: Story) -> None:
    """dhclient reports what a Reply left out with its old life_starts, also after the clock was set back."""
    story.report(OLD, reply=100, clock=50.0).after(300)
    story.report(OLD, reply=100, clock=49.0 - CLOCK_STEP)
    assert delegations(story.ledger, story.now)[0].valid_until == 1600.0


def test_forgotten_is_gone_until_granted_again(story: Story) -> None:
    story.report(OLD, INFINITE).stands(Discard(OLD, DHCPCD))
    assert story.ledger.forget(OLD, story.now)
    assert story.after(100).states() == {}
    assert story.ledger.ending(OLD) == ("withdrawn", "forgotten by the operator")
    assert not story.ledger.forget(OLD, story.now)
    assert story.restart().states() == {}
    assert story.report(OLD).states() == {OLD: GRANTED}


def test_a_lease_that_the_client_kept_does_not_bring_back_what_was_forgotten(story: Story) -> None:
    """BOUND6 of a client that starts while no server answers, with the life_starts of before."""
    story.report(OLD, reply=100).after(9)
    assert story.ledger.forget(OLD, story.now)
    assert story.after(1).report(OLD, reply=100, anew=True).states() == {}
    assert story.report(OLD, reply=101).states() == {OLD: GRANTED}


def test_a_mere_route_inside_a_forgotten_one_goes_on(story: Story) -> None:
    """No lease around it was ever known."""
    story.stands(Discard(OLD, NETWORKD), Discard(INSIDE, NETWORKD))
    assert story.ledger.forget(OLD, story.now)
    assert story.after(1).states() == {INSIDE: GRANTED}


def test_a_mere_route_is_forgotten_too(story: Story) -> None:
    assert story.stands(Discard(OLD, NETWORKD)).states() == {OLD: GRANTED}
    assert story.ledger.forget(OLD, story.now)
    assert story.stands(Discard(OLD, NETWORKD)).states() == {}
    assert story.after(1).ledger.ending(OLD) == ("withdrawn", "forgotten by the operator")
    story.ledger.route_added(Discard(OLD, NETWORKD), story.now)
    assert story.states() == {OLD: GRANTED}
    assert story.ledger.forget(OLD, story.now)
    assert story.after(1).states() == {}


def test_several_that_report_a_prefix_are_one_delegation(story: Story) -> None:
    story.links(eth0=ETH0, eth1=ETH1)
    story.report(OLD, 100, uplink="gone0").after(1).report(OLD, 300, uplink="eth1").after(1)
    [one] = delegations(story.report(OLD, 200, uplink="eth0").ledger, story.now)
    assert (one.uplink, one.valid_until, one.began) == ("eth1", 1301.0, 1001.0)
    assert one.uplinks == {"gone0", "eth0", "eth1"}


def test_an_uplink_that_is_not_accepted_counts_where_no_other_reports(story: Story) -> None:
    story.report(OLD, 900, uplink="eth1").report(OLD, uplink="eth0")
    [one] = delegations(story.ledger, story.now, lambda uplink: uplink == "eth0")
    assert one.uplinks == {"eth0"}
    assert one.valid_until == 1600.0
    [one] = delegations(story.ledger, story.now, lambda _: False)
    assert one.uplinks == {"eth0", "eth1"}


def test_an_excluded_prefix_is_known_whoever_reports_it(story: Story) -> None:
    [one] = delegations(story.report(OLD, client="dhcpcd", exclude=INSIDE).report(OLD).ledger, story.now)
    assert one.exclude == INSIDE


def test_another_uplink_excludes_nothing_unless_this_is_its_name_by_now(story: Story) -> None:
    story.links(eth0=ETH0, eth1=ETH1).report(OLD).after(1).report(OLD, uplink="eth1", exclude=INSIDE)
    [one] = delegations(story.ledger, story.now)
    assert one.exclude is None
    [one] = delegations(story.links(eth0=ETH0).ledger, story.now)
    assert one.exclude == INSIDE


def test_what_ended_on_another_uplink_drives_out_nothing(story: Story) -> None:
    story.report(OLD, 1).after(1)
    for number in range(MAX_ENDED + 10):
        story.report(Prefix(number << 68, 60), 0, uplink="eth1")
    assert OLD in {record.lease.prefix for record in story.after(1).ledger.records}


def test_what_yields_does_so_on_its_own_uplink_alone(story: Story) -> None:
    around, inner = OLD._replace(length=56).masked(), OLD._replace(length=60).masked()
    story.report(around).after(100).report(NEW).after(1)
    for other, yields in (("eth1", False), ("eth0", True)):
        known = delegations(story.report(inner, uplink=other, iaid="00:00:00:02").ledger, story.now)
        found = {each.prefix: each for each in without_overlaps(known, {"eth0", "eth1"})}
        assert found[around].state is SUPERSEDED
        assert found[inner].is_usable is yields
        story.after(1)


def test_what_was_held_back_takes_nothing_when_both_are_superseded(story: Story) -> None:
    around, inner = OLD._replace(length=56).masked(), OLD._replace(length=60).masked()
    story.report(around).after(50).report(inner, uplink="eth1").after(1)
    story.report(NEW).report(Prefix(7 << 68, 60), uplink="eth1").after(1)
    found = {
        each.prefix: each for each in without_overlaps(delegations(story.ledger, story.now), {"eth0", "eth1"})
    }
    assert (found[around].state, found[inner].is_usable) == (SUPERSEDED, False)


# Discard routes.


def test_a_discard_route_alone_is_a_delegation_of_unknown_lifetime(story: Story) -> None:
    [found] = delegations(story.stands(Discard(OLD, NETWORKD)).ledger, story.now)
    assert (found.source, found.state, found.valid_until) == (KERNEL, GRANTED, None)
    assert story.stands().states() == {}
    assert story.ledger.ending(OLD) == ("withdrawn", "its discard route is gone")


@pytest.mark.parametrize("prefix", [OLD, INSIDE])
def test_one_that_stood_while_a_lease_was_known_never_outlives_it(story: Story, prefix: Prefix) -> None:
    route = Discard(prefix, DHCPCD)
    story.stands(route).report(OLD)
    assert story.states() == {OLD: GRANTED}
    assert story.after(600).stands(route).states() == {}
    assert story.restart().stands(route).states() == {}
    story.ledger.route_added(route, story.now + 1)
    assert story.after(1).states() == {prefix: GRANTED}


def test_one_around_a_lease_is_a_delegation(story: Story) -> None:
    around = Prefix.parse("2001:db8:100::/56")
    assert story.report(OLD).stands(Discard(around, DHCPCD)).states() == {OLD: GRANTED, around: GRANTED}


def test_one_that_is_found_beside_an_expired_lease_at_the_first_look_means_nothing(story: Story) -> None:
    story.report(OLD, 100).after(101)
    story.ledger = Ledger()
    assert story.stands(Discard(OLD, DHCPCD)).states() == {}


def test_a_hooks_message_means_nothing_beside_its_lease_or_without(story: Story) -> None:
    message = Discard(OLD, HOOK_METRIC)
    assert story.stands(message).states() == {}
    assert story.ledger.is_stale(message)
    assert not story.report(OLD).ledger.is_stale(message)
    assert story.report(OLD, 0).ledger.is_stale(message)


def test_a_hooks_message_alone_is_a_grant_of_unknown_lifetime(story: Story) -> None:
    alone = Discard(OLD, ALONE_METRIC)
    story.report(OLD, 100).after(50)
    story.ledger.route_added(alone, story.now)
    [found] = delegations(story.after(100).ledger, story.now)
    assert (found.valid_until, story.ledger.is_stale(alone)) == (None, False)
    story.report(OLD, 100)
    assert story.ledger.is_stale(alone)
    assert story.after(100).states() == {}


def test_what_falls_with_lo_is_no_clients_word(story: Story) -> None:
    route = Discard(OLD, NETWORKD)
    story.stands(route).ledger.lo_fell()
    story.ledger.route_removed(route)
    assert story.stands().states() == {OLD: GRANTED}
    assert story.restart().stands().states() == {OLD: GRANTED}
    story.ledger.route_added(route, story.now)
    story.ledger.route_removed(route)
    assert story.after(0).states() == {}


def test_a_route_added_anew_takes_the_place_of_all_that_fell_of_its_prefix(story: Story) -> None:
    before, after = Discard(OLD, NETWORKD), Discard(OLD, DHCPCD)
    story.stands(before).ledger.lo_fell()
    story.ledger.route_removed(before)
    story.ledger.route_added(after, story.now)
    story.ledger.route_removed(after)
    assert story.after(0).states() == {}


def test_a_withdrawal_ends_what_was_reported_before_it_in_whatever_order_files_are_read() -> None:
    lasting, later = (Story().report(OLD, uplink=name).reports[OLD, name] for name in ("old", "new"))
    withdrawn = replace(lasting, uplink="other", lifetime=0, written=1001.0, reply=1001.0)
    for uplinks in (("old", "other", "new"), ("new", "other", "old")):
        ledger = Ledger()
        ledger.see_links({"eth9": ETH1}, 1000.0)
        reports = {
            "old": lasting,
            "other": withdrawn,
            "new": replace(later, written=1002.0, reply=1002.0),
        }
        ledger.take([reports[name] for name in uplinks], 1003.0)
        assert [each.uplinks for each in delegations(ledger, 1003.0)] == [{"new"}]


def test_what_a_client_says_that_cannot_be_understood_is_held_while_its_route_stands(story: Story) -> None:
    route = Discard(OLD, NETWORKD)
    story.report(OLD, client="networkd").stands(route).reports.clear()
    story.now += 601
    story.ledger.take([], story.now, silent={"networkd"})
    [held] = delegations(story.ledger, story.now)
    assert (held.state, held.valid_until) == (DEPRECATED, None)
    story.ledger.route_removed(route)
    story.ledger.take([], story.now, silent={"networkd"})
    assert story.states() == {}


# What it knows.


def test_only_so_many_that_ended_are_kept(story: Story) -> None:
    for number in range(MAX_ENDED + 10):
        story.report(Prefix(number << 68, 60), 1)
    story.report(OLD, 1).after(1).report(OLD, 0)
    assert len(story.after(10).ledger.records) == MAX_ENDED
    assert any(record.lease.prefix == OLD for record in story.ledger.records)


STEPS = st.lists(
    st.tuples(
        st.sampled_from([OLD, NEW, OTHER]),
        st.sampled_from([0.0, 50.0, 600.0, INFINITE]),
        st.sampled_from(["eth0", "eth1", None]),
        st.sampled_from(["00:00:00:01", "00:00:00:02", None]),
        st.sampled_from(["dhclient", "networkd"]),
        st.sampled_from([0.0, 0.1, 1.0, 60.0]),
    ),
    max_size=12,
)


@given(STEPS, st.data())
def test_a_restart_at_any_moment_changes_nothing(
    steps: list[tuple[Prefix, float, str | None, str | None, str, float]], data: st.DataObject
) -> None:
    one, other = Story(), Story()
    for prefix, valid, uplink, iaid, client, pause in steps:
        for story in (one, other):
            story.report(prefix, valid, uplink=uplink, iaid=iaid, client=client).after(pause)
        if data.draw(st.booleans()):
            other.restart()
    assert delegations(one.ledger, one.now) == delegations(other.ledger, other.now)


def test_what_ends_while_other_things_are_looked_at_is_not_missed(story: Story) -> None:
    """A decision is made after the reports were taken in: what ended in between must be looked at again."""
    story.report(OLD, valid=10)
    story.now += 20
    assert story.ledger.next_deadline == 1005.0
    assert story.after(0).ledger.next_deadline == INFINITE


@given(STEPS)
def test_nothing_changes_before_the_next_deadline(
    steps: list[tuple[Prefix, float, str | None, str | None, str, float]],
) -> None:
    story = Story().after(0)
    for prefix, valid, uplink, iaid, client, pause in steps:
        story.report(prefix, valid, uplink=uplink, iaid=iaid, client=client).after(pause)
    before = delegations(story.ledger, story.now)
    deadline = story.ledger.next_deadline
    assert deadline > story.now
    story.now = min(deadline, 1e12) - 0.001
    assert delegations(story.after(0).ledger, story.now) == before
