"""The socket filter of the monitor: what happens to others does not even wake us.

Classic BPF over netlink messages. Pure: the program as bytes. Loads are big-endian whatever the
machine is (net/core/filter.c), netlink headers are in the order of the machine, addresses are
big-endian.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache

from anyipd.kernel import bpf, wire
from anyipd.model import Prefix

_MOST_INSTRUCTIONS = 256
"""Some 30 prefixes. With more all routes' events pass, since the kernel charges a filter, and the one that it
replaces, to net.core.optmem_max: 20 KiB before Linux 6.7 (sk_filter_charge in net/core/filter.c)."""

# Offsets into a message of rt6_fill_node: nlmsghdr, rtmsg, RTA_TABLE, RTA_DST.
_TYPE, _PORT, _FAMILY, _LENGTH, _TABLE, _PROTOCOL, _ROUTE_TYPE, _DST = 4, 12, 16, 17, 20, 21, 23, 40
_ATTRIBUTES = 28  # behind rtmsg
_INDEX = 20  # of ifaddrmsg

_KERNEL, _RA = 2, 9  # protocols of on-link routes, which matter also where they cover our prefixes


MAX_PREFIXES = _MOST_INSTRUCTIONS // 4
"""With more there is no use in assembling a filter: each takes four instructions or more."""


def event_filter(
    own_port: int,
    protocols: Iterable[int],
    prefixes: Sequence[Prefix],
    shortest: int = 32,
    places: Iterable[Prefix] = (),
) -> bytes:
    """Pass what may change a decision: struct sock_filter[], as SO_ATTACH_FILTER wants it.

    Passed are changes of links and addresses; of routes of ours that we did not make (a notification
    bears the port of the socket that asked); of discard routes of `protocols` and of default routes in table
    main, and the hooks' messages. Of every table: on-link routes, any route inside `prefixes`, the delegated
    and the static ones, and those that may be around one, since its first `shortest` bits, or 32, are the
    same; and those to `places`, as long as these are few. Of IPv4 that is addresses that lo loses, what
    is ours, and where there are static prefixes of it what is inside, default routes, and those by gateways
    in there.
    """
    if len(prefixes) > MAX_PREFIXES:
        return widest_filter(own_port)
    static_ipv4 = tuple(prefix for prefix in prefixes if prefix.width == 32)  # noqa: PLR2004  the width of IPv4
    ipv6 = [prefix for prefix in prefixes if prefix.width != 32]  # noqa: PLR2004
    before = _before_ours(own_port, tuple(protocols), static_ipv4)
    around, inside = _around(ipv6, shortest), _inside(ipv6)
    for at in (_at(sorted({*places} - {*ipv6})), []):
        program = before + bpf.assemble(around + at + inside)
        if len(program) <= _MOST_INSTRUCTIONS * bpf.INSTRUCTION.size:
            return program
    return widest_filter(own_port)


@lru_cache(maxsize=1)
def widest_filter(own_port: int) -> bytes:
    """Pass all routes' events but those of our own changes."""
    return bpf.assemble([*_not_routes(own_port), bpf.ACCEPT])


@lru_cache(maxsize=1)
def _before_ours(own_port: int, protocols: Sequence[int], static_ipv4: Sequence[Prefix]) -> bytes:
    """Return all but the last test, that of IPv6 in table local: a delegation changes nothing before it."""
    ipv4 = [
        (bpf.LD_BYTE, 0, 0, _TABLE),
        *([] if static_ipv4 else bpf.drop_unless(wire.TABLE_LOCAL)),
        (bpf.LD_BYTE, 0, 0, _PROTOCOL),
        *bpf.accept_if(wire.PROTOCOL),
        (bpf.LD_BYTE, 0, 0, _LENGTH),
        *bpf.accept_if(0),
        *_by_gateway(static_ipv4),
        *_inside(static_ipv4),
    ]
    discards = [
        (bpf.LD_BYTE, 0, 0, _PROTOCOL),
        *(step for protocol in protocols for step in bpf.accept_if(protocol)),
    ]
    hooks = [(bpf.LD_BYTE, 0, 0, _PROTOCOL), *bpf.accept_if(wire.DHCP)]
    main = [
        (bpf.LD_BYTE, 0, 0, _PROTOCOL),
        *bpf.accept_if(wire.PROTOCOL),
        (bpf.LD_BYTE, 0, 0, _LENGTH),
        *bpf.accept_if(0),
        (bpf.LD_BYTE, 0, 0, _ROUTE_TYPE),
        *bpf.unless(wire.DISCARDS.values(), [(bpf.JUMP, 0, 0, len(discards))]),
        *discards,
    ]
    local = [(bpf.LD_BYTE, 0, 0, _PROTOCOL), *bpf.accept_if(wire.PROTOCOL)]
    not_local = [
        *bpf.unless([wire.TABLE_HOOKS], [(bpf.JUMP, 0, 0, len(hooks))]),
        *hooks,
        (bpf.LD_BYTE, 0, 0, _TABLE),
        *bpf.unless([wire.TABLE_MAIN], [(bpf.JUMP, 0, 0, len(main))]),
        *main,
        (bpf.LD_BYTE, 0, 0, _PROTOCOL),
        *bpf.accept_if(_KERNEL),
        *bpf.accept_if(_RA),
        (bpf.JUMP, 0, 0, len(local)),
    ]
    program = [
        *_not_routes(own_port),
        (bpf.LD_BYTE, 0, 0, _FAMILY),
        *bpf.unless([wire.AF_INET6], ipv4),
        (bpf.LD_BYTE, 0, 0, _TABLE),
        *bpf.unless([wire.TABLE_LOCAL], not_local),
        *local,
    ]
    return bpf.assemble(program)


def _not_routes(own_port: int) -> list[bpf.Instruction]:
    """Drop our own echo, and deal with what is about links and addresses; go on with other people's routes.

    A bridge's own family of link messages says nothing to us: that a port left it would be a link gone.
    """
    routes = [_as_loaded(kind, 2) for kind in (wire.RTM_NEWROUTE, wire.RTM_DELROUTE)]
    others = [
        (bpf.LD_BYTE, 0, 0, _FAMILY),
        *bpf.accept_if(0),
        *bpf.accept_if(wire.AF_INET6),
        *bpf.drop_unless(wire.AF_INET),
        (bpf.LD_HALF, 0, 0, _TYPE),
        *bpf.drop_unless(_as_loaded(wire.RTM_DELADDR, 2)),
        (bpf.LD_WORD, 0, 0, _INDEX),
        *bpf.accept_if(_as_loaded(wire.LOOPBACK_INDEX, 4)),
        bpf.DROP,
    ]
    return [
        (bpf.LD_WORD, 0, 0, _PORT),
        *bpf.drop_if(_as_loaded(own_port, 4)),
        (bpf.LD_HALF, 0, 0, _TYPE),
        *bpf.unless(routes, others),
    ]


def _around(prefixes: Sequence[Prefix], shortest: int) -> list[bpf.Instruction]:
    """Accept a route to somebody that may be around one of the prefixes, go on with all else."""
    if not prefixes:
        return []
    mask = _mask(min(shortest, 32))
    starts = sorted({prefix.address >> 96 & mask for prefix in prefixes})
    checks = [
        (bpf.LD_WORD, 0, 0, _DST),
        (bpf.AND, 0, 0, mask),
        *(step for start in starts for step in bpf.accept_if(start)),
    ]
    longest = max(prefix.length for prefix in prefixes)
    return [
        (bpf.LD_BYTE, 0, 0, _ROUTE_TYPE),
        (bpf.JUMP_IF_EQUAL, 0, len(checks) + 2, wire.UNICAST),
        (bpf.LD_BYTE, 0, 0, _LENGTH),
        (bpf.JUMP_IF_AT_LEAST, len(checks), 0, longest),
        *checks,
    ]


def _by_gateway(prefixes: Iterable[Prefix]) -> list[bpf.Instruction]:
    """Accept an IPv4 route with a gateway in one of the prefixes, or with several; go on with all else."""
    inside = [
        step
        for prefix in prefixes
        for step in (
            (bpf.LD_WORD_AT_X, 0, 0, 4),  # behind the attribute's header
            (bpf.AND, 0, 0, _mask(prefix.length)),
            *bpf.accept_if(prefix.address & _mask(prefix.length)),
        )
    ]
    return [
        *_find(wire.RTA_MULTIPATH),
        (bpf.JUMP_IF_EQUAL, 1, 0, 0),
        bpf.ACCEPT,
        *_find(wire.RTA_GATEWAY),
        (bpf.JUMP_IF_EQUAL, 0, 1, 0),
        (bpf.JUMP, 0, 0, len(inside) + 1),
        (bpf.TAX, 0, 0, 0),
        *inside,
    ]


def _find(attribute: int) -> list[bpf.Instruction]:
    """Load where an attribute of a route is, 0 where it has none."""
    return [
        (bpf.LD_NUMBER, 0, 0, _ATTRIBUTES),
        (bpf.LDX_NUMBER, 0, 0, attribute),
        (bpf.LD_WORD, 0, 0, bpf.FIND),
    ]


def _inside(prefixes: Iterable[Prefix]) -> list[bpf.Instruction]:
    """Accept a destination that starts in one of the prefixes, drop all else."""
    steps = [step for prefix in prefixes for step in [*_starts_in(prefix), bpf.ACCEPT]]
    return [*steps, bpf.DROP]


def _at(prefixes: Iterable[Prefix]) -> list[bpf.Instruction]:
    """Accept a destination that is one of the prefixes, go on with all else."""
    steps: list[bpf.Instruction] = []
    for prefix in prefixes:
        checks = _starts_in(prefix)
        length = [(bpf.LD_BYTE, 0, 0, _LENGTH), (bpf.JUMP_IF_EQUAL, 0, len(checks) + 1, prefix.length)]
        steps += [*length, *checks, bpf.ACCEPT]
    return steps


def _starts_in(prefix: Prefix) -> list[bpf.Instruction]:
    """Skip the one instruction behind these where a destination does not start in the prefix."""
    checks: list[bpf.Instruction] = []
    for word in reversed(range(-(-prefix.length // 32))):
        mask = _mask(min(prefix.length - 32 * word, 32))
        value = (prefix.address >> (prefix.width - 32 - 32 * word)) & mask
        # What comes after is skipped where this word differs.
        skip = len(checks) + 1
        checks = [
            (bpf.LD_WORD, 0, 0, _DST + 4 * word),
            (bpf.AND, 0, 0, mask),
            (bpf.JUMP_IF_EQUAL, 0, skip, value),
            *checks,
        ]
    return checks


def _mask(bits: int) -> int:
    """Return the first so many bits of a word."""
    return (0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF


def _as_loaded(value: int, size: int) -> int:
    """What a big-endian load makes of a number that the machine wrote."""
    return int.from_bytes(value.to_bytes(size, sys.byteorder))
