"""What a local user sends to the daemon: replies, the same however it comes, or the end of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from anyipd.model import Prefix
from anyipd.varlink.message import (
    MAX_CALL,
    Messages,
    ProtocolError,
    VarlinkError,
    encode_error,
    parse_call,
    parse_reply,
)
from anyipd.varlink.service import Current, Service

DICTIONARY = (
    *('"method":', '"parameters":', '"oneway":true', '"more":true', '"upgrade":true', "null", "\0"),
    *("io.anyipd.Describe", "io.anyipd.Monitor", "io.anyipd.Forget", "io.anyipd.Reload"),
    *("org.varlink.service.GetInfo", "org.varlink.service.GetInterfaceDescription", '"interface":'),
    *(
        '"prefix":',
        '"2001:db8::/56"',
        '"network_namespace":',
        "77",
        '"\\u0000"',
        '"\\ud800"',
        "Infinity",
        "1e999",
    ),
)

HERE = 77


class Asked:
    """A daemon that sees that what comes through is in order."""

    def forget(self, prefix: Prefix) -> bool:
        """Forget a prefix."""
        assert prefix == prefix.masked()
        return prefix.length > 56

    def reload(self) -> Sequence[str]:
        """Find a mistake."""
        return ["a mistake"]


def run(data: bytes) -> None:
    """Raise where what is answered is no reply, or not the same to the same bytes in pieces."""
    step = 1 + (data[0] if data else 0)
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    assert list(answers([data])) == list(answers(pieces))


def answers(pieces: Sequence[bytes]) -> Iterator[bytes | Current | str]:
    """Give what each call is answered, and at last why the connection ended, where it did."""
    messages, service = Messages(MAX_CALL), Service(Asked(), HERE, "1.2.3")
    for piece in pieces:
        messages.feed(piece)
        while (message := messages.take()) is not None:
            for privileged in (False, True):
                try:
                    yield answer(service, message, privileged=privileged)
                except ProtocolError as error:
                    yield str(error)
                    return


def answer(service: Service, message: bytes, *, privileged: bool) -> bytes | Current:
    """Give what a message is answered, which is one message itself."""
    call = parse_call(message)
    try:
        found = service.answer(call, privileged=privileged)
    except VarlinkError as error:
        found = encode_error(error)
    if isinstance(found, bytes):
        assert found.find(b"\0") == len(found) - 1
        try:
            parse_reply(found[:-1])
        except VarlinkError as error:
            assert error.name.startswith(("io.anyipd.", "org.varlink.service."))
    return found
