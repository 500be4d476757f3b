"""Writes confluent.json: records as Confluent's own Python client serializes them. See README.md beside it.

python make.py http://127.0.0.1:PORT      (an empty schema registry)
"""

from __future__ import annotations

import base64
import json
import sys
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    header_schema_id_serializer,
    record_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

NOON = datetime(2026, 11, 22, 12, 30, 0, 123456, tzinfo=UTC)

ALL_TYPES = {
    "type": "record",
    "name": "AllTypes",
    "namespace": "com.acme",
    "fields": [
        {"name": "nothing", "type": "null"},
        {"name": "flag", "type": "boolean"},
        {"name": "small", "type": "int"},
        {"name": "large", "type": "long"},
        {"name": "half", "type": "float"},
        {"name": "third", "type": "double"},
        {"name": "not_a_number", "type": "double"},
        {"name": "raw", "type": "bytes"},
        {"name": "text", "type": "string"},
        {"name": "plan", "type": {"type": "enum", "name": "Plan", "symbols": ["free", "pro"]}},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "scores", "type": {"type": "map", "values": "long"}},
        {"name": "maybe", "type": ["null", "string"]},
        {"name": "former_plan", "type": ["null", "Plan"]},
        {
            "name": "address",
            "type": {"type": "record", "name": "Address", "fields": [{"name": "city", "type": "string"}]},
        },
        {"name": "other_address", "type": ["null", "Address"]},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {
            "name": "debt",
            "type": {"type": "fixed", "name": "Debt", "size": 8, "logicalType": "decimal", "precision": 10, "scale": 3},
        },
        {"name": "user", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "born", "type": {"type": "int", "logicalType": "date"}},
        {"name": "wakes", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "sleeps", "type": {"type": "long", "logicalType": "time-micros"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "exactly", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
        {"name": "there", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
    ],
}
ALL_VALUES = {
    "nothing": None,
    "flag": True,
    "small": -7,
    "large": 9_007_199_254_740_993,
    "half": 0.5,
    "third": 1 / 3,
    "not_a_number": float("nan"),
    "raw": b"\x00\xffraw",
    "text": "Zoë ✓",
    "plan": "pro",
    "hash": b"\x01\x02\x03\x04",
    "tags": ["a", "b"],
    "scores": {"logins": 12},
    "maybe": None,
    "former_plan": "free",
    "address": {"city": "Zürich"},
    "other_address": {"city": "Bern"},
    "price": Decimal("12.50"),
    "debt": Decimal("-0.005"),
    "user": uuid.UUID("12345678-1234-5678-1234-567812345678"),
    "born": date(1999, 12, 31),
    "wakes": time(6, 30, 0, 5000),
    "sleeps": time(22, 0, 0, 1),
    "at": NOON.replace(microsecond=123000),
    "exactly": NOON,
    "there": NOON.replace(tzinfo=None, microsecond=0),
}

PLAN_1 = {
    "type": "record",
    "name": "PlanChanged",
    "namespace": "com.acme",
    "fields": [{"name": "email", "type": "string"}, {"name": "plan", "type": "string"}],
}
PLAN_2 = {
    **PLAN_1,
    "fields": [
        *PLAN_1["fields"],  # type: ignore[misc]
        {"name": "seats", "type": "int", "default": 1},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": None},
    ],
}
ENVELOPE = {
    "type": "record",
    "name": "Event",
    "namespace": "com.acme",
    "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "type", "type": "string"},
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "data", "type": "com.acme.PlanChanged"},
    ],
}
PLAN = {"email": "ada@example.com", "plan": "pro"}


def main(url: str) -> None:
    client = SchemaRegistryClient({"url": url})
    cases: dict[str, Any] = {}

    def in_header(payload: bytes, context: SerializationContext | None, schema_id: Any) -> bytes:
        # The imitation of a registry gives no GUID when a schema is registered, as real ones do, but when asked.
        schema_id.guid = uuid.UUID(client.get_version(f"{context.topic}-value", 1).guid)
        return header_schema_id_serializer(payload, context, schema_id)

    def write(name: str, topic: str, schema: Any, value: Any, **config: Any) -> None:
        how = {key: config.pop(key) for key in ("auto.register.schemas", "use.latest.version") if key in config}
        if config.pop("by_record", False):
            how["subject.name.strategy"] = record_subject_name_strategy
        if config.pop("in_header", False):
            how["schema.id.serializer"] = in_header
        headers: list[tuple[str, bytes]] = []
        serializer = AvroSerializer(client, schema if isinstance(schema, Schema) else json.dumps(schema), conf=how)
        raw = serializer(value, SerializationContext(topic, MessageField.VALUE, headers))
        cases[name] = {
            "headers": [[key, base64.b64encode(content).decode()] for key, content in headers],
            "value": base64.b64encode(raw).decode(),
        }

    write("all types", "all", ALL_TYPES, ALL_VALUES)
    write("version 1", "plans", PLAN_1, PLAN)
    write("version 2", "plans", PLAN_2, {**PLAN, "seats": 5, "at": NOON.replace(microsecond=0)})
    write("id in a header", "header", PLAN_1, PLAN, in_header=True)
    reference = SchemaReference("com.acme.PlanChanged", "plans-value", 1)
    event = {"id": uuid.UUID(int=7), "type": "plan.changed", "time": NOON.replace(microsecond=0), "data": PLAN}
    write("a reference", "events", Schema(json.dumps(ENVELOPE), "AVRO", [reference]), event)
    both = [
        SchemaReference("com.acme.AllTypes", "all-value", 1),
        SchemaReference("com.acme.PlanChanged", "plans-value", 1),
    ]
    union = Schema(json.dumps(["com.acme.AllTypes", "com.acme.PlanChanged"]), "AVRO", both)
    write("a union of records", "union", union, ("com.acme.PlanChanged", PLAN))

    schemas = []
    for subject in sorted(client.get_subjects()):
        for version in client.get_versions(subject):
            found = client.get_version(subject, version)
            schemas.append(
                {
                    "subject": subject,
                    "version": version,
                    "id": found.schema_id,
                    "guid": found.guid,
                    "schema": found.schema.schema_str,
                    "references": [
                        {"name": each.name, "subject": each.subject, "version": each.version}
                        for each in found.schema.references or []
                    ],
                }
            )
    text = json.dumps({"schemas": schemas, "records": cases}, indent=1, ensure_ascii=False)
    (Path(__file__).parent / "confluent.json").write_text(text + "\n", encoding="utf-8")


main(sys.argv[1])
