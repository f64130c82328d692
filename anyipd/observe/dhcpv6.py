"""DHCPv6 messages as client and server exchange them: bytes in, what they say of delegated prefixes out.

Pure. Options that say nothing of those are passed over, whatever is in them; of the others every
length is checked. Sections are those of RFC 9915 where no other is named.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from anyipd.model import Prefix


class Kind(IntEnum):
    """Types of the messages that matter here (7.3)."""

    SOLICIT = 1
    REQUEST = 3
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9


ASKING = {Kind.REQUEST, Kind.RENEW, Kind.REBIND}
"""What asks for prefixes and is answered by a Reply; so is a Solicit with Rapid Commit (18.2.1)."""

GIVING_BACK = {Kind.RELEASE, Kind.DECLINE}
"""What names prefixes that the client does not use any more when it sends it (18.2.7)."""

_CLIENT_ID, _SERVER_ID, _STATUS_CODE, _RAPID_COMMIT = 1, 2, 13, 14  # 21.2, 21.3, 21.13, 21.14
_IA_PD, _IAPREFIX, _PD_EXCLUDE = 25, 26, 67  # 21.21, 21.22; RFC 6603, 4.2
_SUCCESS = 0  # 21.13

_HEADER = struct.Struct("!B3s")  # type, transaction ID (8)
_OPTION = struct.Struct("!HH")  # code, length (21.1)
_IA = struct.Struct("!4sII")  # IAID, T1, T2
_PREFIX = struct.Struct("!IIB16s")  # preferred and valid lifetime, length, address
_STATUS = struct.Struct("!H")


class MalformedError(Exception):
    """Bytes are not the message that they pretend to be; the text is one of a fixed few."""


class DelegatedPrefix(NamedTuple):
    """An IA Prefix: lifetimes in seconds as on the wire, and what RFC 6603 excludes of the prefix."""

    iaid: str
    prefix: Prefix
    preferred: int
    valid: int
    exclude: Prefix | None


@dataclass(frozen=True, slots=True)
class Message:
    """A message between client and server. `client` is its DUID, empty where it names none.

    `prefixes` are those of all its IA_PDs without an error. `failed` says that the message as a whole
    reports one.
    """

    kind: int
    transaction: bytes
    client: bytes
    from_server: bool
    rapid_commit: bool
    failed: bool
    prefixes: tuple[DelegatedPrefix, ...]


def parse(payload: bytes) -> Message:
    """Read a message, the payload of UDP. Raises MalformedError."""
    if len(payload) < _HEADER.size:
        raise MalformedError("the message ends in its header")
    kind, transaction = _HEADER.unpack_from(payload)
    options = list(_options(payload[_HEADER.size :]))
    codes = {code for code, _ in options}
    return Message(
        kind=kind,
        transaction=transaction,
        client=next((content for code, content in options if code == _CLIENT_ID), b""),
        from_server=_SERVER_ID in codes,
        rapid_commit=_RAPID_COMMIT in codes,
        failed=_failed(options),
        prefixes=tuple(each for code, content in options if code == _IA_PD for each in _ia_pd(content)),
    )


def _options(content: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(content):
        if len(content) - start < _OPTION.size:
            raise MalformedError("an option ends in its header")
        code, length = _OPTION.unpack_from(content, start)
        start += _OPTION.size + length
        if start > len(content):
            raise MalformedError("an option is longer than what holds it")
        yield code, content[start - length : start]


def _failed(options: list[tuple[int, bytes]]) -> bool:
    for code, content in options:
        if code == _STATUS_CODE:
            if len(content) < _STATUS.size:
                raise MalformedError("a status code ends early")
            return bool(_STATUS.unpack_from(content)[0] != _SUCCESS)
    return False


def _ia_pd(content: bytes) -> Iterator[DelegatedPrefix]:
    if len(content) < _IA.size:
        raise MalformedError("an IA_PD ends early")
    iaid, t1, t2 = _IA.unpack_from(content)
    options = list(_options(content[_IA.size :]))
    found = [_iaprefix(iaid.hex(":"), each) for code, each in options if code == _IAPREFIX]
    # Where the server found something wrong, what the client has stays as it is (18.2.10.1), and so it does
    # where it is to renew after it is to rebind (21.21).
    if not (_failed(options) or t1 > t2 > 0):
        yield from (each for each in found if each)


def _iaprefix(iaid: str, content: bytes) -> DelegatedPrefix | None:
    """Read one; None is what a client passes over."""
    if len(content) < _PREFIX.size:
        raise MalformedError("an IA Prefix ends early")
    preferred, valid, length, address = _PREFIX.unpack_from(content)
    if length > 128:  # noqa: PLR2004  no address has more bits
        raise MalformedError("a prefix is longer than 128 bits")
    # Hosts bits are the sender's business to clear, and the receiver's to ignore (21.22).
    prefix = Prefix(int.from_bytes(address), length).masked()
    options = list(_options(content[_PREFIX.size :]))
    excluded = [_pd_exclude(each, prefix) for code, each in options if code == _PD_EXCLUDE]
    # Preferred for longer than valid (21.22), or no grant; a lifetime of 0 takes it back in any case.
    if preferred > valid or (valid and _failed(options)):
        return None
    return DelegatedPrefix(iaid, prefix, preferred, valid, excluded[0] if excluded else None)


def _pd_exclude(content: bytes, delegated: Prefix) -> Prefix:
    """Put the delegated prefix in front of the bits that the option holds, which are left-aligned."""
    length, subnet_id = (content[0], content[1:]) if content else (0, b"")
    bits = length - delegated.length
    if not (bits > 0 and length <= 128 and len(subnet_id) == -(-bits // 8)):  # noqa: PLR2004
        raise MalformedError("an excluded prefix does not fit its delegated prefix")
    number = int.from_bytes(subnet_id) >> (8 * len(subnet_id) - bits)
    return Prefix(delegated.address | number << (128 - length), length)
