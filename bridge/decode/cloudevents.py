"""CloudEvents 1.0 in both content modes of their Kafka protocol binding.

*Binary*: attributes are `ce_*` headers, `content-type` tells what the value is. *Structured*: the value is a JSON
object with attributes and data, `content-type` begins with `application/cloudevents`. What each input means:

| input | answer |
|---|---|
| content-type `application/cloudevents+json` | structured |
| the same with another suffix, or `-batch` | DecodeError: only JSON is read, one event per record |
| any other content-type, or none | binary |
| no `ce_specversion` header, but a JSON object with `specversion` | structured: so write producers without headers |
| null value with a `ce_specversion` header (binary) | an event without data, as the binding says |
| null value else (tombstone) | None: filtered |
| specversion 1.x | read; 0.x, and anything else, is a DecodeError |
| id, source or type missing, empty, or no string | DecodeError |
| time missing or null | the record's timestamp; not ISO 8601: DecodeError |
| subject missing, null or empty | none; no string: DecodeError |
| one `ce_` header twice | DecodeError where the values differ |
| a header that is read here is not UTF-8 | DecodeError; of other headers, extensions included, odd bytes are replaced |
| data missing, null, or an empty value (binary) | `{}` |

Data by its media type (`content-type` in binary mode, `datacontenttype` in structured mode):

| media type | binary value, `data_base64` | `data` |
|---|---|---|
| `*/json`, `*/*+json` | parsed, any JSON value; not JSON: DecodeError | as it stands |
| none | binary: as JSON; `data_base64`: base64 text, since the format forbids to take it for JSON | as it stands |
| `text/*`, `*/xml`, `*/*+xml`, or with a charset | text; not of that charset: DecodeError | as it stands |
| anything else | base64 text | as it stands |

Extension attributes are `headers.ce_name` in both modes: a structured event shows its attributes as the binary mode
would write them. An event's `id` is unique within its `source` only.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

from bridge.decode import times
from bridge.decode.envelope import kind_of, wrong
from bridge.decode.json import parse_value
from bridge.errors import DecodeError
from bridge.model import Event, Record

_FORMAT: Final = "application/cloudevents"
_PREFIX: Final = "ce_"
_READ: Final = frozenset({"specversion", "id", "source", "type", "time", "subject", "datacontenttype"})
_VERSION: Final = re.compile(r"1\.\d{1,3}", re.ASCII)
_CONTENT_TYPE_MAX: Final = 255
"""Bytes of a content-type header, far beyond any real one: answers about it are kept."""
_CHARSETS: Final = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "iso-8859-1": "latin-1",
    "windows-1252": "cp1252",
    "utf-16": "utf-16",
    "utf-16be": "utf-16-be",
    "utf-16le": "utf-16-le",
}
"""By name, never by Python's registry of codecs: some of those take quadratic time."""
_NOT_IN_HEADERS: Final = frozenset({"data", "data_base64", "datacontenttype"})


class _Media(NamedTuple):
    type: str
    charset: str | None

    @property
    def is_json(self) -> bool:
        return self.type.endswith(("/json", "+json"))

    @property
    def is_text(self) -> bool:
        return self.charset is not None or self.type.startswith("text/") or self.type.endswith(("/xml", "+xml"))


class StructuredEvent(Event):
    """An event whose attributes stand in its value; `headers` shows them as the binary mode would write them."""

    __slots__ = ()

    @property
    def headers(self) -> dict[str, str]:
        found = super().headers
        for name, value in self.value.items():
            if name in _NOT_IN_HEADERS:
                continue
            if isinstance(value, str):
                found[_PREFIX + name] = value
            elif isinstance(value, bool):
                found[_PREFIX + name] = "true" if value else "false"
            elif isinstance(value, int):
                found[_PREFIX + name] = str(value)
        return found


class CloudEventsDecoder:
    """Decodes the records of one topic; see the module's tables for what odd input means."""

    def decode(self, record: Record) -> Event | None:
        """The record's event; None for a tombstone. Raises DecodeError."""
        attributes, content_type = _read_headers(record)
        media = None if content_type is None else _media(content_type)
        raw = record.value
        if media is not None and media.type.startswith(_FORMAT):
            if raw is None:
                return None
            if media.type != f"{_FORMAT}+json":
                raise DecodeError(
                    "the content-type header names a batch of CloudEvents; the Kafka binding knows one event per record"
                    if media.type.startswith(f"{_FORMAT}-batch")
                    else "the content-type header names a CloudEvents format other than JSON; let the producer write "
                    f"{_FORMAT}+json, or the binary content mode"
                )
            return _structured(record, parse_value(raw))
        if "specversion" in attributes:
            return _binary(record, attributes, media)
        if raw is None:
            return None
        if raw.lstrip()[:1] == b"{":
            value = parse_value(raw)
            if "specversion" in value:
                return _structured(record, value)
        raise DecodeError(
            "not a CloudEvent: neither a ce_specversion header, nor a JSON object with specversion", "headers"
        )


def _read_headers(record: Record) -> tuple[dict[str, bytes], bytes | None]:
    """The attributes in the headers, and content-type. Raises DecodeError where one is given twice differently."""
    attributes: dict[str, bytes] = {}
    content_type: bytes | None = None
    for name, value in record.headers:
        if value is None:
            continue
        if name.startswith(_PREFIX):
            if attributes.setdefault(name[3:], value) != value:
                shown = name if name[3:] in _READ else "ce_…"
                raise DecodeError(f"two {shown} headers differ", "headers")
        elif len(name) == len("content-type") and name.lower() == "content-type":
            if content_type is not None and content_type != value:
                raise DecodeError("two content-type headers differ", "headers")
            content_type = value
    return attributes, attributes.get("datacontenttype") if content_type is None else content_type


def _binary(record: Record, attributes: dict[str, bytes], media: _Media | None) -> Event:
    _check_version(_header(attributes, "specversion"), "the ce_specversion header")
    id, type, source = (_header(attributes, name) for name in ("id", "type", "source"))
    for name, text in (("id", id), ("type", type), ("source", source)):
        if not text:
            fault = "empty" if name in attributes else "missing"
            raise DecodeError(f"the ce_{name} header is {fault}; CloudEvents require it", f"headers.ce_{name}")
    time, seconds = _time(record, _header(attributes, "time") or None, "the ce_time header")
    data: Any = _binary_data(record.value, media) if record.value else None
    return Event(
        id=id,
        type=type,
        time=time,
        time_wall_seconds=seconds,
        data={} if data is None else data,
        record=record,
        value=data,
        source=source,
        subject=_header(attributes, "subject") or None,
    )


def _header(attributes: dict[str, bytes], name: str) -> str:
    raw = attributes.get(name)
    if raw is None:
        return ""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        pass
    raise DecodeError(f"the ce_{name} header is not UTF-8", f"headers.ce_{name}")


def _binary_data(raw: bytes, media: _Media | None) -> Any:
    if media is not None:
        return _decoded(raw, media)
    try:
        return parse_value(raw, "data")
    except DecodeError as error:
        message = f"{error.message} (without a content-type header, data is read as JSON)"
    raise DecodeError(message, "data")


def _decoded(raw: bytes, media: _Media) -> Any:
    """Data by its media type. Raises DecodeError."""
    if media.is_json:
        if media.charset in (None, "utf-8", "utf8", "us-ascii"):
            return parse_value(raw, "data")
        return parse_value(_text(raw, media.charset).encode(), "data")
    return _text(raw, media.charset) if media.is_text else base64.b64encode(raw).decode()


def _text(raw: bytes, charset: str | None) -> str:
    codec = _CHARSETS.get(charset or "utf-8")
    if codec is None:
        raise DecodeError(f"the charset of data is none of: {', '.join(_CHARSETS)}", "data")
    try:
        return raw.decode(codec)
    except UnicodeError:
        pass
    raise DecodeError(f"data is not {charset or 'UTF-8'} text", "data")


def _media(content_type: bytes) -> _Media:
    if len(content_type) > _CONTENT_TYPE_MAX:
        raise DecodeError(f"the content-type is longer than {_CONTENT_TYPE_MAX} bytes", "headers")
    return _parsed_media(content_type)


@lru_cache(maxsize=256)  # a topic has one or two; this many at most are kept, of at most 255 bytes each
def _parsed_media(content_type: bytes) -> _Media:
    kind, *parameters = content_type.decode("latin-1").lower().split(";")  # odd bytes make an unknown type
    charset = None
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset":
            charset = value.strip().strip('"')
    return _Media(kind.strip(), charset)


def _structured(record: Record, value: Any) -> Event:
    if value.__class__ is not dict:
        raise DecodeError(f"the value is {'null' if value is None else kind_of(value)}; it must be a JSON object")
    get = value.get
    _check_version(get("specversion"), "value.specversion")
    for name in ("id", "type", "source"):
        if get(name).__class__ is not str or not get(name):
            raise wrong(f"value.{name}", get(name), "a non-empty string: CloudEvents require it")
    for name in ("time", "subject", "datacontenttype", "data_base64"):
        if get(name) is not None and get(name).__class__ is not str:
            raise wrong(f"value.{name}", get(name), "a string")
    time, seconds = _time(record, get("time"), "value.time")
    data = get("data")
    encoded = get("data_base64")
    if encoded is not None:
        if data is not None:
            raise DecodeError("the value has both data and data_base64", "value.data_base64")
        data = _from_base64(encoded, get("datacontenttype"))
    return StructuredEvent(
        id=value["id"],
        type=value["type"],
        time=time,
        time_wall_seconds=seconds,
        data={} if data is None else data,
        record=record,
        value=value,
        source=value["source"],
        subject=get("subject") or None,
    )


def _from_base64(encoded: str, content_type: str | None) -> Any:
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raw = None
    if raw is None:
        raise DecodeError("value.data_base64 is not base64", "value.data_base64")
    return encoded if content_type is None else _decoded(raw, _media(content_type.encode("utf-8", "replace")))


def _check_version(version: Any, where: str) -> None:
    if version.__class__ is str and _VERSION.fullmatch(version):
        return
    if version in ("0.1", "0.2", "0.3"):
        raise DecodeError(f"{where} is {version}; let the producer write CloudEvents 1.0", "specversion")
    raise DecodeError(f"{where} is no version of CloudEvents that is read here; that is 1.0", "specversion")


def _time(record: Record, text: str | None, where: str) -> tuple[str, float]:
    try:
        return times.of_record(record.timestamp_ms) if text is None else times.from_text(text)
    except times.NotATime as fault:
        message = f"{where if text is not None else 'the time'} {fault}"
    raise DecodeError(message, "time")
