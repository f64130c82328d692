"""What a daemon that was taken over may still open: a process that confined itself tries everything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from anyipd.kernel.confine import confine
from tests.lab.daemon import CHECKOUT, Daemon
from tests.lab.delegated import delegate

TRY = """\
import ctypes, errno, fcntl, json, os, socket, struct, threading
from anyipd.kernel.confine import confine

def opens(family, kind, protocol):
    try:
        socket.socket(family, kind, protocol).close()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "yes"

def controls(request, value=b""):
    with socket.socket(socket.AF_UNIX) as any_socket:
        try:
            fcntl.ioctl(any_socket, request, struct.pack("=16s24s", b"lo", value))
        except OSError as error:
            return errno.errorcode[error.errno]
    return "yes"

def calls(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, arguments))
    return "yes" if done >= 0 else errno.errorcode[ctypes.get_errno()]

def runs(program):
    try:
        os.waitpid(os.posix_spawn(program, ["true"], {{}}), 0)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "yes"

RAW, TOP = socket.SOCK_RAW, 1 << 32
before = [opens(socket.AF_NETLINK, RAW, 12), calls({socket}, 16, RAW, 12), runs("/bin/true")]
assert confine() is None
found = {{
    "before": before,
    "netlink": [opens(socket.AF_NETLINK, RAW | socket.SOCK_CLOEXEC, protocol) for protocol in range(23)],
    "datagram": opens(socket.AF_NETLINK, socket.SOCK_DGRAM, 12),
    "others": [opens(socket.AF_UNIX, 1, 0), opens(socket.AF_PACKET, RAW, 0), opens(socket.AF_INET6, 1, 0)],
    "high halves": [calls({socket}, 16, RAW, TOP + 12), calls({socket}, TOP + 16, RAW, 12)],
    "io_uring": calls(425, 1, 0),
    "links read": [controls(request) for request in (0x8910, 0x8913, 0x8933)] + [socket.if_nametoindex("lo")],
    "links changed": [controls(0x8922, struct.pack("=i", 65536)), calls({ioctl}, 0, TOP + 0x8922, 0)],
    "drivers": [controls(request) for request in (0x8946, 0x89A2, 0x89B0, 0x89F0, 0x89FF, 0x8B00, 0x8BFF)],
    "other files": [controls(request) for request in (0x5411, 0x88FF, 0x8C00)],
    "programs": [runs("/bin/true"), calls({execveat}, -100 % (1 << 64), 0, 0, 0, 0)],
    "x32": calls((1 << 30) + {socket}, 16, RAW, 12),
}}
thread = threading.Thread(target=lambda: found.update(thread=opens(socket.AF_NETLINK, RAW, 12)))
thread.start()
thread.join()
print(json.dumps(found))
"""

NUMBERS = {
    "x86_64": {"socket": 41, "ioctl": 16, "execveat": 322},
    "aarch64": {"socket": 198, "ioctl": 29, "execveat": 281},
}


@pytest.mark.skipif(os.uname().machine not in NUMBERS, reason="no filter for this architecture")
@pytest.mark.usefixtures("lab")
def test_what_is_refused_and_what_not() -> None:
    script = TRY.format(**NUMBERS[os.uname().machine])
    done = subprocess.check_output([sys.executable, "-c", script], cwd=CHECKOUT, text=True)
    assert json.loads(done) == {
        "before": ["yes"] * 3,
        "netlink": ["yes", *["EPERM"] * 22],
        "datagram": "EPERM",
        "others": ["yes"] * 3,
        "high halves": ["EPERM"] * 2,
        "io_uring": "EPERM",
        "links read": ["ENODEV", "yes", "yes", 1],  # by number; there is no link of number 0
        "links changed": ["EPERM"] * 2,
        "drivers": ["EPERM"] * 7,
        "other files": ["yes", "ENOTTY", "ENOTTY"],
        "programs": ["EPERM"] * 2,
        "x32": "EPERM" if os.uname().machine == "x86_64" else "ENOSYS",
        "thread": "EPERM",
    }


def test_where_there_is_no_filter_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    other = os.uname_result(("Linux", "", "", "", "vax"))
    monkeypatch.setattr(os, "uname", lambda: other)
    assert confine() == "no seccomp filter for vax"


def test_the_daemons_are_confined_and_work(daemon: Daemon, neighbour: Daemon) -> None:
    delegate(daemon.namespace)
    daemon.start()
    neighbour.start()
    for program in (daemon, neighbour):
        assert seccomp_filters(str(program.running.pid)) == seccomp_filters("self") + 1


def seccomp_filters(pid: str) -> int:
    (number,) = re.findall(
        r"^Seccomp_filters:\s*(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
    )
    return int(number)
