"""A Docker daemon of a namespace's own, with an image that holds busybox and a page."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from shutil import copy, rmtree
from tempfile import mkdtemp
from typing import Any, Self

from tests.lab.namespace import Namespace, stop, wait_until
from tests.lab.programs import SERVICES, need, services

IMAGE = "busybox"

ALONE = ("unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc")
"""What Docker starts and mounts goes with it, however it ends."""


class Docker:
    """`dockerd` in `host`, with `configuration` as its daemon.json. A `with` block starts and ends it.

    It writes no rules for iptables: what is tried with it is routing.
    """

    def __init__(self, host: Namespace, configuration: str = "{}") -> None:
        self.host = host
        self.folder = Path(mkdtemp(dir="/run"))  # a short path: it makes sockets there
        (self.folder / "daemon.json").write_text(configuration)
        self.socket = f"unix://{self.folder}/socket"
        self.log = self.folder / "log"

    def __enter__(self) -> Self:
        folder = self.folder
        with self.log.open("w") as log:
            self.process = self.host.popen(
                *ALONE,
                need("dockerd", services()),
                f"--config-file={folder}/daemon.json",
                f"--data-root={folder}/data",
                f"--exec-root={folder}/exec",
                f"--pidfile={folder}/pid",
                f"--host={self.socket}",
                "--storage-driver=vfs",
                "--iptables=false",
                "--ip6tables=false",
                stdout=log,
                stderr=log,
                env=services(),
            )
        wait_until(self.is_up, 60)
        self.import_image()
        return self

    def __exit__(self, *_: object) -> None:
        if containers := self.docker("ps", "--all", "--quiet").split():
            self.docker("rm", "--force", *containers)  # with their cgroups
        stop(self.process, signal.SIGKILL)
        rmtree(self.folder, ignore_errors=True)

    def is_up(self) -> bool:
        """Return whether it answers. Raise RuntimeError, with its log, when it ended instead."""
        if self.process.poll() is not None:
            raise RuntimeError(f"dockerd ended with {self.process.returncode}:\n{self.log.read_text()}")
        return self.host.run(*self.command("version"), check=False, env=services()).returncode == 0

    def import_image(self) -> None:
        """Make the image."""
        root = self.folder / "image"
        (root / "bin").mkdir(parents=True)
        copy(SERVICES / "root/bin/busybox", root / "bin")
        (root / "index.html").write_text("docker\n")
        with subprocess.Popen(["tar", "--create", f"--directory={root}", "."], stdout=subprocess.PIPE) as tar:
            self.host.run(*self.command("import", "-", IMAGE), stdin=tar.stdout, env=services())

    def command(self, *words: str) -> list[str]:
        """Return the command line of `docker` with these words."""
        return ["docker", f"--host={self.socket}", *words]

    def serve(self, name: str, *options: str) -> None:
        """Start a container that serves the page."""
        self.docker(
            "run", "--detach", "--name", name, *options, IMAGE, "/bin/busybox", "httpd", "-f", "-h", "/"
        )

    def docker(self, *words: str) -> str:
        """Run `docker` with these words; return what it printed."""
        return self.host.run(*self.command(*words), env=services()).stdout

    def address(self, container: str, network: str) -> str:
        """Return the IPv6 address that Docker gave a container."""
        shown: list[dict[str, Any]] = json.loads(self.docker("inspect", container))
        return str(shown[0]["NetworkSettings"]["Networks"][network]["GlobalIPv6Address"])
