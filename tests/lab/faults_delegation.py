"""Faults in the life of a delegation: of the uplink, the DHCPv6 client and the server."""

from __future__ import annotations

import signal

from anyipd.model import Prefix
from tests.lab.dhcpcd import Dhcpcd
from tests.lab.kea import Offer
from tests.lab.namespace import stop, wait_until
from tests.lab.network import ISP_LINK_LOCAL
from tests.lab.stage import PREFERRED, VALID, WHOLE_WITHIN, Line, Stage

OTHER_ROUTER = "fe80::9"


def uplink_down(stage: Stage) -> None:
    line = stage.pick_line()
    with stage.trouble(line.covers) as trouble:
        stage.host.ip(f"link set {line.uplink.interface} down")
        stage.a_while(0.5)
        trouble.lifted()
        stage.host.ip(f"link set {line.uplink.interface} up")
        line.connect()


def router_replaced(stage: Stage) -> None:
    line = stage.pick_line()
    line.uplink.isp.ip(f"addr replace {OTHER_ROUTER}/64 dev {line.uplink.customer} nodad")
    with stage.trouble() as trouble:
        for router in OTHER_ROUTER, ISP_LINK_LOCAL:
            trouble.lifted()
            line.router = router
            line.route()
            stage.wait_until_whole()


def uplink_renamed(stage: Stage) -> None:
    line = stage.pick_line()
    name = line.uplink.interface
    with stage.trouble(line.covers) as trouble:
        stage.host.ip(f"link set {name} down")
        stage.host.ip(f"link set {name} name elsewhere")
        stage.a_while(0.5)
        stage.host.ip(f"link set elsewhere name {name}")
        trouble.lifted()
        stage.host.ip(f"link set {name} up")
        line.connect()


def uplink_removed(stage: Stage) -> None:
    """Take the host's end away, as a card is pulled, and put it back without its addresses and routes."""
    line = stage.pick_line()
    name, isp, host = line.uplink.interface, line.uplink.isp, stage.host
    with stage.trouble(line.covers) as trouble:
        host.ip(f"link set {name} netns {isp.name}")
        stage.a_while()
        isp.ip(f"link set {name} netns {host.name}")
        if isinstance(line.client, Dhcpcd):  # ends with the link that it was started for
            line.client.process.wait(WHOLE_WITHIN)
            line.client.start()
        trouble.lifted()
        host.ip(f"link set {name} up")
        line.connect()


def carrier_lost(stage: Stage) -> None:
    """Pull the cable: the host's end stays up, and keeps its addresses."""
    line = stage.pick_line()
    isp, customer = line.uplink.isp, line.uplink.customer
    with stage.trouble(line.covers) as trouble:
        isp.ip(f"link set {customer} down")
        stage.a_while(4)
        trouble.lifted()
        isp.ip(f"link set {customer} up")
        line.connect()


def client_killed(stage: Stage) -> None:
    """It asks for all that its lease file tells of: dhclient never drops a line of it.

    With some fifty prefixes Kea's hook answers without an IAID; where that file is lost now and then it has
    never so many.
    """
    line = stage.pick_line()
    with stage.trouble() as trouble:
        line.client.kill()
        stage.a_while()
        trouble.lifted()
        line.client.start()


def client_killed_lease_lost(stage: Stage) -> None:
    line = stage.pick_line()
    with stage.trouble() as trouble:
        line.client.kill()
        line.client.forget()
        stage.a_while()
        trouble.lifted()
        line.client.start()


def flash_renumbered(stage: Stage) -> None:
    """Another prefix, and a client that knows nothing of the old one (RFC 8978)."""
    line = stage.pick_line()
    line.wait_for_renewal()
    with stage.trouble() as trouble:
        line.client.kill()
        line.client.forget()
        new = line.fresh()
        line.offer(Offer(new, PREFERRED, VALID))
        stage.a_while()
        trouble.lifted()
        line.client.start()
        stage.wait_for_subnets(new)
        line.replace(new)


def released(stage: Stage) -> None:
    """What the client still knows of its former prefixes it gives back, too; what it forgot stays.

    Asked for it while a Renew waits for its Reply, dhcpcd 9.4 ends and gives nothing back.
    """
    line = stage.pick_line()
    with stage.trouble(unbinds=line.covers) as trouble:
        line.wait_for_renewal()
        prefix = line.current
        assert prefix
        line.client.release()
        line.replace(None)
        stage.wait_until_whole()
        trouble.lifted()
        line.client.start()
        stage.wait_for_subnets(prefix)
        line.replace(prefix)


def renumber(stage: Stage, line: Line, new: Prefix, *withdrawn: Offer) -> None:
    """Have Kea delegate another prefix from now on; wait until it is bound, and is wanted then."""
    line.offer(*withdrawn, Offer(new, PREFERRED, VALID))
    stage.wait_for_subnets(new)
    line.replace(new)


def renumbered(stage: Stage) -> None:
    line = stage.pick_line()
    line.wait_for_renewal()
    with stage.trouble():
        renumber(stage, line, line.fresh())


def shrunk(stage: Stage) -> None:
    """A /56, then a /60 inside it: either with all of its subnets but the far one, or with none of them."""
    line = stage.pick_line()
    line.wait_for_renewal()
    with stage.trouble() as trouble:
        around = line.fresh(56)
        renumber(stage, line, around)
        line.wait_for_renewal()
        stage.wait_until_whole()
        # dhcpcd 9.4 tells two prefixes of one address apart for its hook only: it gives back the former.
        places = [2] if isinstance(line.client, Dhcpcd) else [0, 2]
        inside = Prefix(around.address + (stage.random.choice(places) << 68), 60)
        trouble.lifted()
        if inside.address == around.address:
            stage.yielded |= {around}
        line.offer(Offer(inside, PREFERRED, VALID))
        # Some of its subnets may be bound already.
        wait_until(lambda: inside in line.witness.ends, WHOLE_WITHIN)
        stage.wait_for_subnets(inside)
        line.replace(inside)


def withdrawn(stage: Stage) -> None:
    line = stage.pick_line()
    line.wait_for_renewal()
    old = line.current
    assert old
    with stage.trouble(old.covers):
        renumber(stage, line, line.fresh(), Offer(old, 0, 0))


def renewed(stage: Stage) -> None:
    line = stage.pick_line()
    with stage.trouble() as trouble:
        line.wait_for_renewal()
        trouble.lifted()


def server_stopped(stage: Stage) -> None:
    line = stage.pick_line()
    assert line.current
    line.wait_for_renewal()
    with stage.trouble() as trouble:
        stop(line.kea.process, signal.SIGKILL)
        stage.a_while(4)
        trouble.lifted()
        line.start_kea(line.current)
