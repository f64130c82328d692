"""The socket filter of the monitor: what happens to others does not even wake us.

Classic BPF over netlink messages. Pure: the program as bytes. Loads are big-endian whatever the
machine is (net/core/filter.c), netlink headers are in the order of the machine, addresses are
big-endian.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Sequence

from anyipd.kernel import wire
from anyipd.model import Prefix

_LD_WORD, _LD_HALF, _LD_BYTE = 0x20, 0x28, 0x30
_JUMP, _JUMP_IF_EQUAL, _AND, _RETURN = 0x05, 0x15, 0x54, 0x06
_ACCEPT, _DROP = (_RETURN, 0, 0, 0xFFFFFFFF), (_RETURN, 0, 0, 0)
_INSTRUCTION = struct.Struct("=HBBI")
_MOST_INSTRUCTIONS = 256
"""Some 30 prefixes. With more all events pass, since the kernel charges a filter, and the one that it
replaces, to net.core.optmem_max: 20 KiB before Linux 6.7 (sk_filter_charge in net/core/filter.c)."""

# Offsets into a message of rt6_fill_node: nlmsghdr, rtmsg, RTA_TABLE, RTA_DST.
_TYPE, _PORT, _FAMILY, _TABLE, _PROTOCOL, _ROUTE_TYPE, _DST = 4, 12, 16, 20, 21, 23, 40
_INDEX = 20  # of ifaddrmsg

_KERNEL, _RA = 2, 9  # protocols of on-link routes, which matter also where they cover our prefixes

Instruction = tuple[int, int, int, int]


def event_filter(own_port: int, protocols: Iterable[int], prefixes: Sequence[Prefix]) -> bytes:
    """Pass what may change a decision: struct sock_filter[], as SO_ATTACH_FILTER wants it.

    Passed are changes of links and addresses; of routes of ours that we did not make (a notification
    bears the port of the socket that asked); of discard routes of `protocols`; of on-link routes;
    and of any route inside `prefixes`, the delegated and the static ones. Of IPv4 that is table local,
    and addresses that lo loses.
    """
    ipv4 = [
        (_LD_BYTE, 0, 0, _TABLE),
        *_drop_unless(wire.TABLE_LOCAL),
        (_LD_BYTE, 0, 0, _PROTOCOL),
        *_accept_if(wire.PROTOCOL),
        *_inside(prefix for prefix in prefixes if prefix.width == 32),  # noqa: PLR2004  the width of IPv4
    ]
    discards = [
        (_LD_BYTE, 0, 0, _PROTOCOL),
        *(step for protocol in protocols for step in _accept_if(protocol)),
    ]
    main = [
        *_drop_unless(wire.TABLE_MAIN),
        (_LD_BYTE, 0, 0, _PROTOCOL),
        *_accept_if(wire.PROTOCOL),
        *_accept_if(_KERNEL),
        *_accept_if(_RA),
        (_LD_BYTE, 0, 0, _ROUTE_TYPE),
        *_unless(wire.DISCARDS.values(), [(_JUMP, 0, 0, len(discards))]),
        *discards,
    ]
    own = [(_LD_WORD, 0, 0, _PORT), *_drop_if(_as_loaded(own_port, 4))]
    program = [
        *own,
        (_LD_HALF, 0, 0, _TYPE),
        *_unless([_as_loaded(kind, 2) for kind in (wire.RTM_NEWROUTE, wire.RTM_DELROUTE)], _no_routes()),
        (_LD_BYTE, 0, 0, _FAMILY),
        *_unless([wire.AF_INET6], ipv4),
        (_LD_BYTE, 0, 0, _TABLE),
        *_unless([wire.TABLE_LOCAL], main),
        (_LD_BYTE, 0, 0, _PROTOCOL),
        *_accept_if(wire.PROTOCOL),
        *_inside(prefix for prefix in prefixes if prefix.width != 32),  # noqa: PLR2004
    ]
    if len(program) > _MOST_INSTRUCTIONS:
        program = [*own, _ACCEPT]
    return b"".join(_INSTRUCTION.pack(*step) for step in program)


def _no_routes() -> list[Instruction]:
    """Links and addresses: a bridge's own family of link messages says nothing to us."""
    return [
        (_LD_BYTE, 0, 0, _FAMILY),
        *_accept_if(0),
        *_accept_if(wire.AF_INET6),
        *_drop_unless(wire.AF_INET),
        (_LD_HALF, 0, 0, _TYPE),
        *_drop_unless(_as_loaded(wire.RTM_DELADDR, 2)),
        (_LD_WORD, 0, 0, _INDEX),
        *_accept_if(_as_loaded(wire.LOOPBACK_INDEX, 4)),
        _DROP,
    ]


def _inside(prefixes: Iterable[Prefix]) -> list[Instruction]:
    """Accept a destination that starts in one of the prefixes, drop all else."""
    steps: list[Instruction] = []
    for prefix in prefixes:
        checks: list[Instruction] = []
        for word in reversed(range(-(-prefix.length // 32))):
            bits = min(prefix.length - 32 * word, 32)
            mask = (0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF
            value = (prefix.address >> (prefix.width - 32 - 32 * word)) & mask
            # What comes after is skipped where this word differs.
            skip = len(checks) + 1
            checks = [
                (_LD_WORD, 0, 0, _DST + 4 * word),
                (_AND, 0, 0, mask),
                (_JUMP_IF_EQUAL, 0, skip, value),
                *checks,
            ]
        steps += [*checks, _ACCEPT]
    return [*steps, _DROP]


def _accept_if(value: int) -> list[Instruction]:
    return [(_JUMP_IF_EQUAL, 0, 1, value), _ACCEPT]


def _drop_if(value: int) -> list[Instruction]:
    return [(_JUMP_IF_EQUAL, 0, 1, value), _DROP]


def _drop_unless(value: int) -> list[Instruction]:
    return [(_JUMP_IF_EQUAL, 1, 0, value), _DROP]


def _unless(values: Iterable[int], otherwise: Sequence[Instruction]) -> list[Instruction]:
    """Go on behind `otherwise` if what was loaded is one of the values, into it if not."""
    values = list(values)
    behind = len(otherwise)
    tests: list[Instruction] = []
    for left, value in enumerate(reversed(values)):
        # Jumps on a condition reach 255 steps: hop over a long one.
        tests = [(_JUMP_IF_EQUAL, 0, 1, value), (_JUMP, 0, 0, 2 * left + behind), *tests]
    return [*tests, *otherwise]


def _as_loaded(value: int, size: int) -> int:
    """What a big-endian load makes of a number that the machine wrote."""
    return int.from_bytes(value.to_bytes(size, sys.byteorder))
