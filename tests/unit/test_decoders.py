"""A topic's decoder is made from its settings; each mistake in them is told once."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.config import load
from bridge.decoders import decoders
from bridge.errors import ProblemsFound


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
