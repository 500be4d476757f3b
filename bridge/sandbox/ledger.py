"""The ledger: every call in the order in which it arrived. It proves order, loss and duplicates."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bridge.sandbox import fields
from bridge.sandbox.contacts import iso
from bridge.sandbox.log import Log


class Entry:
    """One call. `status` is what was answered, or would have been (`answered` tells); 0 where nothing was."""

    __slots__ = (
        "answered",
        "body",
        "carried_out",
        "contact",
        "endpoint",
        "environment",
        "fault",
        "key",
        "message",
        "method",
        "number",
        "path",
        "received_at",
        "repeated",
        "status",
    )

    def __init__(self, number: int, received_at: float, method: str, path: str, body: bytes) -> None:
        self.number = number
        self.received_at = received_at
        self.method = method
        self.path = path
        self.body = body
        """As it came. Bytes, as parsed objects would take five times the memory."""
        self.endpoint = ""
        """The catalogue's name; empty where no endpoint has this path."""
        self.key = ""
        """The name of the key, never the key of a stranger; empty where none is known."""
        self.environment = ""
        self.contact = ""
        """The email of the contact it was about, or what the call named it by."""
        self.status = 0
        self.message = ""
        """Why it was refused."""
        self.fault = ""
        self.carried_out = False
        self.repeated = False
        """A trigger that Meisa recognised by its idempotency key: answered again, no second email."""
        self.answered: bool | None = None
        """Whether the answer was handed to a connection that was still open; None while it is on its way."""

    def json(self) -> Any:
        """The parsed body; None where there is none or it is no JSON object."""
        try:
            return fields.parse_object(self.body) if self.body else None
        except ValueError:
            return None

    def view(self) -> dict[str, Any]:
        body = self.json()
        view = {name: getattr(self, name) for name in self.__slots__}
        view["received_at"] = iso(self.received_at)
        view["body"] = self.body.decode("utf-8", "replace") if body is None and self.body else body
        return view


class Ledger:
    def __init__(self, limit: int) -> None:
        self.entries: Log[Entry] = Log(limit)
        self.calls: Counter[tuple[str, int]] = Counter()
        """By endpoint and status; never dropped."""
        self.counts: Counter[str] = Counter()
        """received, carried_out, answered, unanswered, repeated and faults by name; never dropped."""

    def open(self, received_at: float, method: str, path: str, body: bytes) -> Entry:
        entry = Entry(self.entries.total + 1, received_at, method, path, body)
        self.entries.append(entry)
        self.counts["received"] += 1
        return entry

    def decided(self, entry: Entry) -> None:
        """The call was carried out or refused."""
        self.calls[entry.endpoint or "unknown", entry.status] += 1
        counts = self.counts
        if entry.carried_out:
            counts["carried_out"] += 1
        if entry.repeated:
            counts["repeated"] += 1
        if entry.fault:
            counts[f"fault.{entry.fault}"] += 1

    def ended(self, entry: Entry, *, answered: bool) -> None:
        if entry.answered is None:
            entry.answered = answered
            self.counts["answered" if answered else "unanswered"] += 1

    def by_status(self) -> dict[str, dict[str, int]]:
        """Endpoint → status → calls, for the page."""
        table: dict[str, dict[str, int]] = {}
        for (endpoint, status), count in sorted(self.calls.items()):
            table.setdefault(endpoint, {})[str(status)] = count
        return table
