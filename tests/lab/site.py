"""The host and the ISP of docs/SERVICES.md, with its files and scripts as they stand there."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from anyipd.model import Prefix
from tests.lab.daemon import CHECKOUT, Daemon
from tests.lab.delegated import PREFIX, bound, delegate
from tests.lab.namespace import Namespace, wait_until
from tests.lab.network import Uplink
from tests.lab.programs import services

POLICY, ONE = "/etc/anyipd.yaml", "/etc/anyipd.yaml where there is one /64"
NGINX, FIREWALL = "/etc/nginx/conf.d/anyip.conf", "/etc/anyipd.nft"
NAMESPACE = "The subnet `containers` for the network namespace `shop`"

WEB, PROXIES, CONTAINERS = (Prefix.parse(f"2001:db8:100:{number}::/64") for number in ("0", "1", "f"))
RENTED = Prefix.parse("2001:db8:5::/64")
ASSIGNED = "2001:db8:50::2"
"""An address on the host's end of the uplink."""

RENUMBERED = "2001:db8:200::/60"

CURL = "A page, asked for from an address of its own"

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


def examples() -> dict[str, str]:
    """Give the document's code blocks, each by its first line, a comment that says what it is."""
    document = (CHECKOUT / "docs/SERVICES.md").read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```$", document, re.DOTALL | re.MULTILINE)
    return {block.partition("\n")[0].removeprefix("# "): block for block in blocks}


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
        found = {key: value for key, value in services().items() if "proxy" not in key.lower()}
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
        words = ["nslookup", "-timeout=5", "-retry=5", "-type=aaaa", "www.example.org", server]
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
        subprocess.run(["umount", "--lazy", arguments[-1]], check=True)  # a server may still close a file


@contextlib.contextmanager
def set_up(uplink: Uplink, daemon: Daemon, folder: Path) -> Iterator[Site]:
    """Start anyipd with the document's policy; nothing is delegated yet."""
    hosts = folder / "hosts"
    hosts.write_text(f"{uplink.address} www.example.org\n")
    anyipctl = folder / "anyipctl"
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
        yield Site(uplink, daemon, folder)
