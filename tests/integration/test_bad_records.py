"""Whatever a topic holds: each record ends as it is defined to, and nothing stops."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from structlog.testing import capture_logs

from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, calls, sandbox_options
from tests.support.kafka import Cluster

RULES = """\
rules:
  - name: signup
    match: user.signed_up
    do:
      - upsert:
          email: ${data.email}
          external_id: ${optional(data.user_id)}
          custom_fields: {note: "${optional(data.note)}"}
  - {name: glob, match: "user.signed_?p.twice", do: [{upsert: {email: "${data.email}"}}]}
  - {name: u, match: bad.upsert, do: [{upsert: {email: "${data.nope}"}}]}
  - {name: tk, match: bad.track, do: [{track: {email: a@example.com, event_name: "${data.nope}"}}]}
  - {name: tr, match: bad.trigger, do: [{trigger: {to_email: a@example.com, trigger_key: "${data.nope}"}}]}
  - {name: en, match: bad.enroll, do: [{enroll: {email: a@example.com, sequence_slug: "${data.nope}"}}]}
  - {name: at, match: bad.add_tag, do: [{add_tag: {email: a@example.com, tag_name: "${data.nope}"}}]}
  - {name: rt, match: bad.remove_tag, do: [{remove_tag: {email: a@example.com, tag_name: "${data.nope}"}}]}
  - {name: kind, match: bad.kind, do: [{upsert: {email: a@example.com, custom_fields: "${data.list}"}}]}
  - {name: nothing, match: bad.nobody, do: [{upsert: {email: "${data.email}"}}]}
  - {name: text, match: bad.text, do: [{upsert: {email: a@example.com, first_name: "Mr ${data.null}"}}]}
  - {name: when, match: bad.when, when: data.list > 1, do: [{upsert: {email: a@example.com}}]}
  - {name: unmet, match: bad.unmet, when: data.nope > 1, do: [{upsert: {email: a@example.com}}]}
  - {name: heavy, match: bad.heavy, do: [{upsert: {email: a@example.com, first_name: "${'x' * data.times}"}}]}
  - {name: old, match: old.welcome, do: [{trigger: {to_email: a@example.com, trigger_key: welcome}}]}
  - {name: half, match: half, do: [{upsert: {email: half@example.com}}]}
  - {name: other-half, match: half, do: [{upsert: {email: "${data.nope}"}}]}
"""
HANDLERS = """\
import sys
from bridge import Upsert, handles

@handles("handler.raises")
def raises(event):
    raise ValueError(f"secret {event.data['email']}")

@handles("handler.half")
def yields_and_raises(event):
    yield Upsert(email="never@example.com")
    raise KeyError(event.data["email"])

@handles("handler.exits")
def exits(event):
    sys.exit(3)

@handles("handler.endless")
def endless(event):
    while True:
        yield Upsert(email="never@example.com")

@handles("handler.wrong")
def wrong(event):
    return [{"email": "never@example.com"}]

@handles("handler.deep")
def deep(event):
    return deep(event)

@handles("handler.changes")
def changes(event):
    event.data.clear()
"""


class Case(NamedTuple):
    name: str
    value: bytes | None
    outcome: str
    """The metric's outcome; a dead letter's kind where it is one."""
    says: str = ""
    """In the letter's message."""
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def event(type: Any, data: Any = None, **more: Any) -> bytes:
    return json.dumps({"type": type, "data": data, **more}, ensure_ascii=False).encode()


def signup(email: Any, **data: Any) -> bytes:
    return event("user.signed_up", {"email": email, **data})


def nested(levels: int) -> bytes:
    return b'{"type": "user.signed_up", "data": {"email": "deep@example.com", "note": %s}}' % (
        b"[" * levels + b"]" * levels
    )


CASES = [
    # Bytes
    Case("tombstone", None, "filtered"),
    Case("tombstone with a key", None, "filtered", key=b"u1"),
    Case("empty", b"", "decode", "empty"),
    Case("blank", b" \n", "decode", "blank"),
    Case("broken", b'{"type": "user.signed_up"', "decode", "invalid JSON at line 1"),
    Case("not UTF-8", b'{"type": "user.signed_up", "data": "\xff"}', "decode", "invalid UTF-8 at byte 36"),
    Case("UTF-16", '{"type": "x"}'.encode("utf-16"), "decode", "invalid UTF-8"),
    Case("registry framing", b"\x00\x00\x00\x00\x07{}", "decode", "schema id 7"),
    Case("byte order mark", b"\xef\xbb\xbf" + signup("bom@example.com"), "delivered"),
    Case("a list", b"[1]", "decode", "must be a JSON object"),
    Case(
        "NaN", b'{"type": "user.signed_up", "data": {"email": "a@example.com", "note": NaN}}', "decode", "invalid JSON"
    ),
    Case("lone surrogate", b'{"type": "user.signed_up", "data": {"email": "\\ud800"}}', "decode", "invalid JSON"),
    Case(
        "beyond 64 bits", b'{"type": "user.signed_up", "data": {"user_id": 18446744073709551616}}', "decode", "64 bits"
    ),
    Case("64 bits", signup("big@example.com", user_id=2**64 - 1), "delivered"),
    Case(
        "beyond a double",
        b'{"type": "user.signed_up", "data": {"email": "e@example.com", "note": 1e400}}',
        "decode",
        "",
    ),
    Case("very deep", nested(100_000), "decode", ""),
    Case("too deep", nested(200), "decode", "nested deeper than 128 levels"),
    Case("deep", nested(30), "delivered"),
    Case(
        "duplicate keys",
        b'{"type": "x", "type": "user.signed_up", "data": {"email": "twice@example.com"}}',
        "delivered",
    ),
    # Size: the sandbox takes requests of 1 MiB, the broker records of a little less
    Case("large", signup("large@example.com", note="x" * 900_000), "delivered"),
    Case("large and broken", b'{"type": "' + b"x" * 900_000, "decode", "invalid JSON"),
    Case("large type", event("x" * 900_000), "filtered"),
    Case("large and wrong", event("bad.upsert", {"note": "x" * 900_000}), "rule", "data.nope"),
    Case("as large as records get", b"{" + b"x" * 999_800, "decode", "invalid JSON"),
    # Envelope
    Case("no type", b'{"data": {}}', "decode", "value.type is missing or null"),
    Case("empty type", event(""), "decode", "value.type is an empty string"),
    Case("type of another kind", event(["user.signed_up"]), "decode", "value.type is an array"),
    Case("unknown type", event("nobody.cares"), "filtered"),
    Case("type like a glob", event("user.*"), "filtered"),
    Case("type like every glob", event("*"), "filtered"),
    Case("type like a set", event("user.signed_[u]p"), "filtered"),
    Case("type with a line end", event("user.signed_up\n"), "filtered"),
    Case("a glob's own type", event("user.signed_up.twice", {"email": "glob@example.com"}), "delivered"),
    Case("no time", event("user.signed_up", {"email": "time@example.com"}, time="yesterday"), "decode", "value.time"),
    Case("huge time", event("user.signed_up", {"email": "t@example.com"}, time=1e308), "decode", "value.time"),
    Case("history", event("old.welcome", {}, time="2001-02-03T04:05:06Z"), "expired"),
    Case("first century", event("old.welcome", {}, time="0001-01-01T00:00:00Z"), "expired"),
    Case("id of another kind", event("user.signed_up", {}, id={"a": 1}), "decode", "value.id is an object"),
    # Data
    Case("no data", event("user.signed_up"), "rule", "data.email"),
    Case("data is text", event("user.signed_up", "a@example.com"), "rule", "data"),
    Case("data is a number", event("user.signed_up", 7), "rule", "data"),
    Case("no address", signup(None), "rule", "email"),
    Case("empty address", signup(""), "rule", "email"),
    Case("address is a list", signup(["a@example.com"]), "rule", "email"),
    Case("spaces around", signup("  Spaces@Example.com "), "delivered"),
    Case("spaces within", signup("a b@example.com"), "rejected", "email"),
    Case("no address at all", signup("nobody"), "rejected", "email"),
    Case("unicode address", signup("jörg@exämple.com"), "delivered"),
    Case("emoji", signup("🦊@example.com"), "delivered"),
    Case("zero byte", signup("a\u0000@example.com"), "rejected", "email"),
    Case("line end", signup("a@example.com\r\nBcc: b@example.com"), "rejected", "email"),
    Case("long address", signup("a" * 5000 + "@example.com"), "rejected", "email"),
    # Rules
    *(
        Case(f"{kind} lacks a field", event(f"bad.{kind}", {}), "rule", "data.nope is missing")
        for kind in ("upsert", "track", "trigger", "enroll", "add_tag", "remove_tag")
    ),
    Case("value of the wrong kind", event("bad.kind", {"list": [1]}), "rule", "custom_fields"),
    Case("nobody", event("bad.nobody", {"email": None}), "rule", "email"),
    Case("null in a text", event("bad.text", {"null": None}), "rule", "null"),
    Case("condition fails", event("bad.when", {"list": []}), "rule", "when"),
    Case("condition lacks a field", event("bad.unmet", {}), "filtered"),
    Case("too much work", event("bad.heavy", {"times": 10**12}), "rule", ""),
    # Handlers
    Case("handler raises", event("handler.raises", {"email": "private@example.com"}), "rule", "ValueError"),
    Case(
        "handler raises after a yield",
        event("handler.half", {"email": "private@example.com"}),
        "rule",
        "a key is missing",
    ),
    Case("handler exits", event("handler.exits"), "rule", "SystemExit"),
    Case("handler never ends", event("handler.endless"), "rule", "more than 1000 actions"),
    Case("handler yields something else", event("handler.wrong"), "rule", ""),
    Case("handler recurses", event("handler.deep"), "rule", "RecursionError"),
    Case("handler changes the event", event("handler.changes", {"a": 1}), "filtered"),
    # Record
    Case("no key", signup("nokey@example.com"), "delivered", key=None),
    Case("empty key", signup("emptykey@example.com"), "delivered", key=b""),
    Case("key is no text", signup("bytes@example.com"), "delivered", key=b"\xff\x00"),
    Case("strange headers", b"{", "decode", "JSON", headers=(("a", None), ("a", b"\xff"), ("meisa-bridge.kind", b"x"))),
]


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxServer]:
    async with SandboxServer(sandbox_options()) as server:
        yield server


async def test_every_bad_record_has_its_end_and_nothing_stops(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """All in one partition, so that one that stops would stop those behind it: each is delivered, filtered, or a dead
    letter of the defined kind that says why, holds the record as it came, and shows nobody's data in its message."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url, rules=RULES, partitions=1)
    (tmp_path / "bad_record_handlers.py").write_text(HANDLERS)
    place.sections["handlers"] = ["bad_record_handlers"]
    half = Case("half", event("half", {}), "rule", "data.nope is missing")
    last = Case("last", signup("last@example.com"), "delivered")
    cases = [*CASES, half, last]
    records = ({"value": case.value, "key": case.key, "headers": list(case.headers)} for case in cases)
    place.cluster.produce(place.topic, *records)
    with capture_logs() as logs:
        async with place.running():
            await place.finished(len(cases))
            status = await place.status()
    kinds = {"decode", "rule", "rejected"}
    expected = Counter("dead_lettered" if case.outcome in kinds else case.outcome for case in cases)
    letters = {int(headers["source.offset"]): (message, headers) for message, headers in place.letters()}
    assert place.cluster.end(place.letters_topic) == len(letters), "one letter for each"
    ends: dict[str, str] = {}
    for offset, case in enumerate(cases):
        message, headers = letters.pop(offset, (None, {}))
        if message is None:
            ends[case.name] = case.outcome if case.outcome not in kinds else "no letter"
            continue
        said = headers["message"]
        ends[case.name] = headers["kind"] if case.says in said and "private@" not in said else said
        assert message.value() == case.value, case.name
        assert message.key() == case.key, case.name
    assert ends == {case.name: case.outcome for case in cases}
    assert letters == {}
    assert status["totals"] == expected
    emails = {entry.json()["email"] for entry in calls(sandbox, "upsert") if entry.carried_out}
    assert {"half@example.com", "last@example.com", "jörg@exämple.com", "large@example.com"} <= emails
    assert "never@example.com" not in emails, "a handler that fails has done nothing"
    assert status["waiting_for"] == []
    assert [line for line in logs if line["log_level"] in ("error", "critical")] == []
