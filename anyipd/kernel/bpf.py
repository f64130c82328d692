"""Classic BPF: the few instructions that our filters are made of, and the attachment to a socket.

Pure but for `attach`. Jumps count the instructions that they skip. Loads are big-endian whatever the
machine is (net/core/filter.c). `Documentation/networking/filter.rst` of the kernel has the language.
"""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Iterable, Sequence

LD_WORD, LD_HALF, LD_BYTE = 0x20, 0x28, 0x30
LD_WORD_AT_X, LD_NUMBER, LDX_NUMBER, TAX = 0x40, 0x00, 0x01, 0x07
JUMP, JUMP_IF_EQUAL, JUMP_IF_AT_LEAST, AND = 0x05, 0x15, 0x35, 0x54
ACCEPT, DROP = (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0)

PROTOCOL, PACKET_TYPE, VLAN_TAG = 0xFFFFF000, 0xFFFFF004, 0xFFFFF02C
"""What the kernel knows of a packet beside its bytes: SKF_AD_OFF and on, in linux/filter.h."""

FIND = 0xFFFFF00C
"""Where a netlink attribute of type X is, from where A says on (SKF_AD_NLATTR)."""

Instruction = tuple[int, int, int, int]
"""Operation, instructions to skip if true and if false, operand."""

INSTRUCTION = struct.Struct("=HBBI")

_SO_ATTACH_FILTER = 26


def assemble(program: Iterable[Instruction]) -> bytes:
    """Make struct sock_filter[] of a program, as SO_ATTACH_FILTER wants it."""
    return b"".join(INSTRUCTION.pack(*step) for step in program)


def attach(to: socket.socket, program: bytes) -> None:
    """Have the kernel drop what an assembled program does not accept; replaces an earlier one."""
    buffer = array.array("B", program)
    address, size = buffer.buffer_info()
    # struct sock_fprog: number of instructions, pointer
    fprog = struct.pack("@HP", size // INSTRUCTION.size, address)
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def accept_if(value: int) -> list[Instruction]:
    """Accept if that was loaded, else go on."""
    return [(JUMP_IF_EQUAL, 0, 1, value), ACCEPT]


def drop_if(value: int) -> list[Instruction]:
    """Drop if that was loaded, else go on."""
    return [(JUMP_IF_EQUAL, 0, 1, value), DROP]


def drop_unless(value: int) -> list[Instruction]:
    """Go on if that was loaded, else drop."""
    return [(JUMP_IF_EQUAL, 1, 0, value), DROP]


def unless(values: Iterable[int], otherwise: Sequence[Instruction]) -> list[Instruction]:
    """Go on behind `otherwise` if what was loaded is one of the values, into it if not."""
    values = list(values)
    behind = len(otherwise)
    tests: list[Instruction] = []
    for left, value in enumerate(reversed(values)):
        # Jumps on a condition reach 255 steps: hop over a long one.
        tests = [(JUMP_IF_EQUAL, 0, 1, value), (JUMP, 0, 0, 2 * left + behind), *tests]
    return [*tests, *otherwise]
