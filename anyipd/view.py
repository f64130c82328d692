"""The View: what is delegated and bound on this host at a time, and by which policy.

The daemon makes one after each look and publishes it; followers and `anyipctl` consume it. Frozen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from anyipd.model import INFINITE, Delegation, Subnets

if TYPE_CHECKING:  # pydantic is only needed to read a policy
    from anyipd.policy import Policy


@dataclass(frozen=True, slots=True)
class View:
    """One network namespace as one look found it, and as what was changed then left it.

    `configuration` is the absolute path of the policy's file, `network_namespace` an inode. `time` and
    `deadline`, when something changes by itself, are seconds of CLOCK_BOOTTIME; Views that differ in these
    alone are equal.
    """

    time: float = field(compare=False)
    network_namespace: int
    configuration: str
    policy: Policy
    delegations: tuple[Delegation, ...] = ()
    subnets: tuple[Subnets, ...] = ()
    deadline: float = field(default=INFINITE, compare=False)

    def at(self, now: float) -> View:
        """Return what is left of it at a later time, if nobody makes another: what is still valid."""
        return replace(
            self,
            time=now,
            delegations=tuple(each for each in self.delegations if not _is_over(each.valid_until, now)),
            subnets=tuple(each for each in self.subnets if not _is_over(each.valid_until, now)),
        )

    @property
    def next_end(self) -> float:
        """The first time at which a subnet's valid lifetime ends."""
        return min(
            (each.valid_until for each in self.subnets if each.valid_until is not None), default=INFINITE
        )


def _is_over(valid_until: float | None, now: float) -> bool:
    return valid_until is not None and valid_until <= now
