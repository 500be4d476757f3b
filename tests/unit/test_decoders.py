"""A topic's decoder is made from its settings; each mistake in them is told once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge.config import load
from bridge.decoders import decoders
from bridge.errors import DecodeError, ProblemsFound
from bridge.model import Event, Record
from tests.support.avro import avro


def test_a_file_of_events_may_hold_avro_as_json(tmp_path: Path) -> None:
    """A JSON object stands for the value as rules see it; bytes that are Avro are read as such."""
    schema = {"type": "record", "name": "Changed", "fields": [{"name": "email", "type": "string"}]}
    (tmp_path / "a.avsc").write_text(json.dumps(schema))
    (tmp_path / "bridge.yaml").write_text(
        "kafka: {bootstrap_servers: localhost:9092}\n"
        "topics: {a: {format: avro, schema: a.avsc}, b: {format: avro, registry: {url: 'http://localhost:9'}}}\n"
        "meisa: {api_key: {env: KEY}}\n"
        "rules: [r.yaml]\n"
    )
    made = decoders(load(tmp_path / "bridge.yaml", {"KEY": "meisa_live_x"}), also_json=True)

    def event(topic: str, value: bytes) -> Event | None:
        return made[topic](Record(topic, 0, 0, 0, None, value))

    for value in (b'{"email": "ada@example.com"}', avro(schema, {"email": "ada@example.com"})):
        found = event("a", value)
        assert found is not None and (found.type, found.data) == ("Changed", {"email": "ada@example.com"})
    found = event("b", b'{"type": "changed", "data": {"plan": "pro"}}')
    assert found is not None and (found.type, found.data) == ("changed", {"plan": "pro"})
    for broken in (b'{"email": ', b"\x00\x00"):
        with pytest.raises(DecodeError):
            event("b", broken)


def test_a_broken_schema_is_told_once_and_with_its_place(tmp_path: Path) -> None:
    """What follows from a file that cannot be used is not told as well."""
    (tmp_path / "bad.avsc").write_text('{"type": "strin"}')
    (tmp_path / "bridge.yaml").write_text(
        "kafka: {bootstrap_servers: localhost:9092}\n"
        "topics: {a: {format: avro, schema: bad.avsc}, b: {format: avro, schema: missing.avsc}}\n"
        "meisa: {api_key: {env: KEY}}\n"
        "rules: [r.yaml]\n"
    )
    with pytest.raises(ProblemsFound) as caught:
        decoders(load(tmp_path / "bridge.yaml", {"KEY": "meisa_live_x"}))
    assert [(each.code, each.line, each.column) for each in caught.value.problems] == [
        ("MB042", 2, 36),
        ("MB041", 2, 73),
    ]
