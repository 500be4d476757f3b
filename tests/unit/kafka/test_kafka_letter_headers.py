"""The headers of a dead letter (interface.md)."""

from __future__ import annotations

import json

from bridge.kafka.letters import TEXT_BYTES_MAX, headers_of
from bridge.model import Letter, LetterKind, Record

RECORD = Record("users", 3, 42, 1_700_000_000_000, b"k", b"v")


def _named(letter: Letter) -> dict[str, str]:
    headers = headers_of(letter)
    assert len({name for name, _ in headers}) == len(headers), "a name stands twice"
    return {name: (value or b"").decode() for name, value in headers}


def test_all_that_is_known_is_there_under_the_interfaces_names() -> None:
    """Every header of the interface, as text."""
    letter = Letter(
        RECORD,
        LetterKind.EXHAUSTED,
        "503 Service Unavailable",
        rule="signup",
        action="trigger",
        status=503,
        request={"to_email": "a@example.com"},
        response={"detail": "später"},
        attempts=10,
        failed_at_wall_seconds=1_700_000_100.25,
        undelivered=(1, 2),
        undelivered_ids=("aa", "bb"),
    )
    assert _named(letter) == {
        "meisa-bridge.kind": "exhausted",
        "meisa-bridge.rule": "signup",
        "meisa-bridge.action": "trigger",
        "meisa-bridge.status": "503",
        "meisa-bridge.message": "503 Service Unavailable",
        "meisa-bridge.request": '{"to_email":"a@example.com"}',
        "meisa-bridge.response": '{"detail":"später"}',
        "meisa-bridge.attempts": "10",
        "meisa-bridge.failed_at": "2023-11-14T22:15:00.250Z",
        "meisa-bridge.source.topic": "users",
        "meisa-bridge.source.partition": "3",
        "meisa-bridge.source.offset": "42",
        "meisa-bridge.source.timestamp": "1700000000000",
        "meisa-bridge.undelivered": "[1,2]",
        "meisa-bridge.undelivered_ids": '["aa","bb"]',
        "meisa-bridge.replays": "0",
    }


def test_what_is_not_known_is_left_out() -> None:
    """A record that could not be decoded has no rule, no request and no status."""
    named = _named(Letter(RECORD, LetterKind.DECODE, "not JSON"))
    absent = ("rule", "action", "status", "request", "response", "undelivered", "undelivered_ids")
    assert not {f"meisa-bridge.{name}" for name in absent} & named.keys()


def test_long_texts_are_cut_whole_characters_at_a_time() -> None:
    """4 KiB each, valid UTF-8, and the cut is visible."""
    named = _named(Letter(RECORD, LetterKind.REJECTED, "ä" * 5_000, request={"x": "y" * 10_000}, response="z" * 10_000))
    for name in ("message", "request", "response"):
        text = named[f"meisa-bridge.{name}"]
        assert len(text.encode()) <= TEXT_BYTES_MAX and text.endswith("…")


def test_an_api_key_never_gets_into_a_letter() -> None:
    """Wherever it might have been quoted."""
    key = "meisa_live_0123456789abcdef"
    named = _named(Letter(RECORD, LetterKind.REJECTED, f"bad {key}", request={"a": key}, response={"b": [key]}))
    assert key not in json.dumps(named)
    assert named["meisa-bridge.message"] == "bad meisa_live_***"


def test_a_replayed_record_that_fails_again_counts_its_replays() -> None:
    """Counted up where the record tells of replays."""
    for before, after in ((b"2", "3"), (b"nonsense", "1")):
        record = RECORD._replace(headers=(("meisa-bridge.replays", before),))
        assert _named(Letter(record, LetterKind.REJECTED, "again"))["meisa-bridge.replays"] == after


def test_a_count_of_replays_that_anybody_wrote_is_no_trap() -> None:
    """Python reads no number of thousands of digits; the letter must be written all the same."""
    for text, count in ((b"7", "8"), (b"9" * 5_000, "1"), ("²".encode(), "1"), (b"", "1"), (b"-1", "1")):
        record = RECORD._replace(headers=(("meisa-bridge.replays", text),))
        assert _named(Letter(record, LetterKind.DECODE, "not JSON"))["meisa-bridge.replays"] == count
