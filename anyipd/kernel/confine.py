"""Confines this process to its work: no netlink but rtnetlink, and no other program, until it ends.

So nftables, IPsec and audit are out of reach of whoever takes it over, and so is what CAP_NET_ADMIN may do by
ioctl(2) on any socket, such as writing to the memory of a network card (linux/ethtool.h). systemd cannot do
it: RestrictAddressFamilies= knows families alone, and SystemCallFilter= no arguments. A seccomp filter sees
the arguments of socket(2) and ioctl(2), and no messages: what rtnetlink itself lets CAP_NET_ADMIN do, such as
changing links and queueing disciplines, stays possible. See seccomp(2).
"""

from __future__ import annotations

import array
import ctypes
import errno
import os
import socket
import struct

from anyipd import libc
from anyipd.kernel import bpf

_NUMBERS = {"x86_64": (0xC000003E, 41, 16, 59, 322), "aarch64": (0xC00000B7, 198, 29, 221, 281)}
"""By machine: what seccomp calls it (linux/audit.h); there socket, ioctl, execve, execveat (asm/unistd.h)."""

_IO_URING_SETUP = 425  # everywhere; a ring would open sockets past the filter
_X32 = 0x40000000  # on x86-64 the numbers from here on are of another ABI; elsewhere there are none

_NUMBER, _ARCHITECTURE, _FAMILY, _REQUEST, _PROTOCOL = 0, 4, 16, 24, 32
"""In struct seccomp_data; of the arguments the low halves."""

_OF_SOCKETS = range(0x8900, 0x8C00)
"""Requests of ioctl(2) to a socket, to its link, and to that link's driver (linux/sockios.h, wireless.h)."""

_READING = 0x8910, 0x8913, 0x8933  # SIOCGIFNAME, SIOCGIFFLAGS, SIOCGIFINDEX

_JUMP_IF_NOT_BELOW = 0x35
_ALLOW, _REFUSE = (0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050000 | errno.EPERM)
_FPROG = struct.Struct("@HP")

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38
_NOTHING = ctypes.c_ulong(0)


def confine() -> str | None:
    """Have all of that refused, with EPERM, to this thread and those that it starts from here on.

    Nothing lifts that. Return why it cannot be had here, None where it is done.
    """
    machine = os.uname().machine if struct.calcsize("P") == 8 else "32 bits"  # noqa: PLR2004  bytes
    if machine not in _NUMBERS:
        return f"no seccomp filter for {machine}"
    code = array.array("B", bpf.assemble(_program(*_NUMBERS[machine])))
    address, size = code.buffer_info()
    fprog = ctypes.create_string_buffer(_FPROG.pack(size // bpf.INSTRUCTION.size, address))
    try:
        # Without it the kernel wants CAP_SYS_ADMIN. The unit has set it by then.
        libc.call("prctl", _PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), _NOTHING, _NOTHING, _NOTHING)
        libc.call("prctl", _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), fprog, _NOTHING, _NOTHING)
    except OSError as error:
        return error.strerror
    return None


def _program(architecture: int, opening: int, controlling: int, *executing: int) -> list[bpf.Instruction]:
    # Here loads are in the order of the machine, unlike those of a socket filter.
    return [
        (bpf.LD_WORD, 0, 0, _ARCHITECTURE),
        *bpf.unless([architecture], [_REFUSE]),
        (bpf.LD_WORD, 0, 0, _NUMBER),
        (_JUMP_IF_NOT_BELOW, 0, 1, _X32),
        _REFUSE,
        *(step for number in (_IO_URING_SETUP, *executing) for step in _refuse_if(number)),
        *_in_case_of(controlling, _control()),
        *bpf.unless([opening], [_ALLOW]),
        (bpf.LD_WORD, 0, 0, _FAMILY),
        *bpf.unless([socket.AF_NETLINK], [_ALLOW]),
        (bpf.LD_WORD, 0, 0, _PROTOCOL),
        *bpf.unless([socket.NETLINK_ROUTE], [_REFUSE]),
        _ALLOW,
    ]


def _refuse_if(number: int) -> list[bpf.Instruction]:
    return [(bpf.JUMP_IF_EQUAL, 0, 1, number), _REFUSE]


def _in_case_of(number: int, steps: list[bpf.Instruction]) -> list[bpf.Instruction]:
    return [(bpf.JUMP_IF_EQUAL, 0, len(steps), number), *steps]


def _control() -> list[bpf.Instruction]:
    return [
        (bpf.LD_WORD, 0, 0, _REQUEST),
        (_JUMP_IF_NOT_BELOW, 1, 0, _OF_SOCKETS.start),
        _ALLOW,
        (_JUMP_IF_NOT_BELOW, 0, 1, _OF_SOCKETS.stop),
        _ALLOW,
        *bpf.unless(_READING, [_REFUSE]),
        _ALLOW,
    ]
