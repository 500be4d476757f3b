"""Lazy fields through a whole engine over fakes: rules, events, and what was said to Meisa."""

import asyncio
from pathlib import Path
from typing import Any

from bridge.core.identity import Identities
from bridge.core.registers import merged
from bridge.model import Action, Call, Contact, Event, Handling, Kind, Outcome, Plan, Record, Verdict
from bridge.ports import Store
from bridge.state import open_store
from tests.support.engine import P0, House
from tests.support.engine import record as plain_record

DAY = 86_400.0
REFUSED = Outcome(Verdict.REFUSED, 400, "bad field")
NO_CONTACT = Outcome(Verdict.NEEDS_CONTACT, 404, "no such contact")
SLOW = [(1, 60.0)]
SEEN = "custom_fields.seen"


def plan(event: Event) -> Plan:
    """What `do` lists, about one contact; `seen` and `count` are lazy for all but events that say otherwise."""
    data = event.data
    handling = Handling(
        lazy=tuple(data.get("lazy", (SEEN, "custom_fields.count"))),
        lazy_every_seconds=DAY,
        coalesce=data.get("coalesce", True),
        preserve=tuple(data.get("preserve", ())),
    )
    contact = Contact(data["email"], data.get("id"))
    actions, upsert = [], None
    for position, name in enumerate(data.get("do", ["upsert"])):
        kind = Kind(name)
        body: dict[str, Any] = {"email": data["email"]}
        if "id" in data:
            body["external_id"] = data["id"]
        if kind is Kind.UPSERT:
            body |= {name: data[name] for name in ("source", "tag_names", "first_name") if name in data}
            body["custom_fields"] = data.get("fields", {})
            upsert = position
        elif kind is Kind.TRACK:
            body["event_name"] = f"track{data['seq']}"
        needs = upsert if kind is Kind.TRACK else None
        actions.append(Action(kind, "rule", position, body, contact, handling, needs=needs))
    return Plan(tuple(actions))


def record(offset: int, email: str = "a@x", **data: Any) -> Record:
    return plain_record(offset, email, **data)


def login(offset: int, email: str = "a@x", **data: Any) -> Record:
    """A change in lazy fields only."""
    return record(offset, email, fields={"seen": offset}, **data)


def bridge(store: Store | None = None, **options: Any) -> House:
    return House(plan=plan, store=store, identities=Identities(store=store), **options)


def said(house: House) -> list[dict[str, Any]]:
    """The custom fields of each upsert, and the names of tracks, in the order of sending."""
    return [
        fields(call) if call.endpoint == "upsert" else {call.endpoint: (call.body or {})["event_name"]}
        for call in house.meisa.calls
    ]


async def settled(house: House, seconds: float = 2.0) -> None:
    await asyncio.sleep(seconds)
    assert house.delivery.pending == 0


def file(folder: Path) -> Store:
    return open_store("sqlite:///state.db", base_dir=folder, namespace="g", merge=merged)


def fields(call: Call) -> dict[str, Any]:
    return dict((call.body or {}).get("custom_fields", {}))


def hand_over(old: House, new: House) -> None:
    new.source.committed.update(old.source.committed)
    new.source.metadata.update(old.source.metadata)
    new.source.assign(P0)
