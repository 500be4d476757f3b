"""Avro that other tools wrote (tests/data/formats/avro), and what tests write themselves."""

from __future__ import annotations

import base64
import json
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from fastavro import parse_schema, schemaless_writer

from bridge.decode.avro import WireAvro
from bridge.model import Record, SchemaId

DATA = Path(__file__).parents[1] / "data" / "formats" / "avro"


@cache
def confluent() -> dict[str, Any]:
    """What tests/data/formats/avro/make.py has written."""
    made: dict[str, Any] = json.loads((DATA / "confluent.json").read_text(encoding="utf-8"))
    return made


@cache
def java() -> dict[str, tuple[Any, bytes]]:
    """What tests/data/formats/avro/Make.java has written: schemas, and bodies by themselves."""
    made = json.loads((DATA / "java.json").read_text(encoding="utf-8"))
    return {name: (json.loads(each["schema"]), base64.b64decode(each["value"])) for name, each in made.items()}


def fixture(name: str, *, topic: str = "user-events", offset: int = 0, timestamp_ms: int = 1_700_000_000_000) -> Record:
    """A record that Confluent's client has written."""
    found = confluent()["records"][name]
    headers = tuple((key, base64.b64decode(content)) for key, content in found["headers"])
    return Record(topic, 0, offset, timestamp_ms, None, base64.b64decode(found["value"]), headers)


def fixture_names() -> list[str]:
    return list(confluent()["records"])


def knowing_all() -> WireAvro:
    """A reader that has learnt every schema of the fixtures, by id and by GUID."""
    values = WireAvro()
    by_version = {(each["subject"], each["version"]): each for each in confluent()["schemas"]}
    for each in by_version.values():
        references = [
            by_version[reference["subject"], reference["version"]]["schema"] for reference in each["references"]
        ]
        for id in (each["id"], each["guid"]):
            assert values.learn(id, each["schema"], references) is None
    return values


def avro(schema: Any, value: Any) -> bytes:
    """A value's body."""
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(schema), value)
    return stream.getvalue()


def framed(id: SchemaId, body: bytes) -> bytes:
    """A body in the registry's framing."""
    if isinstance(id, int):
        return b"\x00" + id.to_bytes(4, "big") + body
    return b"\x01" + bytes.fromhex(id.replace("-", "")) + body
