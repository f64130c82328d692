"""Programs of docs/SERVICES.md by real servers: its files and scripts are cut out and used as they stand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from anyipd.model import Prefix
from tests.lab import machine as machines
from tests.lab.daemon import CHECKOUT
from tests.lab.machine import Machine
from tests.lab.namespace import LabError, wait_until
from tests.lab.site import ASSIGNED, CURL, PROXIES, RENUMBERED, Site, examples

DNSMASQ, UNBOUND = "/etc/dnsmasq.d/anyip.conf", "/etc/unbound/unbound.conf.d/anyip.conf"
SOCKET, SERVICE = "/etc/systemd/system/wiki.socket", "/etc/systemd/system/wiki.service"
TINYPROXY = "/etc/tinyproxy/tinyproxy.conf"
CURL_PROXY = "A page, asked for through the proxy"
LEAVE = "Connections leave by 256 addresses at random"

CURL_INTERFACE_FAILED = 45

UNBOUND_AROUND = """\
server:
    do-daemonize: no
    chroot: ""
    username: ""
    use-syslog: no
    directory: "{folder}"
    pidfile: unbound.pid
remote-control:
    control-enable: no
include: "{example}"
"""


def test_every_example_is_tried() -> None:
    files = [*(CHECKOUT / "tests").glob("test_services*.py"), CHECKOUT / "tests/lab/site.py"]
    tests = "".join(file.read_text() for file in files)
    assert [name for name in examples() if name not in tests] == []


def test_a_web_server_on_every_address(site: Site) -> None:
    site.web_server()
    for address in (*site.random("web", 10), *site.random("proxies", 10)):
        assert site.page(address) == "any"
    assert site.page("2001:db8:100::cafe") == "cafe"
    assert site.page("2001:db8:100:1::cafe") == "cafe"
    assert site.page("2001:db8:100::5109") == "slog"
    assert site.page("2001:db8:100::1:cafe") == "any"
    site.delegate(RENUMBERED)
    assert site.page("2001:db8:200::cafe") == "cafe"


@pytest.mark.parametrize("sysctl", ["unset", "set"])
def test_dnsmasq_answers_with_the_sysctl_alone(site: Site, sysctl: str) -> None:
    if sysctl == "set":
        site.allow_nonlocal_bind()
    program = ["dnsmasq", "--no-daemon", f"--conf-file={site.example(DNSMASQ)}"]
    site.start(site.host, *program, ready=lambda: site.asks("::1", by=site.host))
    assert site.asks(ASSIGNED)
    assert site.asks("2001:db8:100::53") == (sysctl == "set")


@pytest.mark.parametrize("option", ["yes", "no"])
def test_unbound_answers_by_its_own_option(site: Site, option: str) -> None:
    example, configuration = site.example(UNBOUND), site.folder / "unbound.conf"
    example.write_text(example.read_text().replace("ip-freebind: yes", f"ip-freebind: {option}"))
    configuration.write_text(UNBOUND_AROUND.format(folder=site.folder, example=example))
    site.start(site.host, "unbound", "-d", "-c", configuration, ready=lambda: site.asks("::1", by=site.host))
    assert site.asks(ASSIGNED)
    assert site.asks("2001:db8:100::53") == (option == "yes")


def test_a_socket_unit_has_an_address_before_there_is_a_prefix(idle: Site) -> None:
    reason = machines.obstacle()
    if reason:
        pytest.skip(reason)
    page = 'server { listen 127.0.0.1:8080; return 200 "wiki\\n"; }'
    idle.nginx(idle.host, page, url="http://127.0.0.1:8080/")
    try:
        with Machine(idle.host) as machine:
            for unit in (SOCKET, SERVICE):
                Path(f"{machine.root}{unit}").write_text(examples()[unit])
            machine.boot()
            machine.run("systemctl", "enable", "--now", "wiki.socket")
            assert idle.page("2001:db8:100::8080") is None
            idle.delegate()
            assert idle.page("2001:db8:100::8080") == "wiki"
            assert idle.page("2001:db8:100::8081") is None
            without = examples()[SOCKET].replace("FreeBind=yes", "FreeBind=no")
            Path(f"{machine.root}{SOCKET}").write_text(without)
            machine.run("systemctl", "daemon-reload")
            machine.run("systemctl", "restart", "wiki.socket", check=False)
            missed = "Cannot assign requested address"  # systemd does not wait for the journal
            wait_until(lambda: any(missed in each.message for each in machine.journal("wiki.socket")))
    except LabError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))


def test_a_request_leaves_by_an_address_of_its_own(site: Site) -> None:
    site.outside()
    assert site.script(CURL, check=False).returncode == CURL_INTERFACE_FAILED
    site.allow_nonlocal_bind()
    seen = [site.script(CURL).stdout.strip() for _ in range(3)]
    assert len(set(seen)) == 3
    assert all(PROXIES.covers(Prefix.parse(address)) for address in seen)


def test_a_proxy_leaves_by_the_address_it_was_asked_at(site: Site) -> None:
    site.outside()
    site.allow_nonlocal_bind()
    address = site.random("proxies", 1)[0]
    program = ("tinyproxy", "-d", "-c", site.example(TINYPROXY))
    site.start(site.host, *program, ready=lambda: site.through(address))
    for client in (site.host, site.isp):
        for address in site.random("proxies", 8):
            assert site.through(address, by=client) == address
    seen = site.script(CURL_PROXY).stdout.strip()
    assert PROXIES.covers(Prefix.parse(seen))
    stranger = ["--interface", "2001:db8:eeee::1"]
    site.isp.ip("addr add 2001:db8:eeee::1/128 dev lo")
    assert site.through(address, *stranger, by=site.isp) is None


def test_connections_leave_by_addresses_at_random(site: Site) -> None:
    site.outside()
    assert site.get("http://www.example.org/", by=site.host) == ASSIGNED
    for _ in range(2):
        site.script(LEAVE)
        seen = [site.get("http://www.example.org/", by=site.host) or "" for _ in range(20)]
        assert len(set(seen)) > 10
        assert all(PROXIES.covers(Prefix.parse(address)) for address in seen)
