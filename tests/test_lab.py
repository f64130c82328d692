"""The lab is the real thing: what a test sees here, a machine on the Internet sees."""

from __future__ import annotations

import signal
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from anyipd.model import Prefix
from tests.lab.dhclient import Dhclient
from tests.lab.kea import Kea, Offer
from tests.lab.namespace import Namespace
from tests.lab.network import Uplink
from tests.lab.pings import Pings

OLD, NEW = Prefix.parse("2001:db8:10::/60"), Prefix.parse("2001:db8:20::/56")


def test_kea_delegates_to_dhclient_and_renews(kea: Kea, dhclient: Dhclient) -> None:
    kea.start(Offer(OLD, 20, 30), renew=1, rebind=10)
    dhclient.start()
    bound = dhclient.wait_for("BOUND6", OLD)
    assert (bound["new_preferred_life"], bound["new_max_life"]) == ("20", "30")
    dhclient.wait_for("RENEW6", OLD)


def test_the_hook_ran_before_its_record(kea: Kea, dhclient: Dhclient, host: Namespace) -> None:
    kea.start(Offer(OLD))
    dhclient.start()
    dhclient.wait_for("BOUND6", OLD)
    assert list((dhclient.runtime / "leases").iterdir())
    assert str(OLD) in host.ip("-6 route show table 150 type unreachable proto dhcp")


def test_renumbering_that_leaves_the_old_prefix_out(kea: Kea, dhclient: Dhclient) -> None:
    kea.start(Offer(OLD, 3, 4), renew=1, rebind=10)
    dhclient.start()
    dhclient.wait_for("BOUND6", OLD)
    kea.offer(Offer(NEW), renew=1, rebind=10)
    dhclient.wait_for("RENEW6", NEW)
    seen = len(dhclient.calls())
    dhclient.wait_for("RENEW6", OLD, since=seen)  # facts: it is kept, and told again
    assert dhclient.wait_for("EXPIRE6", OLD)["old_max_life"] == "4"


def test_withdrawal(kea: Kea, dhclient: Dhclient) -> None:
    kea.start(Offer(OLD), renew=1, rebind=10)
    dhclient.start()
    dhclient.wait_for("BOUND6", OLD)
    kea.offer(Offer(OLD, 0, 0), Offer(NEW), renew=1, rebind=10)
    dhclient.wait_for("EXPIRE6", OLD)
    lifetimes = [call["new_max_life"] for call in dhclient.calls() if call.get("new_ip6_prefix") == str(OLD)]
    assert lifetimes[-1] == "0"
    dhclient.wait_for("RENEW6", NEW)


def test_two_prefixes_in_one_ia(kea: Kea, dhclient: Dhclient) -> None:
    kea.start(Offer(OLD), Offer(NEW))
    dhclient.start()
    assert dhclient.wait_for("BOUND6", OLD)["new_iaid"] == dhclient.wait_for("BOUND6", NEW)["new_iaid"]


def test_release_and_stop(kea: Kea, dhclient: Dhclient) -> None:
    kea.start(Offer(OLD))
    dhclient.start()
    dhclient.wait_for("BOUND6", OLD)
    dhclient.release()
    dhclient.wait_for("RELEASE6", OLD)
    dhclient.start()
    seen = len(dhclient.calls())
    dhclient.wait_for("BOUND6", OLD, since=seen)
    dhclient.stop()
    dhclient.wait_for("STOP6", OLD)


def test_a_client_that_was_killed_comes_back(kea: Kea, dhclient: Dhclient) -> None:
    kea.start(Offer(OLD))
    dhclient.start()
    dhclient.wait_for("BOUND6", OLD)
    dhclient.kill()
    kea.stop()
    kea.start(Offer(OLD))
    dhclient.start()
    dhclient.wait_for("REBIND6", OLD)


def test_routed_addresses_answer_and_others_do_not(uplink: Uplink) -> None:
    prefix = Prefix.parse("2001:db8:10::/64")
    uplink.route(prefix)
    assert uplink.answers(prefix, timeout=0.1) == 0
    uplink.host.ip(f"-6 route add local {prefix} dev lo")
    assert uplink.answers(prefix, n=100) == 100
    uplink.unroute(prefix)
    assert uplink.answers(prefix, timeout=0.1) == 0


def test_pings_beside_thousands_of_others_are_not_lost(uplink: Uplink) -> None:
    routed = Prefix.parse("2001:db8:1::/64")
    uplink.host.ip(f"-6 route add local {routed} dev lo")
    uplink.route(routed)
    pings = Pings(uplink, [routed], 1)
    with closing(pings):  # nobody takes replies while others come
        pings.ask()
        assert uplink.answers(routed, 2000) == 2000
        pings.ask()
        for _ in range(2):
            pings.receive(2)
        assert pings.lost() == (0, 2)


def test_what_a_test_writes_stays_in_the_lab(host: Namespace) -> None:
    Path("/etc/resolv.conf").write_text("nameserver 2001:db8::53\n")
    assert host.run("cat", "/run/resolv.conf").stdout == "nameserver 2001:db8::53\n"
    Path("/etc/resolv.conf").write_text("")
    assert "lab" in host.run("findmnt", "-no", "SOURCE", "/run").stdout.split()
    default = subprocess.run(["ip", "route", "show", "default"], check=True, capture_output=True)
    assert default.stdout == b"", "this process has left the machine's network"


@pytest.mark.usefixtures("lab")
def test_no_process_outlives_its_namespace() -> None:
    with Namespace("short") as short:
        process = short.popen("sleep", "1000")
    assert process.returncode == -signal.SIGKILL
    assert not Path("/run/netns/short").exists()
