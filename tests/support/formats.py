"""Records that other tools wrote: tests/data/formats, whose README says how each was made."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bridge.decode.avro import WireAvro
from bridge.model import Record

FOLDER = Path(__file__).resolve().parents[1] / "data" / "formats"
TIMESTAMP_MS = 1_795_373_100_000
"""2026-11-22T18:45:00Z, of every record here."""


def cloud_events() -> dict[str, Record]:
    """What the official SDK wrote, by name."""
    return {line["name"]: _record("user-events", line) for line in _lines("cloudevents/events.jsonl")}


def debezium(name: str) -> list[Record]:
    """What Debezium's PostgreSQL connector wrote as JSON, in order: `plain`, or `with-schema`."""
    return [_record(line["topic"], line) for line in _lines(f"debezium/{name}.jsonl")]


def debezium_avro() -> tuple[list[Record], WireAvro]:
    """The same in Avro, in the registry's framing, and a reader that has learnt the schemas."""
    values = WireAvro()
    for id, schema in debezium_schemas().items():
        assert values.learn(id, schema) is None
    lines = (line for line in _lines("debezium/avro.jsonl") if "schema" not in line)
    return [_record(line["topic"], line) for line in lines], values


def debezium_schemas() -> dict[int, str]:
    """What the records in Avro are written with, by the id in their framing."""
    return {line["id"]: line["schema"] for line in _lines("debezium/avro.jsonl") if "schema" in line}


def _lines(path: str) -> Iterator[dict[str, Any]]:
    for line in (FOLDER / path).read_text().splitlines():
        yield json.loads(line)


def _record(topic: str, line: dict[str, Any]) -> Record:
    value = line.get("value")
    raw = base64.b64decode(line["value_base64"]) if "value_base64" in line else value and value.encode()
    key = line["key"] and line["key"].encode()
    headers = tuple((name, text.encode()) for name, text in line.get("headers", ()))
    return Record(topic, 3, 42, TIMESTAMP_MS, key, raw, headers)
