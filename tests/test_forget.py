"""`anyipctl forget`: a delegation ends now, for good, until it is granted again."""

from __future__ import annotations

import pytest

from tests.lab.daemon import Daemon
from tests.lab.delegated import PREFIX, bound, delegate, subnets, write_lease
from tests.lab.namespace import wait_until

WANTED = subnets(PREFIX, 1)
INFINITE = 0xFFFFFFFF


@pytest.fixture
def started(daemon: Daemon) -> Daemon:
    (daemon.runtime / "leases").mkdir()
    daemon.start()
    return daemon


def test_what_never_expires_is_forgotten_through_restarts(started: Daemon) -> None:
    write_lease(started.runtime, preferred_lifetime=INFINITE, valid_lifetime=INFINITE)
    delegate(started.namespace)
    wait_until(lambda: bound(started.namespace) == WANTED)
    assert started.control("forget", PREFIX).stdout == f"{PREFIX} is forgotten until it is granted again\n"
    wait_until(lambda: bound(started.namespace) == set())
    assert 'reason="forgotten by the operator"' in started.wait_for("event=withdrawn")
    for again in (started.reload, started.kill, started.start):
        again()
        assert bound(started.namespace) == set()
        assert started.status() == {"delegations": [], "subnets": []}
    write_lease(started.runtime)
    wait_until(lambda: bound(started.namespace) == WANTED)


def test_a_mere_route_is_forgotten_until_it_is_added_anew(started: Daemon) -> None:
    delegate(started.namespace)
    wait_until(lambda: bound(started.namespace) == WANTED)
    started.control("forget", PREFIX)
    wait_until(lambda: bound(started.namespace) == set())
    started.namespace.ip(f"-6 route replace unreachable {PREFIX} dev lo proto dhcp metric 1024")
    wait_until(lambda: bound(started.namespace) == WANTED)


def test_what_is_not_delegated_cannot_be_forgotten(started: Daemon) -> None:
    done = started.control("forget", PREFIX, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        f"anyipctl forget: {PREFIX} is not delegated; see anyipctl status\n",
    )
    done = started.control("forget", "2001:db8::1/60", check=False)
    assert (done.returncode, "has host bits set" in done.stderr) == (64, True)


def test_it_takes_a_daemon(daemon: Daemon) -> None:
    done = daemon.control("forget", PREFIX, check=False)
    assert (done.returncode, "no daemon is running here" in done.stderr) == (69, True)
