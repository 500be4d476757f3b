"""Good records of every format, and bad ones made of them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import fastavro

from bridge.model import Record
from tests.support.avro import confluent, fixture, fixture_names
from tests.support.formats import FOLDER, TIMESTAMP_MS, cloud_events, debezium, debezium_avro
from tests.support.fuzz import damage
from tests.support.fuzz.case import dice_of

ROOT = Path(__file__).resolve().parents[3]
SCHEMAS = ROOT / "schemas"

TOPICS: dict[str, dict[str, Any]] = {
    "events-json": {"format": "json", "keyed_by": "contact", "dedupe": "10m"},
    "events-checked": {"format": "json", "schema": str(SCHEMAS / "events.schema.json")},
    "events-avro": {"format": "avro", "schema": str(SCHEMAS / "events.avsc")},
    "events-registry": {"format": "avro", "registry": {"url": "https://r", "basic_auth": {"env": "REGISTRY_AUTH"}}},
    "events-cloud": {"format": "cloudevents"},
    "cdc-json": {"format": "debezium", "encoding": "json"},
    "cdc-avro": {
        "format": "debezium",
        "encoding": "avro",
        "registry": {"url": "https://r", "basic_auth": {"env": "REGISTRY_AUTH"}},
    },
}
"""Of a configuration: every format, with and without schemas."""


def examples() -> list[dict[str, Any]]:
    """An event of each of the thirty types."""
    return [json.loads(line) for line in (SCHEMAS / "examples" / "all.jsonl").read_text(encoding="utf-8").splitlines()]


def _moments(schema: Any, found: set[str]) -> set[str]:
    """The names of fields that hold points in time."""
    if isinstance(schema, list):
        for each in schema:
            _moments(each, found)
    elif isinstance(schema, dict):
        for field in schema.get("fields", ()):
            if "timestamp-" in json.dumps(field["type"]) and "fields" not in json.dumps(field["type"]):
                found.add(field["name"])
            _moments(field["type"], found)
    return found


class Avro:
    """Writes the example events as the topic's union of records."""

    def __init__(self) -> None:
        document = json.loads((SCHEMAS / "events.avsc").read_text(encoding="utf-8"))
        self._names = {each["fields"][1]["default"]: f"{each['namespace']}.{each['name']}" for each in document}
        self._moments = {each["fields"][1]["default"]: _moments(each, set()) for each in document}
        self._schema = fastavro.parse_schema(document)

    def write(self, event: dict[str, Any]) -> bytes:
        """Raises whatever fastavro raises for what does not fit."""
        names = self._moments[event["type"]]

        def plain(value: Any, name: str = "") -> Any:
            if isinstance(value, dict):
                return {key: plain(each, key) for key, each in value.items()}
            return datetime.fromisoformat(value) if name in names and isinstance(value, str) else value

        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, self._schema, (self._names[event["type"]], plain(event)))
        return stream.getvalue()


class Corpus:
    """The good records by topic, each with the JSON in it where that is what is damaged."""

    def __init__(self) -> None:
        self._avro = Avro()
        events = examples()
        plain = [(record, json.loads(record.value or b"null")) for record in debezium("plain")]
        schemas = [(record, json.loads(record.value or b"null")) for record in debezium("with-schema")]
        cloud = [(record, _json(record.value)) for record in cloud_events().values()]
        self.good: dict[str, Sequence[tuple[Record, Any]]] = {
            "events-json": [(_record(event), event) for event in events],
            "events-checked": [(_record(event), event) for event in events],
            "events-avro": [(_record(event)._replace(value=self._avro.write(event)), event) for event in events],
            "events-registry": [(fixture(name), None) for name in fixture_names()],
            "events-cloud": cloud,
            "cdc-json": [*plain, *schemas],
            "cdc-avro": [(record, None) for record in debezium_avro()[0]],
        }

    def plain(self, number: int) -> Record:
        """A good record: the measure of what bad ones may take."""
        topic = tuple(TOPICS)[number % len(TOPICS)]
        return self._ready(self.good[topic][number // len(TOPICS) % len(self.good[topic])][0], topic)

    def bad(self, seed: int, number: int) -> Record:
        """The case of that seed and number; offsets are up to who feeds it."""
        dice = dice_of("record", seed, number)
        topic = dice.choice((*TOPICS, "events-json", "events-json", "events-checked"))
        record, value = dice.choice(self.good[topic])
        record = self._ready(record, topic)
        roll = dice.random()
        if roll < 0.02:
            record = record._replace(
                value=dice.choice((None, b"", b" ", b"\x00", dice.randbytes(dice.randint(1, 300))))
            )
        elif roll < 0.65 and value is not None:
            changed = damage.words(value, dice) if roll < 0.4 else damage.tree(value, dice)
            record = record._replace(value=self._again(topic, changed, record.value, dice))
        elif roll < 0.9 and record.value:
            record = record._replace(value=damage.damaged(record.value, dice))
        if dice.random() < 0.003:
            record = record._replace(value=_huge(dice, record.value or b""))
        if dice.random() < 0.25:
            record = self._around(record, dice)
        return record

    @staticmethod
    def _ready(record: Record, topic: str) -> Record:
        return record._replace(topic=topic, partition=0, timestamp_ms=TIMESTAMP_MS)

    def _again(self, topic: str, value: Any, before: bytes | None, dice: Random) -> bytes | None:
        if topic == "events-avro":
            try:
                return self._avro.write(value)
            except Exception:
                return damage.damaged(before or b"", dice)  # what does not fit into Avro cannot be written
        return damage.written(value, dice).encode("utf-8", "surrogatepass")

    @staticmethod
    def _around(record: Record, dice: Random) -> Record:
        """Another key, other headers, another time."""
        roll = dice.randrange(5)
        text = dice.choice(damage.HOSTILE)
        if roll == 0:
            keys = (None, b"", b"\xff\xfe", text.encode(), text.encode() * 200, dice.randbytes(16))
            return record._replace(key=dice.choice(keys))
        if roll == 1:
            times = (-1, 0, 1, 2**31, 2**43, 2**62, 2**63 - 1, -(2**63), 253_402_300_800_000)
            return record._replace(timestamp_ms=dice.choice(times))
        if roll == 2:
            strange = (text, dice.choice((None, b"", b"\xff\xfe", text.encode(), dice.randbytes(30))))
            return record._replace(headers=(*record.headers, strange) * dice.choice((1, 1, 3)))
        if roll == 3:
            many = tuple((f"h{n}", b"x" * dice.randint(0, 40)) for n in range(dice.choice((10, 100, 1_000))))
            return record._replace(headers=(*record.headers, *many))
        names = ("meisa-bridge.kind", "meisa-bridge.replays", "meisa-bridge.undelivered_ids", "content-type", "ce_type",
                 "ce_specversion", "ce_id", "ce_time", "__value_schema_id", "traceparent")  # fmt: skip
        values = (b"", b"9" * 5_000, b"[" * 2_000, b"application/cloudevents+json; charset=utf-16", b"\xff",
                  b"00-" + b"f" * 32 + b"-" + b"0" * 16 + b"-ff", text.encode(), b"application/avro",
                  b"1.0")  # fmt: skip
        swapped = {**dict(record.headers), dice.choice(names): dice.choice(values)}
        return record._replace(headers=tuple(swapped.items()))


def _record(event: dict[str, Any]) -> Record:
    return Record("", 0, 0, TIMESTAMP_MS, event["data"]["user_id"].encode(), json.dumps(event).encode())


def _json(value: bytes | None) -> Any:
    try:
        return json.loads(value or b"")
    except ValueError:
        return None


def _huge(dice: Random, value: bytes) -> bytes:
    size = dice.choice((100_000, 500_000, 1_000_000))
    text = dice.choice((b"a", b"\\u0000", b"[", b'{"a":', b"\xf0\x9f\x98\x80", b"9"))
    whole = text * (size // len(text))
    kinds = (whole, b'{"type":"user.signed_up","data":{"email":"' + whole + b'"}}', value + whole, b'{"id":' + whole)
    return dice.choice(kinds)


@cache
def registered() -> dict[int | str, tuple[str, tuple[str, ...]]]:
    """Every schema that a good record names: its text, and those that it refers to."""
    found: dict[int | str, tuple[str, tuple[str, ...]]] = {}
    by_version = {(each["subject"], each["version"]): each for each in confluent()["schemas"]}
    for each in by_version.values():
        references = tuple(by_version[of["subject"], of["version"]]["schema"] for of in each["references"])
        found[each["id"]] = found[each["guid"]] = (each["schema"], references)
    return found


@cache
def registered_cdc() -> dict[int | str, tuple[str, tuple[str, ...]]]:
    lines = (json.loads(line) for line in (FOLDER / "debezium" / "avro.jsonl").read_text().splitlines())
    return {line["id"]: (line["schema"], ()) for line in lines if "schema" in line}
