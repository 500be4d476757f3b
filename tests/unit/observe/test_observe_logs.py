"""Log lines are readable by machine or person, and hold no addresses and no keys."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Mapping
from typing import Any

import pytest
import structlog

from bridge.model import TraceContext
from bridge.observe.logs import TEXT_MAX, configure, forget_traces, name_traces
from bridge.observe.masking import mask, mask_contact, mask_email, mask_keys
from bridge.observe.printable import printable, printable_in


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_say_when_what_and_where() -> None:
    stream = io.StringIO()
    configure(stream, "info")
    structlog.get_logger("bridge.kafka").warning("commit refused", partition="users/3", count=2)
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "bridge.kafka",
        "event": "commit refused",
        "partition": "users/3",
        "count": 2,
    }


def test_a_line_about_a_traced_record_names_its_trace() -> None:
    """As 32 and 16 hex digits, by which a backend finds them; other lines have none, and nobody's own is replaced."""

    def find(fields: Mapping[str, Any]) -> TraceContext | None:
        return TraceContext(10, 11) if fields.get("place") == "users/0/7" else None

    stream = io.StringIO()
    configure(stream, "info")
    name_traces(find)
    try:
        log = structlog.get_logger("bridge")
        log.info("one", place="users/0/7")
        log.info("two", place="users/0/8")
        log.info("three", place="users/0/7", trace_id="own")
    finally:
        forget_traces(lambda fields: None)
        assert lines(stream)[-1]["trace_id"] == "own"
        forget_traces(find)
    structlog.get_logger("bridge").info("four", place="users/0/7")
    one, two, _, four = lines(stream)
    assert (one["trace_id"], one["span_id"]) == ("0" * 31 + "a", "0" * 15 + "b")
    assert "trace_id" not in two and "trace_id" not in four


def test_a_terminal_gets_text_for_people() -> None:
    stream = Terminal()
    configure(stream, "info")
    structlog.get_logger("bridge").info("started", port=8080)
    assert "started" in stream.getvalue()
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(stream.getvalue())


@pytest.mark.parametrize(("stream", "as_json"), [(Terminal(), True), (io.StringIO(), False)])
def test_the_format_can_be_forced(stream: io.StringIO, as_json: bool) -> None:
    configure(stream, "info", json=as_json)
    structlog.get_logger("bridge").info("started")
    assert stream.getvalue().startswith("{") == as_json
    assert "\x1b" not in stream.getvalue() or stream.isatty()


def test_the_level_decides_and_an_unknown_one_is_named() -> None:
    stream = io.StringIO()
    configure(stream, "warning")
    structlog.get_logger("bridge").info("quiet")
    structlog.get_logger("bridge").error("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]
    with pytest.raises(ValueError, match="unknown log level 'loud'; write one of: debug"):
        configure(stream, "loud")


def test_other_libraries_logs_come_out_the_same_way_and_masked() -> None:
    stream = io.StringIO()
    configure(stream, "info")
    logging.getLogger("some.library").warning("refused for %s", "anna@example.com")
    logging.getLogger("httpx").info("HTTP Request: GET /?email=anna%%40example.com")
    assert [(line["logger"], line["event"]) for line in lines(stream)] == [
        ("some.library", "refused for a***@example.com")
    ]


def test_configuring_again_replaces_and_never_doubles() -> None:
    first, second = io.StringIO(), io.StringIO()
    early = structlog.get_logger("bridge")
    configure(first, "info")
    early.info("one")
    configure(second, "info")
    early.info("two")
    assert [line["event"] for line in lines(first)] == ["one"]
    assert [line["event"] for line in lines(second)] == ["two"]


@pytest.mark.parametrize("as_json", [True, False])
def test_neither_addresses_nor_keys_reach_a_line_tracebacks_included(as_json: bool) -> None:
    stream = io.StringIO()
    configure(stream, "debug", json=as_json)
    log = structlog.get_logger("bridge")
    log.info("upsert for anna@example.com", nested={"to": ["bob@example.com", b"carl@example.com"]}, id=object())
    try:
        raise ValueError("refused dora@example.com with meisa_live_abc123")
    except ValueError:
        log.exception("failed")
        logging.getLogger("library").exception("failed too")
    text = stream.getvalue()
    assert "ValueError" in text
    for name in ("anna", "bob", "carl", "dora", "abc123"):
        assert name not in text
    assert "a***@example.com" in text
    assert "meisa_live_***" in text


def test_show_contacts_shows_addresses_but_never_keys() -> None:
    stream = io.StringIO()
    configure(stream, "info", show_contacts=True)
    structlog.get_logger("bridge").info("sent", to="anna@example.com", key="meisa_test_abc123")
    (line,) = lines(stream)
    assert (line["to"], line["key"]) == ("anna@example.com", "meisa_test_***")


def test_a_long_text_is_cut_and_says_so_without_half_an_address() -> None:
    stream = io.StringIO()
    configure(stream, "info")
    body = "x " * (TEXT_MAX // 2 - 2) + "anna@example.com " + "y" * 500_000
    structlog.get_logger("bridge").info("answer", body=body)
    (line,) = lines(stream)
    assert len(line["body"]) < TEXT_MAX + 50
    assert "more characters" in line["body"]
    assert "ann" not in line["body"]


@pytest.mark.parametrize(
    "odd", [2**70, "\ud800", float("nan"), {1: 2}, {"a": {"b": {"c": {"d": {"e": {"f": {"g": 1}}}}}}}]
)
def test_odd_values_never_break_a_line(odd: Any) -> None:
    stream = io.StringIO()
    configure(stream, "info")
    structlog.get_logger("bridge").info("odd", value=odd)
    assert lines(stream)[0]["event"] == "odd"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("anna@example.com", "a***@example.com"),
        ("a@example.com", "a***@example.com"),
        ("to <anna.b+c@example.com>, 'bob@x.org'", "to <a***@example.com>, 'b***@x.org'"),
        ("o'brien@example.com", "o***@example.com"),
        ("jürgen@exämple.de", "j***@exämple.de"),
        ("?email=anna%40example.com&x=1", "?email=a***%40example.com&x=1"),
        ("?email=anna%2Bx%40example.com", "?email=a***%40example.com"),
        ('{"email":"anna@example.com"}', '{"email":"a***@example.com"}'),
        ("redis://user:secret@host:6379", "redis://user:s***@host:6379"),
        ("60 events @ 50 ms, 40%", "60 events @ 50 ms, 40%"),
        ("", ""),
    ],
)
def test_mask_email(text: str, masked: str) -> None:
    assert mask_email(text) == masked
    assert mask_email(masked) == masked


@pytest.mark.parametrize(
    ("name", "masked"),
    [("anna@example.com", "a***@example.com"), ("customer-7", "c***"), ("7", "7***"), ("anna@", "a***"), ("", "")],
)
def test_a_contacts_name_is_masked_whatever_it_is(name: str, masked: str) -> None:
    """An id may be a name or a number of something else; the first character must do."""
    assert mask_contact(name) == masked


def test_masking_takes_linear_time() -> None:
    """A megabyte without an @ at its end must not stall the loop: this would take minutes if it were quadratic."""
    assert mask_email("a" * 1_000_000 + " @") == "a" * 1_000_000 + " @"


def test_mask_keys() -> None:
    assert mask_keys("key meisa_live_Ab-9_z, meisa_test_x.") == "key meisa_live_***, meisa_test_***"
    assert mask_keys("meisa_bridge_calls_total") == "meisa_bridge_calls_total"


def test_mask_reaches_keys_of_mappings_and_every_container() -> None:
    value = {"anna@example.com": ("bob@example.com", {"x": {"carl@example.com"}}), "n": 1, "b": True, "none": None}
    assert mask(value) == {
        "a***@example.com": ["b***@example.com", {"x": ["c***@example.com"]}],
        "n": 1,
        "b": True,
        "none": None,
    }


EVIL = "\x1b[2Jred\r\n2026-01-01 [error] forged \u202egnp\x9b31m\u2028\ud800\x00"


def test_no_text_of_others_moves_the_terminals_cursor_or_forges_a_line() -> None:
    """On a terminal a line is one line, whatever stands in it: in the event, a name, a value, what libraries log."""
    stream = Terminal()
    configure(stream, "info", json=False)
    structlog.get_logger("bridge").warning(EVIL, value=EVIL, listed=[EVIL], **{EVIL: 1})
    logging.getLogger("library").warning("%s", EVIL)
    told = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue()).splitlines()  # our own colours
    assert len(told) == 2
    assert all(line.isprintable() and "\\x1b[2Jred\\r\\n2026" in line for line in told)


def test_a_traceback_on_a_terminal_looks_like_no_line_of_ours() -> None:
    stream = Terminal()
    configure(stream, "info", json=False)
    try:
        raise ValueError(EVIL)
    except ValueError:
        structlog.get_logger("bridge").exception("broken")
    first, *others = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue()).splitlines()
    assert "broken" in first and len(others) > 3
    assert all(line.isprintable() and line.startswith("  ") for line in others)


@pytest.mark.parametrize("text", ["plain", "jörg@exämple.com 🦊 — \u00a0", ""])
def test_what_can_be_shown_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text
    assert printable(f"{text}\n\t", keep="\n\t") == f"{text}\n\t"
    assert printable_in({text: [text, 1, None], "a\x1b": ("\r",)}) == {text: [text, 1, None], "a\\x1b": ["\\r"]}
