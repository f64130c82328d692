"""On which links the kernel takes no Router Advertisement, and so no default route, because it forwards."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_LINKS = Path("/proc/sys/net/ipv6/conf")
_ONLY_HOSTS = 1
"""accept_ra: taken unless this host forwards. 2 is whatever it does (ip-sysctl.rst of the kernel)."""


def ignored(links: Iterable[str]) -> tuple[str, ...]:
    """Pick the links that ignore them so; of all links where none is named."""
    names = list(links) or sorted({each.name for each in _LINKS.iterdir()} - {"all", "default", "lo"})
    return tuple(
        each for each in names if _setting(each, "forwarding") and _setting(each, "accept_ra") == _ONLY_HOSTS
    )


def _setting(link: str, key: str) -> int:
    try:
        return int((_LINKS / link / key).read_text())
    except FileNotFoundError:  # the link is gone, or has no IPv6
        return 0
