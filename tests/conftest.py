"""Takes the whole of pytest into the lab, and builds there what a test asks for."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer

from anyipd.kernel.routes import Routes
from tests.lab import namespace, quick, side_by_side
from tests.lab.daemon import Daemon
from tests.lab.dhclient import Dhclient
from tests.lab.hook_caller import SHELLS, Caller, shell_command
from tests.lab.kea import Kea
from tests.lab.lan import SUBNET, Lan
from tests.lab.namespace import Namespace
from tests.lab.network import Uplink
from tests.lab.site import Site, set_up

# A deadline is one of wall time, which the tests on other workers take, too.
settings.register_profile("default", settings.get_profile("default"), deadline=None)
settings.register_profile("long", max_examples=500, stateful_step_count=40, print_blob=True, deadline=None)
if settings.get_current_profile_name() == "default":
    settings.load_profile("default")

LOG_LINES = 40
"""Of each log of ours, shown where a test fails."""

OBSTACLE = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "how often a daemon is killed in the middle of a renumbering (default: %(default)s)"
    parser.addoption("--crashes", type=int, default=25, metavar="N", help=text)
    text = "how many neighbours ask, each once, while memory is to stay as it is (default: %(default)s)"
    parser.addoption("--askers", type=int, default=50_000, metavar="N", help=text)
    text = "run only what needs no other program: no daemon, no client, no server, no machine"
    parser.addoption("--quick", action="store_true", help=text)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[OBSTACLE] = namespace.obstacle() or ""
    if config.stash[OBSTACLE]:
        if os.environ.get("CI"):
            pytest.exit(config.stash[OBSTACLE], returncode=1)
        return
    if hasattr(config, "workerinput"):  # of pytest-xdist, started by a pytest that is in the lab
        namespace.branch_off()
        return
    # What runs anew must write where this process does, not into pytest's capture.
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        namespace.enter()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    return side_by_side.WORKERS_PER_CORE * len(os.sched_getaffinity(0))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> side_by_side.Scheduling | None:
    return side_by_side.Scheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("quick"):
        config.hook.pytest_deselected(items=[item for item in items if not quick.is_quick(item)])
        items[:] = filter(quick.is_quick, items)
    if hasattr(config, "workerinput"):
        side_by_side.spread(items)
    side_by_side.sort(items)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with side_by_side.turn(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    folder = item.funcargs.get("tmp_path") if isinstance(item, pytest.Function) else None
    if report.failed and isinstance(folder, Path):
        # What fails once and elsewhere must be understood from what it printed there.
        for log in sorted(folder.rglob("anyip*.log")):
            lines = log.read_text(errors="replace").splitlines()
            report.sections.append((f"{log.name}, last lines", "\n".join(lines[-LOG_LINES:])))
    return report


@pytest.fixture
def lab(pytestconfig: pytest.Config) -> Iterator[Callable[[str], Namespace]]:
    """Makes namespaces, and skips where there can be no lab: what runs in it asks for this."""
    if pytestconfig.stash[OBSTACLE]:
        pytest.skip(pytestconfig.stash[OBSTACLE])
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(Namespace(name))


@pytest.fixture
def isp(lab: Callable[[str], Namespace]) -> Namespace:
    return lab("isp")


@pytest.fixture
def host(lab: Callable[[str], Namespace]) -> Namespace:
    return lab("host")


@pytest.fixture
def routes(host: Namespace) -> Iterator[Routes]:
    """The daemon's own hands, in the host's network."""
    with host.entered(), closing(Routes()) as opened:
        yield opened


@pytest.fixture
def lan(lab: Callable[[str], Namespace], isp: Namespace, host: Namespace) -> Lan:
    return Lan(isp, host, lab("other"), SUBNET)


@pytest.fixture
def uplink(isp: Namespace, host: Namespace) -> Uplink:
    return Uplink(isp, host)


@pytest.fixture
def kea(uplink: Uplink, tmp_path: Path) -> Kea:
    """Kea at the ISP's end of `uplink`, not started yet."""
    return Kea(uplink.isp, uplink.customer, tmp_path)


@pytest.fixture
def daemon(host: Namespace, tmp_path: Path) -> Iterator[Daemon]:
    """anyipd on the host, not started yet, its policy empty: `configure` gives it one."""
    with Daemon(host, tmp_path, forked=True) as daemon:
        yield daemon


@pytest.fixture
def neighbour(daemon: Daemon, tmp_path: Path) -> Iterator[Daemon]:
    """anyipd-neighbour beside `daemon`, on the same files, not started yet."""
    with Daemon(daemon.namespace, tmp_path, module="anyipd.neighbour", forked=True) as neighbour:
        yield neighbour


@pytest.fixture
def dhclient(uplink: Uplink, daemon: Daemon, tmp_path: Path) -> Dhclient:
    """dhclient on the host's end of `uplink`, not started yet, telling `daemon`'s runtime directory."""
    return Dhclient(uplink.host, uplink.interface, tmp_path, daemon.runtime)


@pytest.fixture(params=SHELLS)
def caller(request: pytest.FixtureRequest, tmp_path: Path) -> Caller:
    """A caller of the dhclient hook, in each shell that may be somebody's /bin/sh."""
    return Caller(shell_command(request.param), tmp_path)


@pytest.fixture
def idle(uplink: Uplink, daemon: Daemon, tmp_path: Path) -> Iterator[Site]:
    """A site on which anyipd runs, with the document's policy, and nothing is delegated yet."""
    with set_up(uplink, daemon, tmp_path) as site:
        yield site


@pytest.fixture
def site(idle: Site) -> Site:
    """The same, with a delegated prefix."""
    idle.delegate()
    return idle
