"""An action id is the same for ever for the same action, and no two actions share one."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.model import Action, Contact, Kind, Record, action_id

RECORD = Record("events", 1, 23, 1_780_000_000_000, b"\xff\x00key", b'{"a": 1}')
ACTION = Action(Kind.TRIGGER, "welcome", 0, {"trigger_key": "hello", "to_email": "a@x"}, Contact("a@x"))


def test_keys_are_bytes_compared_by_content_and_with_their_topic() -> None:
    """Any bytes, UTF-8 or not; a null key is no empty one; the same key in another topic is another event's."""
    keys = (b"\xff\x00key", b"\xff\x00kez", b"", None)
    ids = {action_id("g", RECORD._replace(topic=topic, key=key), ACTION) for topic in ("events", "cdc") for key in keys}
    assert len(ids) == 8
    again = RECORD._replace(key=bytes(bytearray(RECORD.key or b"")))
    assert action_id("g", again, ACTION) == action_id("g", RECORD, ACTION)


@pytest.mark.parametrize(
    "changed",
    [
        {"topic": "events2"},
        {"partition": 2},
        {"offset": 24},
        {"timestamp_ms": 1_780_000_000_001},
        {"key": b"\xff\x00ke"},
        {"value": b'{"a": 2}'},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_part_of_the_record_counts(changed: dict[str, Any]) -> None:
    """A topic that was created anew has the same offsets; only what stands in its records tells them apart."""
    assert action_id("g", RECORD._replace(**changed), ACTION) != action_id("g", RECORD, ACTION)


def test_parts_do_not_run_together() -> None:
    """`events1/2` and `events/12` are two places, and what the key ends with is not what the value begins with."""
    one, other = RECORD._replace(topic="events1", partition=2), RECORD._replace(topic="events", partition=12)
    assert action_id("g", one, ACTION) != action_id("g", other, ACTION)
    one, other = RECORD._replace(key=b"ab", value=b"c"), RECORD._replace(key=b"a", value=b"bc")
    assert action_id("g", one, ACTION) != action_id("g", other, ACTION)
