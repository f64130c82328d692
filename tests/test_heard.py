"""What was heard is kept as lease files that mean the same."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyipd import clock
from anyipd.heard import MAX_LEASES, HeardLeases
from anyipd.model import INFINITE, Lease, Prefix
from anyipd.observe.dhcpv6 import DelegatedPrefix
from anyipd.observe.exchange import Told
from anyipd.observe.lease import INFINITE_LIFETIME, Leases
from tests.test_dhcpv6 import delegated_prefixes

DELEGATED = DelegatedPrefix("00:00:00:01", Prefix.parse("2001:db8::/56"), 100, 200, None)
GONE = DELEGATED._replace(preferred=0, valid=0)
OTHER = DELEGATED._replace(prefix=Prefix.parse("2001:db8:1::/56"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "heard"


def tell(
    directory: Path,
    *told: DelegatedPrefix,
    uplink: str = "eth0.7",
    later: float = 0,
    client: bytes = b"duid",
) -> list[Lease]:
    """Keep what was told, and give what is there then."""
    HeardLeases(directory).take([Told(uplink, each, client) for each in told], clock.now() + later)
    leases, complaints = Leases(directory).read(lambda: clock.now() + later)
    assert complaints == []
    return leases


GLOBAL = Prefix.parse("2000::/3")  # some that lie elsewhere look like IPv4 in writing, and are no lease


@given(
    delegated_prefixes(GLOBAL),
    st.sampled_from(["eth0", "eth0.7", "a@b_c"]),
)
def test_what_is_kept_is_read(delegated: DelegatedPrefix, uplink: str) -> None:
    told = delegated._replace(iaid="62:9d:01:0a")
    since = clock.now()
    with TemporaryDirectory() as folder:
        granted = told._replace(preferred=1, valid=1)
        leases = tell(Path(folder), granted, told, uplink=uplink)
    assert len(leases) == 1
    for lease in leases:
        assert (lease.lifetime == 0) == (told.valid == 0)
        assert (lease.client, lease.uplink, lease.iaid) == ("listen", uplink, told.iaid)
        assert (lease.prefix, lease.exclude) == (told.prefix, told.exclude)
        for deadline, lifetime in (
            (lease.preferred_until, told.preferred),
            (lease.valid_until, told.valid),
        ):
            if lifetime == 0xFFFFFFFF:
                assert deadline == INFINITE
            else:
                assert deadline is not None
                assert since - 1 <= deadline - lifetime <= clock.now() + 1


def test_it_is_there_for_all_to_read(directory: Path) -> None:
    tell(directory, DELEGATED)
    [file] = directory.iterdir()
    assert (file.name, file.stat().st_mode & 0o777) == ("2001:db8::_56@eth0.7", 0o644)


def test_it_is_so_whatever_the_umask_is(directory: Path) -> None:
    before = os.umask(0o077)
    try:
        tell(directory, DELEGATED)
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (directory, *directory.iterdir())] == [0o755, 0o644]


def test_each_prefix_and_uplink_is_a_lease(directory: Path) -> None:
    tell(directory, DELEGATED, OTHER, DELEGATED)
    assert len(tell(directory, DELEGATED, uplink="eth1")) == 3


def test_what_is_taken_back_is_kept_until_more_is_heard(directory: Path) -> None:
    tell(directory, DELEGATED)
    assert [lease.lifetime for lease in tell(directory, GONE)] == [0]
    assert len(tell(directory, DELEGATED, OTHER)) == 2
    assert {lease.prefix: lease.lifetime for lease in tell(directory, GONE)} == {
        DELEGATED.prefix: 0,
        OTHER.prefix: 200,
    }
    assert [lease.prefix for lease in tell(directory, OTHER, later=1)] == [OTHER.prefix]


def test_another_client_takes_nothing_back(directory: Path) -> None:
    tell(directory, DELEGATED)
    for client in (b"", b"other"):
        assert [lease.lifetime for lease in tell(directory, GONE, client=client)] == [200]
    tell(directory, DELEGATED, client=b"other")  # such as the same host, installed anew
    assert [lease.lifetime for lease in tell(directory, GONE)] == [200]
    assert [lease.lifetime for lease in tell(directory, GONE, client=b"other")] == [0]


@pytest.mark.parametrize(
    "leave", [os.mkfifo, lambda file: file.write_bytes(b"\xff")], ids=["FIFO", "no text"]
)
def test_what_stands_in_the_place_of_a_grant_is_none(directory: Path, leave: Callable[[Path], None]) -> None:
    directory.mkdir()
    leave(directory / "2001:db8::_56@eth0.7")
    HeardLeases(directory).take([Told("eth0.7", GONE, b"duid")], clock.now())
    assert [lease.lifetime for lease in tell(directory, DELEGATED)] == [200]


def test_of_what_was_not_granted_nothing_is_taken_back(directory: Path) -> None:
    tell(directory, DELEGATED)
    assert [lease.prefix for lease in tell(directory, OTHER._replace(preferred=0, valid=0))] == [
        DELEGATED.prefix
    ]


def test_what_is_over_is_cleared_up(directory: Path) -> None:
    tell(directory, DELEGATED)
    assert len(tell(directory, OTHER, later=150)) == 2
    assert [lease.prefix for lease in tell(directory, OTHER, later=250)] == [OTHER.prefix]


def test_it_is_cleared_up_when_the_first_is_over(directory: Path) -> None:
    heard, now = HeardLeases(directory), clock.now()
    heard.take([Told("eth0", DELEGATED._replace(valid=100), b"duid"), Told("eth1", DELEGATED, b"duid")], now)
    for later, left in ((99, {"eth0", "eth1"}), (101, {"eth1"}), (201, set())):
        heard.clear_up(now + later)
        assert {file.name.partition("@")[2] for file in directory.iterdir()} == left
    # Also what an earlier daemon left, whatever it has heard itself.
    heard.take([Told("eth0", DELEGATED, b"duid")], now)
    HeardLeases(directory).clear_up(now + 201)
    assert list(directory.iterdir()) == []


def test_what_others_left_there_stays(directory: Path) -> None:
    directory.mkdir()
    (directory / "nonsense").write_text("nonsense")
    HeardLeases(directory).take([Told("eth0", DELEGATED, b"duid")], clock.now())
    assert (directory / "nonsense").exists()


def test_of_what_never_ends_the_latest_thousand_stay(directory: Path) -> None:
    """A server may delegate other prefixes with every Reply, each for ever."""
    tell(directory, DELEGATED, uplink="eth1")
    for number in range(0, MAX_LEASES + 100, 50):
        told = [
            OTHER._replace(prefix=Prefix((0x20010DB9 << 96) + (each << 72), 56), valid=INFINITE_LIFETIME)
            for each in range(number, number + 50)
        ]
        leases = tell(directory, *told, later=number / 100)
    leases = tell(directory, *told, later=number / 100)
    assert {each.prefix for each in told} <= {lease.prefix for lease in leases}
    assert Counter(lease.uplink for lease in leases) == {"eth0.7": MAX_LEASES, "eth1": 1}
