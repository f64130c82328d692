"""What the dhclient hook takes from its environment, and what it refuses."""

import re
import tempfile
from ipaddress import IPv6Network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lab.hook_caller import BOUND, KEYS, LEASE, PREFIX, RELEASE, SHELLS, Caller, discard, shell_command


@pytest.mark.parametrize(
    "iaid",
    [
        "62:9d:01:0a",
        "a:0:1:ff",
        '"eth0"',
        '"$(i"',
        '"`id"',
        '"\\n%"',
        '""""',
        '"    "',
        '"/../"',
        '"0123456789abcdef"',
    ],
)
def test_a_well_formed_iaid_is_kept_as_it_is(caller: Caller, iaid: str) -> None:
    outcome = caller.run(BOUND | {"new_iaid": iaid})
    assert outcome.lease()["iaid"] == iaid
    assert outcome.errors == []


@pytest.mark.parametrize(
    "iaid",
    [
        "",
        '"',
        '"ab\nc"',
        '"ab\rc"',
        '"ab\x7fc"',
        '"café"',
        '"0123456789abcdefg"',
        "eth0",
        '"eth0',
        "$(touch executed)",
        "`touch executed`",
        "62:9d:01",
        "62:9d:01:0a:0b",
        "62:9d:01:0ab",
        "62::01:0a",
        ":9d:01:0a",
        "62:9d:01:",
        "62:9D:01:0A",
        "62:9d:01:0a\nvalid_lifetime=1",
    ],
)
def test_any_other_iaid_is_left_out(caller: Caller, iaid: str) -> None:
    outcome = caller.run(BOUND | {"new_iaid": iaid})
    assert outcome.lease()["iaid"] == ""
    assert [line.split("=")[0] for line in outcome.leases[LEASE].splitlines()] == KEYS
    assert list(caller.directory.iterdir()) == [caller.runtime_dir]


def test_an_absent_iaid_is_left_out(caller: Caller) -> None:
    without = {k: v for k, v in BOUND.items() if k != "new_iaid"}
    assert caller.run(without, before="set -eu").lease()["iaid"] == ""


@pytest.mark.parametrize(
    "prefix",
    ["::/0", "::1/128", "fd00::/8", "1:2:3:4:5:6:7:8/128", "2001:db8::2:3:4:5:6/128", "1::3:4:5:6:7:8/128"],
)
def test_every_way_to_write_a_prefix_is_taken(caller: Caller, prefix: str) -> None:
    outcome = caller.run(BOUND | {"new_ip6_prefix": prefix})
    assert outcome.errors == []
    assert [file.replace("_", "/") for file in outcome.leases] == [f"{prefix}@eth0"]
    assert len(outcome.routes) == 1


@pytest.mark.parametrize(
    "prefix",
    [
        "2001:db8:100::",
        "2001:db8:100::/",
        "/60",
        "60",
        "/",
        "2001:db8:100::/129",
        "2001:db8:100::/060",
        "2001:db8:100::/-1",
        "2001:db8:100::/6 0",
        "2001:db8:100::/60/60",
        "2001:DB8:100::/60",
        "2001:db8::100::/60",
        "2001:db8:::/60",
        ":2001::/60",
        "2001::1:/60",
        ":/60",
        "1:2/60",
        "1:2:3:4:5:6:7/60",
        "1:2:3:4:5:6:7:8:9/60",
        "::1:2:3:4:5:6:7:8/60",
        "20010::/60",
        "::ffff:192.0.2.0/120",
        "192.0.2.0/24",
        "default",
        "2001:db8:100::/60\n",
        "2001:db8:100::/60\nvalid_lifetime=1",
        "2001:db8:100::/60 metric 1",
        "../../etc::/60",
        "$(touch executed)::/60",
        "2001:db8:*::/60",
        "\x1b[31m::/60",
    ],
)
def test_a_malformed_prefix_is_refused(caller: Caller, prefix: str) -> None:
    refused(caller, "new_ip6_prefix", prefix)


@pytest.mark.parametrize(
    "interface",
    [
        "",
        ".",
        "..",
        "a/b",
        "../../x",
        "eth0 1",
        "eth0\t",
        "eth0\n",
        "eth0\x01",
        "é",
        "é" * 50,
        "sixteen-letters-",
    ],
)
def test_a_malformed_interface_is_refused(caller: Caller, interface: str) -> None:
    refused(caller, "interface", interface)


@pytest.mark.parametrize("variable", ["new_preferred_life", "new_max_life", "new_life_starts"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "-1",
        "+1",
        "1.5",
        "0x10",
        "1e3",
        "1 2",
        "1\n2",
        "\u0661",
        "a[$(touch executed)]",
        "infinity",
        "9" * 30,
    ],
)
def test_a_malformed_number_is_refused(caller: Caller, variable: str, value: str) -> None:
    refused(caller, variable, value)


@pytest.mark.parametrize("variable", ["new_preferred_life", "new_max_life"])
@pytest.mark.parametrize("value", ["4294967296", "9999999999", "00000000001", "0600", "00"])
def test_what_is_no_number_of_32_bits_is_refused(caller: Caller, variable: str, value: str) -> None:
    refused(caller, variable, value)


@pytest.mark.parametrize("variable", ["interface", "new_max_life", "new_preferred_life", "new_life_starts"])
def test_an_absent_variable_is_refused(caller: Caller, variable: str) -> None:
    outcome = caller.run({k: v for k, v in BOUND.items() if k != variable}, before="set -eu")
    assert outcome.errors == [f'anyipd hook: BOUND6: {variable} is ""; nothing done']
    assert (outcome.routes, outcome.leases) == ([], {})


@pytest.mark.parametrize("variable", ["old_ip6_prefix", "interface"])
def test_a_malformed_withdrawal_withdraws_nothing(caller: Caller, variable: str) -> None:
    outcome = caller.run(BOUND, RELEASE | {variable: "../x"})
    assert outcome.errors == [f'anyipd hook: RELEASE6: {variable} is "../x"; nothing done']
    assert outcome.lease()["valid_lifetime"] == "600"
    assert outcome.routes == [discard()]


def refused(caller: Caller, variable: str, value: str) -> None:
    outcome = caller.run(BOUND | {"LC_ALL": "C.UTF-8", variable: value})
    shown = "".join(chr(b) if 0x20 <= b < 0x7F else "?" for b in value.encode()[:80])
    assert outcome.errors == [f'anyipd hook: BOUND6: {variable} is "{shown}"; nothing done']
    assert (outcome.printed, outcome.routes, outcome.leases) == ("", [], {})
    assert list(caller.directory.iterdir()) == []
    assert outcome.main == []


ENVIRONMENT_BYTES = st.binary(max_size=200).map(lambda value: value.replace(b"\0", b"\n"))
WORDS = st.sampled_from(
    [b"*", b"$(touch x)", b"`touch x`", b"../", b"\n", b"=", b"::", b"/60", b"0", b'"', b"\\", b"'"]
)
SHELL_LIKE = st.lists(WORDS, max_size=8).map(b"".join)


def near(valid: str) -> st.SearchStrategy[bytes]:
    """The valid value, the value with something put into it, or anything."""
    encoded = valid.encode()
    spliced = st.builds(
        lambda at, new: encoded[:at] + new + encoded[at:],
        st.integers(0, len(encoded)),
        WORDS | ENVIRONMENT_BYTES,
    )
    return st.just(encoded) | spliced | SHELL_LIKE | ENVIRONMENT_BYTES


HOSTILE = st.fixed_dictionaries(
    {
        "reason": st.sampled_from([b"BOUND6", b"RENEW6", b"RELEASE6", b"EXPIRE6"]) | near("BOUND6"),
        "interface": near("eth0"),
        **{
            f"{which}_{name}": near(valid)
            for which in ("new", "old")
            for name, valid in (
                ("ip6_prefix", PREFIX),
                ("iaid", '"eth0"'),
                ("life_starts", "1700000000"),
                ("preferred_life", "300"),
                ("max_life", "600"),
            )
        },
    }
)


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=60, deadline=None)
@given(env=HOSTILE)
def test_no_environment_does_harm(shell: str, env: dict[str, bytes]) -> None:
    command = shell_command(shell)
    with tempfile.TemporaryDirectory() as directory:
        caller = Caller(command, Path(directory))
        outcome = caller.run(env, before="set -eu")
        given_prefixes = {env[f"{which}_ip6_prefix"] for which in ("new", "old")}
        assert (outcome.printed, outcome.main) == ("", [])
        for route in outcome.routes:
            assert str(route["dst"]) in {
                str(IPv6Network(p.decode(), strict=False))
                for p in given_prefixes
                if re.fullmatch(rb"[0-9a-f:]+/\d+", p)
            }
        caller.assert_only_leases(outcome, env["interface"])
        for name, content in outcome.leases.items():
            lease = outcome.lease(name)
            assert [line.split("=")[0] for line in content.splitlines()] == KEYS
            assert lease["prefix"].encode() in given_prefixes
