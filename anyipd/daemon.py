"""The daemon: observe, decide, apply, and sleep until something gives reason to look again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import structlog

from anyipd import clock, policy
from anyipd.decide.ledger import HOOK_METRICS
from anyipd.decide.verdict import verdicts
from anyipd.heard import HeardLeases
from anyipd.kernel.monitor import Hint, Stale
from anyipd.kernel.routes import Routes
from anyipd.kernel.wire import MalformedError, Refusal
from anyipd.model import INFINITE, Prefix, Subnets, SubnetState
from anyipd.narrate import Line, delegation_lines, moved_lines, subnet_lines
from anyipd.observe import networkd
from anyipd.observe.listen import DeafError, Listener
from anyipd.passes import LONGEST_REST, Passes
from anyipd.policy import InForce, Policy
from anyipd.reconcile import Changes, Decision, in_slices

FIRST_RETRY, LAST_RETRY = 0.1, 60.0
"""Seconds until a refused change is tried again: the first time, and after many."""

_FASTER = {errno.EEXIST, errno.ENOENT, errno.ESRCH}

_log = structlog.get_logger()


class Daemon(Passes):
    """What the daemon adds to passes: it changes routes, tells of it, listens, and asks networkd."""

    def __init__(self, config: Path, runtime_dir: Path, first_policy: Policy, routes: Routes) -> None:
        super().__init__(config, runtime_dir, first_policy, routes)
        self._listener = Listener()
        self._heard = HeardLeases(runtime_dir / "heard")
        self._deaf: str | None = None
        self._decision = Decision()
        self._verdicts: Sequence[Subnets] = ()
        self._deadline = INFINITE
        self._broken = False
        self._retry = FIRST_RETRY
        self._retry_timer: asyncio.TimerHandle | None = None
        self._retry_hint = Hint()
        self._networkd_calls = asyncio.Event()
        self._misunderstood = ""
        self._unwritten: str | None = None
        self._overfull: set[str | None] = set()

    @property
    def in_force(self) -> InForce:
        """The policy that it works by, and where that is from."""
        return InForce(configuration=str(self._config.absolute()), policy=self._reconciler.policy)

    def forget(self, prefix: Prefix) -> bool:
        """End a delegation until it is granted again; say whether there was one."""
        known = self._reconciler.ledger.forget(prefix, clock.now())
        if known:
            self._look_again(Hint(Stale.LEASES))
        return known

    async def _begin(self) -> None:
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._on_packet)
        self._take_policy()
        # What networkd alone knows of is bound already, where this is a restart.
        await self._ask_networkd()
        minding = asyncio.create_task(self._mind_networkd())
        minding.add_done_callback(self._on_minding_ended)

    async def _mind_networkd(self) -> None:
        """Ask networkd again and again, and whenever it may have something to say."""
        while True:
            # What it may take long to say, and in vain, it is not asked at every event.
            await asyncio.sleep(LAST_RETRY if self._misunderstood else LONGEST_REST)
            with contextlib.suppress(TimeoutError):
                pause = self._reconciler.networkd.ask_again_after(clock.now())
                await asyncio.wait_for(self._networkd_calls.wait(), None if pause == INFINITE else pause)
            self._networkd_calls.clear()
            await self._ask_networkd()

    async def _ask_networkd(self) -> None:
        try:
            said, misunderstood = await asyncio.to_thread(networkd.ask, clock.now()), ""
        except TimeoutError:
            # It may be busy with the routes that we added. What is bound stays, also what stays because
            # it could not be understood, and it is asked again.
            self._reconciler.networkd.is_silent()
            return
        except ValueError as error:
            said, misunderstood = None, str(error)
        if misunderstood and misunderstood != self._misunderstood:
            _log.warning("networkd not understood", reason=misunderstood)
        self._misunderstood = misunderstood
        self._reconciler.networkd.understood = not misunderstood
        if self._reconciler.networkd.take(said):
            self._look_again(Hint(Stale.LEASES))

    def _on_minding_ended(self, minding: asyncio.Task[None]) -> None:
        if not minding.cancelled():
            self._unforeseen = minding.exception() or RuntimeError("nobody minds networkd")
            self._woken.set()

    def _hear(self, hint: Hint) -> None:
        came = not self._reconciler.networkd.found and Stale.ADDRESSES in hint.stale
        if came or hint.of_discards(HOOK_METRICS):
            self._networkd_calls.set()
        self._look_again(hint)

    def _on_packet(self) -> None:
        heard = self._listener.read(clock.now())
        for uplink, reason in heard.malformed:
            _log.warning("message dropped", uplink=uplink, reason=reason)
        if heard.told:
            try:
                self._heard.take(heard.told, clock.now())
            except OSError as error:
                _log.error("cannot keep what was heard", path=error.filename, reason=error.strerror)
            self._look_again(Hint(Stale.LEASES))

    def _clear_up_heard(self, looked: float) -> None:
        """Remove what was over when the pass looked: what came since is to be read first."""
        try:
            self._heard.clear_up(looked)
        except OSError as error:
            _log.warning("cannot clear up what was heard", path=error.filename, reason=error.strerror)

    def _tell_ready(self) -> None:
        _log.info("ready", delegations=len(self._decision.delegations))

    def _take_policy(self) -> None:
        """Listen where the policy says, and tell where it does less than somebody may expect."""
        if not self._config.exists():
            _log.warning("no configuration file, the default policy holds", configuration=str(self._config))
        if self._reconciler.policy.links:
            _log.info(policy.TURN_NEIGHBOURS_ON)
        self._deaf = None
        self._listen()
        missing = set(self._reconciler.policy.listen) - self._listener.uplinks
        for uplink in sorted(missing) if not self._deaf else ():
            _log.warning("no such link so far, listening when it comes", uplink=uplink)

    def _listen(self) -> None:
        """Listen where the policy says, on the links that are there by now."""
        uplinks = self._reconciler.policy.listen
        try:
            for uplink in self._listener.follow(uplinks):
                _log.info("listening", uplink=uplink)
        except DeafError as error:
            if str(error) != self._deaf:
                self._deaf = str(error)
                _log.warning("not listening", uplinks=",".join(uplinks), reason=self._deaf)
        else:
            self._deaf = None

    async def _look(self) -> bool:
        self._listen()
        hint, self._hint = self._hint, Hint()
        stale = self._reconciler.hear(hint)
        try:
            if self._broken:
                self._reconciler.reopen()
                self._watch()
                self._broken = False
            if stale or hint.news or clock.now() >= self._deadline:
                await self._look_and_apply(stale, hint.lost)
            else:
                await self._mend(hint.lost)
        except (OSError, MalformedError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            _log.error("pass failed, will be repeated", reason=reason, after=self._retry)
            self._broken = True
            self._hint.add(Hint(Stale.ALL))
            self._try_later(Hint())
            return False
        return True

    async def _look_and_apply(self, stale: Stale, lost: AbstractSet[Prefix]) -> None:
        reconciler, before, began = self._reconciler, self._decision, clock.now()
        if Stale.LEASES in stale:
            self._lease_monitor.watch()
        if not await in_slices(reconciler.look(stale, self._watch)):
            self._try_later(Hint(Stale.LEASES))
        for complaint in reconciler.complaints:
            _log.warning("lease file dropped", path=complaint.path, reason=complaint.reason)
        reconciler.complaints.clear()
        self._tell_overfull()
        decision = reconciler.decide(clock.now())
        reconciler.remember(decision)
        whole = Stale.PRESENT in stale
        if decision != before or whole:
            came = [] if whole else await in_slices(reconciler.add_at_once(before, decision))
            changes = await in_slices(reconciler.compare(decision, whole=whole))
            refused = await in_slices(reconciler.apply(changes))
            changes.local.add += came
            had_bound = {each.delegation for each in self._verdicts if each.state is SubnetState.BOUND}
            _tell(
                delegation_lines(
                    before.delegations,
                    decision.delegations,
                    clock.now(),
                    reconciler.ledger.ending,
                    had_bound,
                )
            )
            found = verdicts(decision.subnets, changes.local)
            if decision.subnets != before.subnets:
                _tell(moved_lines(self._verdicts, found))
            self._tell_subnets(changes, found, refused)
            self._decision = decision
        else:
            await self._mend(lost)
        self._deadline = decision.deadline
        self._alarm.set(decision.deadline)
        self._write_ledger()
        self._clear_up_heard(began)

    def _tell_overfull(self) -> None:
        overfull = set(self._reconciler.ledger.overfull)
        for uplink in overfull - self._overfull:
            reason = "more are reported at once than accept.at_most allows to accept, or to show as refused"
            _log.warning("delegations passed over", uplink=uplink or "unknown", reason=reason)
        self._overfull = overfull

    def _write_ledger(self) -> None:
        try:
            self._ledger_file.write(self._reconciler.ledger, self._reconciler.places)
            self._unwritten = None
        except OSError as error:
            if error.strerror != self._unwritten:
                self._unwritten = error.strerror
                path = str(self._ledger_file.path)
                _log.warning("ledger file not written: a restart forgets", path=path, reason=error.strerror)

    async def _mend(self, lost: AbstractSet[Prefix]) -> None:
        if lost:
            changes = self._reconciler.mend(self._decision, lost)
            refused = await in_slices(self._reconciler.apply(changes))
            self._tell_subnets(changes, self._verdicts, refused)

    def _tell_subnets(self, changes: Changes, found: Sequence[Subnets], refused: Sequence[Refusal]) -> None:
        """Tell what was done, and see that what the kernel refused is tried again."""
        _tell(subnet_lines(self._verdicts, found, changes.local, [each.prefix for each in refused]))
        self._verdicts = found
        for stray in changes.strays:
            _log.warning("stray", prefix=str(stray.prefix), reason="protocol 150, but no route that we make")
        # Somebody was faster than we: that brings an event of its own.
        serious = [each for each in refused if each.error not in _FASTER]
        for error, group in groupby(sorted(serious, key=attrgetter("error")), attrgetter("error")):
            same = list(group)
            _log.warning("refused", example=str(same[0].prefix), count=len(same), reason=os.strerror(error))
        # With lo down no route can be; it coming up is an event. A stray may have stood where a route of
        # ours belongs.
        if changes.strays or any(each.error != errno.ENETDOWN for each in serious):
            self._try_later(Hint(Stale.PRESENT))
        else:
            self._retry = FIRST_RETRY

    def _try_later(self, hint: Hint) -> None:
        self._retry_hint.add(hint)
        if not self._retry_timer:
            self._retry_timer = asyncio.get_running_loop().call_later(self._retry, self._on_retry)

    def _on_retry(self) -> None:
        self._retry_timer = None
        self._retry = min(2 * self._retry, LAST_RETRY)
        hint, self._retry_hint = self._retry_hint, Hint()
        self._look_again(hint)


def _tell(lines: Iterable[Line]) -> None:
    for line in lines:
        (_log.warning if line.warning else _log.info)(line.event, **line.fields)
