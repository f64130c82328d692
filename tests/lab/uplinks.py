"""The uplinks of a host in a test: veths that come, go, are renamed, lose their carrier and get it back."""

from __future__ import annotations

from itertools import count

from tests.lab.namespace import Namespace

UPLINKS = "up0", "up1", "up2"
"""Their names. At first there is no link of the last one."""


class Uplinks:
    """The uplinks of `host`, each with its far end there; `lost` are those that lost their carrier."""

    def __init__(self, host: Namespace) -> None:
        self.host = host
        self.far_ends: dict[str, str] = {}
        self.numbers = count()
        self.lost: set[str] = set()
        for name in UPLINKS[:-1]:
            self.come(name)

    def come(self, name: str) -> None:
        """Have a link of this name come, if there is none."""
        if name not in self.far_ends:
            far = self.far_ends[name] = f"isp{next(self.numbers)}"
            self.host.pair(name, far)

    def go(self, name: str) -> None:
        """Have a link go for good."""
        if self.far_ends.pop(name, None):
            self.host.ip(f"link delete {name}")
            self.lost.add(name)

    def rename(self, name: str, new: str) -> None:
        """Give a link another name, if that is free; it keeps its carrier."""
        if name in self.far_ends and new not in self.far_ends:
            self.host.ip(f"link set {name} name {new}")
            self.far_ends[new] = self.far_ends.pop(name)

    def carrier(self, name: str, *, there: bool) -> None:
        """Have the carrier of a link be lost, or come back."""
        if name in self.far_ends:
            self.host.ip(f"link set {self.far_ends[name]} {'up' if there else 'down'}")
            if not there:
                self.lost.add(name)
