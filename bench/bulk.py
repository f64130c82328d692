"""A whole /48, through the daemon: bound, renumbered and unbound."""

from __future__ import annotations

from collections.abc import Iterator

from bench.rig import NEW, OLD, WHOLE, Rig, rig
from bench.row import Row

WHOLE_POLICY = "subnets: [{name: all, count: all}]"


def rows(runs: int) -> Iterator[Row]:
    """Measure from the event that tells of a change to the last route changed, planning included."""
    figures: dict[str, list[float]] = {
        name: [] for name in ("bind", "renumber", "unbind", "add", "add and delete", "delete")
    }
    with rig("ours") as ours, rig("peer") as peer:
        ours.start(WHOLE_POLICY)
        for _ in range(runs):
            figures["bind"].append(ours.until_logged(lambda: ours.delegate(OLD), "bound"))
            ours.settled(WHOLE)
            figures["add"].append(peer.batch("add", OLD, WHOLE))
            figures["renumber"].append(ours.until_logged(lambda: _renumber(ours), "unbound"))
            ours.settled(WHOLE)
            figures["add and delete"].append(peer.batch("add", NEW, WHOLE) + peer.batch("delete", OLD, WHOLE))
            figures["unbind"].append(ours.until_logged(lambda: ours.withdraw(NEW), "unbound"))
            ours.settled(0)
            figures["delete"].append(peer.batch("delete", NEW, WHOLE))
    yield Row("65,536 bound, from the event", "ms", figures["bind"], "ip -batch", figures["add"], goal=0.6)
    yield Row(
        "65,536 renumbered",
        "ms",
        figures["renumber"],
        "ip -batch, add and delete",
        figures["add and delete"],
        goal=0.6,
    )
    yield Row("65,536 unbound", "ms", figures["unbind"], "ip -batch", figures["delete"])


def _renumber(ours: Rig) -> None:
    file = ours.folder / "renumber"
    routes = ((NEW, "add"), (OLD, "delete"))
    file.write_text("".join(f"route {verb} unreachable {p} dev lo proto dhcp\n" for p, verb in routes))
    ours.namespace.run("ip", "-6", "-batch", file)
