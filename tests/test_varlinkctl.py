"""The publisher as `varlinkctl` of Debian 13 sees it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from anyipd.varlink.address import NAME
from anyipd.varlink.service import description
from tests.lab import debian13
from tests.lab.daemon import Daemon
from tests.lab.dhclient import Dhclient
from tests.lab.kea import Kea, Offer
from tests.lab.line import NEW, OLD
from tests.lab.namespace import wait_until
from tests.lab.network import Uplink
from tests.lab.publisher import GRANTED, Published
from tests.test_varlink_server import ALICE, several_users

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture
def published() -> Iterator[Published]:
    with TemporaryDirectory(dir="/run") as folder:
        Path(folder).chmod(0o755)
        with Published(Path(folder)) as published:
            published.ask("publish", 1)
            yield published


def varlinkctl(*words: str | Path, user: int | None = None) -> subprocess.CompletedProcess[str]:
    command = [*debian13.command("usr/bin/varlinkctl"), *words]
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
        stdin=subprocess.DEVNULL,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


@pytest.mark.parametrize("interface", ["io.anyipd", "org.varlink.service"])
def test_the_definitions_are_valid(interface: str) -> None:
    path = CHECKOUT / f"anyipd/varlink/{interface}.varlink"
    done = varlinkctl("validate-idl", path)
    assert (done.returncode, done.stderr) == (0, "")
    # What it prints back differs in how lines are broken.
    assert bare(done.stdout) == bare(description(interface))


def bare(text: str) -> str:
    return "".join(text.replace("#", "").split())


def test_info_and_introspection(published: Published) -> None:
    done = varlinkctl("info", "--json=short", published.socket)
    assert json.loads(done.stdout)["interfaces"] == ["org.varlink.service", "io.anyipd"]
    done = varlinkctl("list-methods", published.socket, "io.anyipd")
    assert done.stdout.split() == [
        f"io.anyipd.{name}" for name in ("Describe", "Forget", "Monitor", "Reload")
    ]
    done = varlinkctl("introspect", published.socket)
    assert done.returncode == 0, done.stderr
    for interface in ("io.anyipd", "org.varlink.service"):
        assert bare(description(interface)) in bare(done.stdout)


def test_calls(published: Published) -> None:
    done = varlinkctl("call", "--json=short", published.socket, "io.anyipd.Describe", "{}")
    assert json.loads(done.stdout)["view"]["number"] == 1, done.stderr
    arguments = json.dumps({"prefix": GRANTED})
    for options in ([], ["--oneway"]):
        done = varlinkctl("call", *options, published.socket, "io.anyipd.Forget", arguments)
        assert (done.returncode, done.stderr) == (0, "")
    wait_until(lambda: published.ask("calls") == [f"forget {GRANTED}"] * 2)


def test_monitor(published: Published) -> None:
    command = [*debian13.command("usr/bin/varlinkctl"), "call", "-E", "--json=short", str(published.socket)]
    with subprocess.Popen(
        [*command, "io.anyipd.Monitor", "{}"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            for number in (1, 2, 3):
                if number > 1:
                    published.ask("publish", number)
                line = process.stdout.readline().lstrip("\x1e")
                assert json.loads(line)["view"]["number"] == number
        finally:
            process.kill()


def test_monitor_through_a_renumbering(uplink: Uplink, kea: Kea, tmp_path: Path) -> None:
    told: list[dict[str, str]] = []
    with (
        TemporaryDirectory(dir="/run") as folder,
        Daemon(uplink.host, Path(folder), "subnets: [{name: web}]", forked=True) as daemon,
    ):
        daemon.start()
        command = [*debian13.command("usr/bin/varlinkctl"), "call", "--more", "--json=short"]
        process = uplink.host.popen(
            *("timeout", "60", *command, str(daemon.runtime / NAME), "io.anyipd.Monitor", "{}"),
            stdout=subprocess.PIPE,
        )
        assert process.stdout
        kea.start(Offer(OLD, 5, 7), renew=1, rebind=3)
        Dhclient(uplink.host, uplink.interface, tmp_path, daemon.runtime).start()
        for line in process.stdout:
            view = json.loads(line.lstrip("\x1e"))["view"]
            states = {each["prefix"]: each["state"] for each in view["delegations"]}
            bound = {each["delegation"] for each in view["subnets"] if each["state"] == "bound"}
            assert bound == states.keys()
            if states == {str(OLD): "granted"} and not told[1:]:
                kea.offer(Offer(NEW), renew=100)
            if states not in told[-1:]:
                told.append(states)
            if states.keys() == {str(NEW)}:
                break
    old, new, granted = str(OLD), str(NEW), "granted"
    both = [{old: granted, new: granted}, {old: "superseded", new: granted}]
    assert told == [{}, {old: granted}, *both, {new: granted}]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["io.anyipd.Monitor", "{}"], "org.varlink.service.ExpectedMore"),
        (["io.anyipd.Nothing", "{}"], "org.varlink.service.MethodNotFound"),
        (["io.anyipd.Forget", '{"prefix":"x"}'], "org.varlink.service.InvalidParameter"),
        (["io.anyipd.Forget", '{"prefix":"2001:db8::/60"}'], "io.anyipd.NotDelegated"),
    ],
)
def test_errors(published: Published, words: list[str], error: str) -> None:
    done = varlinkctl("call", published.socket, *words)
    assert done.returncode != 0
    assert error in done.stderr


@several_users
def test_a_user_may_look_and_not_touch(published: Published) -> None:
    done = varlinkctl("call", "--json=short", published.socket, "io.anyipd.Describe", "{}", user=ALICE)
    assert json.loads(done.stdout)["view"]["number"] == 1, done.stderr
    for words in (["io.anyipd.Reload", "{}"], ["io.anyipd.Forget", json.dumps({"prefix": GRANTED})]):
        done = varlinkctl("call", published.socket, *words, user=ALICE)
        assert "PermissionDenied" in done.stderr
    assert published.ask("calls") == []
