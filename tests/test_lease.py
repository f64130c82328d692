"""Lease files: what they mean, that no content and no kind of file harms, and that none is read in vain."""

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anyipd import clock
from anyipd.model import INFINITE, Lease, Prefix
from anyipd.observe import lease as lease_file
from anyipd.observe.lease import MOST_BYTES, Complaint, Leases, Where, compose

WRITTEN = 1_700_000_000.5
UPTIME = 500.25
NOW = 510.0
FIELDS = {
    "client": "dhclient",
    "prefix": "2001:db8::/56",
    "uplink": "eth0.7",
    "iaid": "00:0a:ff:01",
    "life_starts": "1700000000",
    "preferred_lifetime": "100",
    "valid_lifetime": "200",
    "uptime": "500.25",
}
LEASE = Lease(
    Prefix.parse("2001:db8::/56"),
    "dhclient",
    "eth0.7",
    "00:0a:ff:01",
    UPTIME,
    200,
    UPTIME + 100,
    UPTIME + 200,
    reply=1_700_000_000,
    clock=WRITTEN - UPTIME,
)
HERE = Where("0b00", 77, WRITTEN - UPTIME)


def parse(text: bytes, modified: float, now: float) -> Lease:
    """Read a lease file of this boot and network namespace."""
    found = lease_file.parse(text, modified, now, HERE)
    assert found
    return found


def written(**changed: str | None) -> bytes:
    fields = FIELDS | changed
    return "".join(f"{key}={value}\n" for key, value in fields.items() if value is not None).encode()


@pytest.mark.parametrize("exclude", ["2001:db8:0:7::/64", "2001:db8:0:7::9/64", "2001:db8::/57"])
def test_an_excluded_prefix(exclude: str) -> None:
    expected = replace(LEASE, exclude=Prefix.parse_with_host(exclude).masked())
    assert parse(written(exclude=exclude), WRITTEN, NOW) == expected


@pytest.mark.parametrize("exclude", ["2001:db8::/56", "2001:db8::/48", "2001:db9::/64", "::/0"])
def test_an_excluded_prefix_elsewhere(exclude: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"exclude is {exclude}, no part of 2001:db8::/56")):
        parse(written(exclude=exclude), WRITTEN, NOW)


def test_what_is_composed_is_parsed() -> None:
    assert compose(FIELDS) == written()
    assert compose(FIELDS | {"exclude": "2001:db8::/64"}) == written(exclude="2001:db8::/64")


def test_a_lease() -> None:
    assert parse(written(), WRITTEN, NOW) == LEASE
    assert parse(written(prefix="2001:db8::1/56"), WRITTEN, NOW) == LEASE
    assert parse(b"\n".join(reversed(written().splitlines())), WRITTEN, NOW) == LEASE


@pytest.mark.parametrize(
    ("life_starts", "age"),
    [
        ("1700000000", 0),
        ("1699999999", 0.5),  # at most that: it may have started at the end of that second
        ("1699999990", 9.5),
        ("1700000300", 0),
        ("0", 1_699_999_999.5),
    ],
)
def test_age_is_counted_from_the_files_own_time(life_starts: str, age: float) -> None:
    found = parse(written(life_starts=life_starts), WRITTEN, NOW)
    assert (found.preferred_until, found.valid_until) == (UPTIME - age + 100, UPTIME - age + 200)
    assert found.reply == int(life_starts)


@pytest.mark.parametrize(
    ("preferred", "valid", "expected"),
    [
        ("0", "0", (UPTIME, UPTIME)),
        ("4294967295", "4294967295", (INFINITE, INFINITE)),
        ("60", "4294967295", (UPTIME + 60, INFINITE)),
        ("4294967294", "4294967294", (UPTIME + 4294967294, UPTIME + 4294967294)),
    ],
)
def test_lifetimes(preferred: str, valid: str, expected: tuple[float, float]) -> None:
    found = parse(written(preferred_lifetime=preferred, valid_lifetime=valid), WRITTEN, NOW)
    assert (found.preferred_until, found.valid_until) == expected


@pytest.mark.parametrize(
    ("text", "iaid"),
    [
        ("", None),
        ("de:ad:be:ef", "de:ad:be:ef"),
        ('"eth0"', "65:74:68:30"),
        (r'"\001"', "5c:30:30:31"),  # dhclient escapes nothing
        ('""""""', "22:22:22:22"),
        ('"a=b="', "61:3d:62:3d"),
    ],
)
def test_an_iaid_is_four_bytes_however_it_is_written(text: str, iaid: str | None) -> None:
    assert parse(written(iaid=text), WRITTEN, NOW).iaid == iaid


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"uplink": None, "client": None}, "lacks client, uplink"),
        ({"extra": "1"}, "line 9 is 'extra=1', not one of client, prefix,"),
        ({"client": ""}, "client is ''"),
        ({"client": "a" * 33}, "client is"),
        ({"prefix": "2001:db8::/129"}, "has no length from 0 to 128"),
        ({"prefix": "2001:db8::"}, "prefix is '2001:db8::'"),
        ({"prefix": "192.0.2.0/24"}, "prefix is '192.0.2.0/24'"),
        ({"uplink": "../etc/passwd"}, "uplink is"),
        ({"uplink": "a b"}, "uplink is 'a b'"),
        ({"uplink": "a" * 16}, "uplink is"),
        ({"life_starts": "-1"}, "life_starts is '-1'"),
        ({"valid_lifetime": "4294967296"}, "valid lifetime 4294967296 is above 4294967295"),
        ({"valid_lifetime": "99"}, "preferred lifetime 100 is longer than the valid lifetime 99"),
        ({"valid_lifetime": "1e3"}, "valid_lifetime is '1e3'"),
        ({"uptime": "511.5"}, "uptime 511.5 is in the future"),
        ({"uptime": "nan"}, "uptime is 'nan'"),
        ({"client": "a" * MOST_BYTES}, "has more than 1024 bytes"),
        ({"client": "x\nclient=y"}, "line 2 is 'client=y'"),
        ({"client": "x\0"}, r"client is 'x\x00'"),
    ],
)
def test_what_is_wrong_is_said(changed: dict[str, str | None], wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)):
        parse(written(**changed), WRITTEN, NOW)


@pytest.mark.parametrize("text", [b"", b"\0" * 500, b"\xff\xfe", written() + b"\n", written() * 2])
def test_what_is_no_lease_file(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text, WRITTEN, NOW)


@pytest.mark.parametrize(
    ("told", "modified", "counts"),
    [
        ({}, WRITTEN, True),
        ({"netns": "77", "boot": "0b-00"}, WRITTEN, True),
        ({"netns": "", "boot": ""}, WRITTEN, True),
        ({"netns": "78", "boot": "0b-00"}, WRITTEN, False),
        ({"netns": "77", "boot": "0b-01"}, WRITTEN, False),
        # A file that names its boot may bear any time stamp: the wall clock may step.
        ({"boot": "0b-00"}, 0.0, True),
        # Of one that does not, the time stamp tells (C13).
        ({}, WRITTEN - UPTIME - 59, True),
        ({}, WRITTEN - UPTIME - 61, False),
    ],
)
def test_another_network_namespaces_or_boots_is_passed_over(
    told: dict[str, str | None],
    modified: float,
    counts: bool,  # noqa: FBT001  a column
) -> None:
    found = lease_file.parse(written(**told), modified, NOW, HERE)
    assert (found is not None) is counts


def test_what_the_client_did_is_kept() -> None:
    told = parse(written(reason="BOUND6", pid="4711"), WRITTEN, NOW)
    assert (told.anew, told.instance) == (True, "4711")
    told = parse(written(reason="RENEW6", pid=""), WRITTEN, NOW)
    assert (told.anew, told.instance) == (False, None)


def test_without_life_starts_lifetimes_count_from_the_report() -> None:
    told = parse(written(life_starts=None), WRITTEN, NOW)
    assert (told.reply, told.clock, told.valid_until) == (UPTIME, 0.0, UPTIME + 200)


def sane(text: bytes) -> None:
    try:
        found = lease_file.parse(text, WRITTEN, NOW, HERE)
    except ValueError:
        return
    if found is None:
        return
    assert found.preferred_until is not None
    assert found.preferred_until <= found.valid_until
    assert Prefix.parse(str(found.prefix)) == found.prefix
    assert found.iaid is None or re.fullmatch("([0-9a-f]{2}:){3}[0-9a-f]{2}", found.iaid)


@given(st.binary(max_size=MOST_BYTES + 2))
def test_no_bytes_do_harm(text: bytes) -> None:
    sane(text)


@given(st.sampled_from(list(FIELDS)), st.text(max_size=20) | st.text('0123456789:\\"af./', max_size=20))
@example("uptime", "0")
def test_no_value_does_harm(key: str, value: str) -> None:
    sane(written(**{key: value}))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "leases").mkdir()
    return tmp_path / "leases"


def put(path: Path, text: bytes) -> None:
    hidden = path.with_name(f".{path.name}")
    hidden.write_bytes(text)
    hidden.rename(path)


def fresh(**changed: str) -> bytes:
    return written(uptime=f"{clock.now():.2f}", life_starts=str(int(time.time())), **changed)


def test_a_directory_is_read(directory: Path) -> None:
    leases = Leases(directory)
    put(directory / "one", fresh())
    put(directory / "two", fresh(prefix="2001:db8:ff00::/56"))
    (directory / ".hidden").write_bytes(b"being written")
    found, complaints = leases.read(clock.now)
    assert [str(each) for each in sorted(each.prefix for each in found)] == [
        "2001:db8::/56",
        "2001:db8:ff00::/56",
    ]
    assert complaints == []
    (directory / "one").unlink()
    assert [str(each.prefix) for each in leases.read(clock.now)[0]] == ["2001:db8:ff00::/56"]
    put(directory / "two", fresh(uplink="eth9"))
    assert [each.uplink for each in leases.read(clock.now)[0]] == ["eth9"]


def test_a_file_that_is_replaced_while_others_are_read_is_of_now(directory: Path) -> None:
    """Ten thousand take seconds, and what was written meanwhile is no file of the future."""
    for name in ("one", "two"):
        put(directory / name, fresh())
    passed = 0.0

    def slow() -> float:
        nonlocal passed
        if not passed:
            passed = 100.0
            for name in ("one", "two"):
                put(directory / name, written(uptime=f"{clock.now() + 90:.2f}", uplink="eth9"))
        return clock.now() + passed

    found, complaints = Leases(directory).read(slow)
    assert complaints == []
    assert sorted(each.uplink or "" for each in found) == ["eth0.7", "eth9"]


def test_no_directory_no_leases(tmp_path: Path) -> None:
    assert Leases(tmp_path / "none").read(clock.now) == ([], [])


def test_a_directory_that_cannot_be_read_holds_what_it_held(directory: Path) -> None:
    leases = Leases(directory)
    put(directory / "one", fresh())
    before, _ = leases.read(clock.now)
    directory.rename(directory.with_name("elsewhere"))
    directory.touch()
    assert leases.read(clock.now) == (before, [(str(directory), "Not a directory")])
    assert leases.read(clock.now) == (before, [])
    directory.unlink()
    assert leases.read(clock.now) == ([], [])


def test_a_lease_stays_what_it_was_while_its_file_does_not_change(directory: Path) -> None:
    leases = Leases(directory)
    put(directory / "one", fresh())
    [before], _ = leases.read(clock.now)
    [after], _ = leases.read(lambda: clock.now() + 1000)
    assert after is before


def test_hostile_files_are_told_of_once_and_hold_nothing_up(directory: Path) -> None:
    put(directory / "good", fresh())
    (directory / "symlink").symlink_to(directory / "good")
    (directory / "dangling").symlink_to(directory / "nowhere")
    os.mkfifo(directory / "fifo")
    (directory / "folder").mkdir()
    with (directory / "huge").open("wb") as huge:
        huge.truncate(100 << 20)
    (directory / "nuls").write_bytes(bytes(200))
    (directory / "empty").touch()
    (directory / os.fsdecode(b"n\xffame\n")).write_bytes(b"what?")
    leases = Leases(directory)
    found, complaints = leases.read(clock.now)
    assert [str(each.prefix) for each in found] == ["2001:db8::/56"]
    reasons = {os.path.basename(os.fsencode(path)): reason for path, reason in complaints}  # noqa: PTH119  bytes
    assert sorted(reasons) == sorted(
        [b"symlink", b"dangling", b"fifo", b"folder", b"huge", b"nuls", b"empty", b"n\xffame\n"]
    )
    assert "symbolic links" in reasons[b"symlink"]
    assert reasons[b"fifo"] == reasons[b"folder"] == "is not a regular file"
    assert reasons[b"huge"] == "has more than 1024 bytes"
    assert all(str(complaint).isprintable() for complaint in complaints)
    assert leases.read(clock.now) == (found, [])
    (directory / "empty").write_bytes(b"something else")
    assert [path for path, _ in leases.read(clock.now)[1]] == [str(directory / "empty")]


READER = """
import sys
from pathlib import Path
from anyipd.observe.lease import Leases
print(Leases(Path(sys.argv[1])).read(1e9))
"""


@pytest.mark.usefixtures("lab")
def test_an_unreadable_file_is_told_of(directory: Path) -> None:
    put(directory / "secret", fresh())
    (directory / "secret").chmod(0)
    powerless = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    command = [*powerless, sys.executable, "-c", READER, str(directory)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    complaint = Complaint(str(directory / "secret"), "Permission denied")
    assert answer == f"([], [{complaint!r}])\n"


def test_a_file_that_goes_is_no_complaint(directory: Path) -> None:
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            put(directory / "one", fresh())
            (directory / "one").unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    leases = Leases(directory)
    try:
        complaints = [each for _ in range(20_000) for each in leases.read(clock.now)[1]]
    finally:
        over.set()
        thread.join()
    assert complaints == []
