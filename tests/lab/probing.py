"""`anyipctl probe` in a test: what it found, and doing what it says is next."""

from __future__ import annotations

import json
import re
from typing import Any

from anyipd.model import Prefix
from tests.lab import debian
from tests.lab.daemon import Daemon
from tests.lab.delegated import write_lease
from tests.lab.namespace import Namespace
from tests.lab.network import Uplink


def start_routed(daemon: Daemon, uplink: Uplink, prefix: str, policy: str) -> Daemon:
    """Start it with a prefix that the ISP routes here, where programs may bind to any address."""
    uplink.isp.sysctl("net.ipv6.conf.all.forwarding", 1)
    uplink.host.sysctl("net.ipv6.ip_nonlocal_bind", 1)
    uplink.route(Prefix.parse(prefix))
    daemon.configure(policy)
    write_lease(daemon.runtime, prefix=prefix)
    daemon.start()
    return daemon


def probe(daemon: Daemon, *words: str, code: int) -> list[dict[str, Any]]:
    """Give what it prints as JSON; it must end with `code`."""
    done = daemon.control("probe", "--json", *words, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    probes: list[dict[str, Any]] = json.loads(done.stdout)
    return probes


def follow_advice(host: Namespace, probed: dict[str, Any]) -> None:
    """Run the command that a verdict names as the next step, without the words behind it."""
    command = re.split("[,;]", probed["verdict"]["next_step"])[0]
    host.run("sh", "-ec", command, env=debian.environment())


def drop_at(router: Namespace, link: str, what: str) -> None:
    """Have a router drop what comes in by a link and matches, in nft's words."""
    chain = f"type filter hook prerouting priority -300; iifname {link} {what} drop;"
    table = f"table inet drops {{ chain incoming {{ {chain} }}; }}"
    router.run("nft", "-f", "-", input=table, env=debian.environment())
