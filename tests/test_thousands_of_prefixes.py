"""S6: a server delegates thousands of prefixes to a host that has some by another uplink."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.lab.daemon import Daemon
from tests.lab.delegated import bound, next_second, subnets, write_lease
from tests.lab.monitor import all_is_heard
from tests.lab.namespace import wait_until

GOOD = "2001:db8:100::/60"
THOUSANDS = 5000
MAX_KIB = 5 * 1024


def resident(daemon: Daemon) -> int:
    """Give the daemon's memory in KiB."""
    status = Path(f"/proc/{daemon.running.pid}/status").read_text()
    return int(status.split("\nVmRSS:")[1].split()[0])


def ticks(daemon: Daemon) -> int:
    """Give the processor time that it took so far, in hundredths of a second."""
    fields = Path(f"/proc/{daemon.running.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.alone  # what a look makes and lets go counts, and one that comes late makes more
@pytest.mark.parametrize("routes", [["table 150 metric 1025"], ["table 150 metric 1025", "metric 1024"]])
def test_thousands_of_prefixes_cost_little(daemon: Daemon, routes: list[str]) -> None:
    """`routes` are those that a client leaves over each of them, and its hook."""
    host = daemon.namespace
    for link in ("good", "bad"):
        host.ip(f"link add {link} up type veth peer {link}-far")
    daemon.configure("subnets: [{name: web}]")
    write_lease(daemon.runtime, uplink="good", prefix=GOOD)
    daemon.start()
    before, reply = resident(daemon), next_second()
    for first in range(0, THOUSANDS, 50):  # clients take them one by one, and start a program for each
        some = {f"bad{n}": f"2001:db8:{0x1000 + n:x}::/60" for n in range(first, first + 50)}
        for name, prefix in some.items():
            write_lease(daemon.runtime, name, uplink="bad", prefix=prefix, life_starts=reply)
        added = (f"route add unreachable {each} dev lo proto dhcp" for each in some.values())
        host.ips(*(f"{each} {how}" for each in added for how in routes))
        wait_until(lambda: all_is_heard(host))
    daemon.wait_for("delegations passed over", 60)
    wait_until(lambda: len(bound(host)) == 17, 60)
    assert subnets(GOOD, 1) <= bound(host)
    daemon.reload()  # everything is read and decided by then
    assert resident(daemon) - before <= MAX_KIB
    used = ticks(daemon)
    time.sleep(2)
    assert ticks(daemon) - used < 10
    assert len(daemon.status()["delegations"]) == 1 + 2 * 16
    # Of what is passed over no message is left, and nothing of it is forgotten.
    wait_until(lambda: host.ip("-6 route show table 150").count("unreachable") <= 2 * 16)
    daemon.configure("{subnets: [{name: web}], accept: {at_most: 20}}")
    daemon.reload()
    wait_until(lambda: len(bound(host)) == 21)
    assert len(daemon.status()["delegations"]) == 1 + 2 * 20
    # He left: what the uplink is delegated next is bound, though his prefixes last.
    right = "2001:db8:f000::/60"
    write_lease(daemon.runtime, "right", uplink="bad", prefix=right)
    wait_until(lambda: subnets(GOOD, 1) | subnets(right, 1) <= bound(host) and len(bound(host)) == 21)
