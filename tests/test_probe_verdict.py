"""What a probe makes of its findings, in words: pure. And its JSON form, which the manual describes."""

from __future__ import annotations

from dataclasses import fields

import pytest

from anyipd.probe.verdict import MAIN, Circumstances, Finding, Reply, Verdict, verdict
from tests.lab.make import ROOT

PREFIX = "2001:db8:100::/60"
ADDRESSES = [f"2001:db8:100::{number}" for number in range(1, 4)]
AROUND = Circumstances(
    PREFIX, delegation=PREFIX, uplinks=("up0",), uplink="up0", router="fe80::1", ignores_advertisements=()
)
RIGHT, WRONG = Reply(("up0",), MAIN, default=True), Reply(("up1",), MAIN, default=True)


def found(*each: Reply, **changed: object) -> list[Finding]:
    """Findings of addresses that all answer, with these replies."""
    good = {"echo": 0.001, "arrived": 0.001} | changed
    return [Finding(address, reply=reply, **good) for address, reply in zip(ADDRESSES, each, strict=False)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("replies", "who"),
    [
        ([WRONG, WRONG, WRONG], ""),
        ([RIGHT, WRONG, WRONG], " from 2 of 3"),
        ([WRONG], f" from {ADDRESSES[0]}"),
    ],
)
def test_whose_replies_leave_elsewhere(replies: list[Reply], who: str) -> None:
    seen = verdict(found(*replies), AROUND)
    assert not seen.good
    assert seen.text.startswith(f"Replies{who} leave by up1, not by up0, the uplink of {PREFIX}")


def test_an_uplink_without_routers() -> None:
    """PPP has none to name."""
    around = Circumstances(PREFIX, uplinks=("ppp0",), uplink="ppp0")
    assert verdict(found(WRONG), around).next_step == f"ip -6 route add default from {PREFIX} dev ppp0"


def test_a_dot_in_the_name_of_a_link_is_a_slash_for_sysctl() -> None:
    around = Circumstances(PREFIX, uplinks=("eth0.7",), ignores_advertisements=("eth0.7",))
    seen = verdict(found(Reply(error="there is no default route")), around)
    assert (seen.next_step or "").startswith("sysctl net.ipv6.conf.eth0/7.accept_ra=2, ")


def test_a_prefix_of_unknown_uplink_may_reply_by_any() -> None:
    assert verdict(found(WRONG), Circumstances(PREFIX, uplink="up1")).good


def test_nobody_asked_is_not_all_answer() -> None:
    seen = verdict(found(RIGHT), Circumstances(PREFIX, unasked="there is nobody"))
    assert seen == Verdict(good=True, text="Nobody outside was asked: there is nobody. Here all answer.")


@pytest.mark.parametrize(("source", "hint"), [("fe80::2", True), (ADDRESSES[0], False)])
def test_answers_that_the_router_drops(source: str, hint: bool) -> None:  # noqa: FBT001
    seen = verdict(found(RIGHT, arrived=None, solicited=True, advertised=source), AROUND)
    assert not seen.good
    assert f"this host answers from {source}, and no packet follows" in seen.text
    assert ("as some do with what comes from fe80::/10" in seen.text) is hint


def test_a_silent_router_says_nothing_of_private_addresses() -> None:
    around = Circumstances(PREFIX, uplink="up0", router="fe80::1", is_silent=True, unasked="it is silent")
    assert not verdict(found(RIGHT), around).good
    assert verdict([Finding("fd00::1", echo=0.001)], around).good


def test_the_manual_names_every_key_of_the_json() -> None:
    manual = (ROOT / "man/anyipctl.8").read_text().split(".It Ic probe")[1].split(".It Ic random")[0]
    keys = {field.name for kind in (Circumstances, Finding, Reply, Verdict) for field in fields(kind)}
    assert {key for key in keys if f".Li {key}" not in manual} == set()
