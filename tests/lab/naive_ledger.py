"""The life of a delegation, told as the table in the documentation tells it: a row, a paragraph of `Book`.

What happens is written down in the order in which the daemon can see it, and every question is answered by
a loop over all that is written down.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Network

INFINITE = 0xFFFFFFFF
NEVER = float("inf")

JUDGED_AFTER = 0.3
"""Seconds after the last report of a Reply until what it left out is superseded."""

SET_BACK = 5.0
"""Seconds by which the wall clock fell behind CLOCK_BOOTTIME if somebody set it back."""

MESSAGE, ALONE = 1025, 1026
"""Metrics of the hook's messages: beside a lease file, and without one."""


@dataclass(frozen=True)
class Report:
    """What a hook wrote, called by the process `pid` of a client.

    `written` is the uptime in it, `age` what passed since the lease began by then, `wall` the wall clock's
    lead over the uptime. Calls with an equal `reply` are of one Reply.
    """

    client: str
    pid: int
    prefix: IPv6Network
    uplink: str
    iaid: str
    reply: float
    preferred: int
    valid: int
    written: float
    age: float
    wall: float
    anew: bool = False

    def ends(self, lifetime: int) -> float:
        return NEVER if lifetime == INFINITE else self.written - self.age + lifetime


@dataclass(frozen=True)
class Discard:
    """A discard route of a client, or a message of the hook's."""

    prefix: IPv6Network
    metric: int


@dataclass
class Account:
    """What became of what a client reports of a prefix on an uplink.

    `state` is granted, superseded, taken back or over.
    """

    report: Report
    state: str
    began: float
    since: float
    until: float

    @property
    def lives(self) -> bool:
        return self.state in {"granted", "superseded"}

    @property
    def ended(self) -> float:
        return self.until if self.lives else self.since


class Book:
    """All that the daemon saw so far, each thing written down when it was seen."""

    def __init__(self) -> None:
        self.accounts: dict[tuple[str, IPv6Network, str], Account] = {}
        self.routes: dict[Discard, float] = {}
        self.fallen: set[Discard] = set()
        self.forgotten: dict[IPv6Network, float] = {}
        self.links: set[str] = set()
        self.carriers: dict[
            str, int | None
        ] = {}  # by name: index of the link that has one, None if it has not
        self.came_back: dict[str, float] = {}
        self.at = 0.0

    def of(self, prefix: IPv6Network) -> list[Account]:
        return [each for (_, of, _), each in self.accounts.items() if of == prefix]

    # A Reply grants a prefix.

    def hear(self, report: Report, when: float) -> None:
        key = (report.client, report.prefix, report.uplink)
        account = self.accounts.get(key)
        if account and account.report == report:
            return
        self.pass_time(max(report.written, self.at))  # it may be seen late
        if report.valid == 0:
            self.take_back(report, when)
        elif account is None:
            self.accounts[key] = Account(report, "granted", report.written, when, report.ends(report.valid))
        elif is_grant(report, account.report):
            if account.state != "granted":
                account.began, account.state = report.written, "granted"
            account.report, account.until = report, report.ends(report.valid)

    # Withdrawn.

    def take_back(self, report: Report, when: float) -> None:
        """End what this client told of it on this uplink, and under names of links that are gone."""
        key = (report.client, report.prefix, report.uplink)
        own = self.accounts.setdefault(key, Account(report, "over", report.written, when, report.written))
        own.report = report
        own.state, own.since = "taken back", when
        for each in self.of(report.prefix):
            if each.lives and each.report.client == report.client and each.report.uplink not in self.links:
                each.state, each.since = "taken back", when

    def forget(self, prefix: IPv6Network, when: float) -> bool:
        """End it by the operator's word, whoever told of it; say whether there was anything to end."""
        self.pass_time(when)
        known = [each for each in self.of(prefix) if each.lives]
        mere = [each for each in self.routes if each.prefix == prefix and self.speaks(each)]
        for each in known:
            each.state, each.since = "taken back", when
        if mere:
            self.forgotten[prefix] = when
        return bool(known or mere)

    # A discard route without a lease.

    def see_routes(self, standing: set[Discard], again: set[Discard], when: float) -> None:
        """`again` are those that were added, or replaced by the same, since the last time."""
        told = {each.prefix for each in standing if each.metric != MESSAGE}
        self.fallen = {each for each in self.fallen if each.prefix not in told}
        self.routes = {
            each: when if each in again or each not in self.routes else self.routes[each]
            for each in standing | self.fallen
        }

    def lo_falls(self) -> None:
        self.fallen |= self.routes.keys()

    def speaks(self, route: Discard) -> bool:
        """Whether it was added after all that is known of its prefix, and of any around it, had ended."""
        if route.metric == MESSAGE or self.routes[route] <= self.forgotten.get(route.prefix, -NEVER):
            return False
        return all(
            self.routes[route]
            > (
                account.report.written
                if route.metric == ALONE and account.state != "taken back"
                else account.ended
            )
            for (_, prefix, _), account in self.accounts.items()
            if route.prefix.subnet_of(prefix)
        )

    def is_stale(self, message: Discard) -> bool:
        if message.metric == ALONE:
            return not self.speaks(message)
        return not any(each.lives for each in self.of(message.prefix))

    # Links and their carriers: that one is lost takes nothing back.

    def see_links(self, carriers: dict[str, int | None], lost: set[str], when: float) -> None:
        """`carriers` are all links that there are, and `lost` those that lost it since the last time."""
        for name, index in carriers.items() if self.carriers else ():
            if index and (index != self.carriers.get(name) or name in lost):
                self.came_back[name] = when  # also with another link of the same name
        self.links = set(carriers)
        self.carriers |= carriers

    # Superseded, and what time does.

    def pass_time(self, now: float) -> None:
        """Each thing happens when it is due."""
        while due := [at for at in self.deadlines() if self.at < at <= now]:
            self.wake(min(due))
        self.wake(now)

    def wake(self, now: float) -> None:
        self.at = now
        for each in self.accounts.values():
            if each.lives and each.until <= now:
                each.state, each.since = "over", each.until
        for account, at in list(self.left_out()):
            if at <= now:
                account.state, account.since = "superseded", now

    def left_out(self) -> Iterator[tuple[Account, float]]:
        """What later Replies left out that should have granted it, and when that is judged."""
        for account in self.accounts.values():
            if account.state == "granted":
                told = account.report
                mates = [
                    each.report
                    for each in self.accounts.values()
                    if each.state == "granted"
                    and (each.report.client, each.report.uplink) == (told.client, told.uplink)
                ]
                later = [
                    each
                    for each in mates
                    if each.reply != told.reply and each.written > told.written and self.is_about(each, told)
                ]
                if later:
                    latest = max(later, key=lambda each: each.written)
                    last = max(each.written for each in mates if each.reply == latest.reply)
                    yield account, last + JUDGED_AFTER

    def is_about(self, later: Report, told: Report) -> bool:
        """Whether what was told should be in the later exchange: of the same IAID, or begun anew."""
        return (
            (later.iaid == told.iaid != "")
            or told.written < self.came_back.get(told.uplink, -NEVER) < later.written
            or later.pid != told.pid  # there is one process on an uplink at a time
        )

    def deadlines(self) -> set[float]:
        """All times at which something changes by itself."""
        times = {at for _, at in self.left_out()}
        for each in self.accounts.values():
            if each.lives:
                times |= {each.until, each.report.ends(each.report.preferred)}
        return times

    def is_unconfirmed(self, account: Account) -> bool:
        """Whether nobody can have confirmed it since its uplink was lost."""
        uplink = account.report.uplink
        there = uplink in self.links and self.carriers[uplink]
        return not there or account.report.written < self.came_back.get(uplink, -NEVER)


def is_grant(report: Report, before: Report) -> bool:
    """Whether a call is of a later Reply than the one before, by the client's own wall clock."""
    if report.reply == before.reply:
        # Within the second of a Release a client may begin anew.
        return report.anew and before.valid == 0
    return report.reply > before.reply or report.wall < before.wall - SET_BACK
