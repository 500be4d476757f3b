"""What may change in a released schema: nothing that old data, or rules written for it, would notice.

- Old data stays readable: a field is added as an optional one only, none changes its type, none becomes required, an
  enum only gets more symbols, names of records and enums stay.
- Rules stay right: no field goes away, and none becomes optional, because a rule that reads it without a guard would
  fail from then on.

Descriptions are free. What breaks is a new event type instead (`plan.changed_v2`), published beside the old one until
nobody reads that any more. The functions here compare two schemas and return what is wrong, in words, with the path;
they know of Avro and JSON Schema what the generators write, and call any other difference a change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_FREE_AVRO = frozenset({"doc"})
_FREE_JSON = frozenset({"description", "title", "examples", "$schema"})


def incompatible(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What keeps one release from following another: `schemas` of both, by event type."""
    found: list[str] = []
    for type, schemas in old.items():
        if type not in new:
            found.append(f"{type}: the event is gone")
            continue
        found += [f"{type}.avsc: {each}" for each in avro(schemas["avro"], new[type]["avro"])]
        found += [
            f"{type}.schema.json: {each}" for each in json_schema(schemas["json_schema"], new[type]["json_schema"])
        ]
    return found


def without_words(schema: Any) -> Any:
    """A schema of either kind without what is only read by people; fields that have such names stay."""
    return _strip(schema, _FREE_AVRO | _FREE_JSON - {"$schema"}, named=False)


def _strip(value: Any, free: frozenset[str], *, named: bool) -> Any:
    """`named`: the keys of this mapping are names of fields, not keywords."""
    if isinstance(value, Mapping):
        return {
            key: _strip(inner, free, named=not named and key in ("properties", "definitions"))
            for key, inner in value.items()
            if named or key not in free
        }
    return [_strip(item, free, named=False) for item in value] if isinstance(value, list) else value


# Avro ----------------------------------------------------------------------------------------------------------------


def avro(old: Any, new: Any) -> list[str]:
    """What is wrong with reading data of the one Avro schema by the other."""
    return list(_avro(old, new, "", _Names(old), _Names(new)))


class _Names:
    """The named types of a schema, so that a name can be replaced by what it stands for."""

    def __init__(self, schema: Any) -> None:
        self._found: dict[str, Any] = {}
        self._collect(schema)

    def _collect(self, schema: Any) -> None:
        if isinstance(schema, list):
            for branch in schema:
                self._collect(branch)
        elif isinstance(schema, Mapping):
            if "name" in schema and "type" in schema and schema["type"] in ("record", "enum"):
                self._found[schema["name"]] = schema
            for field in schema.get("fields", ()):
                self._collect(field["type"])

    def resolve(self, schema: Any) -> Any:
        return self._found.get(schema, schema) if isinstance(schema, str) else schema


def _avro(old: Any, new: Any, path: str, olds: _Names, news: _Names) -> Iterator[str]:
    old, new = olds.resolve(old), news.resolve(new)
    old_optional, old_type = _optional(old)
    new_optional, new_type = _optional(new)
    if old_optional and not new_optional:
        yield f"{path} became required"
    if new_optional and not old_optional:
        yield f"{path} became optional"
    old, new = olds.resolve(old_type), news.resolve(new_type)
    if _kind(old) != _kind(new):
        yield f"{path or 'the schema'} changed from {_kind(old)} to {_kind(new)}"
        return
    if not isinstance(old, Mapping):
        return
    for key in sorted((old.keys() | new.keys()) - _FREE_AVRO - {"fields", "symbols", "type"}):
        if old.get(key) != new.get(key):
            yield f"{path or 'the schema'}: {key} changed from {old.get(key)} to {new.get(key)}"
    for symbol in old.get("symbols", ()):
        if symbol not in new["symbols"]:
            yield f"{path} lost the symbol {symbol}"
    yield from _avro_fields(old, new, path, olds, news)


def _avro_fields(
    old: Mapping[str, Any], new: Mapping[str, Any], path: str, olds: _Names, news: _Names
) -> Iterator[str]:
    before = {field["name"]: field for field in old.get("fields", ())}
    after = {field["name"]: field for field in new.get("fields", ())}
    for name, field in before.items():
        at = f"{path}.{name}".lstrip(".")
        if name not in after:
            yield f"{at} is gone"
            continue
        same = _optional(field["type"])[0] == _optional(after[name]["type"])[0]  # else that tells it
        if same and field.get("default", _ABSENT) != after[name].get("default", _ABSENT):
            yield f"{at}: its default changed"
        yield from _avro(field["type"], after[name]["type"], at, olds, news)
    for name, field in after.items():
        if name not in before and not (_optional(field["type"])[0] and field.get("default", _ABSENT) is None):
            yield f"{path}.{name}".lstrip(".") + " is new and not optional"


_ABSENT = object()


def _optional(schema: Any) -> tuple[bool, Any]:
    """Whether this is a union of null and one other, and the other."""
    if isinstance(schema, list) and len(schema) == 2 and schema[0] == "null":
        return True, schema[1]
    return False, schema


def _kind(schema: Any) -> str:
    if isinstance(schema, Mapping):
        logical = schema.get("logicalType")
        return f"{schema['type']} ({logical})" if logical else str(schema["type"])
    return str(schema)


# JSON Schema ---------------------------------------------------------------------------------------------------------


def json_schema(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What is wrong with judging instances of the one JSON Schema by the other."""
    return list(_json(old, new, ""))


def _json(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[str]:
    for keyword in sorted((old.keys() | new.keys()) - _FREE_JSON - {"properties", "required", "enum"}):
        if old.get(keyword) != new.get(keyword):
            at = path or "the schema"
            yield f"{at}: {keyword} changed from {old.get(keyword)} to {new.get(keyword)}"
    if "enum" in new and "enum" not in old:
        yield f"{path} became an enum"
    for symbol in old.get("enum", ()):
        if "enum" in new and symbol not in new["enum"]:
            yield f"{path} lost the value {symbol}"
    required_before, required_after = set(old.get("required", ())), set(new.get("required", ()))
    before, after = old.get("properties", {}), new.get("properties", {})
    for name, below in before.items():
        at = f"{path}.{name}".lstrip(".")
        if name not in after:
            yield f"{at} is gone"
            continue
        then = below
        if (name in required_before) != (name in required_after):
            yield f"{at} became {'required' if name in required_after else 'optional'}"
            then = {**below, "type": after[name].get("type")} if _types(below) == _types(after[name]) else below
        yield from _json(then, after[name], at)
    for name in after:
        if name not in before and name in required_after:
            yield f"{path}.{name}".lstrip(".") + " is new and not optional"


def _types(schema: Mapping[str, Any]) -> list[str]:
    """What a value may be, besides null: whether it may be that goes with being optional."""
    types = schema.get("type", [])
    return sorted({*([types] if isinstance(types, str) else types)} - {"null"})
