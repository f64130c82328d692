"""What any node of a link may send: an answer to a question for what is ours, or nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator

from anyipd.model import Prefix
from anyipd.neighbour import message
from anyipd.neighbour.answerer import Answerer
from anyipd.neighbour.spans import Answered, Spans

DICTIONARY = (
    "\x86\xdd",
    "\x60\x00\x00\x00",
    "\x00\x20\x3a\xff",
    "\x87\x00",
    "\x88\x00",
    "\x01\x01",
    "\x02\x01",
)

OURS, OWN = Prefix.parse("2001:db8:5::/64"), Prefix.parse("2001:db8:5::1/128").address
LINK_LAYER, SOURCE = b"\x02\0\0\0\0\x01", Prefix.parse("fe80::1/128").address

ROUTED = range(OURS.address + 0x100, OURS.address + 0x200)
ROUTED_ON = range(OURS.address + 0x180, OURS.address + 0x200)
ANSWERED = Answered(Spans((OURS.address, OURS.end)), routed=Spans((ROUTED.start, ROUTED.stop)))

PAYLOAD, CHECKSUM = 54, 56
OPTION = 8
"""Bytes of the one option that an answer always has, and a question may lack."""


def run(data: bytes) -> None:
    """Give the frames to a responder one after the other."""
    answerer = Answerer(ROUTED_ON.__contains__)
    answerer.speak_as(LINK_LAYER, SOURCE, 0.0)
    answerer.answer_for(ANSWERED, {OWN}, 0.0)
    for now, frame in enumerate(frames(data)):
        asked = message.parse(frame)
        answers = answerer.answer(frame, float(now))
        assert not answers or asked
        assert len(answers) <= 2
        for each in answers:
            check(each, frame)
    while announcement := answerer.announcement(1e6):
        check(announcement, None)


def check(answer: bytes, frame: bytes | None) -> None:
    """See that a frame is one that we may send, and an answer one to who asked."""
    said = message.parse(answer)
    assert said, answer
    kind, sender, source, target, _ = said
    assert (sender, source) == (LINK_LAYER, target if kind == message.ADVERTISEMENT else SOURCE)
    assert OURS.address <= target < OURS.end
    assert target != OWN
    assert target not in ROUTED or target in ROUTED_ON
    if frame and kind == message.ADVERTISEMENT:
        asked = message.parse(frame)
        assert asked
        assert asked[0] == message.SOLICITATION
        assert asked[3] == target
        assert answer[:6] == asked[4]
        assert answer[38:54] == frame[22:38]
        assert len(answer) <= len(frame) + OPTION


def frames(data: bytes) -> Iterator[bytes]:
    """Split an input: before each frame a byte says how long it is."""
    start = 0
    while start < len(data):
        end = start + 1 + data[start]
        yield data[start + 1 : end]
        start = end


def mutate(_: bytes, mutated: bytes, __: random.Random) -> bytes:
    """Give every frame a right payload length and checksum, without which none gets far."""
    return b"".join(bytes([len(frame)]) + mended(frame) for frame in frames(mutated))


def mended(frame: bytes) -> bytes:
    """Give the frame as its maker would have sent it."""
    if len(frame) < CHECKSUM + 2:
        return frame
    length = len(frame) - PAYLOAD
    whole = bytearray(frame)
    whole[18:20] = length.to_bytes(2)
    whole[CHECKSUM : CHECKSUM + 2] = b"\0\0"
    total = int.from_bytes(whole[22:] + bytes(length % 2)) + length + whole[20]
    whole[CHECKSUM : CHECKSUM + 2] = (0xFFFF - total % 0xFFFF).to_bytes(2)
    return bytes(whole)
