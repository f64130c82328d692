"""A View as it is sent: made when somebody first asks for it, and once for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

from anyipd.varlink.message import encode_reply


class Publication:
    """The replies that a View is, which `view` gives as objects of JSON; a newer one has a higher number."""

    def __init__(self, number: int, view: Callable[[], Mapping[str, object]]) -> None:
        self.number, self._view = number, view

    @property
    def is_made(self) -> bool:
        """Whether somebody asked for it."""
        return "once" in vars(self)

    @cached_property
    def once(self) -> bytes:
        """As the only reply."""
        return encode_reply({"view": self._view()})

    @cached_property
    def one_of_many(self) -> bytes:
        """As a reply that others follow."""
        return b'{"continues":true,' + self.once[1:]
