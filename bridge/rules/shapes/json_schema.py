"""JSON Schema (2020-12, 2019-09, 07) to a Shape.

What is not understood allows everything: `if`/`then`, `not`, `dependentSchemas`, `$dynamicRef`, patterns, formats. Two
things are read as their authors mean them rather than as the letter has it: a schema that names `properties` is one of
objects, without `type: object` too; and a field that it does not name is taken for a mistake of whoever reads it,
unless `additionalProperties` says that there may be more (`Openness.SILENT`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urldefrag, urljoin

from bridge.rules.shapes.shape import (
    ANY,
    BOOL,
    BOOL_SHAPE,
    NEVER,
    NULL,
    NULL_SHAPE,
    NUMBER,
    NUMBER_SHAPE,
    TEXT,
    TEXT_SHAPE,
    VALUES_MAX,
    Array,
    Field,
    Object,
    Openness,
    Scalar,
    Shape,
    intersection,
    list_of,
    literal,
    union,
)

CHAIN_MAX = 60
"""References and combinations that follow one another without a field or an item between them; real ones have three."""

INDEXED_MAX = 100_000
"""Values of a document that are looked through for anchors and ids; a megabyte has fewer."""

CONVERSIONS_MAX = 50_000
"""Schemas of one document that are looked at: references that double at each step would never end."""

_OBJECT_WORDS = frozenset({"properties", "required", "additionalProperties", "patternProperties", "propertyNames"})
_LIST_WORDS = frozenset({"items", "prefixItems", "contains"})
_CONDITIONAL = frozenset({"if", "then", "else", "dependentSchemas", "dependencies", "$dynamicRef", "$recursiveRef"})


_OPEN = Shape(
    [
        *(Scalar(kind) for kind in (NULL, BOOL, NUMBER, TEXT)),
        Array(ANY),
        Object({}, Openness.OPEN),
    ]
)
"""ANY, of which an object may have fields that the schemas it is combined with do not name: `then` names some."""


def from_json_schema(document: Any, uri: str = "", others: Mapping[str, Any] | None = None) -> Shape:
    """What the schema allows. `others` are the documents that it refers to, by their URI; what stands in further ones
    allows anything."""
    return _Converter(others or {}).convert(document, _At(_base_of(document, uri), document), ())


class _At(NamedTuple):
    """The document that a schema stands in."""

    uri: str
    """What references in it are relative to."""
    root: Any


class _Converter:
    def __init__(self, others: Mapping[str, Any]) -> None:
        self._others = others
        self._made: dict[int, Shape] = {}
        self._kept: list[Any] = []  # so that no id is used again
        self._indexes: dict[int, Mapping[str, Any]] = {}
        self._count = 0

    def convert(self, schema: Any, at: _At, chain: tuple[int, ...]) -> Shape:
        """`chain`: the schemas that are being made, to notice one that is defined by itself."""
        if schema is False:
            return NEVER
        if not isinstance(schema, dict) or not schema or id(schema) in chain or len(chain) > CHAIN_MAX:
            return ANY
        if id(schema) not in self._made:
            self._count += 1
            if self._count > CONVERSIONS_MAX:
                return ANY
            made = self._convert(schema, at, (*chain, id(schema)))
            if chain:
                return made  # it may have been cut short
            if made is _OPEN:
                made = ANY
            self._made[id(schema)] = made
            self._kept.append(schema)
        return self._made[id(schema)]

    def _convert(self, schema: dict[str, Any], at: _At, chain: tuple[int, ...]) -> Shape:
        shape = ANY
        if isinstance(schema.get("$ref"), str):
            shape = self._reference(schema["$ref"], at, chain)
            if any(draft in str(_get(at.root, "$schema")) for draft in ("draft-04", "draft-06", "draft-07")):
                return shape  # what stands beside is ignored there
        shape = intersection(shape, self._own(schema, at))
        if len(_list(schema.get("allOf"))) > CHAIN_MAX:
            return ANY
        for part in _list(schema.get("allOf")):
            shape = intersection(shape, self.convert(part, at, chain))
        for word in ("anyOf", "oneOf"):
            if _list(schema.get(word)):
                parts = [self.convert(part, at, chain) for part in schema[word]]
                shape = intersection(shape, _OPEN if any(part is _OPEN for part in parts) else union(parts))
        if schema.get("unevaluatedProperties") is False and not _CONDITIONAL & schema.keys():
            shape = _closed(shape)
        return union([shape, NULL_SHAPE]) if schema.get("nullable") is True else shape

    def _own(self, schema: dict[str, Any], at: _At) -> Shape:
        """What the schema says itself, without what it refers to and combines."""
        kinds = schema.get("type")
        if kinds is None:
            guessed = [("object", _OBJECT_WORDS), ("array", _LIST_WORDS)]
            kinds = [kind for kind, words in guessed if words & schema.keys()] or None
        shape = _OPEN if kinds is None and _CONDITIONAL & schema.keys() else ANY
        if kinds is not None:
            shape = union(self._of_type(kind, schema, at) for kind in (kinds if isinstance(kinds, list) else [kinds]))
        if "const" in schema:
            shape = intersection(shape, literal(schema["const"]))
        if isinstance(schema.get("enum"), list) and len(schema["enum"]) <= VALUES_MAX:
            shape = intersection(shape, union(map(literal, schema["enum"])))
        return shape

    def _of_type(self, kind: Any, schema: dict[str, Any], at: _At) -> Shape:
        match kind:
            case "null":
                return NULL_SHAPE
            case "boolean":
                return BOOL_SHAPE
            case "number" | "integer":
                return NUMBER_SHAPE
            case "string":
                return TEXT_SHAPE
            case "array":
                return self._array(schema, at)
            case "object":
                return self._object(schema, at)
            case _:
                return ANY

    def _array(self, schema: dict[str, Any], at: _At) -> Shape:
        parts = [part for word in ("prefixItems", "items") for part in _list(schema.get(word))]
        rest = schema.get("additionalItems" if isinstance(schema.get("items"), list) else "items", True)
        parts += [] if isinstance(rest, list) else [rest]
        return list_of(lambda: union(self.convert(part, at, ()) for part in parts))

    def _object(self, schema: dict[str, Any], at: _At) -> Shape:
        properties = _map(schema.get("properties"))
        patterns = _map(schema.get("patternProperties"))
        more = schema.get("additionalProperties")
        required = {name for name in _list(schema.get("required")) if isinstance(name, str)}
        if patterns or more not in (None, False) or schema.get("unevaluatedProperties") not in (None, False):
            openness = Openness.OPEN
        elif more is False:
            openness = Openness.CLOSED
        elif _CONDITIONAL & schema.keys():
            openness = Openness.OPEN  # what they name is not looked at
        else:
            openness = Openness.SILENT if properties else Openness.FREE

        def rest() -> Shape:
            found = [self.convert(part, at, ()) for part in patterns.values()]
            return union([*found, *([] if more is False else [self.convert(True if more is None else more, at, ())])])

        fields = {name: Field(self._later(part, at), name in required) for name, part in properties.items()}
        if openness is not Openness.CLOSED:
            fields |= {name: Field(rest) for name in sorted(required - fields.keys())}
        elif required - fields.keys():
            return NEVER
        return Shape([Object(fields, openness, rest)])

    def _later(self, schema: Any, at: _At) -> Callable[[], Shape]:
        return lambda: self.convert(schema, at, ())

    # References ------------------------------------------------------------------------------------------------------

    def _reference(self, reference: str, at: _At, chain: tuple[int, ...]) -> Shape:
        path, _, fragment = reference.partition("#")
        found = self._document(path, at)
        if found is None:
            return ANY
        target = self._inside(found, unquote(fragment))
        return ANY if target is None else self.convert(target, found, chain)

    def _document(self, path: str, at: _At) -> _At | None:
        if not path:
            return at
        uri = _joined(at.uri, path)
        if uri == at.uri:
            return at
        if uri in (index := self._index(at)):
            return _At(uri, index[uri])
        return _At(_base_of(self._others[uri], uri), self._others[uri]) if uri in self._others else None

    def _inside(self, at: _At, fragment: str) -> Any:
        if not fragment:
            return at.root
        if not fragment.startswith("/"):
            return self._index(at).get(f"#{fragment}")
        found = at.root
        for step in fragment[1:].split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and step in found:
                found = found[step]
            elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                found = found[int(step)]
            else:
                return None
        return found

    def _index(self, at: _At) -> Mapping[str, Any]:
        """Anchors and ids in a document."""
        root = at.root
        if id(root) not in self._indexes:
            index: dict[str, Any] = {}
            waiting, seen = [root], 0
            while waiting and seen < INDEXED_MAX:
                value = waiting.pop()
                seen += 1
                if isinstance(value, dict):
                    for word in ("$anchor", "$dynamicAnchor"):
                        if isinstance(value.get(word), str):
                            index.setdefault(f"#{value[word]}", value)
                    name = value.get("$id")
                    if isinstance(name, str):
                        index.setdefault(name if name.startswith("#") else _joined(at.uri, name), value)
                waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
            self._indexes[id(root)] = index
            self._kept.append(root)
        return self._indexes[id(root)]


def _base_of(document: Any, uri: str) -> str:
    name = _get(document, "$id")
    return _joined(uri, name if isinstance(name, str) else "")


def _joined(base: str, reference: str) -> str:
    """A URI without its fragment; nonsense stays as it is."""
    try:
        return urldefrag(urljoin(base, reference)).url
    except ValueError:
        return reference


def _closed(shape: Shape) -> Shape:
    return Shape(
        (
            Object(each.fields)
            if isinstance(each, Object) and each.openness in (Openness.SILENT, Openness.FREE)
            else each
            for each in shape.alternatives
        ),
        unknown=shape.unknown,
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
