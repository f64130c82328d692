"""The ledger file: what must survive a restart of the daemon, and the last View, for times without one.

A directory of the daemon's own, `daemon` in the runtime directory, holds one file a network namespace,
readable by everybody. It is of use in the boot that it is from. The daemon alone writes it: whole, then
renamed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anyipd import here, runtime_file
from anyipd.decide.carrier import Carrier
from anyipd.decide.ledger import Ledger, Record, State
from anyipd.model import INFINITE, Discard, HoldDown, Lease, Link, Place, Places, Prefix, address_text
from anyipd.view import View
from anyipd.view_wire import view_from_json, view_to_json

MAX_BYTES = 16 << 20
"""Of a file that is read: thousands of records are a few."""

MAX_SECONDS = 1e13
"""More than any uptime, lifetime, or time of the wall clock that a lease file can name."""


class LedgerFile:
    """The file of this network namespace below `runtime_dir`."""

    def __init__(self, runtime_dir: Path) -> None:
        self.path = runtime_dir / "daemon" / str(here.network_namespace())
        self._written: tuple[int, Mapping[Prefix, Places], View | None] = -1, {}, None

    def read(self) -> tuple[Ledger, dict[Prefix, Places]]:
        """Return the ledger and the places in the file, empty where it is missing or of another boot.

        Raises ValueError, with the reason, where it cannot be understood, and OSError.
        """
        try:
            found = self._load()
            if not found:
                return Ledger(), {}
            routes = {_discard(each): _begin(each["added"]) for each in found["routes"]}
            fallen = map(_discard, found["fallen"])
            carriers = {each["uplink"]: _carrier(each) for each in found["carriers"]}
            ledger = Ledger(map(_record, found["records"]), routes, fallen, carriers)
            return ledger, {_prefix(each["prefix"]): _places(each) for each in found["places"]}
        except (KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise ValueError(f"is no ledger of this version: {error!r}") from None

    def read_view(self) -> View | None:
        """Return the last View; None where there is no file, or one of another boot. Raises likewise."""
        found = self._load()
        return view_from_json(found["view"]) if found and found.get("view") else None

    def _load(self) -> dict[str, Any] | None:
        try:
            text, _ = runtime_file.read(self.path, MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        if len(text) > MAX_BYTES:
            raise ValueError(f"has more than {MAX_BYTES} bytes")
        try:
            found: dict[str, Any] = json.loads(text)
            return found if found["boot"] == here.boot() else None
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"is no ledger of this version: {error!r}") from None

    def write(self, ledger: Ledger, places: Mapping[Prefix, Places], view: View | None) -> None:
        """Write a ledger, places and a View down, unless the file holds them. Raises OSError."""
        if (ledger.version, places, view) == self._written and self.path.exists():
            return
        found = {
            "boot": here.boot(),
            "records": map(_plain, ledger.records),
            "routes": (
                {"prefix": str(route.prefix), "metric": route.metric, "added": _finite(added)}
                for route, added in ledger.routes.items()
            ),
            "fallen": ({"prefix": str(route.prefix), "metric": route.metric} for route in ledger.fallen),
            "carriers": [
                {
                    "uplink": name,
                    "interface": each.link.interface,
                    "carrier_changes": each.link.carrier_changes,
                    "since": _finite(each.since),
                }
                for name, each in ledger.carriers.items()
            ],
            "places": ({"prefix": str(prefix), **_plain_places(each)} for prefix, each in places.items()),
            "view": view and view_to_json(view, iter),
        }
        runtime_file.write(self.path, (each.encode() for each in _encode(found)))
        self._written = ledger.version, places, view


def _encode(found: object) -> Iterator[str]:
    """Yield JSON, of an iterator one by one: all at once would take many times the memory."""
    if isinstance(found, dict) and found:
        separator = "{"
        for key, value in found.items():
            yield f'{separator}"{key}":'
            yield from _encode(value)
            separator = ","
        yield "}"
    elif isinstance(found, Iterator):
        separator = "["
        for each in found:
            yield separator + json.dumps(each)
            separator = ","
        yield "]" if separator == "," else "[]"
    else:
        yield json.dumps(found)


def _plain(record: Record) -> dict[str, Any]:
    """Return a record as JSON has it: prefixes as text, and true for what is infinite."""
    found = asdict(record)
    lease = found.pop("lease")
    for times in (lease, found):
        times |= {name: _finite(value) for name, value in times.items() if isinstance(value, float)}
    lease["prefix"] = str(record.lease.prefix)
    lease["exclude"] = str(record.lease.exclude) if record.lease.exclude else None
    superseded_by = str(record.superseded_by) if record.superseded_by else None
    found |= {"state": record.state.value, "superseded_by": superseded_by}
    return {**lease, **found}


def _record(found: dict[str, Any]) -> Record:
    return Record(
        lease=Lease(
            prefix=_prefix(found["prefix"]),
            client=str(found["client"]),
            uplink=_text(found["uplink"]),
            iaid=_text(found["iaid"]),
            written=_seconds(found["written"]),
            lifetime=None if found["lifetime"] is None else _end(found["lifetime"]),
            preferred_until=None if found["preferred_until"] is None else _end(found["preferred_until"]),
            valid_until=_end(found["valid_until"]),
            exclude=None if found["exclude"] is None else _prefix(found["exclude"]),
            reply=_seconds(found["reply"]),
            clock=_seconds(found["clock"]),
            instance=_text(found["instance"]),
            anew=bool(found["anew"]),
            duid=_text(found["duid"]),
        ),
        state=State(found["state"]),
        began=_seconds(found["began"]),
        since=_seconds(found["since"]),
        until=_end(found["until"]),
        instance_since=_seconds(found["instance_since"]),
        superseded_by=None if found["superseded_by"] is None else _prefix(found["superseded_by"]),
    )


def _plain_places(places: Places) -> dict[str, Any]:
    kept = [
        {"name": each.name, "number": each.number, "first": str(each.first), "count": each.count}
        for each in places.kept
    ]
    held = [
        {"start": address_text(start), "last": address_text(end - 1), "until": _finite(until)}
        for start, end, until in places.hold_downs
    ]
    return {"kept": kept, "hold_downs": held}


def _places(found: dict[str, Any]) -> Places:
    return Places(tuple(map(_place, found["kept"])), tuple(map(_hold_down, found["hold_downs"])))


def _place(found: dict[str, Any]) -> Place:
    number = None if found["number"] is None else int(found["number"])
    return Place(str(found["name"]), number, _prefix(found["first"]), int(found["count"]))


def _hold_down(found: dict[str, Any]) -> HoldDown:
    start, last = _prefix(found["start"]), _prefix(found["last"])
    return HoldDown(start.address, last.address + 1, _end(found["until"]))


def _discard(found: dict[str, Any]) -> Discard:
    return Discard(_prefix(found["prefix"]), int(found["metric"]))


def _carrier(found: dict[str, Any]) -> Carrier:
    changes = found["carrier_changes"]
    link = Link(int(found["interface"]), None if changes is None else int(changes))
    return Carrier(link, _begin(found["since"]))


def _prefix(text: str) -> Prefix:
    found = Prefix.parse(text)
    if found.width != 128:  # noqa: PLR2004  the width of IPv6
        raise ValueError(f"{text!r} is no IPv6 prefix")
    return found


def _text(found: object) -> str | None:
    return None if found is None else str(found)


def _finite(value: float) -> float | bool:
    return value > 0 if value in {INFINITE, -INFINITE} else value


def _end(found: object) -> float:
    return INFINITE if found is True else _seconds(found)


def _begin(found: object) -> float:
    return -INFINITE if found is False else _seconds(found)


def _seconds(found: object) -> float:
    # Python's JSON has NaN and Infinity, too, and numbers of any length: no deadline could be made of them.
    if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) <= MAX_SECONDS:
        raise ValueError(f"{found!r:.60} is no time")
    return float(found)
