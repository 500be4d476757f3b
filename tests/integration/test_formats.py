"""Records that other tools wrote, through a broker and the whole bridge: each reaches Meisa, or is a dead letter."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from bridge.model import Record
from bridge.sandbox.server import SandboxServer
from tests.support.formats import cloud_events, debezium, debezium_avro, debezium_schemas
from tests.support.inprocess import Place, calls, sandbox_options
from tests.support.kafka import Cluster, unique
from tests.support.registries import registry_server

RULES = """\
rules:
  - name: signup
    match: user.signed_up
    when: has(data.email)
    do:
      - upsert:
          email: ${data.email}
          custom_fields: {tenant: "${headers.ce_tenant}", from: "${event.source}", about: "${event.subject}"}
  - name: row-created
    match: users.created
    do:
      - upsert:
          email: ${data.after.email}
          external_id: ${data.after.id}
          custom_fields:
            balance: ${data.after.balance}
            born: ${data.after.born}
            bio: ${has(data.after.bio)}
  - name: row-updated
    match: users.updated
    do:
      - upsert:
          email: ${data.after.email}
          custom_fields: {plan: "${data.after.plan}", bio: "${has(data.after.bio)}"}
  - name: row-deleted
    match: users.deleted
    do:
      - add_tag: {email: "${data.before.email}", tag_name: deleted}
  - name: paid
    match: invoice.paid
    do:
      - upsert: {email: "${data.email}", custom_fields: {mrr: "${data.amount}"}}
"""
INVOICE = {
    "$defs": {"email": {"type": "string", "format": "email"}},
    "properties": {"data": {"properties": {"email": {"$ref": "#/$defs/email"}, "amount": {"type": "number"}}}},
}


def written(record: Record) -> dict[str, Any]:
    return {"value": record.value, "key": record.key, "headers": list(record.headers)}


def plain(value: Any) -> dict[str, Any]:
    return {"value": json.dumps(value).encode()}


def custom_fields(sandbox: SandboxServer) -> dict[str, dict[str, Any]]:
    """What upserts set, by email."""
    contacts: dict[str, dict[str, Any]] = {}
    for entry in calls(sandbox, "upsert"):
        body = entry.json()
        contacts.setdefault(body["email"], {}).update(body.get("custom_fields", {}))
    return contacts


async def test_each_format_reaches_meisa(embedded_kafka: Cluster, tmp_path: Path) -> None:
    """What the CloudEvents SDK and Debezium's connector wrote, and JSON with a schema: the calls are what the rules
    say, damaged and foreign records are dead letters of kind decode, tombstones and heartbeats are filtered."""
    (tmp_path / "invoice.json").write_text(json.dumps(INVOICE))
    async with SandboxServer(sandbox_options()) as sandbox:
        place = Place(embedded_kafka, tmp_path, sandbox.base_url, rules=RULES, partitions=1)
        cloud, rows = (embedded_kafka.create_topic(unique(name), 1) for name in ("cloud", "rows"))
        place.sections["topics"] = {
            place.topic: {"format": "json", "schema": {"invoice.paid": "invoice.json"}},
            cloud: {"format": "cloudevents"},
            rows: {"format": "debezium", "encoding": "json"},
        }
        events = cloud_events()
        foreign = Record("", 0, 0, 0, None, b'{"type": "user.signed_up", "data": {"email": "plain@example.com"}}')
        records = {
            place.topic: [
                plain({"type": "invoice.paid", "data": {"email": "payer@example.com", "amount": 12.5}}),
                plain({"type": "invoice.paid", "data": {"email": "payer@example.com", "amount": "12.5"}}),
                plain({"type": "nobody.cares", "data": {"amount": "12.5"}}),
            ],
            cloud: [written(each) for each in (*events.values(), foreign)],
            rows: [written(each) for each in (*debezium("plain"), *debezium("with-schema"), foreign)],
        }
        for topic, batch in records.items():
            embedded_kafka.produce(topic, *batch)

        def done() -> bool:
            counts = (embedded_kafka.committed(place.group, topic)[0] for topic in records)
            return list(counts) == [len(batch) for batch in records.values()]

        async with place.running():
            for _ in range(1000):
                if await asyncio.to_thread(done):
                    break
                await asyncio.sleep(0.02)
            status = await place.status()
        assert status["totals"]["dead_lettered"] == 4, status
        letters = sorted((headers["source.topic"], headers["message"][:52]) for _, headers in place.letters())
        assert letters == sorted(
            [
                (place.topic, "value.data.amount is a string; the schema wants numb"),
                (cloud, "invalid JSON at line 1, column 10: unexpected charac"),
                (cloud, "not a CloudEvent: neither a ce_specversion header, n"),
                (rows, "the payload has no op, so it is no change event of D"),
            ]
        )
        contacts = custom_fields(sandbox)
        assert contacts.keys() == {"ada@example.com", "payer@example.com"}
        ada = contacts["ada@example.com"]
        assert (ada["tenant"], ada["from"], ada["about"]) == ("acme-ü", "https://app.example.com/users", "u_7")
        assert (ada["plan"], ada["balance"], ada["born"]) == ("pro", "1234.50", "1815-12-10")
        assert ada["bio"] is False, "a column that was not logged is missing"
        assert contacts["payer@example.com"] == {"mrr": 12.5}


async def test_debezium_in_avro_reaches_meisa(embedded_kafka: Cluster, tmp_path: Path) -> None:
    """What the connector and Apicurio's Avro converter wrote, with the schemas in a registry: fetched when they are
    first needed, and then the same calls as from JSON."""
    async with SandboxServer(sandbox_options()) as sandbox:
        place = Place(embedded_kafka, tmp_path, sandbox.base_url, rules=RULES, partitions=1)
        with registry_server() as registry:
            for id, schema in debezium_schemas().items():
                assert registry.register(f"app-{id}", schema) == id
            place.sections["topics"] = {
                place.topic: {"format": "debezium", "encoding": "avro", "registry": {"url": registry.url}}
            }
            records, _ = debezium_avro()
            embedded_kafka.produce(place.topic, *(written(each) for each in records))
            async with place.running():
                await place.finished(len(records))
        assert place.letters() == []
        assert custom_fields(sandbox) == {
            "ada@example.com": {"balance": "1234.50", "born": "1815-12-10", "bio": False, "plan": "pro"}
        }
        assert (
            len(calls(sandbox, "add_tag")) + sum("tag_names" in each.json() for each in calls(sandbox, "upsert")) == 1
        )
