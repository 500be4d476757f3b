"""The handlers. Each is a plain function of one event that yields actions; the bridge carries them out."""

from __future__ import annotations

from collections.abc import Iterator

from acme_lifecycle.money import monthly
from bridge import AddTag, Enroll, Event, Track, Upsert, handles


@handles("invoice.paid", name="acme-invoice")
def invoice(event: Event) -> Iterator[Upsert | Track]:
    """Revenue needs arithmetic over lines, which YAML does not say well."""
    data = event.data
    mrr = monthly(data["lines"])
    yield Upsert(email=data["email"], custom_fields={"mrr": mrr, "last_invoice": data["number"]})
    if mrr > data.get("former_mrr", mrr):
        yield Track(email=data["email"], event_name="expanded", properties={"mrr": mrr})


@handles("team.*", name="acme-team")
def team(event: Event) -> Iterator[AddTag | Enroll]:
    """One event, as many contacts as the team has."""
    for member in event.data["members"]:
        yield AddTag(email=member["email"], tag_name="team")
        if member.get("role") == "admin":
            yield Enroll(email=member["email"], sequence_slug="admins", max_age="7d")
