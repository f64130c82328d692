"""The publisher and the client over real sockets: who is answered, who is not, and what that costs."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import pytest

from anyipd.varlink.client import ANSWER_TIMEOUT, Client, UnansweredError
from anyipd.varlink.message import MAX_CALL, Call, Messages, VarlinkError, encode_call
from anyipd.varlink.publisher import MAX_CONNECTIONS, MAX_OF_A_USER, MAX_OF_ROOT
from tests.lab.daemon import CHECKOUT
from tests.lab.namespace import Namespace, wait_until
from tests.lab.publisher import GRANTED, Published

SEVERAL_USERS = int(Path("/proc/self/uid_map").read_text().split()[2]) > 1
ALICE, BOB = 12001, 12002
DESCRIBE = encode_call(Call("io.anyipd.Describe"))
MONITOR = encode_call(Call("io.anyipd.Monitor", more=True))
FORGET = encode_call(Call("io.anyipd.Forget", {"prefix": GRANTED}, oneway=True))
MB = 1024 * 1024

several_users = pytest.mark.skipif(not SEVERAL_USERS, reason="there is one user here: run the tests as root")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A runtime directory that all users may search."""
    with TemporaryDirectory(dir="/run") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def published(folder: Path) -> Iterator[Published]:
    with Published(folder) as published:
        published.ask("publish", 1)
        yield published


class Peer:
    """A client that may do what ours does not."""

    def __init__(self, published: Published) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(published.socket))
        self.socket.settimeout(5)
        self.messages = Messages(64 * MB)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> dict[str, Any] | None:
        """Give the next message, None where the connection has ended."""
        while (message := self.messages.take()) is None:
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                return None
            if not data:
                return None
            self.messages.feed(data)
        found: dict[str, Any] = json.loads(message)
        return found

    def number(self) -> int:
        """Give the number of the next View."""
        found = self.receive()
        assert found
        return int(found["parameters"]["view"]["number"])


@pytest.fixture
def connect(published: Published) -> Iterator[Callable[[], Peer]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Peer(published))


def test_describe_and_monitor(published: Published) -> None:
    with Client(published.folder) as asking, Client(published.folder) as monitoring:
        assert asking.describe()["number"] == 1
        monitoring.monitor()
        assert monitoring.next_view(5) == asking.describe()
        for number in (2, 3):
            published.ask("publish", number)
            assert monitoring.next_view(5) == asking.describe()
            assert asking.describe()["number"] == number
        assert monitoring.next_view(0.05) is None
    assert published.ask("times_made") == 3


def test_nothing_is_made_while_nobody_asks(published: Published, connect: Callable[[], Peer]) -> None:
    for number in range(2, 10):
        published.ask("publish", number)
    assert published.ask("times_made") == 0
    for _ in range(3):
        peer = connect()
        peer.send(DESCRIBE)
        assert peer.number() == 9
    assert published.ask("times_made") == 1


def test_nobody_is_answered_before_there_is_a_view(folder: Path) -> None:
    with Published(folder) as published:
        assert published.ask("listens")
        with Peer(published) as peer:
            peer.send(DESCRIBE)
            peer.socket.settimeout(0.2)
            with pytest.raises(TimeoutError):
                peer.receive()
            peer.socket.settimeout(5)
            published.ask("publish", 1)
            assert peer.number() == 1


def test_calls_may_come_together_or_byte_by_byte(connect: Callable[[], Peer]) -> None:
    peer = connect()
    peer.send(DESCRIBE * 500)
    assert [peer.number() for _ in range(500)] == [1] * 500
    for byte in DESCRIBE:
        peer.send(bytes([byte]))
    assert peer.number() == 1


def test_what_was_called_for_before_the_end_is_done(
    published: Published, connect: Callable[[], Peer]
) -> None:
    with connect() as peer:
        peer.send(FORGET * 3)
    wait_until(lambda: published.ask("calls") == [f"forget {GRANTED}"] * 3)
    peer = connect()
    peer.send(DESCRIBE)
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.number() == 1
    assert peer.receive() is None


def test_one_way_is_not_answered(connect: Callable[[], Peer]) -> None:
    peer = connect()
    peer.send(encode_call(Call("io.anyipd.Nothing", oneway=True)) + DESCRIBE)
    assert peer.number() == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n\0",
        b"\xff\xfe\0",
        b"x" * (MAX_CALL + 1),
        DESCRIBE + b"[]\0",
        MONITOR + b"x",
        MONITOR + DESCRIBE,
    ],
    ids=lambda sent: repr(sent[:20]),
)
def test_what_nobody_may_send_ends_the_connection(
    sent: bytes, published: Published, connect: Callable[[], Peer]
) -> None:
    peer = connect()
    with contextlib.suppress(ConnectionError):  # it ends before all is sent
        peer.send(sent)
    while peer.receive():
        pass
    assert published.process.is_alive()
    with connect() as other:
        other.send(DESCRIBE)
        assert other.number() == 1


def test_a_call_while_monitoring_ends_the_connection(connect: Callable[[], Peer]) -> None:
    peer = connect()
    peer.send(MONITOR)
    assert peer.number() == 1
    peer.send(DESCRIBE)
    assert peer.receive() is None


def test_descriptors_are_not_taken(published: Published, connect: Callable[[], Peer]) -> None:
    peer = connect()
    wait_until(lambda: published.ask("descriptors"))
    before = published.ask("descriptors")
    reading, writing = os.pipe()
    socket.send_fds(peer.socket, [DESCRIBE], [writing] * 50)
    os.close(writing)
    assert peer.receive() is None
    assert os.read(reading, 1) == b""  # nobody holds the other end
    os.close(reading)
    assert published.ask("descriptors") <= before


def test_who_reads_slowly_gets_the_newest(published: Published, connect: Callable[[], Peer]) -> None:
    peer = connect()
    peer.send(MONITOR)
    for number in range(2, 100):
        published.ask("publish", number, 20_000)
    found = list[int]()
    while not found or found[-1] != 99:
        found.append(peer.number())
    assert len(found) < 20
    assert found == sorted(found)
    assert published.ask("times_made") < 20


def test_a_view_may_be_long(published: Published) -> None:
    published.ask("publish", 2, 5 * MB)
    with Client(published.folder) as client:
        assert len(client.describe()["policy"]) == 5 * MB


def test_who_stops_in_the_middle_costs_a_few_views(published: Published, connect: Callable[[], Peer]) -> None:
    for number in range(2, 12):
        published.ask("publish", number, MB)
        peer = connect()
        peer.send(DESCRIBE)
        assert peer.socket.recv(1) == b"{"
    before = published.ask("memory")
    for number in range(12, 32):
        published.ask("publish", number, MB)
        peer = connect()
        peer.send(DESCRIBE)
        assert peer.socket.recv(1) == b"{"
    assert published.ask("memory") - before < 4 * MB


def test_root_has_connections_of_its_own(connect: Callable[[], Peer]) -> None:
    peers = [connect() for _ in range(MAX_OF_ROOT)]
    for peer in peers:
        peer.send(DESCRIBE)
        assert peer.number() == 1
    assert connect().receive() is None
    peers[0].socket.close()
    again = wait_until(lambda: answered(connect()))
    assert again


def answered(peer: Peer) -> bool:
    with contextlib.suppress(ConnectionError):
        peer.send(DESCRIBE)
        return bool(peer.receive())
    return False


HOLD = """\
import socket, sys
found = []
for _ in range(int(sys.argv[2])):
    each = socket.socket(socket.AF_UNIX)
    each.settimeout(5)
    each.connect(sys.argv[1])
    found.append(each)
answered = 0
for each in found:
    try:
        each.sendall(sys.argv[3].encode() + b"\\0")
        answered += bool(each.recv(1))
    except ConnectionError:
        pass
print(answered, flush=True)
sys.stdin.read()
"""
"""Opens connections, calls a method on each, says how many are answered, and holds them."""


@contextlib.contextmanager
def held(published: Published, user: int, count: int, call: bytes = DESCRIBE) -> Iterator[int]:
    """Hold connections as a user; give how many are answered."""
    command = [sys.executable, "-c", HOLD, str(published.socket), str(count), call.decode().rstrip("\0")]
    with subprocess.Popen(
        command, user=user, group=user, extra_groups=[], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdin
        yield int(process.stdout.readline())
        process.stdin.close()


@several_users
def test_users_have_a_few_connections_each(published: Published, connect: Callable[[], Peer]) -> None:
    with held(published, ALICE, MAX_OF_A_USER + 5) as of_alice, held(published, BOB, 3) as of_bob:
        assert (of_alice, of_bob) == (MAX_OF_A_USER, 3)
    with ExitStack() as stack:
        found = [
            stack.enter_context(held(published, ALICE + each, MAX_OF_A_USER)) for each in range(2, 2 + 4 + 1)
        ]
        assert found == [MAX_OF_A_USER] * 4 + [0]
        assert 4 * MAX_OF_A_USER == MAX_CONNECTIONS
        # Nor does root need to care.
        assert answered(connect())


@several_users
def test_users_may_look_and_not_touch(published: Published) -> None:
    script = (
        "import sys; from pathlib import Path; from anyipd.varlink.client import Client;"
        "client = Client(Path(sys.argv[1])); print(client.describe()['number'], flush=True);"
        "getattr(client, sys.argv[2])(*sys.argv[3:])"
    )
    for words in (["forget", GRANTED], ["reload"]):
        done = subprocess.run(
            [sys.executable, "-c", script, str(published.folder), *words],
            check=False,
            capture_output=True,
            text=True,
            user=ALICE,
            group=ALICE,
            extra_groups=[],
            cwd=CHECKOUT,
        )
        assert done.stdout == "1\n", done.stderr
        assert "org.varlink.service.PermissionDenied" in done.stderr
    assert published.ask("calls") == []


def test_root_may_have_it_do_something(published: Published) -> None:
    with Client(published.folder) as client:
        client.forget(GRANTED)
        client.reload()
        with pytest.raises(VarlinkError, match=r"io\.anyipd\.NotDelegated"):
            client.forget("2001:db8::/60")
    assert published.ask("calls") == [f"forget {GRANTED}", "reload", "forget 2001:db8::/60"]


def test_the_daemon_of_another_network_namespace_is_none(published: Published, host: Namespace) -> None:
    with host.entered():
        for ask in (Client.describe, lambda client: client.forget(GRANTED), Client.reload):
            with (
                Client(published.folder) as client,
                pytest.raises(UnansweredError, match="another network namespace"),
            ):
                ask(client)
        with Client(published.folder) as client:
            client.monitor()
            with pytest.raises(UnansweredError, match="another network namespace"):
                client.next_view(5)
    assert published.ask("calls") == []


@several_users
def test_another_user_is_not_believed(folder: Path) -> None:
    folder.chmod(0o777)
    with Published(folder, ALICE) as published:
        published.ask("publish", 1)
        with pytest.raises(UnansweredError, match=f"user {ALICE} listens at"):
            Client(folder)


def test_no_answer_is_waited_for_forever(folder: Path) -> None:
    with pytest.raises(UnansweredError, match="No such file"):
        Client(folder)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "io.anyipd"))
    with pytest.raises(UnansweredError, match="refused"):
        Client(folder)
    listening.listen(1)
    with Client(folder, 0.2) as client, pytest.raises(UnansweredError, match=r"no answer within 0\.2 s"):
        client.describe()
    connected, _ = listening.accept()
    with Client(folder, 0.2) as client:
        client.monitor()
        other, _ = listening.accept()
        other.sendall(b"{")
        with pytest.raises(UnansweredError, match="no end"):
            client.next_view(None)
        other.close()
    with Client(folder, 0.2) as client:
        client.monitor()
        other, _ = listening.accept()
        other.close()
        with pytest.raises(UnansweredError, match=r"ended the connection|reset"):
            client.next_view(None)
    connected.close()
    waiting = [Client(folder, 0.2) for _ in range(2)]
    with pytest.raises(UnansweredError, match="temporarily unavailable"):  # the line is full
        Client(folder, 0.2)
    for each in waiting:
        each.close()
    listening.close()


def test_an_answer_is_not_longer_than_it_may_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anyipd.varlink.client.MAX_REPLY", 1000)
    with Published(folder) as published:
        published.ask("publish", 1, 1000)
        with Client(folder) as client, pytest.raises(UnansweredError, match="more than 1000 bytes"):
            client.describe()


def test_two_that_share_a_folder(published: Published) -> None:
    with Published(published.folder) as second:
        assert not second.ask("listens")
    with Client(published.folder) as client:
        assert client.describe()["number"] == 1


def test_the_name_is_taken_over_from_one_that_crashed(folder: Path) -> None:
    with Published(folder) as crashed:
        assert crashed.ask("listens")
    assert crashed.socket.is_socket()
    with Published(folder) as second:
        second.ask("publish", 2)
        with Client(folder) as client:
            assert client.describe()["number"] == 2
        assert second.socket.stat().st_mode & 0o777 == 0o666
        second.ask("stop")
        assert not second.socket.exists()


def test_nothing_of_others_is_taken_away(folder: Path) -> None:
    (folder / "io.anyipd").write_text("mine")
    with Published(folder) as published:
        assert not published.ask("listens")
    assert (folder / "io.anyipd").read_text() == "mine"


def test_a_folder_may_have_a_long_name(folder: Path) -> None:
    long = folder / ("x" * 200)
    long.mkdir()
    with Published(long) as published:
        published.ask("publish", 1)
        with Client(long) as client:
            assert client.describe()["number"] == 1


def test_without_descriptors_it_waits_and_does_not_spin(published: Published) -> None:
    most = published.ask("descriptors")
    published.ask("limit_descriptors", most + 2)
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(published)) for _ in range(6)]
        for peer in peers[:2]:
            peer.send(DESCRIBE)
            assert peer.number() == 1
        before = published.ask("processor_time")
        time.sleep(0.5)
        assert published.ask("processor_time") - before < 0.02
        for peer in peers[:2]:
            peer.socket.close()
        peers[2].send(DESCRIBE)
        assert peers[2].number() == 1


def test_all_commands_of_a_burst_count(published: Published) -> None:
    with Peer(published) as peer:
        peer.send(FORGET * 1000)
    wait_until(lambda: len(published.ask("calls")) == 1000)


HOSTILE = """\
import itertools, socket, sys
path, kind = sys.argv[1:]
describe, monitor = (b'{"method":"io.anyipd.%s","more":true}\\0' % each for each in (b"Describe", b"Monitor"))
floods = {
    "holds": [describe] * 10,
    "stays": [monitor],
    "garbage": [b"\\xff{[" * 5000 + b"\\0"],
    "endless": itertools.repeat(b"x" * 60000),
    "calls": itertools.repeat(describe * 1000),
    "forgets": itertools.repeat(b'{"method":"io.anyipd.Forget","oneway":true}\\0' * 1000),
}
slots = {"holds": 1000, "stays": 100}.get(kind, 4)
found = [None] * slots
for i in itertools.cycle(range(slots)):
    if found[i] is None:
        found[i] = socket.socket(socket.AF_UNIX)
        try:
            found[i].connect(path)
            found[i].settimeout(0.001)
            for data in floods[kind]:
                found[i].sendall(data)
        except OSError:
            pass
    try:
        if kind != "stays" and not found[i].recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
            raise ConnectionError
    except BlockingIOError:
        pass
    except OSError:
        found[i].close()
        found[i] = None
"""
"""Does one thing that nobody should, again and again, on as many connections as it gets."""


@contextlib.contextmanager
def attack(published: Published) -> Iterator[None]:
    """Have two users and root do what they should not."""
    kinds = [(0, "stays")]
    kinds += [(user, kind) for user in (ALICE, BOB) for kind in ("holds", "calls")] if SEVERAL_USERS else []
    kinds += [(ALICE if SEVERAL_USERS else 0, kind) for kind in ("garbage", "endless", "forgets")]
    with ExitStack() as stack:
        for user, kind in kinds:
            command = ["nice", sys.executable, "-c", HOSTILE, str(published.socket), kind]
            process = stack.enter_context(subprocess.Popen(command, user=user, group=user, extra_groups=[]))
            stack.callback(process.kill)
        yield


@pytest.mark.alone
@pytest.mark.long
def test_no_crowd_holds_up_a_pass(published: Published) -> None:
    size = 20_000
    calm = published.ask("passes", 1, size)
    memory = published.ask("memory")
    with attack(published):
        time.sleep(2)  # until all are there
        used = published.ask("processor_time")
        time.sleep(1)
        used = published.ask("processor_time") - used
        published.begin("passes", 4, size)
        waited = []
        for _ in range(20):
            begun = time.monotonic()
            with Client(published.folder) as client:
                assert client.describe()["policy"]
            waited.append(time.monotonic() - begun)
        crowded = published.result()
        grown = published.ask("memory") - memory
    print(calm, crowded, f"{used:.2f} of a processor, {grown / MB:.1f} MB, {max(waited):.3f} s")
    assert used < 0.3
    assert crowded["median"] < 0.001
    assert grown < 4 * MB
    assert max(waited) < ANSWER_TIMEOUT
