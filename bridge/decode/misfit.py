"""Where a value does not fit its JSON Schema, and by which keyword.

jsonschema-rs's own explanations are not used: they hold every error of every branch, with the values, so that one
record of a megabyte took 1.5 GB and half a minute. Here the same engine is asked, yes or no, about one part of the
value after another, with the part of the schema that speaks of it. Each question costs no more than the first one did,
and each level of the value is gone through once. What cannot be taken apart so (`not`, `contains`, references by
anchor …) is named as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, unquote, urldefrag, urljoin

from bridge.decode.envelope import kind_of
from bridge.decode.json import step
from bridge.decode.json_schema import Documents, SchemaFault, compiled
from bridge.errors import DecodeError

if TYPE_CHECKING:
    from jsonschema_rs import Validator

STEPS_MAX: Final = 2_000
"""From part to part: data nests within 128 levels, and on each the schema takes a few steps by `$ref` and `allOf`."""
REFERENCES_MAX: Final = 10
"""From a choice to the schema that it names."""
PATH_MAX: Final = 200
"""Characters of a path in a message; of a longer one the ends are shown."""
_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_ASSERTIONS: Final = (
    "type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength",
    "minLength", "pattern", "format", "maxItems", "minItems", "uniqueItems", "maxProperties", "minProperties",
    "dependentRequired",
)  # fmt: skip
"""Keywords that speak of one value alone, without a schema inside."""
_NESTING: Final = (
    "anyOf", "oneOf", "not", "if", "contains", "propertyNames", "dependentSchemas", "dependencies",
    "unevaluatedProperties", "unevaluatedItems", "$ref", "$dynamicRef",
)  # fmt: skip
"""Keywords that may be all that is left, the likeliest first."""


class _Part(NamedTuple):
    """A part of the schema."""

    uri: str
    way: tuple[str, ...]

    def below(self, *steps: str | int) -> _Part:
        return _Part(self.uri, (*self.way, *(str(step) for step in steps)))


class _Below(NamedTuple):
    part: _Part
    step: str
    value: Any


class Explainer:
    """Says why values do not fit one schema. Keeps a validator for each part of the schema that it asked with."""

    def __init__(self, uri: str, documents: Documents) -> None:
        self._start = _Part(uri, ())
        self._documents = documents
        document = documents[uri]
        self._draft = document.get("$schema", _DRAFT) if isinstance(document, dict) else _DRAFT
        self._reference_stands_alone = any(name in self._draft for name in ("draft-04", "draft-06", "draft-07"))
        self._validators: dict[_Part, Validator | None] = {}
        self._patterns: dict[str, Validator] = {}

    def __call__(self, value: Any, root: str) -> DecodeError:
        """What to say of a value that does not fit; paths begin with `root`."""
        part, path = self._start, root
        for _ in range(STEPS_MAX):
            schema = self._schema(part)
            if not isinstance(schema, dict):
                return _misfit(path, "false")
            if not ("$ref" in schema and self._reference_stands_alone):
                fault = self._own_fault(schema, value, path)
                if fault is not None:
                    return fault
            below = next(self._misfits(part, schema, value), None)
            if below is None:
                return _misfit(path, next((name for name in _NESTING if name in schema), "schema"))
            part, value = below.part, below.value
            path += below.step
        return _misfit(path, "$ref")

    def _schema(self, part: _Part) -> Any:
        schema = self._documents[part.uri]
        for name in part.way:
            schema = schema[int(name)] if isinstance(schema, list) else schema[name]
        return schema

    def _own_fault(self, schema: dict[str, Any], value: Any, path: str) -> DecodeError | None:
        """What the schema has against this very value, its members aside."""
        if isinstance(value, dict):
            for name in schema.get("required", ()):
                if name not in value:
                    return DecodeError(f"{_short(path + step(name))} is missing, and the schema requires it", path)
            if schema.get("additionalProperties") is False:
                for name in self._additional(schema, value):
                    at = _short(path + step(name))
                    return DecodeError(f"{at} is a field that the schema does not allow (additionalProperties)", path)
        for name in _ASSERTIONS:
            if name not in schema or compiled({"$schema": self._draft, name: schema[name]}, "", {}).is_valid(value):
                continue
            if name != "type":
                return _misfit(path, name)
            wanted = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            found = "null" if value is None else kind_of(value)
            return DecodeError(f"{_short(path)} is {found}; the schema wants {' or '.join(wanted)} (type)", path)
        return None

    def _misfits(self, part: _Part, schema: dict[str, Any], value: Any) -> Iterator[_Below]:
        """The parts of schema and value that do not fit each other, one level below."""
        reference = schema.get("$ref")
        if isinstance(reference, str):
            target = self._target(part, reference)
            if target is not None and not self._fits(target, value):
                yield _Below(target, "", value)
            if self._reference_stands_alone:
                return
        for index in range(len(schema.get("allOf", ()))):
            if not self._fits(part.below("allOf", index), value):
                yield _Below(part.below("allOf", index), "", value)
        if isinstance(value, dict):
            yield from self._members(part, schema, value)
        elif isinstance(value, list):
            yield from self._items(part, schema, value)
        for name in ("anyOf", "oneOf"):
            arms = [part.below(name, index) for index in range(len(schema.get(name, ())))]
            meant = [arm for arm in arms if self._may_be_meant(arm, value)]
            if len(meant) == 1 and not self._fits(meant[0], value):
                yield _Below(meant[0], "", value)

        if "if" in schema:
            branch = "then" if self._fits(part.below("if"), value) else "else"
            if branch in schema and not self._fits(part.below(branch), value):
                yield _Below(part.below(branch), "", value)

    def _may_be_meant(self, arm: _Part, value: Any) -> bool:
        """Whether a value could be meant by one of several choices: is it of its type, and has it the constants that
        tell one kind of object from another?"""
        schema = self._schema(arm)
        for _ in range(REFERENCES_MAX):
            target = self._target(arm, schema["$ref"]) if isinstance(schema, dict) and "$ref" in schema else None
            if target is None:
                break
            arm, schema = target, self._schema(target)
        if not isinstance(schema, dict):
            return bool(schema)
        if "type" in schema and not compiled({"type": schema["type"]}, "", {}).is_valid(value):
            return False
        constants = (
            name
            for name, below in (schema.get("properties", {}) if isinstance(value, dict) else {}).items()
            if name in value and isinstance(below, dict) and ("const" in below or "enum" in below)
        )
        return all(self._fits(arm.below("properties", name), value[name]) for name in constants)

    def _members(self, part: _Part, schema: dict[str, Any], value: dict[str, Any]) -> Iterator[_Below]:
        properties = schema.get("properties", {})
        for name in properties:
            if name in value and not self._fits(part.below("properties", name), value[name]):
                yield _Below(part.below("properties", name), step(name), value[name])
        for pattern in schema.get("patternProperties", {}):
            target = part.below("patternProperties", pattern)
            for name, item in value.items():
                if self._matches(pattern, name) and not self._fits(target, item):
                    yield _Below(target, step(name), item)
        if isinstance(schema.get("additionalProperties"), dict):
            target = part.below("additionalProperties")
            for name in self._additional(schema, value):
                if not self._fits(target, value[name]):
                    yield _Below(target, step(name), value[name])

    def _additional(self, schema: dict[str, Any], value: dict[str, Any]) -> Iterator[str]:
        """Names that neither `properties` nor `patternProperties` speak of."""
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        return (
            name
            for name in value
            if name not in known and not any(self._matches(pattern, name) for pattern in patterns)
        )

    def _matches(self, pattern: str, name: str) -> bool:
        validator = self._patterns.get(pattern)
        if validator is None:
            validator = self._patterns[pattern] = compiled({"pattern": pattern}, "", {})
        return validator.is_valid(name)

    def _items(self, part: _Part, schema: dict[str, Any], value: list[Any]) -> Iterator[_Below]:
        tuples = "prefixItems" if "prefixItems" in schema else "items" if isinstance(schema.get("items"), list) else ""
        rest = "additionalItems" if tuples == "items" else "items"
        first = len(schema[tuples]) if tuples else 0
        for index, item in enumerate(value):
            if index >= first and rest not in schema:
                return
            target = part.below(tuples, index) if index < first else part.below(rest)
            if not self._fits(target, item):
                yield _Below(target, f"[{index}]", item)

    def _target(self, part: _Part, reference: str) -> _Part | None:
        """What a reference leads to; None where that is no plain way in a document."""
        uri, fragment = urldefrag(
            urljoin(part.uri, reference) if not reference.startswith("#") else part.uri + reference
        )
        if uri not in self._documents or (fragment and not fragment.startswith("/")):
            return None
        names = unquote(fragment).split("/")[1:]
        target = _Part(uri, tuple(name.replace("~1", "/").replace("~0", "~") for name in names))
        try:
            self._schema(target)
        except (KeyError, IndexError, TypeError, ValueError):
            return None  # it starts from a schema within this document that has an $id of its own
        return target

    def _fits(self, part: _Part, value: Any) -> bool:
        """Whether this part of the schema has nothing against the value; True too where that cannot be asked."""
        if part not in self._validators:
            pointer = "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in part.way)
            question = {"$schema": self._draft, "$ref": f"{part.uri}#{quote(pointer)}"}
            try:
                self._validators[part] = compiled(question, "", self._documents)
            except SchemaFault:
                self._validators[part] = None
        validator = self._validators[part]
        return validator is None or validator.is_valid(value)


def _misfit(path: str, keyword: str) -> DecodeError:
    return DecodeError(f"{_short(path)} does not fit the schema ({keyword})", path)


def _short(path: str) -> str:
    return path if len(path) <= PATH_MAX else f"{path[: PATH_MAX // 2]}…{path[-PATH_MAX // 2 :]}"
