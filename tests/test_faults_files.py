"""Faults of files: a runtime directory full, read-only or not there, hostile leases, a lost policy."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anyipd.model import Prefix
from tests.lab.daemon import Daemon
from tests.lab.delegated import PREFIX, bound, delegate, subnets, take_away, take_back, write_lease
from tests.lab.dhclient import HOOK, Dhclient
from tests.lab.kea import Kea, Offer
from tests.lab.line import NEW, OLD, Line
from tests.lab.namespace import wait_until
from tests.lab.network import Uplink
from tests.lab.strace import injected

POLICY = "subnets: [{name: some, count: 3}]"
WANTED = subnets(PREFIX, 3)
SECOND = "2001:db8:200::/60"
MANY = 10_000


@pytest.fixture
def running(daemon: Daemon) -> Daemon:
    daemon.configure(POLICY)
    write_lease(daemon.runtime)
    daemon.start()
    assert bound(daemon.namespace) == WANTED
    return daemon


def call_hook(daemon: Daemon, prefix: str) -> None:
    """Have the dhclient hook tell of a prefix, as dhclient-script does."""
    env = {
        **daemon.environment(),
        "ANYIPD_RUNTIME_DIR": str(daemon.runtime),
        "reason": "BOUND6",
        "interface": "uplink",
        "new_ip6_prefix": prefix,
        "new_iaid": "00:00:00:01",
        "new_life_starts": "1700000000",
        "new_preferred_life": "4294967295",
        "new_max_life": "4294967295",
    }
    daemon.namespace.run("sh", "-c", f". {HOOK}", env=env, check=False)


@pytest.fixture
def mounted() -> Iterator[Callable[..., None]]:
    """Mounts with these words, and unmounts in the end."""
    places = set()

    def mount(place: Path, *words: str) -> None:
        # Read-only it cannot be made while somebody writes there.
        wait_until(lambda: subprocess.run(["mount", *words, place], check=False).returncode == 0)
        places.add(place)

    yield mount
    for place in places:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_runtime_directory(daemon: Daemon, mounted: Callable[..., None]) -> None:
    """The hook cannot leave a lease file, so its route alone tells, and the lifetime is unknown."""
    mounted(daemon.runtime, "-t", "tmpfs", "-o", "size=8k", "full")
    daemon.configure(POLICY)
    write_lease(daemon.runtime)
    daemon.start()
    with pytest.raises(OSError, match="No space"):
        (daemon.runtime / "filler").write_bytes(bytes(1 << 20))
    call_hook(daemon, SECOND)
    wait_until(lambda: bound(daemon.namespace) == WANTED | subnets(SECOND, 3))
    lifetimes = {each["prefix"]: each["valid_lifetime"] for each in daemon.status()["delegations"]}
    assert lifetimes[SECOND] is None


def test_a_read_only_runtime_directory(running: Daemon, mounted: Callable[..., None]) -> None:
    mounted(running.runtime, "--bind", str(running.runtime))
    mounted(running.runtime, "-o", "remount,bind,ro")
    call_hook(running, SECOND)
    wait_until(lambda: bound(running.namespace) == WANTED | subnets(SECOND, 3))
    running.kill()
    running.start()
    assert bound(running.namespace) == WANTED | subnets(SECOND, 3)


def test_what_was_superseded_stays_so_in_a_read_only_runtime_directory(
    uplink: Uplink, kea: Kea, daemon: Daemon, tmp_path: Path, mounted: Callable[..., None]
) -> None:
    """dhclient goes on telling of it, and the hook cannot write down for how long it is valid."""
    line = Line(uplink, kea, daemon, tmp_path)
    line.kea.start(Offer(OLD), renew=1)
    dhclient = line.client("dhclient")
    assert isinstance(dhclient, Dhclient)
    dhclient.start()
    line.wait_until_bound(OLD)
    line.kea.offer(Offer(NEW), renew=1)

    def states() -> dict[str, str]:
        return {each["prefix"]: each["state"] for each in daemon.status()["delegations"]}

    superseded = {str(OLD): "superseded", str(NEW): "granted"}
    wait_until(lambda: states() == superseded)
    end = line.end_of(OLD)
    mounted(daemon.runtime, "--bind", str(daemon.runtime))
    mounted(daemon.runtime, "-o", "remount,bind,ro")
    since = len(dhclient.calls())
    dhclient.wait_for("RENEW6", OLD, since=since)
    dhclient.wait_for("RENEW6", NEW, since=since)
    daemon.wait_for('event="lifetime unknown"')
    assert states() == superseded
    assert abs(line.end_of(OLD) - end) < 2


def test_a_missing_runtime_directory(daemon: Daemon) -> None:
    """It may be made later, by the first hook."""
    daemon.configure(POLICY)
    daemon.runtime.rmdir()
    daemon.start()
    call_hook(daemon, PREFIX)
    wait_until(lambda: bound(daemon.namespace) == WANTED)
    assert [each["source"] for each in daemon.status()["delegations"]] == ["dhclient"]


def remove(folder: Path) -> None:
    """The daemon may write in there meanwhile."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def remove_and_make_again(runtime: Path, fresh: Path) -> None:
    remove(runtime)
    runtime.mkdir()
    (fresh / "leases").rename(runtime / "leases")


def replace_by_rename(runtime: Path, fresh: Path) -> None:
    (runtime / "leases").rename(runtime / "aside")
    (fresh / "leases").rename(runtime / "leases")


def replace_all_of_it_by_rename(runtime: Path, fresh: Path) -> None:
    runtime.rename(runtime.with_name("aside"))
    fresh.rename(runtime)


@pytest.mark.parametrize("replace", [remove_and_make_again, replace_by_rename, replace_all_of_it_by_rename])
def test_a_runtime_directory_that_is_replaced(running: Daemon, replace: Callable[[Path, Path], None]) -> None:
    """No message of a hook tells of it: the daemon sees the directory itself, and goes on in the new one."""
    fresh, third = running.runtime.with_name("fresh"), "2001:db8:300::/60"
    fresh.mkdir()
    write_lease(fresh, prefix=SECOND)
    replace(running.runtime, fresh)
    wait_until(lambda: bound(running.namespace) == WANTED | subnets(SECOND, 3))
    write_lease(running.runtime, "third", prefix=third)
    wait_until(lambda: bound(running.namespace) == WANTED | subnets(SECOND, 3) | subnets(third, 3))
    # What it knows it writes down there, too, and so a restart changes nothing.
    wait_until(lambda: third in "".join(map(Path.read_text, running.runtime.glob("daemon/[!.]*"))))
    shutil.rmtree(running.runtime / "leases")
    running.kill()
    running.start()
    assert bound(running.namespace) == WANTED | subnets(SECOND, 3) | subnets(third, 3)


def test_a_ledger_file_that_was_removed_is_written_again(running: Daemon) -> None:
    remove(running.runtime)
    (running.runtime / "leases").mkdir(parents=True)
    wait_until(lambda: list(running.runtime.glob("daemon/[!.]*")))
    running.kill()
    running.start()
    assert bound(running.namespace) == WANTED


def test_a_directory_of_leases_that_cannot_be_read(running: Daemon) -> None:
    """What was read counts, and it is tried again without any event."""
    leases, fresh = running.runtime / "leases", running.runtime / "fresh"
    leases.rename(running.runtime / "aside")
    leases.touch()
    delegate(running.namespace, "2001:db8:300::/60")
    running.wait_for("Not a directory")
    assert bound(running.namespace) >= WANTED
    fresh.mkdir()
    write_lease(fresh, prefix=SECOND)
    leases.unlink()
    (fresh / "leases").rename(leases)
    wait_until(lambda: subnets(SECOND, 3) <= bound(running.namespace), 10)
    assert bound(running.namespace) >= WANTED


@pytest.mark.parametrize("call", [1, 2], ids=["directory", "file"])
def test_a_system_without_room_for_open_files(running: Daemon, tmp_path: Path, call: int) -> None:
    """Where a good file cannot be opened it is tried again, and not taken for a bad one."""
    with injected(running.running.pid, tmp_path, f"openat:error=ENFILE:when={call}"):
        write_lease(running.runtime, "second", prefix=SECOND)
        running.wait_for("Too many open files in system")
    wait_until(lambda: bound(running.namespace) == WANTED | subnets(SECOND, 3))


def test_hostile_lease_files_beside_a_good_one(running: Daemon) -> None:
    leases = running.runtime / "leases"
    good = (leases / "one").read_bytes()
    (leases / "short").write_bytes(good[: len(good) // 2])
    (leases / "nuls").write_bytes(good.replace(b"uplink", b"up\0ink"))
    (leases / "link").symlink_to(leases / "one")
    os.mkfifo(leases / "fifo")
    (leases / "folder").mkdir()
    with (leases / "huge").open("wb") as huge:
        huge.write(good)
        huge.truncate(100 << 20)
    since = len(running.lines())
    write_lease(running.runtime, "second", prefix=SECOND)
    wait_until(lambda: bound(running.namespace) == WANTED | subnets(SECOND, 3))
    running.reload()
    dropped = [line for line in running.lines() if "lease file dropped" in line]
    named = sorted(line.split(f"path={leases}/")[1].split()[0] for line in dropped)
    # A file is told of once for each thing that it was: some were seen while they were written.
    assert set(named) == {"short", "nuls", "link", "fifo", "folder", "huge"}
    running.reload()
    assert [line for line in running.lines() if "lease file dropped" in line] == dropped
    assert len(running.lines()) > since


def test_a_lease_file_without_permission(daemon: Daemon) -> None:
    """As its own user, without the right to read everything."""
    daemon.within = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    daemon.configure(POLICY)
    write_lease(daemon.runtime)
    write_lease(daemon.runtime, "secret", prefix=SECOND).chmod(0)
    daemon.start()
    assert bound(daemon.namespace) == WANTED
    assert "Permission denied" in daemon.wait_for("leases/secret")
    (daemon.runtime / "leases" / "secret").chmod(0o644)
    daemon.reload()
    assert bound(daemon.namespace) == WANTED | subnets(SECOND, 3)


@pytest.mark.long
def test_ten_thousand_lease_files(running: Daemon) -> None:
    first = Prefix.parse("2001:db9::/60").address
    for number in range(MANY):
        iaid, prefix = (MANY + number).to_bytes(4).hex(":"), Prefix(first + (number << 68), 60)
        write_lease(running.runtime, f"many-{number}", iaid=iaid, prefix=prefix)
    # One uplink has at most 16 of them, and those that it had first; as many again are shown as refused.
    whole = WANTED.union(*(subnets(str(Prefix(first + (number << 68), 60)), 3) for number in range(15)))
    wait_until(lambda: bound(running.namespace) == whole, 300)
    wait_until(lambda: len(running.status()["delegations"]) == 2 * 16, 300)
    take_away(running.namespace, "2001:db9::/64")
    wait_until(lambda: bound(running.namespace) == whole, 30)
    for number in range(MANY):
        take_back(running.runtime, f"many-{number}", prefix=Prefix(first + (number << 68), 60))
    wait_until(lambda: bound(running.namespace) == WANTED, 300)


def test_a_configuration_that_is_replaced(running: Daemon) -> None:
    """As editors do: another file renamed into its place. Nothing happens before a reload."""
    other = running.configuration.with_name("new")
    other.write_text("subnets: [{name: other, id: 8}]")
    other.rename(running.configuration)
    running.namespace.ip("-6 route flush proto 150 table local")
    wait_until(lambda: bound(running.namespace) == WANTED)
    running.reload()
    assert bound(running.namespace) == {"2001:db8:100:8::/64"}


@pytest.mark.parametrize("lose", [lambda file: file.write_text(""), Path.unlink], ids=["emptied", "deleted"])
def test_a_configuration_that_is_lost(running: Daemon, lose: Callable[[Path], None]) -> None:
    """The default policy holds from the next reload on, as at every start."""
    lose(running.configuration)
    running.namespace.ip("-6 route flush proto 150 table local")
    wait_until(lambda: bound(running.namespace) == WANTED)
    running.reload()
    assert bound(running.namespace) == subnets(PREFIX, 1)
    if not running.configuration.exists():
        running.wait_for("the default policy holds")


def forbid(file: Path) -> None:
    file.chmod(0)


def turn_to_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def fill_with_noise(file: Path) -> None:
    file.write_bytes(bytes(range(256)))


@pytest.mark.parametrize("spoil", [forbid, turn_to_a_folder, fill_with_noise])
def test_a_configuration_that_cannot_be_read(daemon: Daemon, spoil: Callable[[Path], None]) -> None:
    """The old one stays in force, and the next start is refused."""
    daemon.within = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    daemon.configure(POLICY)
    delegate(daemon.namespace)
    daemon.start()
    spoil(daemon.configuration)
    daemon.reload()
    daemon.wait_for("the old configuration stays in force")
    daemon.namespace.ip("-6 route flush proto 150 table local")
    wait_until(lambda: bound(daemon.namespace) == WANTED)
    daemon.terminate()
    assert daemon.launch().wait(20) == 78
    assert bound(daemon.namespace) == WANTED
