"""docs/SERVICES.md by real servers: its files and scripts are cut out of it and used as they stand."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from anyipd.model import Prefix, address_text
from tests.lab import debian
from tests.lab import machine as machines
from tests.lab.daemon import CHECKOUT, Daemon
from tests.lab.delegated import PREFIX, bound, delegate
from tests.lab.machine import Machine
from tests.lab.namespace import LabError, Namespace, wait_until
from tests.lab.network import HOST_LINK_LOCAL, Uplink

POLICY, NGINX = "/etc/anyipd.yaml", "/etc/nginx/conf.d/anyip.conf"
DNSMASQ, UNBOUND = "/etc/dnsmasq.d/anyip.conf", "/etc/unbound/unbound.conf.d/anyip.conf"
SOCKET, SERVICE = "/etc/systemd/system/wiki.socket", "/etc/systemd/system/wiki.service"
TINYPROXY, FIREWALL = "/etc/tinyproxy/tinyproxy.conf", "/etc/anyipd.nft"
CURL = "A page, asked for from an address of its own"
CURL_PROXY = "A page, asked for through the proxy"
LEAVE = "Connections leave by 256 addresses at random"
CONTAINER = "The subnet `containers` for the network namespace `shop`"

CURL_INTERFACE_FAILED = 45

WEB, PROXIES, CONTAINERS = (Prefix.parse(f"2001:db8:100:{number}::/64") for number in ("0", "1", "f"))
RENUMBERED = "2001:db8:200::/60"
ASSIGNED = "2001:db8:50::2"
"""An address on the host's end of the uplink."""

ANYIPCTL = """\
#!/bin/sh
PYTHONPATH={checkout} exec {python} -m anyipd.ctl "$@" {files}
"""

NGINX_AROUND = """\
user root;
daemon off;
master_process off;
pid nginx.pid;
events {{ }}
http {{
    access_log off;
    client_body_temp_path temporary;
    proxy_temp_path temporary;
    fastcgi_temp_path temporary;
    uwsgi_temp_path temporary;
    scgi_temp_path temporary;
{site}
}}
"""
"""What stands around a site's file, with all that nginx writes in a folder of its own."""

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


def examples() -> dict[str, str]:
    """Give the document's code blocks, each by its first line, a comment that says what it is."""
    document = (CHECKOUT / "docs/SERVICES.md").read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```$", document, re.DOTALL | re.MULTILINE)
    return {block.partition("\n")[0].removeprefix("# "): block for block in blocks}


def test_every_example_is_tried_below() -> None:
    assert set(examples()) == {
        *(POLICY, NGINX, DNSMASQ, UNBOUND, SOCKET, SERVICE),
        *(TINYPROXY, FIREWALL, CURL, CURL_PROXY, LEAVE, CONTAINER),
    }


@dataclass
class Site:
    """A host that anyipd runs on, and the ISP that asks it, with the document's programs."""

    uplink: Uplink
    daemon: Daemon
    folder: Path

    @property
    def host(self) -> Namespace:
        return self.uplink.host

    @property
    def isp(self) -> Namespace:
        return self.uplink.isp

    @property
    def environment(self) -> dict[str, str]:
        """The lab's, with an anyipctl that knows this daemon's files, and no way out by a proxy."""
        found = {key: value for key, value in debian.environment().items() if "proxy" not in key.lower()}
        return {**found, "PATH": f"{self.folder}{os.pathsep}{found['PATH']}"}

    def example(self, name: str) -> Path:
        """Lay out one of the document's examples."""
        path = self.folder / f"{name.replace('/', '_')}"
        path.write_text(examples()[name])
        return path

    def delegate(self, prefix: str = PREFIX) -> None:
        """Have a prefix delegated, and wait until its subnets are bound."""
        self.uplink.route(Prefix.parse(prefix))
        before = len(bound(self.host))
        delegate(self.host, prefix)
        wait_until(lambda: len(bound(self.host)) == before + 2, 20)

    def allow_nonlocal_bind(self) -> None:
        """Set what the installed anyipd has set at boot."""
        self.host.run("sysctl", "--load", CHECKOUT / "systemd/anyipd.sysctl", env=self.environment)

    def states(self) -> dict[str, str]:
        """Give what became of each subnet of the policy."""
        return {each["name"]: each["state"] for each in self.daemon.status()["subnets"]}

    def random(self, subnet: str, count: int) -> list[str]:
        return self.daemon.control("random", subnet, "-n", str(count)).stdout.split()

    def load_firewall(self) -> None:
        """Load the document's firewall; once more, as after an edit, changes nothing."""
        file, loaded = self.example(FIREWALL), []
        for _ in range(2):
            self.host.run("nft", "--file", file, env=self.environment)
            loaded.append(self.host.run("nft", "list", "ruleset", env=self.environment).stdout)
        assert loaded[0] == loaded[1]

    def script(self, name: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of the document's scripts on the host."""
        return self.host.run("sh", "-e", self.example(name), check=check, env=self.environment)

    def get(self, url: str, *options: str, by: Namespace | None = None) -> str | None:
        """Ask for a page, from the ISP or another namespace; None where nobody gives it."""
        curl = ["curl", "--silent", "--fail", "--globoff", "--max-time", "10", *options, url]
        done = (by or self.isp).run(*curl, check=False, env=self.environment)
        return done.stdout.strip() if done.returncode == 0 else None

    def page(self, address: str, port: int = 80) -> str | None:
        """Ask for a page from the ISP."""
        return self.get(f"http://[{address}]:{port}/")

    def start(
        self, namespace: Namespace, *command: str | Path, ready: Callable[[], object]
    ) -> subprocess.Popen[str]:
        """Start a server, and wait until it serves.

        Raises RuntimeError, with what it said, when it ends instead.
        """
        log = self.folder / f"{namespace.name}.{len(namespace.processes)}.log"
        with log.open("w") as output:
            process = namespace.popen(*command, stdout=output, stderr=output, env=self.environment)

        def serves() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{command} ended with {process.returncode}:\n{log.read_text()}")
            return bool(ready())

        wait_until(serves, 20)
        return process

    def nginx(self, namespace: Namespace, site: str, *within: str, url: str = "http://[::1]/") -> None:
        """Start nginx with what `site` says of servers; it must then serve `url`."""
        folder = self.folder / f"{namespace.name}.{len(namespace.processes)}"
        folder.mkdir()
        (folder / "nginx.conf").write_text(NGINX_AROUND.format(site=site))
        program = ("nginx", "-p", folder, "-e", "stderr", "-c", "nginx.conf")
        self.start(namespace, *within, *program, ready=lambda: self.get(url, by=namespace) is not None)

    def web_server(self, *within: str) -> None:
        """Start the document's web server on the host."""
        self.nginx(self.host, f"include {self.example(NGINX)};", *within)

    def outside(self) -> None:
        """Start a web server at the ISP that says who asked; the host knows it as www.example.org."""
        self.nginx(self.isp, 'server { listen [::]:80; return 200 "$remote_addr\\n"; }')

    def asks(self, server: str, by: Namespace | None = None) -> bool:
        """Say whether a resolver, the ISP's or another's, gets an answer from `server` itself."""
        words = ["nslookup", "-timeout=2", "-retry=1", "-type=aaaa", "www.example.org", server]
        done = (by or self.isp).run("busybox", *words, check=False, env=self.environment)
        return "2001:db8:100::cafe" in done.stdout

    def through(self, address: str, *options: str, by: Namespace | None = None) -> str | None:
        """Ask for www.example.org through the proxy at `address`."""
        proxy = f"http://[{address}]:8888"
        return self.get("http://www.example.org/", "--proxy", proxy, *options, by=by or self.host)


@contextlib.contextmanager
def mounted(*arguments: str | Path) -> Iterator[None]:
    """Mount in the lab, where the machine does not see it."""
    subprocess.run(["mount", *arguments], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", arguments[-1]], check=True)


@pytest.fixture
def idle(uplink: Uplink, daemon: Daemon, tmp_path: Path) -> Iterator[Site]:
    """A site on which anyipd runs, with the document's policy, and nothing is delegated yet."""
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{uplink.address} www.example.org\n")
    anyipctl = tmp_path / "anyipctl"
    anyipctl.write_text(
        ANYIPCTL.format(checkout=CHECKOUT, python=sys.executable, files=" ".join(daemon.files))
    )
    anyipctl.chmod(0o755)
    daemon.configure(examples()[POLICY])
    daemon.start()
    with mounted("--bind", hosts, "/etc/hosts"), mounted("-t", "tmpfs", "pages", "/srv"):
        for name in ("any", "cafe", "slog"):
            pages = Path("/srv/www", name)
            pages.mkdir(parents=True)
            (pages / "index.html").write_text(f"{name}\n")
        Path("/srv/www/any/large").write_text("0123456789" * 100_000)
        uplink.host.ip(f"addr add {ASSIGNED}/128 dev uplink nodad")
        uplink.route(Prefix.parse(f"{ASSIGNED}/128"))
        yield Site(uplink, daemon, tmp_path)


@pytest.fixture
def site(idle: Site) -> Site:
    """The same, with a delegated prefix."""
    idle.delegate()
    return idle


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
            said = "".join(entry.message for entry in machine.journal("wiki.socket"))
            assert "Cannot assign requested address" in said
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


def test_a_container_in_the_hosts_network(site: Site) -> None:
    site.web_server("unshare", "--pid", "--ipc", "--uts", "--mount", "--fork", "--kill-child")
    for address in site.random("web", 3):
        assert site.page(address) == "any"


def test_a_container_with_a_subnet_to_itself(site: Site, lab: Callable[[str], Namespace]) -> None:
    container = lab("shop")
    site.script(CONTAINER)
    site.nginx(container, 'server { listen [::]:80; return 200 "shop\\n"; }')
    (web,) = site.random("web", 1)
    assert site.uplink.answers(CONTAINERS, 50, timeout=10) == 50
    assert site.page("2001:db8:100:f::cafe") == "shop"
    assert site.states() == {"web": "bound", "proxies": "bound", "containers": "reserved"}
    # A part of a bound subnet cannot be given away so.
    site.host.ip(f"-6 route add {web}/128 via fe80::2 dev shop")
    wait_until(lambda: bound(site.host) == {str(PROXIES)}, 20)
    assert site.states()["web"] == "conflict"


@pytest.fixture
def guarded(site: Site) -> Site:
    """A site with the document's web server and, then, its firewall."""
    site.web_server()
    for address in ("2001:db8:100::1:2:3", "2001:db8:100:1::1:2:3"):
        assert [site.page(address, port) for port in (80, 443)] == ["any"] * 2
    site.load_firewall()
    return site


def test_the_firewall_opens_one_port_of_one_subnet(guarded: Site) -> None:
    guarded.delegate(RENUMBERED)
    # All at once: a TCP on the same machine takes a second to hear that it is refused.
    with ThreadPoolExecutor() as pool:
        for delegated in ("2001:db8:100", "2001:db8:200"):
            web, proxies = f"{delegated}::1:2:3", f"{delegated}:1::1:2:3"
            asked = [(web, 443), (web, 80), (proxies, 443), (proxies, 80)]
            assert list(pool.map(lambda each: guarded.page(*each), asked)) == ["any", None, None, None]


def corners(subnet: Prefix) -> list[str]:
    """Give the first, a middle and the last address. The kernel takes the first for anycast."""
    return [address_text(each) for each in (subnet.address, subnet.address + 0x123456789, subnet.end - 1)]


def test_the_firewall_holds_at_the_edges_of_every_bound_subnet(site: Site) -> None:
    site.web_server()
    site.nginx(site.host, 'server { listen [::]:22; return 200 "ssh\\n"; }', url="http://[::1]:22/")
    site.delegate(RENUMBERED)
    subnets = sorted(map(Prefix.parse, bound(site.host)))
    assert len(subnets) == 4
    open_subnets = {WEB, Prefix.parse("2001:db8:200::/64")}
    asked = [(subnet, address) for subnet in subnets for address in corners(subnet)]

    def pages(port: int) -> list[str | None]:
        # All at once: a TCP on the same machine takes a second to hear that it is refused.
        with ThreadPoolExecutor() as pool:
            return list(pool.map(lambda each: site.page(each[1], port), asked))

    assert set(pages(22)) == {"ssh"}
    assert set(pages(443)) == {"any"}
    site.load_firewall()
    assert pages(22) == [None] * len(asked)
    assert pages(443) == ["any" if subnet in open_subnets else None for subnet, _ in asked]
    assert site.page(ASSIGNED, 22) == "ssh"
    addresses = {Prefix.parse(f"{address}/128").address for _, address in asked}
    assert site.uplink.answering(addresses, timeout=5) == addresses


def test_the_firewall_harms_no_neighbour_discovery(site: Site, neighbour: Daemon) -> None:
    site.daemon.configure(examples()[POLICY].replace("id: 0}", "id: 0, neighbours: [uplink]}"))
    site.daemon.reload()
    neighbour.start()
    site.load_firewall()
    customer = site.uplink.customer
    site.isp.ip(f"-6 route replace {WEB} dev {customer}")
    site.isp.ip(f"addr add 2001:db8:50::1/64 dev {customer} nodad")
    site.isp.ip(f"-6 route replace {ASSIGNED}/128 dev {customer}")
    # The router asks again after a second, then by unicast, which comes to the firewall.
    for key, value in ("base_reachable_time_ms", 500), ("delay_first_probe_time", 1):
        site.isp.sysctl(f"net.ipv6.neigh.{customer}.{key}", value)
    addresses = {Prefix.parse(f"{address}/128").address for address in (*corners(WEB), ASSIGNED)}
    for _ in range(8):
        assert site.uplink.answering(addresses, timeout=5) == addresses
        time.sleep(0.5)
    states = {each["dst"]: each["state"] for each in site.isp.ip_json(f"-6 neigh show dev {customer}")}
    assert not [state for state in states.values() if {"FAILED", "INCOMPLETE"} & set(state)]


def test_the_firewall_leaves_the_hosts_own_addresses_alone(guarded: Site) -> None:
    guarded.isp.ip(f"-6 neigh flush dev {guarded.uplink.customer}")
    guarded.host.ip("-6 neigh flush dev uplink")
    assert guarded.page(ASSIGNED) == "any"
    assert guarded.page(f"{HOST_LINK_LOCAL}%{guarded.uplink.customer}") == "any"
    assert guarded.get("http://[2001:db8:100::1:2:3]/", by=guarded.host) == "any"
    elsewhere = "2001:db8:50::3"
    guarded.host.ip(f"addr add {elsewhere}/128 dev lo")
    guarded.uplink.route(Prefix.parse(f"{elsewhere}/128"))
    assert guarded.page(elsewhere) is None


def test_the_firewall_lets_replies_and_icmpv6_in(guarded: Site, lab: Callable[[str], Namespace]) -> None:
    assert guarded.uplink.answers(WEB, 20, timeout=10) == 20
    assert guarded.uplink.answers(PROXIES, 20, timeout=10) == 20
    guarded.outside()
    guarded.allow_nonlocal_bind()
    assert PROXIES.covers(Prefix.parse(guarded.script(CURL).stdout.strip()))
    # A link on the way that takes less than either end says: Packet Too Big goes to an AnyIP address.
    far = lab("far")
    guarded.isp.sysctl("net.ipv6.conf.all.forwarding", 1)
    guarded.isp.ip("link add far type veth peer name uplink netns far")
    guarded.isp.ip("addr add 2001:db8:fa::1/64 dev far nodad")
    guarded.isp.ip("link set far up mtu 1280")
    far.ip("addr add 2001:db8:fa::2/64 dev uplink nodad")
    far.ip("link set uplink up")
    far.ip("-6 route add default via 2001:db8:fa::1")
    page = guarded.get("http://[2001:db8:100::1:2:3]:443/large", by=far)
    assert page is not None
    assert len(page) == 1_000_000


def test_ipv4_needs_no_sysctl_and_is_closed_too(site: Site) -> None:
    site.daemon.configure(f"{examples()[POLICY]}static: [192.0.2.0/24]\n")
    site.daemon.reload()
    site.isp.ip("addr add 198.51.100.1/24 dev customer")
    site.host.ip("addr add 198.51.100.2/24 dev uplink")
    site.isp.ip("route add 192.0.2.0/24 via 198.51.100.2")
    assigned, anyip = "http://198.51.100.2/", "http://192.0.2.7/"
    servers = (
        f'server {{ listen {address}:80; return 200 "v4\\n"; }}' for address in ("198.51.100.2", "192.0.2.7")
    )
    site.nginx(site.host, "\n".join(servers), url=anyip)
    assert [site.get(assigned), site.get(anyip)] == ["v4", "v4"]
    site.load_firewall()
    assert [site.get(assigned), site.get(anyip)] == ["v4", None]
