"""Whatever somebody writes into the dead-letter topic, who looks at letters sees pages, JSON and lines."""

from __future__ import annotations

import asyncio
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.cli.dead_letters import line, page
from bridge.model import Record, TopicPartition
from tests.support.amount import examples
from tests.support.letters import LetterDesk
from tests.support.replays import LETTERS

HOSTILE = st.one_of(
    st.text(max_size=30).map(lambda text: text.encode("utf-8", "replace")),
    st.binary(max_size=30),
    st.sampled_from(
        [
            b"9" * 5_000,
            b"[" * 5_000,
            b'["\\ud800"]',
            b'{"email": "\\ud800@x", "external_id": "\\udc00"}',
            b"[" + b"9" * 5_000 + b"]",
            b"\x1b[2J\r\n",
            "\u202egnp.exe".encode(),
            b"0001-01-01T00:00:00+23:59",
            b"9999-12-31T23:59:59-23:59",
            b"<script>window.evil=1</script>",
        ]
    ),
)
NAMES = ("kind", "rule", "action", "message", "status", "attempts", "failed_at", "undelivered", "undelivered_ids",
         "replays", "request", "response", "source.partition", "source.offset", "source.timestamp")  # fmt: skip
USUAL = {"kind": b"rejected", "source.topic": b"events", "source.partition": b"0", "source.offset": b"0",
         "source.timestamp": b"1", "failed_at": b"2026-01-01T00:00:00Z"}  # fmt: skip


@settings(max_examples=examples(60, 6), suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(NAMES), HOSTILE, max_size=4),
    HOSTILE,
    st.one_of(st.none(), HOSTILE),
    st.lists(st.tuples(st.text(max_size=10), st.one_of(st.none(), HOSTILE)), max_size=2),
)
def test_every_page_answers(
    headers: dict[str, bytes], value: bytes, key: bytes | None, others: list[tuple[str, bytes | None]]
) -> None:
    """The letter is shown, or counted as none of ours; and never takes the others with it."""

    async def look() -> None:
        desk = LetterDesk()
        desk.letter("ben@example.com")
        named = [(f"meisa-bridge.{name}", text) for name, text in {**USUAL, **headers}.items()]
        place = TopicPartition(LETTERS, 0)
        desk.logs.topics[place].append(Record(LETTERS, 0, 1, 1, key, value, (*named, *others)))
        for path in (
            "/dead-letters?state=all",
            "/api/dead-letters?state=all",
            "/dead-letters/replay?letter=letters/0/1",
            "/dead-letters/discard?letter=letters/0/1",
        ):
            answer = await desk.get(path)
            assert answer.status_code == 200, path
            assert "<script>window" not in answer.text or path.startswith("/api")
        facts = (await desk.get("/api/dead-letters?state=all")).json()
        assert f"{LETTERS}/0/0" in [each["letter"] for each in facts["letters"]]
        for path in ("/dead-letters/letters/0/1", "/api/dead-letters/letters/0/1"):
            assert (await desk.get(path)).status_code in (200, 404), path
        view = await desk.desk.look()
        for each in view.letters:
            record = await desk.desk.record(each)
            for text in (line(each, show_contacts=True), page(each, record, show_contacts=True)):
                assert "\x1b" not in text and "\u202e" not in text
                text.encode()
        json.dumps(facts)
        await desk.desk.close()

    asyncio.run(look())
