"""The varlink codec and what is answered to a call: bytes in, bytes out, no socket."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anyipd.model import Prefix
from anyipd.varlink.message import (
    MAX_CALL,
    MAX_NAME,
    MAX_VALUES,
    Call,
    Json,
    Messages,
    ProtocolError,
    Reply,
    VarlinkError,
    encode,
    encode_call,
    encode_error,
    encode_reply,
    parse_call,
    parse_reply,
)
from anyipd.varlink.publication import Publication
from anyipd.varlink.service import Current, Service, description
from tests.lab import idl

HERE, ELSEWHERE = 4_026_531_840, 4_026_532_000
GRANTED = Prefix.parse("2001:db8::/56")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)
METHODS = st.from_regex(r"[a-z]{1,5}(\.[a-z0-9]{1,5}){1,2}\.[A-Z][A-Za-z0-9]{0,5}", fullmatch=True)


@given(
    st.lists(st.binary(max_size=20).map(lambda text: text.replace(b"\0", b"")), max_size=6),
    st.binary(max_size=5).map(lambda text: text.replace(b"\0", b"")),
    st.data(),
)
def test_messages_are_the_same_however_they_are_split(
    sent: list[bytes], begun: bytes, data: st.DataObject
) -> None:
    stream = b"".join(each + b"\0" for each in sent) + begun
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    messages, found = Messages(20), []
    for start, end in pairwise([0, *cuts, len(stream)]):
        messages.feed(stream[start:end])
        while data.draw(st.booleans()) and (message := messages.take()) is not None:
            found.append(message)
    while (message := messages.take()) is not None:
        found.append(message)
    assert found == sent
    assert messages.holds_any == bool(begun)
    assert messages.room == 21 - len(begun)


@pytest.mark.parametrize("size", [0, 1, 19, 20])
def test_a_message_may_be_as_long_as_the_limit(size: int) -> None:
    messages = Messages(20)
    messages.feed(b"x" * size)
    assert not messages.has_whole
    messages.feed(b"\0")
    assert messages.take() == b"x" * size


@pytest.mark.parametrize("pieces", [[b"x" * 21], [b"x" * 20, b"x"], [b"x" * 21 + b"\0"], [b"x" * 20, b"x\0"]])
def test_a_longer_one_ends_it(pieces: list[bytes]) -> None:
    messages = Messages(20)
    for piece in pieces[:-1]:
        messages.feed(piece)
    with pytest.raises(ProtocolError, match="more than 20 bytes"):
        messages.feed(pieces[-1])


def test_a_longer_one_behind_another_ends_it() -> None:
    messages = Messages(20)
    messages.feed(b"{}\0" + b"x" * 21)
    with pytest.raises(ProtocolError):
        messages.take()


@given(METHODS, OBJECTS, st.booleans(), st.booleans())
def test_a_call_is_read_as_it_was_written(method: str, parameters: Json, more: bool, upgrade: bool) -> None:  # noqa: FBT001
    call = Call(method, parameters, more=more, upgrade=upgrade)
    assert parse_call(encode_call(call).removesuffix(b"\0")) == call


@given(OBJECTS)
def test_a_reply_is_read_as_it_was_written(parameters: Json) -> None:
    assert parse_reply(encode_reply(parameters).removesuffix(b"\0")) == Reply(parameters)
    publication = Publication(0, lambda: parameters)
    for message, continues in ((publication.once, False), (publication.one_of_many, True)):
        assert parse_reply(message.removesuffix(b"\0")) == Reply({"view": parameters}, continues=continues)


@given(st.text(), OBJECTS)
@example("a.b.C", {"name": None, "self": 1})
def test_an_error_is_read_as_it_was_written(name: str, parameters: Json) -> None:
    error = VarlinkError(name)
    error.parameters = parameters
    with pytest.raises(VarlinkError) as found:
        parse_reply(encode_error(error).removesuffix(b"\0"))
    assert (found.value.name, found.value.parameters) == (name, parameters)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ('{"method":"a.b.C"}', Call("a.b.C")),
        ('{"method":"a.b.C","parameters":null,"more":null}', Call("a.b.C")),
        (' {\n"method": "io.anyipd.Monitor", "more": true}', Call("io.anyipd.Monitor", more=True)),
        ('{"method":"a.b.C","oneway":true,"more":false}', Call("a.b.C", oneway=True)),
        (
            '{"method":"a.b.C","parameters":{"a":[' + "1," * (MAX_VALUES - 2) + "1]}}",
            Call("a.b.C", {"a": [1] * (MAX_VALUES - 1)}),
        ),
        ('{"method":"a.b.C","org.example":{"trace":1}}', Call("a.b.C")),
    ],
)
def test_calls(message: str, call: Call) -> None:
    assert parse_call(message.encode()) == call


BAD_JSON = [
    *("", " ", "{", "{}{}", "null", "1", '"a"', "[]", '{"a":NaN}', '{"a":Infinity}', '{"a":-Infinity}'),
    *(
        "{'a':1}",
        '{"a":1,}',
        "[" * MAX_CALL,
        '{"a":' * 10_000,
        '{"a":' + "1" * 21 + "}",
        '{"a":0.' + "1" * 300 + "}",
        "\ufeff{}",
    ),
]


@pytest.mark.parametrize(
    "message",
    [
        *(text.encode() for text in BAD_JSON),
        b'{"method":"\xff"}',
        '{"method":"a.b.C"}'.encode("utf-16"),
        *(
            text.encode()
            for text in (
                *(
                    "{}",
                    '{"method":null}',
                    '{"method":1}',
                    '{"method":""}',
                    '{"method":"a"}',
                    '{"method":"a.B"}',
                ),
                *('{"method":"a.b.c"}', '{"method":".b.C"}', '{"method":"a..C"}', '{"method":"a.b.C\\n"}'),
                '{"method":"a.b.' + "C" * MAX_NAME + '"}',
                *('{"method":"a.b.C","parameters":[]}', '{"method":"a.b.C","more":1}'),
                '{"method":"a.b.C","parameters":{"a":[' + "1," * (MAX_VALUES - 1) + "1]}}",
                '{"method":"a.b.C","oneway":true,"more":true}',
                '{"method":"a.b.C","oneway":true,"upgrade":true}',
            )
        ),
    ],
    ids=lambda message: message[:40].decode(errors="replace"),
)
def test_what_is_no_call(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_call(message)


@pytest.mark.parametrize(
    "message",
    [*BAD_JSON, '{"error":1}', '{"parameters":[]}', '{"continues":"yes"}'],
    ids=lambda text: text[:40],
)
def test_what_is_no_reply(message: str) -> None:
    with pytest.raises(ProtocolError):
        parse_reply(message.encode())


@given(st.binary())
def test_garbage_is_refused_and_nothing_else_happens(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_call(message)


def test_what_is_not_json_is_not_sent() -> None:
    for number in (float("inf"), float("-inf"), float("nan")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            encode({"deadline": number})
    # A link may have a name that is no UTF-8.
    assert encode({"uplink": b"\xff0".decode(errors="surrogateescape")}) == b'{"uplink":"?0"}'


class Recorder:
    """A daemon that writes down what it is called for."""

    def __init__(self, *errors: str) -> None:
        self.errors, self.calls = errors, list[str]()

    def forget(self, prefix: Prefix) -> bool:
        self.calls.append(f"forget {prefix}")
        return prefix == GRANTED

    def reload(self) -> Sequence[str]:
        self.calls.append("reload")
        return self.errors


def answer(asked: Recorder, method: str, parameters: Json, *, privileged: bool, more: bool = False) -> object:
    """Give the parameters of the reply, the kind of View, or the error's name and parameters."""
    try:
        found = Service(asked, HERE, "1.2.3").answer(
            Call(method, parameters, more=more), privileged=privileged
        )
    except VarlinkError as error:
        return error.name, error.parameters
    return found if isinstance(found, Current) else parse_reply(found.removesuffix(b"\0")).parameters


SERVICE = "org.varlink.service"
DENIED: tuple[str, Json] = (f"{SERVICE}.PermissionDenied", {})


def invalid(parameter: str) -> tuple[str, Json]:
    return f"{SERVICE}.InvalidParameter", {"parameter": parameter}


@pytest.mark.parametrize(
    ("method", "parameters", "expected"),
    [
        ("io.anyipd.Describe", {}, Current.ONCE),
        ("io.anyipd.Describe", {"x": 1}, invalid("x")),
        ("io.anyipd.Describe", {"x" * 1000: 1}, invalid("x" * MAX_NAME)),
        ("io.anyipd.Monitor", {}, (f"{SERVICE}.ExpectedMore", {})),
        ("io.anyipd.Forget", {"prefix": str(GRANTED)}, DENIED),
        ("io.anyipd.Reload", {}, DENIED),
        ("io.anyipd.Nothing", {}, (f"{SERVICE}.MethodNotFound", {"method": "io.anyipd.Nothing"})),
        ("io.other.Describe", {}, (f"{SERVICE}.InterfaceNotFound", {"interface": "io.other"})),
        (f"{SERVICE}.GetInterfaceDescription", {}, invalid("interface")),
        (f"{SERVICE}.GetInterfaceDescription", {"interface": 1}, invalid("interface")),
        (
            f"{SERVICE}.GetInterfaceDescription",
            {"interface": "../../etc/passwd"},
            (f"{SERVICE}.InterfaceNotFound", {"interface": "../../etc/passwd"}),
        ),
    ],
)
def test_what_anybody_is_answered(method: str, parameters: Json, expected: object) -> None:
    asked = Recorder()
    assert answer(asked, method, parameters, privileged=False) == expected
    assert asked.calls == []


@pytest.mark.parametrize(
    ("method", "parameters", "expected", "calls"),
    [
        ("Forget", {"prefix": str(GRANTED)}, {}, [f"forget {GRANTED}"]),
        ("Forget", {"prefix": str(GRANTED), "network_namespace": HERE}, {}, [f"forget {GRANTED}"]),
        ("Forget", {"prefix": str(GRANTED), "network_namespace": None}, {}, [f"forget {GRANTED}"]),
        (
            "Forget",
            {"prefix": str(GRANTED), "network_namespace": ELSEWHERE},
            ("io.anyipd.OtherNetworkNamespace", {"network_namespace": HERE}),
            [],
        ),
        (
            "Forget",
            {"prefix": "2001:db8::/57"},
            ("io.anyipd.NotDelegated", {"prefix": "2001:db8::/57"}),
            ["forget 2001:db8::/57"],
        ),
        ("Forget", {"prefix": "2001:db8::1/56"}, invalid("prefix"), []),
        ("Forget", {"prefix": "\x1b[2J"}, invalid("prefix"), []),
        ("Forget", {"prefix": None}, invalid("prefix"), []),
        ("Forget", {"prefix": str(GRANTED), "network_namespace": True}, invalid("network_namespace"), []),
        ("Forget", {}, invalid("prefix"), []),
        ("Reload", {}, {}, ["reload"]),
        (
            "Reload",
            {"network_namespace": ELSEWHERE},
            ("io.anyipd.OtherNetworkNamespace", {"network_namespace": HERE}),
            [],
        ),
        ("Reload", {"force": True}, invalid("force"), []),
    ],
)
def test_what_the_privileged_are_answered(
    method: str, parameters: Json, expected: object, calls: list[str]
) -> None:
    asked = Recorder()
    assert answer(asked, f"io.anyipd.{method}", parameters, privileged=True) == expected
    assert asked.calls == calls


def test_a_bad_configuration_is_an_error() -> None:
    found = answer(Recorder("a:1:2: bad", "a:3:4: bad"), "io.anyipd.Reload", {}, privileged=True)
    assert found == ("io.anyipd.BadConfiguration", {"errors": ["a:1:2: bad", "a:3:4: bad"]})


def test_monitor_takes_more() -> None:
    found = answer(Recorder(), "io.anyipd.Monitor", {}, privileged=False, more=True)
    assert found is Current.AND_EACH_NEW


@pytest.mark.parametrize("method", ["io.anyipd.Describe", "io.anyipd.Forget", f"{SERVICE}.GetInfo"])
def test_no_connection_is_handed_over(method: str) -> None:
    with pytest.raises(VarlinkError, match="MethodNotImplemented"):
        Service(Recorder(), HERE, "1.2.3").answer(Call(method, upgrade=True), privileged=True)


def test_it_says_what_it_is() -> None:
    info = answer(Recorder(), f"{SERVICE}.GetInfo", {}, privileged=False)
    assert isinstance(info, dict)
    assert (info["version"], info["interfaces"]) == ("1.2.3", [SERVICE, "io.anyipd"])
    for interface in info["interfaces"]:
        described = answer(
            Recorder(), f"{SERVICE}.GetInterfaceDescription", {"interface": interface}, privileged=False
        )
        assert described == {"description": description(interface)}
        assert f"\ninterface {interface}\n" in description(interface)


@pytest.mark.parametrize("interface", [SERVICE, "io.anyipd"])
def test_each_method_that_is_described_is_there(interface: str) -> None:
    text = description(interface)
    service = Service(Recorder(), HERE, "1.2.3")
    methods = re.findall(r"^method (\w+)\(", text, re.MULTILINE)
    assert methods
    for name in methods:
        with pytest.raises(VarlinkError, match="InvalidParameter"):
            service.answer(Call(f"{interface}.{name}", {"no such": 1}, more=True), privileged=True)


SUBNETS = {
    "name": "web",
    "delegation": "2001:db8::/56",
    "uplink": "eth0",
    "deprecated": False,
    "state": "bound",
    "first": "2001:db8::/64",
    "count": 1,
    "number": None,
    "valid_until_usec": 7_200_000_000,
    "valid_forever": False,
    "reason": None,
    "address": None,
    "address_reason": None,
    "except": [],
    "gateways": [],
}
VIEW = {
    "time_usec": 1,
    "network_namespace": HERE,
    "configuration": "/etc/anyipd.yaml",
    "policy": {},
    "delegations": [],
    "subnets": [SUBNETS],
    "deadline_usec": None,
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"time_usec": 1.5}, [".time_usec is 1.5, not int"]),
        ({"subnets": [SUBNETS | {"count": None}]}, [".subnets[0].count is None, not int"]),
        ({"delegations": {}}, [".delegations is no array"]),
    ],
)
def test_a_view_is_what_the_interface_says(change: Json, expected: list[str]) -> None:
    assert idl.mistakes(VIEW | change, "View", idl.types("io.anyipd")) == expected
