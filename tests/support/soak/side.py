"""Topics of the other formats beside the demo's stream: numbered events of people who come and stay a while.

Each event is a track that names its number; every TRIGGER_EVERYth is an email too. So what the sandbox received says by
itself what is missing, out of order, or there twice.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from tests.support.avro import avro

FORMATS: Final = ("cloudevents", "debezium", "avro")
STAY: Final = 40
"""A person has so many events, then the next one comes."""
TRIGGER_EVERY: Final = 20
EVENT: Final = "soak_hit"
SCHEMA: Final = {
    "type": "record",
    "name": "SoakHit",
    "fields": [{"name": "email", "type": "string"}, {"name": "n", "type": "long"}],
}

_RULES: Final = """
  - name: soak-hit-{format}
    match: "*"
    topic: {topic}
    do:
      - track: {{event_name: {event}, email: "${{{data}.email}}", properties: {{n: "${{{data}.n}}"}}}}
  - name: soak-email-{format}
    match: "*"
    topic: {topic}
    when: {data}.n % {every} == 0
    do:
      - trigger: {{trigger_key: soak, to_email: "${{{data}.email}}", variables: {{n: "${{{data}.n}}"}}}}
"""
_DATA: Final = {"cloudevents": "data", "debezium": "data.after", "avro": "data"}


def rules(topics: Mapping[str, str]) -> str:
    """The rules of the topic of each format, as YAML."""
    text = "rules:"
    for format, topic in topics.items():
        text += _RULES.format(format=format, topic=topic, data=_DATA[format], event=EVENT, every=TRIGGER_EVERY)
    return text


class Hit(NamedTuple):
    """An event as it is produced."""

    topic: str
    email: str
    number: int
    record: Mapping[str, Any]


class Side:
    """What is produced to the topics of other formats, and what must have come of it."""

    def __init__(self, topics: Mapping[str, str]) -> None:
        """`topics`: the topic of each format."""
        self.topics = topics
        self._next: Counter[str] = Counter()
        self.produced: Counter[str] = Counter()
        """Events by topic."""
        self.due: dict[str, int] = {}
        """The highest number of each person."""

    def some(self, count: int) -> Iterator[Hit]:
        """So many events of each format."""
        for format in FORMATS:
            for _ in range(count):
                number = self._next[format]
                self._next[format] += 1
                yield self._hit(format, f"side-{format}-{number // STAY}@example.com")

    def hot(self, count: int) -> Iterator[Hit]:
        """So many events of one person."""
        for _ in range(count):
            yield self._hit("cloudevents", "side-hot@example.com")

    def _hit(self, format: str, email: str) -> Hit:
        number = self.due[email] = self.due.get(email, 0) + 1
        self.produced[self.topics[format]] += 1
        return Hit(self.topics[format], email, number, {"key": email.encode(), **_record(format, email, number)})

    def judge(
        self, ledger: Iterable[Mapping[str, Any]], emails: Iterable[Mapping[str, Any]], replayed: set[tuple[str, int]]
    ) -> list[str]:
        """What is wrong, in words. `replayed`: events that were dead letters, whose tracks came later."""
        tracked: Counter[tuple[str, int]] = Counter()
        doubtful: set[tuple[str, int]] = set()
        newest: Counter[str] = Counter()
        wrong = []
        for entry in ledger:
            body = entry.get("body") or {}
            if entry["endpoint"] != "track" or body.get("event_name") != EVENT or not entry["carried_out"]:
                continue
            name = str(body["email"]), int(body["properties"]["n"])
            tracked[name] += 1
            if tracked[name] > 1 and name not in doubtful:
                wrong.append(f"{name[0]}: event {name[1]} was tracked again, though its answer was whole")
            if entry["status"] >= 500 or not entry["answered"] or entry["fault"].startswith(("cut", "hang")):
                doubtful.add(name)
            if tracked[name] == 1 and name not in replayed:
                if name[1] < newest[name[0]]:
                    wrong.append(f"{name[0]}: event {name[1]} was tracked after event {newest[name[0]]}")
                newest[name[0]] = max(newest[name[0]], name[1])
        sent = Counter((str(each["to_email"]), int(each["variables"]["n"])) for each in emails)
        for email, last in self.due.items():
            for number in range(1, last + 1):
                if not tracked[email, number]:
                    wrong.append(f"{email}: event {number} was never tracked")
                if sent[email, number] != (number % TRIGGER_EVERY == 0):
                    wrong.append(f"{email}: event {number} sent {sent[email, number]} emails")
        return wrong


def _record(format: str, email: str, number: int) -> dict[str, Any]:
    said = {"email": email, "n": number}
    if format == "avro":
        return {"value": avro(SCHEMA, said)}
    if format == "debezium":
        source = {"table": "soak_hits", "ts_ms": int(time.time() * 1000), "name": "soak"}
        return {"value": orjson.dumps({"op": "c", "before": None, "after": said, "source": source})}
    attributes = {"specversion": "1.0", "id": f"{email}-{number}", "source": "/soak", "type": "soak.hit"}
    if number % 2:
        return {"value": orjson.dumps({**attributes, "data": said})}
    headers: Sequence[tuple[str, bytes]] = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
    return {"value": orjson.dumps(said), "headers": [*headers, ("content-type", b"application/json")]}
