"""Names of links that hold what a terminal obeys, or what is not text: none comes out as it is."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys

import pytest

from anyipd.printable import printable
from tests.lab.daemon import Daemon
from tests.lab.delegated import take_back, write_lease
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import HOST_LINK_LOCAL, ISP_LINK_LOCAL, Uplink

DELEGATED = "2001:db8:100::/60"
POLICY = "subnets: [{name: web, id: 0}, {name: other, id: 1}]"

NAMES = {
    b"\x1b]0;owned\x07": r"\x1b]0;owned\x07",
    b"\x1b[31m\x7f": r"\x1b[31m\x7f",
    b"\xff\xfe\x9b2J": r"\xff\xfe\x9b2J",
    b"\xe2\x80\xaegpj": r"\u202egpj",
    b"\xc2\x9b2J": r"\x9b2J",
}
"""Names that the kernel takes: a title, a colour, not UTF-8, right to left, a control character of C1."""


@pytest.mark.parametrize(("name", "shown"), NAMES.items())
def test_what_it_makes_of_a_name(name: bytes, shown: str) -> None:
    assert printable(os.fsdecode(name)) == shown
    assert printable(shown) == shown


def test_what_is_text_stays_as_it_is() -> None:
    for text in ("", "eth0", "größe 2⁶⁴", "a\\b"):
        assert printable(text) == text
    assert printable("a\n\tb\r", "\n\t") == "a\n\tb\\r"


def test_the_name_of_a_file_makes_no_line_of_its_own(daemon: Daemon) -> None:
    (daemon.runtime / "heard").mkdir()
    (daemon.runtime / "heard" / "x\nno prefix is delegated").touch()
    printed = daemon.control("status").stderr
    assert "x\\nno prefix is delegated" in printed
    assert "\nno prefix" not in printed


@pytest.fixture(params=NAMES.items(), ids=list(NAMES.values()))
def hostile(
    request: pytest.FixtureRequest, uplink: Uplink, daemon: Daemon, neighbour: Daemon
) -> tuple[Daemon, Daemon, str]:
    """A daemon on whose host the uplink has such a name, and a subnet's address; and the name as shown."""
    raw, shown = request.param
    name, host = os.fsdecode(raw), uplink.host
    uplink.isp.sysctl("net.ipv6.conf.all.forwarding", 1)
    uplink.isp.ip(f"-6 route add {DELEGATED} via {HOST_LINK_LOCAL} dev {uplink.customer}")
    host.ip("link set uplink down")
    host.run("ip", "link", "set", "uplink", "name", name)
    host.run("ip", "link", "set", name, "up")
    host.run("ip", "addr", "replace", f"{HOST_LINK_LOCAL}/64", "dev", name, "nodad")
    host.run("ip", "-6", "route", "replace", "default", "via", ISP_LINK_LOCAL, "dev", name)
    host.sysctl("net.ipv6.ip_nonlocal_bind", 1)
    host.run("ip", "addr", "add", "2001:db8:100::1/64", "dev", name, "nodad")
    daemon.configure(POLICY)
    write_lease(daemon.runtime, prefix=DELEGATED, uplink="gone0")
    daemon.start()
    neighbour.start()
    return daemon, neighbour, shown


def is_safe(output: bytes | str) -> bool:
    text = output if isinstance(output, str) else output.decode()
    return text.replace("\n", "").isprintable()


def run(daemon: Daemon, *words: str) -> str:
    """Run `anyipctl`; give its stdout as it came."""
    done = daemon.control(*words, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert is_safe(done.stderr)
    return done.stdout


def test_neither_log_nor_tool_passes_it_on(hostile: tuple[Daemon, Daemon, str]) -> None:
    daemon, neighbour, shown = hostile
    reason = f"on-link at {shown}"
    status = run(daemon, "status")
    assert is_safe(status)
    assert reason in status
    (conflict,) = [
        each for each in json.loads(run(daemon, "--json"))["subnets"] if each["state"] == "conflict"
    ]
    assert conflict["reason"].endswith(reason)
    for words in (["plan"], ["plan", "--prefix", DELEGATED], ["probe"], ["random"]):
        assert is_safe(run(daemon, *words)), words
        if words != ["probe"] or "xff" not in shown:
            json.loads(run(daemon, *words, "--json"))
    for log in (daemon.log, neighbour.log):
        assert is_safe(log.read_bytes())
    # The backslash of an escape is escaped once more between quotes, as logfmt has it.
    assert reason in daemon.wait_for("event=conflict").replace("\\\\", "\\")


def test_watch_and_probe_show_it_escaped(hostile: tuple[Daemon, Daemon, str], host: Namespace) -> None:
    daemon, _, shown = hostile
    for words in (["watch"], ["watch", "--json"]):
        command = [sys.executable, "-m", "anyipd.ctl", *words, *daemon.files]
        with (
            host.entered(),
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=daemon.environment()
            ) as watch,
        ):
            assert watch.stdout
            assert watch.stderr
            seen = b""
            while b"conflict" not in seen:
                line = watch.stdout.readline()
                assert line, seen
                seen += line
            watch.terminate()
            assert is_safe(seen + watch.stdout.read())
            assert watch.stderr.read() == b""
    take_back(daemon.runtime, prefix=DELEGATED, uplink="gone0")
    wait_until(lambda: not daemon.status()["delegations"])
    host.ip(f"-6 route add unreachable {DELEGATED} dev lo proto dhcp")
    wait_until(lambda: any(each["uplink"] is None for each in daemon.status()["delegations"]))
    if "xff" in shown:
        refused = daemon.control("probe", check=False)
        assert refused.returncode == 69
        assert "rename that link" in refused.stderr
        return
    (probed,) = json.loads(run(daemon, "probe", "other", "--json"))
    assert probed["around"]["uplink"] == shown
    assert probed["verdict"]["text"].endswith(f"come in by {shown}.")


def test_a_log_on_a_terminal_shows_it_escaped(hostile: tuple[Daemon, Daemon, str]) -> None:
    daemon, _, shown = hostile
    daemon.kill()
    ours, theirs = pty.openpty()
    try:
        daemon.process = daemon.namespace.popen(*daemon.command(), stderr=theirs, env=daemon.environment())
        text = ""
        # A terminal hands on what was written in parts, and the backslash of an escape is escaped once more.
        while f"on-link at {shown}" not in text.replace("\\\\", "\\"):
            assert select.select([ours], [], [], 20)[0], text
            text += os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert not set("\x07\x7f\x9b\u202e") & set(text)


def test_an_alternative_name_of_a_link_whose_own_is_no_text(
    uplink: Uplink, daemon: Daemon, neighbour: Daemon
) -> None:
    host, name = uplink.host, os.fsdecode(b"\xff")
    host.ip("link property add dev uplink altname other")
    daemon.configure("listen: [other, uplink]\nsubnets: [{name: web, neighbours: [other]}]")
    daemon.start()
    neighbour.start()
    daemon.wait_for("listening uplink=uplink")
    host.ip("link set uplink down")
    host.run("ip", "link", "set", "uplink", "name", name)
    host.run("ip", "link", "set", name, "up")
    daemon.reload()
    for program in (daemon, neighbour):
        program.terminate()
        program.start()
    assert "its name is not UTF-8" in neighbour.log.read_text()
