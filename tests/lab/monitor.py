"""What `ip monitor` sees: the changes of routes as an independent witness tells them."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from tests.lab.namespace import Namespace, wait_until


class RouteMonitor:
    """`ip -6 monitor route` in `namespace`, ended with it; it listens once this is made."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self.namespace, self.log = namespace, folder / "monitor.log"
        self.marks = (f"2001:db8:dead:{number:x}::/64" for number in count(1))
        with self.log.open("w") as log:
            namespace.popen("ip", "-6", "-oneline", "monitor", "route", stdout=log)
        self.changes()

    def changes(self) -> list[str]:
        """Give all changes up to now, a line each; a removal starts with `Deleted`."""
        mark = next(self.marks)

        def marked() -> bool:
            self.namespace.ips(f"route add unreachable {mark}", f"route delete unreachable {mark}")
            return mark in self.log.read_text()

        wait_until(marked)
        return [line for line in self.log.read_text().splitlines() if "2001:db8:dead:" not in line]


def all_is_heard(namespace: Namespace) -> bool:
    """Whether everybody has read all that the kernel told of routes and links."""
    with namespace.entered():
        sockets = Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]
    return all(int(line.split()[4]) == 0 for line in sockets)
