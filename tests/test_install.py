"""What `make install` leaves in a DESTDIR, judged by the programs that will read it."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from anyipd import policy
from anyipd.ctl.__main__ import SUBCOMMANDS
from tests.lab.make import ROOT, closed, make, output
from tests.lab.make import installed as make_installed

EXAMPLE = ROOT / "systemd" / "anyipd.yaml"
VENV = "usr/local/lib/anyipd"
UNIT = "usr/local/lib/systemd/system/anyipd.service"
LISTEN = "usr/local/share/anyipd/listen.conf"
SOCKET_UNIT = "usr/local/lib/systemd/system/anyipd.socket"
NEIGHBOUR_UNIT = "usr/local/lib/systemd/system/anyipd-neighbour.service"
FILES = {
    "etc/anyipd.yaml": 0o644,
    "etc/dhcp/dhclient-exit-hooks.d/anyipd": 0o755,
    "etc/dhcp/dhclient-exit-hooks.d/anyipd.sh": 0o755,
    "etc/iproute2/rt_protos.d/anyipd.conf": 0o644,
    UNIT: 0o644,
    "usr/lib/dhcpcd/dhcpcd-hooks/10-anyipd": 0o644,
    "usr/local/lib/systemd/system/dhcpcd.service.d/anyipd.conf": 0o644,
    LISTEN: 0o644,
    NEIGHBOUR_UNIT: 0o644,
    SOCKET_UNIT: 0o644,
    "usr/local/lib/sysctl.d/60-anyipd.conf": 0o644,
    "usr/local/lib/sysusers.d/anyipd.conf": 0o644,
    "usr/local/lib/tmpfiles.d/anyipd.conf": 0o644,
    "usr/local/share/man/man5/anyipd.yaml.5": 0o644,
    "usr/local/share/man/man7/io.anyipd.7": 0o644,
    "usr/local/share/man/man8/anyipctl.8": 0o644,
    "usr/local/share/man/man8/anyipd-neighbour.8": 0o644,
    "usr/local/share/man/man8/anyipd.8": 0o644,
}


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_installed(tmp_path_factory, Path(sys.executable).resolve())


def test_every_user_may_read_what_was_installed_under_a_umask_that_lets_none(installed: Path) -> None:
    assert closed(installed) == []


def test_every_file_is_where_its_reader_looks(installed: Path) -> None:
    outside = {name for name in files(installed) if not name.startswith(f"{VENV}/")}
    programs = {name for name in outside if name.startswith("usr/local/bin/")}
    assert {f"usr/local/bin/{name}" for name in ("anyipd", "anyipctl", "anyipd-neighbour")} <= programs
    assert outside - programs == set(FILES)
    assert {name: (installed / name).stat().st_mode & 0o777 for name in FILES} == FILES
    assert all((installed / name).resolve().is_relative_to(installed / VENV / "bin") for name in programs)


def test_the_programs_run_from_where_they_will_be(installed: Path) -> None:
    for name in ("anyipd", "anyipctl", "anyipd-neighbour"):
        shebang = (installed / "usr/local/bin" / name).read_text().splitlines()[0]
        assert shebang == f"#!/{VENV}/bin/python"
    told = [
        name
        for name in files(installed)
        if not (installed / name).is_symlink() and str(installed).encode() in (installed / name).read_bytes()
    ]
    assert told == []


def test_the_virtual_environment_is_whole(installed: Path) -> None:
    python = installed / VENV / "bin" / "python"
    found = output([str(python), "-I", "-c", "import anyipd, anyipd.daemon; print(anyipd.__file__)"])
    assert Path(found.strip()).is_relative_to(installed)


def test_no_memory_need_be_both_written_and_executed(installed: Path) -> None:
    program = (
        "import ctypes\n"
        "set_mdwe, refuse_exec_gain = 65, 1\n"  # linux/prctl.h
        "if ctypes.CDLL(None, use_errno=True).prctl(set_mdwe, refuse_exec_gain, 0, 0, 0):\n"
        "    raise SystemExit(print('no MDWE'))\n"
        "callback = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7)\n"
        "assert callback() == 7\n"
        "import anyipd.policy, anyipd.daemon\n"
        "anyipd.policy.parse('', 'none')\n"
    )
    if output([str(installed / VENV / "bin" / "python"), "-I", "-c", program]):
        pytest.skip("the kernel is older than 6.3")


@pytest.mark.parametrize("name", ["anyipd", "anyipd-neighbour"])
def test_the_unit_is_sound(installed: Path, tmp_path: Path, name: str) -> None:
    unit = (installed / UNIT).with_stem(name).read_text()
    assert f"ExecStart=/usr/local/bin/{name}\n" in unit
    here = tmp_path / f"{name}.service"
    here.write_text(unit.replace("=/usr/local/bin/", f"={installed}/usr/local/bin/"))
    shutil.copy(installed / SOCKET_UNIT, tmp_path)
    environment = {**os.environ, "MANPATH": f"{installed}/usr/local/share/man"}
    assert output(["systemd-analyze", "verify", "--recursive-errors=no", str(here)], environment) == ""


@pytest.mark.parametrize(("name", "most"), [("anyipd", 1.3), ("anyipd-neighbour", 2.0)])
def test_the_unit_is_hardened(installed: Path, name: str, most: float) -> None:
    unit = (installed / UNIT).with_stem(name)
    verdict = output(["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)])
    exposure = re.search(rf"Overall exposure level for {name}.service: ([\d.]+)", verdict)
    assert exposure
    assert float(exposure[1]) <= most


def test_the_unit_is_hardened_while_listening(installed: Path, tmp_path: Path) -> None:
    unit, drop_in = (installed / UNIT).read_text(), (installed / LISTEN).read_text()
    here = tmp_path / "anyipd.service"
    # With --offline drop-ins are not read: a section may also come in parts.
    here.write_text(f"{unit}\n{drop_in}")
    verdict = output(["systemd-analyze", "security", "--offline=true", "--no-pager", str(here)])
    assert "Service may allocate packet sockets" in verdict
    exposure = re.search(r"Overall exposure level for anyipd.service: ([\d.]+)", verdict)
    assert exposure
    assert float(exposure[1]) <= 2.0


def test_the_user_and_the_runtime_directory_are_made(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for kind in ("sysusers.d", "tmpfiles.d"):
        shutil.copytree(installed / "usr/local/lib" / kind, tmp_path / "usr/local/lib" / kind)
    output(["systemd-sysusers", f"--root={tmp_path}"])
    user = (tmp_path / "etc/passwd").read_text()
    assert re.fullmatch(r"anyipd:.*:/usr/sbin/nologin\n", user)
    output(["systemd-tmpfiles", f"--root={tmp_path}", "--create"])
    for name in ("run/anyipd", "run/anyipd/leases", "run/anyipd/heard"):
        assert oct((tmp_path / name).stat().st_mode & 0o777) == "0o755"


def test_the_sysctl_is_set(installed: Path) -> None:
    setting = installed / "usr/local/lib/sysctl.d/60-anyipd.conf"
    read = "sysctl --quiet --load=$0 && sysctl -n net.ipv6.ip_nonlocal_bind"
    assert output(["unshare", "-rn", "sh", "-c", read, str(setting)]) == "1\n"


def test_the_route_protocol_has_a_name(installed: Path) -> None:
    show = (
        "mount --bind $0 /etc/iproute2 && ip link set lo up &&"
        " ip -6 route add local 2001:db8::/64 dev lo proto 150 && ip -6 route show table local"
    )
    routes = output(["unshare", "-rnm", "sh", "-c", show, str(installed / "etc/iproute2")])
    assert "local 2001:db8::/64 dev lo proto anyipd " in routes


def test_dhclient_script_finds_the_hook_once(installed: Path) -> None:
    hooks = installed / "etc/dhcp/dhclient-exit-hooks.d"
    assert output(["run-parts", "--list", str(hooks)]) == f"{hooks}/anyipd\n"


def test_programs_elsewhere_have_their_unit_where_systemd_looks(installed: Path, tmp_path: Path) -> None:
    anyipctl = [str(installed / VENV / "bin/python"), "-P", "-m", "anyipd.ctl"]
    said = output([*anyipctl, "install", "--root", str(tmp_path), "--prefix", "/opt/uv/anyipd"])
    assert files(tmp_path) == set(FILES)
    assert set(said.splitlines()) == {f"write {tmp_path / name}" for name in FILES}
    assert "ExecStart=/opt/uv/anyipd/bin/anyipd\n" in (tmp_path / UNIT).read_text()
    output([*anyipctl, "uninstall", "--root", str(tmp_path)])
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    "page",
    [
        *("man5/anyipd.yaml.5", "man7/io.anyipd.7"),
        *("man8/anyipctl.8", "man8/anyipd.8", "man8/anyipd-neighbour.8"),
    ],
)
def test_the_manual_is_sound_and_tells_of_every_command(installed: Path, page: str) -> None:
    path = installed / "usr/local/share/man" / page
    assert output(["groff", "-mandoc", "-ww", "-z", str(path)]) == ""
    if path.name == "anyipctl.8":
        assert set(re.findall(r"^\.It Ic (\w+)", path.read_text(), re.MULTILINE)) == set(SUBCOMMANDS)


def test_the_example_is_the_default_until_edited() -> None:
    shipped = EXAMPLE.read_text()
    assert policy.parse(shipped, "example") == policy.DEFAULT
    edited = policy.parse(re.sub(r"^#(?! \S)", "", shipped, flags=re.MULTILINE), "example")
    assert [subnet.name for subnet in edited.subnets] == ["web", "proxies", "docker", "lab"]
    assert edited.accept == policy.DEFAULT.accept
    assert edited.unassigned == policy.DEFAULT.unassigned
    assert len(edited.static) == 2


def test_a_changed_configuration_survives_and_nothing_else_does(installed: Path, tmp_path: Path) -> None:
    directory = tmp_path / "with a space"
    shutil.copytree(installed, directory, symlinks=True)
    config = directory / "etc/anyipd.yaml"
    config.write_text("unassigned: none\n")
    before = files(directory)
    make("install", f"DESTDIR={directory}", dist=tmp_path / "dist")
    assert config.read_text() == "unassigned: none\n"
    assert files(directory) == before
    assert f"Kept: {config}, which you changed" in make(
        "uninstall", f"DESTDIR={directory}", dist=tmp_path / "dist"
    )
    assert files(directory) == {"etc/anyipd.yaml"}
    make("uninstall", f"DESTDIR={directory}", dist=tmp_path / "dist")


def test_an_unchanged_configuration_goes_too(installed: Path, tmp_path: Path) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(installed, directory, symlinks=True)
    make("uninstall", f"DESTDIR={directory}", dist=tmp_path / "dist")
    assert files(directory) == set()
