"""S7: one daemon a network namespace, and what is said of it, whatever ordinary users do."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest

from anyipd.kernel import lock
from anyipd.varlink.address import NAME, address
from tests.lab.daemon import CHECKOUT, Daemon
from tests.lab.delegated import PREFIX, bound, delegate, subnets
from tests.lab.namespace import Namespace, stop, wait_until

POLICY = "subnets: [{name: web, id: 0}]"
WANTED = subnets(PREFIX, 1)
SEVERAL_USERS = int(Path("/proc/self/uid_map").read_text().split()[2]) > 1

BOTH = """\
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
PATH = sys.argv[1]

def ready():
    print(flush=True)

def unix():
    return socket.socket(socket.AF_UNIX)

def netlink(port=0, groups=0):
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 2)
    opened.bind((port, groups))
    return opened

"""

CONNECTING = """\
ready()
while True:
    with unix() as caller:
        caller.setblocking(False)
        try:
            caller.connect(PATH)
        except (BlockingIOError, ConnectionRefusedError, FileNotFoundError):
            pass
"""

IDLE = """\
ready()
held = []
while len(held) < 1000:
    held.append(unix())
    try:
        held[-1].connect(PATH)
    except (ConnectionRefusedError, FileNotFoundError):
        held.pop()
        time.sleep(0.01)
time.sleep(600)
"""

SQUATTING = """\
import os
held = [unix()]
try:
    held[0].bind(PATH)
except OSError:  # root's directory
    pass
for port in range(os.getpid(), os.getpid() + 5000):  # those that the kernel would choose for a daemon
    try:
        held.append(netlink(port))
    except OSError:
        pass
for groups in (int.from_bytes(b"anyi"), 1, 0xffffffff):
    try:
        netlink(0, groups)
    except PermissionError:
        continue
    sys.exit("it could join")
ready()
time.sleep(600)
"""

FULL = """\
held = unix()
try:
    held.bind(PATH)
    held.listen(0)
except OSError:
    pass
callers = [unix()]
try:
    while True:
        callers[-1].setblocking(False)
        callers[-1].connect(PATH)
        callers.append(unix())
except (BlockingIOError, ConnectionRefusedError, FileNotFoundError):
    pass
ready()
time.sleep(600)
"""

CHURNING = """\
held = [netlink() for _ in range(3000)]
ready()
while True:
    for i in range(len(held)):
        held[i].close()
        held[i] = netlink()
"""

ATTACKS = {
    "connecting": CONNECTING,
    "idle": IDLE,
    "squatting": SQUATTING,
    "full": FULL,
    "churning": CHURNING,
}


def ordinary(number: int) -> list[str]:
    """Give the command that makes another one an ordinary user's: another user's where the lab has some."""
    bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    if not SEVERAL_USERS:
        return bare
    return [*bare, f"--reuid={12000 + number}", f"--regid={12000 + number}", "--clear-groups"]


def attack(daemon: Daemon, script: str, users: int = 2) -> list[subprocess.Popen[str]]:
    """Have ordinary users do it."""
    host, path = daemon.namespace, daemon.runtime / NAME
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    attackers = [
        host.popen(*ordinary(number), sys.executable, "-c", BOTH + script, path, **options)
        for number in range(users)
    ]
    for each in attackers:
        assert each.stdout
        assert each.stdout.readline() == "\n"
    return attackers


def holder(host: Namespace, *within: str) -> str:
    """Say what anybody sees of the lock there."""
    script = "from anyipd.kernel import lock; print(lock.holder())"
    return host.run(*within, sys.executable, "-c", script, cwd=CHECKOUT).stdout.strip()


@pytest.fixture
def daemon(host: Namespace) -> Iterator[Daemon]:
    """A daemon on the host, with a runtime directory that every user gets to, as /run/anyipd is."""
    folder = Path(mkdtemp(dir="/run"))
    folder.chmod(0o755)
    with Daemon(host, folder, forked=True) as daemon:
        daemon.runtime.chmod(0o755)
        yield daemon
    rmtree(folder)


@pytest.fixture
def other(daemon: Daemon, tmp_path: Path) -> Iterator[Daemon]:
    """A second daemon with a runtime directory of its own, not started yet."""
    (tmp_path / "other").mkdir()
    with Daemon(daemon.namespace, tmp_path / "other", POLICY, forked=True) as other:
        yield other


@pytest.mark.parametrize("first", [True, False], ids=["they are first", "they are later"])
@pytest.mark.parametrize("script", ATTACKS.values(), ids=ATTACKS)
def test_ordinary_users_neither_keep_a_daemon_out_nor_let_a_second_in(
    daemon: Daemon, other: Daemon, script: str, *, first: bool
) -> None:
    host = daemon.namespace
    daemon.configure(POLICY)
    if first:
        attackers = attack(daemon, script)
        daemon.start()
    else:
        daemon.start()
        attackers = attack(daemon, script)
    if script == IDLE:
        time.sleep(1)  # they begin to connect when there is a daemon, and nothing shows how far they are
    for _ in range(2):
        assert other.launch().wait(20) == 69
        assert "already running in this network namespace (pid " in other.log.read_text()
        assert holder(host, *ordinary(9)) == "pid unknown"
        assert "no daemon" not in daemon.control("status").stderr
    delegate(host)
    wait_until(lambda: bound(host) == WANTED)
    # And as they go on, so does a restart.
    daemon.terminate()
    assert holder(host) == "None"
    daemon.start()
    assert bound(host) == WANTED
    assert all(each.poll() is None for each in attackers)
    for each in attackers:
        stop(each, signal.SIGKILL)


@pytest.mark.skipif(
    not SEVERAL_USERS, reason="this lab has one user, root, whose connections are not counted"
)
@pytest.mark.parametrize("script", [CONNECTING, IDLE], ids=["connecting", "idle"])
def test_root_is_told_the_policy_all_the_same(daemon: Daemon, script: str) -> None:
    daemon.within = ["prlimit", "--nofile=1024"]  # as under systemd
    daemon.configure(POLICY)
    daemon.start()
    attack(daemon, script)
    for _ in range(3):
        time.sleep(0.5)
        assert daemon.control("status").stderr == ""


def test_a_daemon_that_cannot_be_asked_is_one_all_the_same(daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as squatter, address(daemon.runtime / NAME) as path:
        squatter.bind(path)
        squatter.listen()
        daemon.configure(POLICY)
        daemon.start()
        daemon.wait_for("another process listens there")
        delegate(daemon.namespace)
        wait_until(lambda: bound(daemon.namespace) == WANTED)
        seen = daemon.control("status")
        assert "cannot be asked: no answer within 2 s" in seen.stderr
        assert "one look of anyipctl itself" in seen.stderr
        assert "2001:db8:100::/64" in seen.stdout
        done = daemon.control("forget", PREFIX, check=False)
        assert done.returncode == 69
        assert "does not answer" in done.stderr
        assert "a daemon is running" in daemon.control("flush").stdout


RACER = """\
import json, sys, time
from anyipd.kernel import lock
from anyipd.varlink.address import NAME, address
print(flush=True)
begin = float(sys.stdin.readline())
held = []
for i in range(40):
    while time.monotonic() < begin + i * 0.05:  # at the same moment as the other, as nearly as can be
        pass
    try:
        with lock.take():
            since = time.monotonic()
            time.sleep(0.03)
            held.append((i, since, time.monotonic()))
    except lock.HeldError:
        pass
print(json.dumps(held))
"""


@pytest.mark.alone
def test_of_two_at_the_same_moment_one_goes_on(host: Namespace) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    racers = [host.popen(sys.executable, "-c", RACER, cwd=CHECKOUT, **pipes) for _ in range(2)]
    for each in racers:
        assert each.stdout
        each.stdout.readline()
    begin = f"{time.monotonic() + 0.1}\n"
    for each in racers:
        assert each.stdin
        each.stdin.write(begin)
        each.stdin.flush()
    held = [hold for each in racers for hold in json.loads(each.communicate()[0])]
    assert {i for i, _, _ in held} == set(range(40))
    spans = sorted((since, until) for _, since, until in held)
    assert all(until < since for (_, until), (since, _) in pairwise(spans))


def test_the_lock_is_of_one_network_namespace(host: Namespace, isp: Namespace) -> None:
    with host.entered(), lock.take():
        assert lock.holder()
        with pytest.raises(lock.HeldError):
            lock.take()
        with isp.entered(), lock.take():
            pass
    with host.entered():
        assert lock.holder() is None


def test_a_process_that_may_not_ask_the_kernel_reads_it(daemon: Daemon) -> None:
    daemon.start()
    script = "from anyipd.kernel import confine, lock; assert not confine.confine(); print(lock.holder())"
    done = daemon.namespace.run(sys.executable, "-c", script, cwd=CHECKOUT)
    assert done.stdout == f"pid {daemon.running.pid}\n"


WITHOUT_ROOT = """\
ip link set lo up
python=$1 folder=$2 export PYTHONPATH=$3
"$python" -m anyipd --config "$folder/none" --runtime-dir "$folder/one" 2>"$folder/log" &
until grep -q event=ready "$folder/log"; do sleep 0.05; done
"$python" -m anyipd --config "$folder/none" --runtime-dir "$folder/two"
echo $?
"$python" -m anyipd.ctl status --config "$folder/none" --runtime-dir "$folder/two"
kill $!
wait
"""


def test_without_root_in_a_user_namespace(host: Namespace) -> None:
    folder = Path(mkdtemp(dir="/run"))
    folder.chmod(0o777)
    for name in ("one", "two"):
        (folder / name).mkdir(mode=0o755)
    user = ["setpriv", "--reuid=12001", "--regid=12001", "--clear-groups"] if SEVERAL_USERS else []
    within = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", WITHOUT_ROOT, "sh"]
    done = host.run(*user, *within, sys.executable, folder, CHECKOUT, timeout=60)
    assert done.stdout.splitlines()[0] == "69"
    assert "already running in this network namespace (pid " in done.stderr
    assert "no daemon" not in done.stderr
