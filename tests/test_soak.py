"""The chaos run works, and says so where something is lost: each of its verdicts is seen red here."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from anyipd.model import Prefix
from tests.lab.faults import FAULTS
from tests.lab.namespace import INSIDE, wait_until
from tests.lab.soak import order
from tests.lab.soak_report import GROWTH, Footprint, Report
from tests.lab.windows import Windows

CHECKOUT = Path(__file__).resolve().parents[1]
SCRIPT = """
import signal, sys, time
from tests.lab import namespace, soak, stage
from tests.lab.delegated import take_away
from tests.lab.faults import FAULTS, Fault
soak.LONGEST_REST, stage.RENEW, stage.WHOLE_WITHIN = 0.1, 1, {patience}

def undeclared(stage):
    place = stage.pick()
    stage.witness.unbinding.open(lambda _: True)
    with stage.trouble():
        stage.daemon.running.send_signal(signal.SIGSTOP)
        take_away(stage.host, place)
        stage.prober.wait_until_probed(place)
        stage.daemon.running.send_signal(signal.SIGCONT)

def too_many(stage):
    with stage.trouble(lambda _: True):
        stage.optional = False

def too_soon(stage):
    place = stage.pick()
    with stage.trouble(lambda _: True):
        stage.daemon.running.send_signal(signal.SIGSTOP)
        take_away(stage.host, place)
        stage.witness.wait_for_look()
        stage.daemon.running.send_signal(signal.SIGCONT)

def too_long(stage):
    line = stage.pick_line()
    with stage.trouble(unbinds=line.covers):
        line.wait_for_renewal()
        stage.daemon.running.send_signal(signal.SIGSTOP)
        line.client.release()
        given_back = line.current
        line.replace(None)
        namespace.wait_until(lambda: stage.witness.late)
        stage.daemon.running.send_signal(signal.SIGCONT)
        line.client.start()
        stage.wait_for_subnets(given_back)
        line.replace(given_back)

def not_ours(stage):
    with stage.trouble():
        for verb in "delete", "add":
            stage.host.ip("-6 rule " + verb + " pref 1017 from 2001:db8:ba17::/48 lookup 1017")

def endless(stage):
    with stage.trouble(lambda _: True):  # the responder may end before the prober does
        print("at work", flush=True)
        time.sleep(60)

{faults}
sys.exit(soak.main())
"""


def start(*options: str, faults: str = "", patience: float = 40) -> subprocess.Popen[str]:
    # Without the mark it enters a lab of its own, inside this one, as from a shell.
    environment = {name: value for name, value in os.environ.items() if name != INSIDE}
    script = SCRIPT.format(faults=f"soak.FAULTS = {faults}" if faults else "", patience=patience)
    return subprocess.Popen(
        [sys.executable, "-c", script, *options],
        cwd=CHECKOUT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.long
@pytest.mark.usefixtures("lab")
def test_a_short_run_loses_nothing() -> None:
    with start("--minutes", "0.2", "--seed", "7", "--json") as soak:
        told, _ = soak.communicate(timeout=120)
    report = json.loads(told)
    assert soak.returncode == 0, told
    assert (report["verdict"], report["seed"]) == ([], 7)
    probes = report["probes"]
    assert probes["sent"] == probes["answered"] + probes["lost_inside_windows"] > 0
    assert probes["lost_outside_windows"] == 0
    assert report["faults_total"] == sum(each["count"] for each in report["faults"].values()) > 0
    assert report["daemon"]["start"]["rss"] > 0


@pytest.mark.usefixtures("lab")
def test_a_loss_that_no_fault_declared_is_reported() -> None:
    with start("--minutes", "0.02", faults="[Fault('undeclared', 'none', undeclared)]") as soak:
        told, _ = soak.communicate(timeout=120)
    assert soak.returncode == 1, told
    (failed,) = (line for line in told.splitlines() if line.startswith("FAILED"))
    assert "probes lost outside all windows" in failed
    assert any(line.startswith("lost ") and "no answer" in line for line in told.splitlines())


@pytest.mark.long
@pytest.mark.usefixtures("lab")
def test_a_wrong_table_is_reported() -> None:
    with start(
        "--minutes", "1", "--json", faults="[Fault('too many', 'all', too_many)]", patience=10
    ) as soak:
        told, _ = soak.communicate(timeout=120)
    assert soak.returncode == 1, told
    (failed,) = json.loads(told)["verdict"]
    assert failed.startswith("too many: not whole within 10 s: too many 2001:db8:")


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("too_soon", r"unbound \d+\.\d s before its valid lifetime is over"),
        ("too_long", r"bound \d+\.\d s past its valid lifetime"),
    ],
    ids=["too soon", "too long"],
)
@pytest.mark.usefixtures("lab")
def test_what_is_not_bound_for_its_lifetime_is_reported(fault: str, what: str) -> None:
    with start("--minutes", "0.02", "--json", faults=f"[Fault('it', 'all', {fault})]") as soak:
        told, _ = soak.communicate(timeout=120)
    assert soak.returncode == 1, told
    report = json.loads(told)
    (failed,) = report["verdict"]
    assert failed == f"{len(report['lifetimes'])} subnets bound too long, or not long enough"
    assert all(re.search(f"::/64 {what}$", each) for each in report["lifetimes"]), told


@pytest.mark.usefixtures("lab")
def test_what_is_not_ours_and_is_touched_is_reported() -> None:
    with start("--minutes", "0.02", "--json", faults="[Fault('not ours', 'none', not_ours)]") as soak:
        told, _ = soak.communicate(timeout=120)
    assert soak.returncode == 1, told
    report = json.loads(told)
    [failed] = report["verdict"]
    assert failed == f"{len(report['touched'])} changes of what is not anyipd's"
    assert all("removed RTM_DELRULE" in each for each in report["touched"])


@pytest.mark.usefixtures("lab")
def test_an_interruption_ends_with_the_report_so_far() -> None:
    with start("--minutes", "5", faults="[Fault('endless', 'none', endless)]") as soak:
        assert soak.stdout
        assert soak.stdout.readline() == "at work\n"
        # As a terminal does it: to all of the foreground.
        os.killpg(soak.pid, signal.SIGINT)
        told = soak.stdout.read()
    assert soak.returncode == 130, told
    assert "0 outside" in told
    assert told.splitlines()[-1].startswith("interrupted")
    wait_until(lambda: not group_exists(soak.pid))  # what it killed may still be on its way out


def group_exists(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_seed_repeats_the_order_and_every_kind_has_its_turn() -> None:
    first, again, other = (list(islice(order(seed), 2 * len(FAULTS))) for seed in (7, 7, 8))
    assert first == again != other
    names = {fault.name for fault in FAULTS}
    assert len(names) == len(FAULTS)
    assert {fault.name for fault in first[: len(FAULTS)]} == names
    assert {fault.name for fault in first[len(FAULTS) :]} == names


def test_a_leak_is_a_failure() -> None:
    report = Report(seed=1, start=Footprint(1000, 10))
    report.see(Footprint(1000 + GROWTH, 10), report.start)
    assert report.verdict() == []
    report.see(Footprint(1001 + GROWTH, 11), report.start)
    assert [each.split()[0] for each in report.verdict()] == ["the", "descriptors"]


def test_windows_excuse_what_they_cover_while_they_last() -> None:
    here, elsewhere = Prefix.parse("2001:db8::/64"), Prefix.parse("2001:db8:1::/64")
    windows = Windows()
    window = windows.open(lambda prefix: prefix == here)
    before, during = window.start - 2, window.start + 1
    assert not windows.excuse(here, before, before + 1)
    assert windows.excuse(here, before, during)
    assert windows.excuse(here, during, during)
    assert not windows.excuse(elsewhere, during, during)
    window.close()
    assert window.end
    assert windows.excuse(here, window.end, window.end + 1)
    assert not windows.excuse(here, window.end + 1, window.end + 2)
