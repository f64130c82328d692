"""What networkd describes: leases and links to go on with, or a ValueError of one line."""

from __future__ import annotations

from anyipd.decide.ledger import Ledger
from anyipd.observe.networkd import Networkd, parse
from fuzz import json_tree
from fuzz.carried_out import NOW, carry_out

DICTIONARY = (
    *("Interfaces", "Index", "Name", "AdministrativeState", "CarrierState", "DHCPv6Client", "Lease"),
    *(
        "LeaseTimestampUSec",
        "Prefixes",
        "Prefix",
        "PrefixLength",
        "PreferredLifetimeUSec",
        "ValidLifetimeUSec",
    ),
    *("Routes", "Destination", "DestinationPrefixLength", "Type", "ConfigSource", "LifetimeUSec", "DHCPv6"),
    *("configured", "carrier", "null", "NaN", "1e999", "18446744073709551615"),
)

LONGEST = 2048

mutate = json_tree.mutate


def run(data: bytes) -> None:
    """Have it said twice, an hour between, the client of every link stopped in between."""
    try:
        said = parse(data.decode(errors="replace"), NOW, ":1.7")
    except ValueError as error:
        assert "\n" not in str(error), ascii(str(error))
        return
    networkd = Networkd()
    networkd.take(said)
    carry_out(Ledger(), leases=networkd.leases)
    networkd.take(
        said._replace(at=NOW + 9, leases=[], links=[each._replace(client=False) for each in said.links])
    )
    networkd.take(said._replace(at=NOW + 10))
    assert networkd.ask_again_after(NOW) > 0
    carry_out(Ledger(), leases=networkd.leases)
