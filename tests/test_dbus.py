"""Asking on the system bus, where any user may send signals to whoever is connected."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyipd.observe import dbus
from tests.lab.namespace import Namespace
from tests.lab.networkd import Networkd
from tests.test_one_daemon import SEVERAL_USERS

DRIVER = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")

SENDING = """\
import socket, struct, sys

connection = socket.socket(socket.AF_UNIX)
connection.connect("/run/dbus/system_bus_socket")
stream = connection.makefile("rb")

def string(order, text):
    return struct.pack(order + "I", len(text)) + text.encode() + b"\\0"

def message(order, kind, fields, body=b""):
    packed = b""
    for code, form, text in fields:
        value = b"\\1s\\0" if form == "g" else string(order, text)
        packed += bytes(-len(packed) % 8) + bytes([code, 1]) + form.encode() + b"\\0" + value
    name = b"l" if order == "<" else b"B"
    fixed = struct.pack(order + "cBBBIII", name, kind, 1, 1, len(body), 1, len(packed))
    connection.sendall(fixed + packed + bytes(-len(packed) % 8) + body)

def signal(order, length):
    fields = [(1, "o", "/a"), (2, "s", "a.b"), (3, "s", "C"), (6, "s", sys.argv[1]), (8, "g", "s")]
    message(order, 4, fields, string(order, "x" * length))

connection.sendall(b"\\0AUTH EXTERNAL\\r\\nDATA\\r\\nBEGIN\\r\\n")
stream.readline()
stream.readline()
driver = "org.freedesktop.DBus"
message("<", 1, [(1, "o", "/org/freedesktop/DBus"), (2, "s", driver), (3, "s", "Hello"), (6, "s", driver)])
stream.read(16)
"""

SOME = """\
signal(">", 1)
signal("<", 3 << 19)
signal("<", 1)
print(flush=True)
sys.stdin.read()
"""

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--"]
"""Whom the bus knows, unlike a number that has no name."""

MANY = """\
import time

print(flush=True)
end = time.monotonic() + 5
while time.monotonic() < end:
    signal("<", 1 << 16)
"""


@pytest.fixture
def bus(host: Namespace, tmp_path: Path) -> Iterator[dbus.Bus]:
    """A connection to a bus on which there is nobody else so far."""
    Networkd(host, "uplink", tmp_path).start_bus()
    with dbus.Bus() as connected:
        yield connected


def names(bus: dbus.Bus) -> set[str]:
    """Give the bus's own names of all who are connected."""
    return set(re.findall(r":1\.\d+", bus.call(*DRIVER, "ListNames").body.decode()))


def send(host: Namespace, bus: dbus.Bus, script: str) -> str:
    """Have an ordinary user send signals to us; give his name, who answers nothing."""
    [name] = names(bus)
    sender = host.popen(
        *(NOBODY if SEVERAL_USERS else ()),
        *(sys.executable, "-c", SENDING + script, name),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert sender.stdout
    assert sender.stdout.readline() == "\n"
    [other] = names(bus) - {name}
    return other


def test_signals_of_any_length_and_byte_order_are_passed_over(bus: dbus.Bus, host: Namespace) -> None:
    send(host, bus, SOME)
    for _ in range(3):
        assert dbus.text(bus.call(*DRIVER, "GetId").body).isalnum()


def test_signals_instead_of_an_answer_hold_nothing_up(bus: dbus.Bus, host: Namespace) -> None:
    other = send(host, bus, MANY)
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        bus.call(other, "/a", "a.b", "C")
    assert time.monotonic() - begun < 3 * dbus.TIMEOUT
