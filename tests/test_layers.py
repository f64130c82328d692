"""Who may know whom: the folders are the flow, and this reads the imports to see that it stays so."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import anyipd

ROOT = Path(anyipd.__file__).parent
PARENT = ROOT.parent


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PARENT).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, ast.Module]:
    """Give the modules by their names. Every worker of the tests imports this file, and few need them."""
    return {module_name(path): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def imports_of(name: str) -> set[str]:
    """All modules of ours that a module names in imports, wherever these stand."""
    found = set()
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules() else str(node.module))
    return {each for each in found if each.split(".")[0] == "anyipd"}


def inside(name: str, *folders: str) -> bool:
    return any(name == folder or name.startswith(f"{folder}.") for folder in folders)


def members(folder: str) -> list[str]:
    found = [name for name in modules() if inside(name, folder)]
    assert found
    return found


PURE = [f"anyipd.neighbour.{name}" for name in ("message", "owners", "spans", "answerer")]

ALLOWED = {
    "anyipd.model": [],
    "anyipd.libc": [],
    "anyipd.clock": ["anyipd.model", "anyipd.libc"],
    "anyipd.view": ["anyipd.model", "anyipd.policy"],
    "anyipd.view_wire": ["anyipd.model", "anyipd.policy", "anyipd.view"],
    "anyipd.summary": ["anyipd.model", "anyipd.view"],
    "anyipd.decide": ["anyipd.model", "anyipd.policy", "anyipd.view", "anyipd.decide"],
    "anyipd.narrate": ["anyipd.model", "anyipd.decide"],
    "anyipd.heard": ["anyipd.model", "anyipd.observe", "anyipd.here", "anyipd.clock", "anyipd.runtime_file"],
    "anyipd.here": [],
    "anyipd.ledger_file": [
        *("anyipd.model", "anyipd.decide.carrier", "anyipd.decide.ledger", "anyipd.here"),
        *("anyipd.view", "anyipd.view_wire", "anyipd.runtime_file"),
    ],
    "anyipd.runtime_file": [],
    "anyipd.apply": [
        *("anyipd.model", "anyipd.policy", "anyipd.decide", "anyipd.clock"),
        *("anyipd.kernel.addresses", "anyipd.kernel.routes", "anyipd.kernel.source_routes"),
        "anyipd.kernel.wire",
    ],
    "anyipd.mainloop": ["anyipd.signals"],
    "anyipd.signals": [],
    "anyipd.follow": [
        *("anyipd.view", "anyipd.view_wire", "anyipd.varlink.client"),
        *("anyipd.kernel.lock", "anyipd.clock", "anyipd.mainloop"),
    ],
    "anyipd.kernel": ["anyipd.model", "anyipd.kernel", "anyipd.decide.covers", "anyipd.libc"],
    "anyipd.printable": [],
    "anyipd.observe": [
        *("anyipd.model", "anyipd.kernel", "anyipd.observe", "anyipd.libc", "anyipd.printable"),
        *("anyipd.here", "anyipd.decide.ledger", "anyipd.runtime_file"),
    ],
    "anyipd.policy": ["anyipd.model", "anyipd.policy_inside", "anyipd.policy_value", "anyipd.yaml_position"],
    "anyipd.varlink": ["anyipd.varlink", "anyipd.model", "anyipd.here"],
    "anyipd.varlink.message": [],
    "anyipd.varlink.service": ["anyipd.varlink.message", "anyipd.model"],
    "anyipd.probe": ["anyipd.probe", "anyipd.kernel.bpf"],
    **{name: ["anyipd.model", "anyipd.policy", *PURE] for name in PURE},
}


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_layer_knows_only_what_is_below_it(folder: str) -> None:
    for name in members(folder):
        strangers = {each for each in imports_of(name) if not inside(each, *ALLOWED[folder])}
        assert not strangers, name


def test_deciding_is_pure() -> None:
    impure = {"time", "os", "socket", "logging", "structlog", "pathlib", "asyncio", "anyipd.clock", "random"}
    for name in [*members("anyipd.decide"), *PURE]:
        for node in ast.walk(modules()[name]):
            if isinstance(node, ast.Import):
                assert not impure & {alias.name for alias in node.names}, name
            elif isinstance(node, ast.ImportFrom):
                assert node.module not in impure, name
            elif isinstance(node, ast.Name):
                assert node.id not in {"open", "print", "input"}, name


def test_deciding_needs_the_policys_types_alone() -> None:
    script = "import sys, anyipd.decide.decision; print('anyipd.policy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True, cwd=PARENT) == "False\n"


def test_nothing_imports_the_daemon() -> None:
    importers = {name for name in modules() if "anyipd.daemon" in imports_of(name)}
    assert importers == {"anyipd.__main__"}


def test_a_follower_consumes_views_and_observes_nothing() -> None:
    """Nor does anything but the observer decide: one had diverged, which did both by itself."""
    for name in [*members("anyipd.follow"), *members("anyipd.neighbour")]:
        assert not {each for each in imports_of(name) if inside(each, "anyipd.observe", "anyipd.decide")}, (
            name
        )
        assert not imports_of(name) & {"anyipd.observer", "anyipd.observations", "anyipd.kernel.routes"}, name
    assert users("decide") == {"anyipd.observer"}


def test_nothing_but_the_tool_imports_the_tool() -> None:
    importers = {name for name in modules() if any(inside(i, "anyipd.ctl") for i in imports_of(name))}
    assert {name for name in importers if not inside(name, "anyipd.ctl")} == {"anyipd.start"}


def users(attribute: str) -> set[str]:
    """Modules that name something, be it bare or behind a dot."""
    return {
        name
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr == attribute)
        or (isinstance(node, ast.Name) and node.id == attribute)
    }


def test_only_kernel_speaks_netlink() -> None:
    assert users("AF_NETLINK") == {
        *("anyipd.kernel.lock", "anyipd.kernel.lookup", "anyipd.kernel.monitor"),
        *("anyipd.kernel.removals", "anyipd.kernel.routes"),
        "anyipd.kernel.confine",  # refuses all but the one that they open
    }
    # Importing it costs 11 MB: the way out is for a tool to find.
    assert {name for name, tree in modules().items() if "pyroute2" in ast.dump(tree)} == {
        "anyipd.probe.reply",
        "anyipd.probe.uplink",
    }


def test_only_the_probe_needs_scapy() -> None:
    """It takes half a second and 59 MB, which is not for a daemon."""
    assert {name for name, tree in modules().items() if "module='scapy" in ast.dump(tree)} == {
        "anyipd.probe",
        "anyipd.probe.arp",
        "anyipd.probe.outside",
    }


def test_what_is_heard_and_the_ledger_are_each_written_in_one_place() -> None:
    writers = users("write_bytes") | users("write_text") | users("unlink")
    assert {name for name in writers if not inside(name, "anyipd.ctl")} == {
        "anyipd.heard",  # removes what is over
        "anyipd.runtime_file",
        "anyipd.varlink.listening",  # its socket's name
    }


def test_only_routes_writes_routes() -> None:
    assert users("change_request") == {"anyipd.kernel.routes", "anyipd.kernel.source_routes"}
    assert users("change_requests") == {"anyipd.kernel.routes", "anyipd.kernel.wire"}
    writers = users("RTM_NEWROUTE") | users("RTM_DELROUTE")
    # The others name them to tell what they read.
    assert all(inside(name, "anyipd.kernel") for name in writers)
    senders = users("send") | users("sendto") | users("sendmsg")
    assert {name for name in senders if inside(name, "anyipd.kernel")} == {
        "anyipd.kernel.routes",
        "anyipd.kernel.lock",  # asks for sockets, by another protocol than rtnetlink
        "anyipd.kernel.lookup",  # asks for routes
    }


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    "arguments", [["--help"], ["random"], ["random", "-n", "3", "2001:db8::/32"], ["flush"]]
)
def test_the_tool_starts_with_what_it_needs(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "anyipd.ctl", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=PARENT)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "argparse" in loaded
    assert not loaded & {"pydantic", "yaml", "structlog", "asyncio", "anyipd.policy"}
    assert not any(line for line in done.stderr.splitlines() if line.startswith("Traceback"))
