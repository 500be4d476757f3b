"""Compares events with a JSON Schema.

jsonschema-rs decides: about a million events a second, patterns in linear time (one that needs look-around or a back
reference is refused when the schema is read), nothing fetched, recursion remembered. bridge/decode/misfit.py finds
where a value does not fit.

`format` is checked, for the formats that the specification names. Drafts 4, 6, 7, 2019-09 and 2020-12 (the default).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from urllib.parse import urldefrag, urljoin

from bridge.errors import DecodeError
from bridge.model import Event, Record

if TYPE_CHECKING:
    from jsonschema_rs import Validator

DOCUMENTS_MAX: Final = 200
"""Files that one schema may draw in: real ones draw in a handful."""
DEPTH_MAX: Final = 100
"""Levels of a schema's own nesting."""
_META: Final = re.compile(r"https?://json-schema\.org/draft.+")
_SPACE: Final = re.compile(r"[ \t\r\n]*")

Documents = Mapping[str, Any]
"""The schemas that can be referred to, by their URI without fragment."""


class SchemaFault(Exception):
    """What is wrong with a schema, and the way in it to there."""

    def __init__(self, message: str, way: list[str | int] | None = None, document: str = "") -> None:
        self.message = message
        self.way = way or []
        self.document = document
        """The URI of the document; empty for the first one."""
        super().__init__(message)


class Misfit(Protocol):
    def __call__(self, value: Any, root: str) -> DecodeError: ...


class _Decoder(Protocol):
    def decode(self, record: Record) -> Event | None: ...


class Check:
    """One schema, ready to be compared with."""

    def __init__(self, document: Any, uri: str, others: Documents) -> None:
        """`others` are the documents it refers to. Raises SchemaFault."""
        self._uri = base_of(document, uri)
        self._documents = {**others, self._uri: document}
        self._validator = compiled(document, self._uri, self._documents)
        self._explain: Misfit | None = None

    def __call__(self, value: Any, root: str) -> None:
        """Raises DecodeError with the path, from `root` on, and the keyword; never with a value."""
        if self._validator.is_valid(value):
            return
        if self._explain is None:
            from bridge.decode.misfit import Explainer

            self._explain = Explainer(self._uri, self._documents)
        raise self._explain(value, root)


class CheckedDecoder:
    """A decoder whose events must fit their schema."""

    def __init__(
        self,
        inner: _Decoder,
        part: Literal["value", "data"],
        whole: Check | None,
        by_type: Mapping[str, Check],
    ) -> None:
        """`part` is what the schemas describe; an event whose type has none is not compared."""
        self._inner = inner
        self._part = part
        self._whole = whole
        self._by_type = by_type

    def decode(self, record: Record) -> Event | None:
        """The record's event; None for a tombstone. Raises DecodeError."""
        event = self._inner.decode(record)
        if event is not None:
            check = self._whole or self._by_type.get(event.type)
            if check is not None:
                check(event.value if self._part == "value" else event.data, self._part)
        return event


def base_of(document: Any, uri: str) -> str:
    """What references in a document are relative to. Raises SchemaFault."""
    id = document.get("$id") if isinstance(document, dict) else None
    return _uri(uri, id, "$id") if isinstance(id, str) else urldefrag(uri).url


def _uri(base: str, reference: str, keyword: str) -> str:
    try:
        return urldefrag(urljoin(base, reference)).url
    except ValueError:
        raise SchemaFault(f"not a JSON Schema: `{keyword}` is no URI", [keyword]) from None


def compiled(document: Any, uri: str, documents: Documents) -> Validator:
    """Raises SchemaFault; nothing outside of `documents` is looked for."""
    from jsonschema_rs import RegexOptions, ValidationError, validator_for

    try:
        return validator_for(
            document,
            retriever=documents.__getitem__,
            base_uri=uri or None,
            pattern_options=RegexOptions(),
            validate_formats=True,
        )
    except ValidationError as error:
        message, way = " ".join(error.message.split()), error.instance_path
    except (ValueError, OverflowError) as error:
        message, way = " ".join(str(error).split()), []
    if message.endswith('is not a "regex"'):
        raise SchemaFault(
            "a pattern that is none, or has look-around or a back reference: that could run for ever", way
        )
    if message.startswith("Unknown meta-schema"):
        raise SchemaFault("a $schema other than the drafts 4, 6, 7, 2019-09 and 2020-12", ["$schema"])
    message = message.replace(
        "is not valid under any of the schemas listed in the 'anyOf' keyword", "is not what it takes"
    )
    keyword = next((str(part) for part in reversed(way) if isinstance(part, str)), "")
    raise SchemaFault(f"not a JSON Schema: {f'`{keyword}`: ' if keyword else ''}{message[:200]}", way)


def documents_of(document: Any, uri: str, read: Callable[[str], Any]) -> dict[str, Any]:
    """The documents that one refers to, directly or not, by URI; all found good together with it.

    `read` gives the document at a URI, or None where there is none. Raises SchemaFault, and what `read` raises.
    """
    base = base_of(document, uri)
    found: dict[str, Any] = {base: document}
    pending = [base]
    while pending:
        at = pending.pop()
        for wanted, way in _references(found[at], base_of(found[at], at)):
            if wanted in found or _META.fullmatch(wanted):
                continue
            if len(found) >= DOCUMENTS_MAX:
                raise SchemaFault(f"draws in more than {DOCUMENTS_MAX} files")
            other = read(wanted)
            if other is None:
                raise SchemaFault(
                    f"refers to {wanted}, and nothing is fetched: save that beside this file, with the same $id"
                    if wanted.startswith(("http:", "https:"))
                    else f"refers to the file {wanted.rpartition('/')[2]}, which does not exist",
                    way,
                    "" if at == base else at,
                )
            found[wanted] = other
            found.setdefault(base_of(other, wanted), other)
            pending.append(wanted)
    try:
        compiled(document, base, found)
    except SchemaFault as error:
        raise _attributed(error, base, found) from None
    found.pop(base)
    return found


def _attributed(fault: SchemaFault, base: str, documents: Documents) -> SchemaFault:
    """The engine tells the way within a document, but not which one: so each of the others is tried by itself."""
    for uri, document in documents.items():
        if uri != base:
            try:
                compiled(document, base_of(document, uri), documents)
            except SchemaFault as own:
                if own.way:
                    return SchemaFault(own.message, own.way, uri)
    return fault


def _references(document: Any, base: str) -> Iterator[tuple[str, list[str | int]]]:
    """The other documents that one refers to, and the ways to the references."""
    bundled = {base}
    found: list[tuple[str, list[str | int]]] = []
    stack: list[tuple[Any, str, list[str | int]]] = [(document, base, [])]
    while stack:
        node, base, way = stack.pop()
        if isinstance(node, list):
            stack += [(item, base, [*way, index]) for index, item in enumerate(node)]
        elif isinstance(node, dict):
            try:
                base = base_of(node, base)
                wanted = [
                    (_uri(base, node[name], name), [*way, name])
                    for name in ("$ref", "$dynamicRef")
                    if isinstance(node.get(name), str)
                ]
            except SchemaFault as fault:
                raise SchemaFault(fault.message, [*way, *fault.way]) from None
            bundled.add(base)
            found += wanted
            for name, value in node.items():
                if name not in ("const", "enum", "default", "examples"):
                    stack.append((value, base, [*way, name]))
    return ((uri, way) for uri, way in found if uri not in bundled)


def place_in(text: str, way: list[str | int]) -> tuple[int, int]:
    """Line and column, from 1, of what the way leads to in a JSON text; of the last that exists on it."""
    decoder = json.JSONDecoder()
    at = _after_space(text, 0)
    for wanted in way:
        below = _member(text, at, wanted, decoder)
        if below is None:
            break
        at = below
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def _member(text: str, at: int, wanted: str | int, decoder: json.JSONDecoder) -> int | None:
    """Where a member of the object or list at `at` begins."""
    opening = text[at]
    if opening not in "{[":
        return None
    at = _after_space(text, at + 1)
    index = 0
    while text[at] not in "}]":
        key: str | int = index
        if opening == "{":
            key, at = decoder.raw_decode(text, at)
            at = _after_space(text, _after_space(text, at) + 1)
        if key == wanted:
            return at
        at = _after_space(text, decoder.raw_decode(text, at)[1])
        if text[at] == ",":
            at = _after_space(text, at + 1)
        index += 1
    return None


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()
