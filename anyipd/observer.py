"""The observer: waits for a reason to look, looks, decides, and yields Views.

Reasons are an event in the kernel, a lease file, the end of a lifetime, what networkd says, a retry, and a
caller's own. All lead to the same look; they only differ in which observations it must make anew. The daemon
changes routes by what comes out. `anyipctl` looks by the same observer where no daemon runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import structlog

from anyipd import clock, mainloop
from anyipd.apply import Changes
from anyipd.decide.addresses import without_missing
from anyipd.decide.covers import addresses
from anyipd.decide.decision import Decision, decide
from anyipd.decide.ledger import HOOK_METRICS
from anyipd.decide.verdict import verdicts
from anyipd.kernel.monitor import Hint, Stale
from anyipd.kernel.wire import MalformedError
from anyipd.model import INFINITE, Prefix
from anyipd.observations import Observations
from anyipd.observe import networkd
from anyipd.observe.lease import Complaint
from anyipd.policy import Policy
from anyipd.view import View

MAX_REST = 0.05
"""Seconds between looks at most while events keep coming; usually it is as long as the last pass."""

SECOND_LOOK, LAST_LOOK = 0.1, 60.0
"""Seconds until foreign routes that a look lacked are looked for again: the second time, and after many."""

FIRST_RETRY, LAST_RETRY = 0.1, 60.0
"""Seconds until what failed is tried again: the first time, and after many."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Look:
    """What a look came to.

    `whole` says that all that is ours in the kernel must be compared with the decision; else `lost` and
    `lost_throws` are single routes of it that somebody removed. `complaints` are lease files that were
    dropped.
    """

    decision: Decision
    whole: bool
    lost: AbstractSet[Prefix]
    lost_throws: AbstractSet[Prefix]
    complaints: Sequence[Complaint]


Answer = networkd.Said | TimeoutError | ValueError | None
"""What networkd says, or why that is not known; None where there is none."""


def ask_networkd() -> Answer:
    """Ask networkd what is delegated to it, a second a step at most."""
    try:
        return networkd.ask(clock.now())
    except (TimeoutError, ValueError) as error:
        return error


class Observer:
    """All that lives between two looks. Without `start` it looks when asked to, and never by itself."""

    def __init__(self, seen: Observations) -> None:
        self.seen = seen
        self.networkd_reason = ""
        """Why what networkd says is not understood, if that is so."""
        self.retry_after = FIRST_RETRY
        self._decision: Decision | None = None
        self._hint = Hint(Stale.ALL)
        self._woken = asyncio.Event()
        self._alarm = clock.Alarm()
        self._begun = INFINITE  # of the last look
        self._broken = self._unreadable = False
        self._retry_hint = Hint()
        self._retry: asyncio.TimerHandle | None = None
        self._doubt: asyncio.TimerHandle | None = None
        self._doubt_pause = SECOND_LOOK
        self._networkd_calls = asyncio.Event()

    # Waiting.

    async def start(self) -> None:
        """Hear of everything that happens from here on, and know what networkd says."""
        loop = asyncio.get_running_loop()
        self.seen.monitor.subscribe()
        loop.add_reader(self.seen.monitor.fileno(), self.hear)
        loop.add_reader(self.seen.lease_monitor.fileno(), self._on_lease)
        loop.add_reader(self._alarm.fileno(), self._on_alarm)
        # What networkd alone knows of is bound already, where this is a restart.
        await self._ask_networkd()
        mainloop.must_not_end(asyncio.create_task(self._mind_networkd()))

    async def wait(self) -> None:
        """Wait for a reason to look, and rest after the last look for as long as that took."""
        loop = asyncio.get_running_loop()
        self._come_back()
        await asyncio.sleep(min(loop.time() - self._begun, MAX_REST))
        await self._woken.wait()
        self._woken.clear()
        self._begun = loop.time()

    def look_again(self, stale: Stale = Stale.NOTHING) -> None:
        """Give a reason to look; `stale` must be read anew."""
        self._wake(Hint(stale))

    def take_policy(self, policy: Policy) -> None:
        """Look and decide by another policy from now on."""
        self.seen.policy = policy
        self.seen.set_filter()
        self.look_again(Stale.ALL)

    def forget(self, prefix: Prefix) -> bool:
        """End a delegation until it is granted again; return whether there was one."""
        self.hear()  # what a route that stands by now has told of is forgotten as well
        hint, self._hint = self._hint, Hint()
        stale = self.seen.hear(hint) | Stale.LEASES
        self._wake(Hint(stale, hint.lost, lost_throws=hint.lost_throws))
        return self.seen.ledger.forget(prefix, clock.now())

    def retry_later(self, stale: Stale = Stale.NOTHING) -> None:
        """Give a reason to look in a while, a longer one each time until `succeed`."""
        self._retry_hint.add(Hint(stale))
        if not self._retry:
            self._retry = asyncio.get_running_loop().call_later(self.retry_after, self._on_retry)

    def succeed(self) -> None:
        """Take note that nothing is to be tried again."""
        self.retry_after = FIRST_RETRY

    def start_over(self) -> None:
        """Take note that a look, or what followed from it, failed halfway."""
        self._broken = True
        self._hint.add(Hint(Stale.ALL))
        self.retry_later()

    def _come_back(self) -> None:
        """See that there is a look in time for what the last one left open."""
        self.seen.come_to_rest()
        if self._decision:
            self._alarm.set(self._decision.view.deadline)
        if self._unreadable:
            self.retry_later(Stale.LEASES)
        # Foreign routes that the last look lacked are looked for ever more rarely.
        if not self.seen.in_doubt:
            self._doubt_pause = SECOND_LOOK
        elif not self._doubt:
            self._doubt = asyncio.get_running_loop().call_later(self._doubt_pause, self._on_doubt)
            self._doubt_pause = min(2 * self._doubt_pause, LAST_LOOK)

    def _wake(self, hint: Hint) -> None:
        self._hint.add(hint)
        self._woken.set()

    def hear(self) -> None:
        """Take in the kernel's events."""
        hint = self.seen.monitor.read()
        for what in hint.malformed:
            _log.warning("event dropped", reason=what)
        came = not self.seen.networkd.found and Stale.ADDRESSES in hint.stale
        if came or hint.of_discards(HOOK_METRICS):
            self._networkd_calls.set()
        self._wake(hint)

    def _on_lease(self) -> None:
        if self.seen.lease_monitor.read():
            self.look_again(Stale.LEASES)

    def _on_alarm(self) -> None:
        self._alarm.clear()
        self.look_again()

    def _on_retry(self) -> None:
        self._retry = None
        self.retry_after = min(2 * self.retry_after, LAST_RETRY)
        hint, self._retry_hint = self._retry_hint, Hint()
        self._wake(hint)

    def _on_doubt(self) -> None:
        self._doubt = None
        if self.seen.in_doubt:  # else events have said it since
            self.look_again(Stale.ROUTES)

    # networkd.

    async def _mind_networkd(self) -> None:
        """Ask networkd again and again, and whenever it may have something to say."""
        while True:
            # What it may take long to say, and in vain, it is not asked at every event.
            await asyncio.sleep(LAST_RETRY if self.networkd_reason else MAX_REST)
            with contextlib.suppress(TimeoutError):
                pause = self.seen.networkd.ask_again_after(clock.now())
                await asyncio.wait_for(self._networkd_calls.wait(), None if pause == INFINITE else pause)
            self._networkd_calls.clear()
            await self._ask_networkd()

    async def _ask_networkd(self) -> None:
        before = self.networkd_reason
        if self.take_networkd(await asyncio.to_thread(ask_networkd)):
            self.look_again(Stale.LEASES)
        if self.networkd_reason and self.networkd_reason != before:
            _log.warning("networkd not understood", reason=self.networkd_reason)

    def take_networkd(self, said: Answer) -> bool:
        """Take note of what networkd answered, or of why it did not; return whether that changed anything."""
        known = self.seen.networkd
        if isinstance(said, TimeoutError):
            # It may be busy with the routes that we added. What is bound stays, also what stays because
            # it could not be understood, and it is asked again.
            known.is_silent()
            return False
        self.networkd_reason = str(said) if isinstance(said, ValueError) else ""
        known.understood = not self.networkd_reason
        return known.take(None if isinstance(said, ValueError) else said)

    # Looking.

    async def look(self) -> Look:
        """Look where there is reason to, and decide. Raises OSError and MalformedError as `Routes` does."""
        hint, self._hint = self._hint, Hint()
        stale = self.seen.hear(hint)
        if self._broken:
            self.seen.reopen()
            self._broken = False
        decision = self._decision
        if stale or hint.news or not decision or clock.now() >= decision.view.deadline:
            self._unreadable = not await self.seen.look(stale)
            decision = self._decide()
        complaints, self.seen.complaints = self.seen.complaints, []
        return Look(decision, Stale.PRESENT in stale, hint.lost, hint.lost_throws, complaints)

    def compare(self, decision: Decision, *, whole: bool) -> tuple[Decision, Changes]:
        """Find out what must change in the kernel for a decision, or for a new one if somebody is in the way.

        Raises OSError and MalformedError as `Routes` does.
        """
        taken = self.seen.taken
        present = self.seen.look_at_local(whole=whole)
        if self.seen.taken != taken:
            decision = self._decide()
        return decision, self.seen.compare(decision, present)

    def _decide(self) -> Decision:
        now = clock.now()
        decision = decide(self.seen.evidence(), now)
        if not self.seen.attends_to(decision.hinges):
            decision = decide(self.seen.evidence(everywhere=True), now)
        self.seen.follow(decision)
        self._decision = decision
        return decision


async def views(observer: Observer) -> AsyncIterator[View]:
    """Yield a View after each look of an observer that nobody carries out."""
    await observer.start()
    observer.look_again()
    while True:
        await observer.wait()
        try:
            look = await observer.look()
            decision, changes = observer.compare(look.decision, whole=look.whole)
        except (OSError, MalformedError) as error:
            _log.error("look failed, will be repeated", reason=str(error), after=observer.retry_after)
            observer.start_over()
        else:
            observer.succeed()
            yield view_of(decision, changes.present, changes.addresses.present)


def view_of(decision: Decision, present: Iterable[Prefix], own: Collection[Prefix]) -> View:
    """Return the View of a decision where these local routes and addresses of ours are present."""
    found = verdicts(decision.view.subnets, addresses(decision.local, present))
    return replace(decision.view, subnets=tuple(without_missing(found, own)))
