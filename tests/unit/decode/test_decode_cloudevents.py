"""CloudEvents become events in both content modes, and each odd input has its answer (bridge/decode/cloudevents.py)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from bridge.decode import decoder_for
from bridge.errors import DecodeError
from bridge.model import Event, Record
from tests.support.formats import cloud_events

TIMESTAMP_MS = 1_795_373_100_000
DECODER = decoder_for("cloudevents")
SDK = cloud_events()
REQUIRED = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/app", "ce_type": "user.signed_up"}
ATTRIBUTES = {"specversion": "1.0", "id": "1", "source": "/app", "type": "user.signed_up"}
STRUCTURED = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)


def record(value: bytes | None, headers: Any, timestamp_ms: int = TIMESTAMP_MS) -> Record:
    return Record("user-events", 3, 42, timestamp_ms, b"u_7", value, tuple(headers))


def binary(value: bytes | None = b"{}", content_type: str | None = "application/json", **more: str | None) -> Record:
    headers = REQUIRED | {f"ce_{name}": text for name, text in more.items()}
    if content_type is not None:
        headers["content-type"] = content_type
    return record(value, ((name, text.encode()) for name, text in headers.items() if text is not None))


def structured(headers: Any = STRUCTURED, **more: Any) -> Record:
    return record(json.dumps(ATTRIBUTES | more).encode(), headers)


def decoded(made: Record) -> Event:
    event = DECODER.decode(made)
    assert event is not None
    return event


def refusal(made: Record) -> str:
    with pytest.raises(DecodeError) as caught:
        DECODER.decode(made)
    return caught.value.message


@pytest.mark.parametrize("name", [name for name in SDK if name != "list-binary" and not name.startswith("minimal")])
def test_what_the_official_sdk_writes_is_read(name: str) -> None:
    """In both content modes, by the SDK's present and its older interface."""
    event = decoded(SDK[name])
    assert (event.id, event.type, event.source, event.subject) == (
        "evt-1",
        "user.signed_up",
        "https://app.example.com/users",
        "u_7",
    )
    assert event.time_wall_seconds == 1_795_337_657.123
    assert event.headers["ce_tenant"] == "acme-ü"
    assert event.headers["ce_dataschema"].endswith("user.signed_up.json")
    user = {"email": "ada@example.com", "user_id": "7", "plan": "free", "name": "Åda"}
    expected = {
        "object": user,
        "old": user,
        "list": [1, 2.5, None, "x"],
        "text": "grüße",
        "xml": "<user><email>ada@example.com</email></user>",
        "bytes": base64.b64encode(b"\x00\x01\xfe\xff").decode(),
        "no-data": {},
        "no-content-type": {"email": "ada@example.com"},
    }
    assert event.data == expected[name.rpartition("-")[0]]


@pytest.mark.parametrize("name", ["minimal-binary", "minimal-structured"])
def test_the_least_that_the_sdk_writes_is_read(name: str) -> None:
    event = decoded(SDK[name])
    assert (event.id, event.type, event.source, event.subject, event.data) == ("m", "ping", "/", None, {})


def test_a_list_in_binary_mode_is_no_json_from_the_sdk() -> None:
    """Its version 2.2.0 writes Python's own notation for it, and calls that application/json."""
    assert "invalid JSON at line 1, column 10" in refusal(SDK["list-binary"])


def test_without_a_time_the_record_s_timestamp_counts() -> None:
    for made in (binary(), structured(), structured(time=None)):
        assert decoded(made).time == "2026-11-22T18:45:00Z"
    without = binary()._replace(timestamp_ms=-1)
    assert "no timestamp" in refusal(without)


def test_a_null_value_is_a_tombstone_unless_the_headers_are_an_event_s() -> None:
    """The binding: an event without data is a record without value. Nothing but its attributes tells them apart."""
    assert DECODER.decode(record(None, ())) is None
    assert DECODER.decode(record(None, STRUCTURED)) is None
    assert DECODER.decode(record(None, [("trace", b"x")])) is None
    assert decoded(binary(None)).data == {}


def test_structured_mode_needs_no_header() -> None:
    """Producers without headers, and some that name their data's type there, write it so (the older Python SDK)."""
    for headers in ((), [("content-type", b"application/json")], [("content-type", b"text/plain")]):
        assert decoded(structured(headers, data={"a": 1})).data == {"a": 1}
    assert "not a CloudEvent" in refusal(record(b'{"type": "user.signed_up"}', ()))
    assert "not a CloudEvent" in refusal(record(b"hello", ()))
    assert "not a CloudEvent" in refusal(record(b"", ()))


def test_the_content_type_is_compared_without_case_and_parameters() -> None:
    headers = [("Content-Type", b'Application/CloudEvents+JSON ; charset="utf-8"')]
    assert decoded(structured(headers, data=7)).data == 7


@pytest.mark.parametrize(
    ("content_type", "says"),
    [
        ("application/cloudevents-batch+json", "batch"),
        ("application/cloudevents+avro", "other than JSON"),
        ("application/cloudevents", "other than JSON"),
    ],
)
def test_other_event_formats_are_refused(content_type: str, says: str) -> None:
    assert says in refusal(structured([("content-type", content_type.encode())]))


@pytest.mark.parametrize("version", ["0.3", "0.2", "2.0", "1", "1.0.2", "one", ""])
def test_other_versions_are_refused(version: str) -> None:
    """1.x is read: a minor version adds only."""
    said = "CloudEvents 1.0" if version.startswith("0.") else "read here"
    assert said in refusal(binary(specversion=version))
    assert said in refusal(structured(specversion=version))
    assert decoded(binary(specversion="1.1")).id == "1"


@pytest.mark.parametrize("name", ["id", "type", "source"])
def test_required_attributes(name: str) -> None:
    assert f"ce_{name} header is missing" in refusal(binary(**{name: None}))
    assert f"ce_{name} header is empty" in refusal(binary(**{name: ""}))
    for wrong, says in ((None, "missing or null"), ("", "an empty string"), (7, "an integer"), (["a"], "an array")):
        assert f"value.{name} is {says}" in refusal(structured(**{name: wrong}))


def test_attributes_of_the_wrong_kind_are_refused() -> None:
    assert "value.subject is an integer" in refusal(structured(subject=7))
    assert "value.time is an integer" in refusal(structured(time=1_795_337_657))
    assert "ce_time header is not an ISO 8601 time" in refusal(binary(time="yesterday"))
    assert "value.time is not an ISO 8601 time" in refusal(structured(time="yesterday"))
    assert decoded(structured(subject="")).subject is None
    assert decoded(binary(subject="")).subject is None
    assert "must be a JSON object" in refusal(record(b"[]", STRUCTURED))


def test_a_header_given_twice_must_say_the_same() -> None:
    """Headers are a list: of two ids, nobody knows which one is meant."""
    made = binary(b'{"a": 1}')
    same = made._replace(headers=(*made.headers, ("ce_id", b"1"), ("content-type", b"application/json")))
    assert decoded(same).data == {"a": 1}
    assert "two ce_id headers" in refusal(made._replace(headers=(*made.headers, ("ce_id", b"2"))))
    assert "two content-type" in refusal(made._replace(headers=(*made.headers, ("content-type", b"text/plain"))))
    other = made._replace(headers=(*made.headers, ("ce_ada@example.com", b"1"), ("ce_ada@example.com", b"2")))
    assert refusal(other) == "two ce_… headers differ"


def test_headers_that_are_no_text() -> None:
    """What is read must be UTF-8; of other headers odd bytes are replaced, as everywhere; null means absent."""
    made = binary()
    assert "ce_subject header is not UTF-8" in refusal(made._replace(headers=(*made.headers, ("ce_subject", b"\xff"))))
    event = decoded(made._replace(headers=(*made.headers, ("ce_tenant", b"\xff"), ("ce_subject", None), ("x", None))))
    assert (event.headers["ce_tenant"], event.subject) == ("\ufffd", None)


@pytest.mark.parametrize(
    ("content_type", "raw", "expected"),
    [
        ("application/json", b' "text" ', "text"),
        ("application/json", b"null", {}),
        ("APPLICATION/JSON; Charset=UTF-8", b'{"a": 1}', {"a": 1}),
        ("application/json; charset=iso-8859-1", b'"\xfc"', "ü"),
        ("text/json", b"1", 1),
        ("application/vnd.acme.user+json", b"[]", []),
        ("text/plain", "ü".encode(), "ü"),
        ("text/plain; charset=utf-16", "ü".encode("utf-16"), "ü"),
        ('text/csv; header=present; charset="windows-1252"', b"\x80", "€"),
        ("image/svg+xml", b"<svg/>", "<svg/>"),
        ("application/x-yaml; charset=utf-8", b"a: 1", "a: 1"),
        ("application/avro", b"\x02a", "AmE="),
        ("\xff", b"a", "YQ=="),
    ],
)
def test_data_by_its_media_type(content_type: str, raw: bytes, expected: Any) -> None:
    assert decoded(binary(raw, content_type)).data == expected


@pytest.mark.parametrize(
    ("content_type", "raw", "says"),
    [
        ("application/json", b"{", "invalid JSON"),
        ("application/json", b'{"a": 100000000000000000000}', "data.a is an integer beyond 64 bits"),
        ("application/json", b"[" * 200 + b"]" * 200, "128 levels"),
        ("text/plain", b"\xff", "data is not UTF-8 text"),
        ("text/plain; charset=us-ascii", b"\xff", "data is not us-ascii text"),
        ("text/plain; charset=punycode", b"a", "charset of data is none of"),
        (None, b"hello", "without a content-type header, data is read as JSON"),
        ("a/" + "b" * 300, b"{}", "longer than 255"),
    ],
)
def test_data_that_is_not_what_it_says(content_type: str | None, raw: bytes, says: str) -> None:
    assert says in refusal(binary(raw, content_type))


def test_the_type_of_data_may_stand_among_the_attributes() -> None:
    """Some producers write ce_datacontenttype; content-type comes first."""
    assert decoded(binary(b"hello", None, datacontenttype="text/plain")).data == "hello"
    assert decoded(binary(b"7", "application/json", datacontenttype="text/plain")).data == 7


def test_base64_data() -> None:
    """JSON and text are read; without a type the format forbids to guess, and other bytes stay base64."""
    encoded = base64.b64encode(b'{"a": 1}').decode()
    assert decoded(structured(data_base64=encoded, datacontenttype="application/json")).data == {"a": 1}
    assert decoded(structured(data_base64=encoded, datacontenttype="text/plain")).data == '{"a": 1}'
    assert decoded(structured(data_base64=encoded)).data == encoded
    assert decoded(structured(data_base64=encoded, datacontenttype="application/avro")).data == encoded
    assert "both data and data_base64" in refusal(structured(data={}, data_base64=encoded))
    assert "not base64" in refusal(structured(data_base64="a-b"))
    assert "value.data_base64 is an integer" in refusal(structured(data_base64=7))


def test_data_of_a_structured_event_stands_as_it_is() -> None:
    """A JSON string is not parsed once more, and null is no data."""
    assert decoded(structured(data='{"a": 1}')).data == '{"a": 1}'
    assert decoded(structured(data={"a": 1}, datacontenttype="application/xml")).data == {"a": 1}
    assert decoded(structured(data=None)).data == {}


def test_extensions_are_headers_in_both_modes() -> None:
    """A rule reads `headers.ce_tenant` whatever mode the producer chose; the record itself stays as it came."""
    event = decoded(structured(tenant="acme", retry=True, attempt=2, odd=None, odder=[1], data={"x": 1}))
    assert event.headers == {
        "content-type": "application/cloudevents+json; charset=UTF-8",
        "ce_specversion": "1.0",
        "ce_id": "1",
        "ce_source": "/app",
        "ce_type": "user.signed_up",
        "ce_tenant": "acme",
        "ce_retry": "true",
        "ce_attempt": "2",
    }
    assert event.record.headers == STRUCTURED
    assert decoded(binary(tenant="acme")).headers["ce_tenant"] == "acme"
