"""Reads the bytes of one Avro schema: compiled once, then one call of fastavro per record.

What hostile or damaged bytes can do is bounded here, since fastavro's compiled code has no limits of its own:

| input | answer |
|---|---|
| ends too early, a length beyond its end, a union arm or enum symbol beyond the schema | DecodeError |
| bytes after the value's end | DecodeError: they were written with another schema |
| a string that is no UTF-8, a time of day beyond the day | DecodeError |
| a value of a recursive type nested deeper than 128 levels (its C code would crash at some 10,000) | DecodeError |
| an array of items that take no bytes, whose length nothing bounds | SchemaError, once, for the schema |
| a type that makes more than 100,000 values of nothing | SchemaError |
| not readable by the reader's schema (`schema` beside `registry`) | DecodeError |

So a record's work is bounded by its size, and by the schema's. No message quotes a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any, NamedTuple

from fastavro import schemaless_reader
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException, UnknownType, parse_schema

from bridge.decode.avro_values import Unfit, marked, plain
from bridge.decode.json import MAX_DEPTH
from bridge.decode.schema import DEPTH_MAX, Schema, SchemaError, deeper_than, one_line
from bridge.errors import DecodeError

VALUES_MAX = 100_000
"""Values that one value of a type may hold without lists and maps: fields of fields. Real schemas have hundreds."""

_RECURSIVE = VALUES_MAX + 1


class Named(NamedTuple):
    """A value, and the name of the record it is; an empty text where it is none."""

    name: str
    value: Any


class _Arm(NamedTuple):
    """What is at the top of a schema: itself, or one of the schemas of its union."""

    name: str
    schema: Any


class AvroReader:
    """Reads what was written with `document`; by `reader` where one is given. Raises SchemaError."""

    def __init__(self, document: Any, others: Iterable[Any] = (), reader: Schema | None = None) -> None:
        others = list(others)
        if reader is not None and (reader.document, list(reader.others.values())) == (document, others):
            reader = None  # nothing to resolve, which fastavro would find out anew for each record
        resolving = reader is not None
        self._types: dict[str, Any] = {}
        written = _parsed(document, others, self._types, resolving=resolving)
        self._union = isinstance(written, list)
        names = _Names([document, *others])
        arms = written if self._union else [written]
        self._arms = [_Arm(names.of(arm), _whole(arm, self._types)) for arm in arms]
        self._reader: Any = None
        if reader is not None:
            types: dict[str, Any] = {}
            read = _parsed(reader.document, list(reader.others.values()), types, resolving=True)
            _plain_defaults(read, types)
            self._reader = [_whole(arm, types) for arm in read] if isinstance(read, list) else _whole(read, types)
            if isinstance(self._reader, dict) and self._reader.get("name"):
                name = _Names([reader.document]).of(self._reader)
                self._arms = [_Arm(name, arm.schema) for arm in self._arms]
        weights = _Weights(self._types)
        try:
            depths = [weights.of(arm.schema).depth for arm in self._arms]
        except RecursionError:
            raise SchemaError("its types stand in one another too deeply") from None
        self._depth_unsure = max(depths, default=0) > MAX_DEPTH

    def read(self, body: bytes, start: int = 0) -> Named:
        """The value in the bytes from `start`. Raises DecodeError."""
        stream = BytesIO(body)
        fault: str
        try:
            if self._depth_unsure:
                _Walk(body, self._types).check(
                    [arm.schema for arm in self._arms] if self._union else self._arms[0][1], start
                )
            if self._union:
                index, start = _long(body, start)
                if index < 0:
                    raise IndexError
                arm = self._arms[index]
            else:
                arm = self._arms[0]
            stream.seek(start)
            value = schemaless_reader(stream, arm.schema, self._reader)
            left = len(body) - stream.tell()
            if not left:
                return Named(arm.name, value)
            fault = f"{left} bytes are left after its end: it was written with another schema"
        except EOFError:
            fault = "it ends within the value"
        except IndexError:
            fault = "a union or enum names an arm or symbol that the schema does not have"
        except UnicodeDecodeError:
            fault = "a string is not UTF-8"
        except SchemaResolutionError:
            fault = "it cannot be read by the topic's schema: its writer's schema is not compatible with that"
        except Unfit as error:
            fault = str(error)
        except (ValueError, TypeError, KeyError, OverflowError, ArithmeticError, RecursionError) as error:
            fault = f"it does not fit the schema ({type(error).__name__})"
        # Outside the handlers, so that no traceback carries the record along.
        raise DecodeError(f"the value is not Avro of its schema: {fault}")


def _whole(arm: Any, types: Mapping[str, Any]) -> Any:
    """An arm as fastavro takes it without parsing it anew: it looks named types up in the schema that it is given."""
    if isinstance(arm, str) and arm in types:
        arm = types[arm]
    if isinstance(arm, dict):
        return {**arm, "__fastavro_parsed": True, "__named_schemas": types}
    return arm


def _parsed(document: Any, others: list[Any], types: dict[str, Any], *, resolving: bool) -> Any:
    """Fills `types`. Raises SchemaError."""
    if any(deeper_than(each, DEPTH_MAX) for each in (document, *others)):
        raise SchemaError(f"nested deeper than {DEPTH_MAX} levels")
    try:
        for other in others:
            parse_schema(marked(other, resolving=resolving), named_schemas=types, _write_hint=False)
        return parse_schema(marked(document, resolving=resolving), named_schemas=types, _write_hint=False)
    except UnknownType as error:
        raise SchemaError(f"not an Avro schema: the type {error.name} is not defined") from None
    except (SchemaParseException, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SchemaError(f"not an Avro schema: {one_line(error)}") from None


class _Names:
    """The names of records as their schemas write them: without a namespace that stands apart."""

    def __init__(self, documents: Iterable[Any]) -> None:
        self._written: dict[str, str] = {}
        for document in documents:
            for each in document if isinstance(document, list) else [document]:
                if isinstance(each, dict) and isinstance(each.get("name"), str):
                    name, space = each["name"], each.get("namespace")
                    full = f"{space}.{name}" if space and "." not in name else name
                    self._written[full] = name

    def of(self, parsed: Any) -> str:
        full = parsed if isinstance(parsed, str) else parsed.get("name", "") if isinstance(parsed, dict) else ""
        return self._written.get(full, full.rpartition(".")[2])


def _plain_defaults(schema: Any, types: Mapping[str, Any]) -> None:
    """Turns the defaults of a reader's fields into the values that rules see."""
    fields: dict[int, dict[str, Any]] = {}
    stack = [schema, *types.values()]
    seen: set[int] = set()
    while stack:
        each = stack.pop()
        if isinstance(each, list):
            stack += each
        elif isinstance(each, dict) and id(each) not in seen:
            seen.add(id(each))
            stack += [each[key] for key in ("items", "values") if key in each]
            for field in each.get("fields", ()):
                stack.append(field["type"])
                fields[id(field)] = field
    # All of them from what is written, then put in place: a record's default draws on those of its fields.
    made = [
        (field, _plain_default(field["default"], field["type"], types))
        for field in fields.values()
        if "default" in field
    ]
    for field, default in made:
        field["default"] = default


def _plain_default(value: Any, schema: Any, types: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return _plain_default(value, next((arm for arm in schema if _may_be(value, arm, types)), "null"), types)
    schema = types.get(schema, schema) if isinstance(schema, str) else schema
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind in types:
        return _plain_default(value, types[kind], types)
    if kind == "array":
        return [_plain_default(item, schema["items"], types) for item in value]
    if kind == "map":
        return {key: _plain_default(item, schema["values"], types) for key, item in value.items()}
    if kind in ("record", "error"):
        return {
            field["name"]: _plain_default(value.get(field["name"], field.get("default")), field["type"], types)
            for field in schema["fields"]
        }
    if kind in ("bytes", "fixed") and isinstance(value, str):
        value = value.encode("iso-8859-1")
    return plain(value, schema)


def _may_be(value: Any, schema: Any, types: Mapping[str, Any]) -> bool:
    """Whether a default, as JSON, can be of this arm of a union."""
    schema = types.get(schema, schema) if isinstance(schema, str) else schema
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(value, bool) or value is None:
        return bool(kind == ("null" if value is None else "boolean"))
    if isinstance(value, int | float):
        return kind in ("int", "long", "float", "double") and (isinstance(value, int) or kind in ("float", "double"))
    if isinstance(value, str):
        return kind in ("string", "bytes", "fixed", "enum")
    return bool(kind in (("array",) if isinstance(value, list) else ("map", "record", "error")))


class _Weight(NamedTuple):
    depth: int
    """Levels of objects and lists in one another; `_RECURSIVE` where nothing bounds them."""
    values: int
    """How many values it makes besides those in lists and maps, which cost bytes."""
    empty: bool
    """Whether it may take no bytes at all."""


class _Weights:
    """What values of a schema's types can come to. Raises SchemaError for what nothing would bound."""

    def __init__(self, types: Mapping[str, Any]) -> None:
        self._types = types
        self._known: dict[str, _Weight] = {}
        self._open: set[str] = set()

    def of(self, schema: Any) -> _Weight:
        if isinstance(schema, list):
            arms = [self.of(arm) for arm in schema]
            return _Weight(
                max((arm.depth for arm in arms), default=0), max((arm.values for arm in arms), default=1), False
            )
        if isinstance(schema, str):
            return self._named(schema) if schema in self._types else _Weight(0, 1, schema == "null")
        kind = schema["type"]
        if kind in self._types:
            return self._named(kind)
        if kind in ("record", "error"):
            return self._named(schema["name"])
        if kind == "array":
            item = self.of(schema["items"])
            if item.empty:
                raise SchemaError("an array of items that take no bytes: nothing bounds its length")
            return _Weight(_deeper(item.depth), 1, False)
        if kind == "map":
            return _Weight(_deeper(self.of(schema["values"]).depth), 1, False)
        return _Weight(0, 1, kind == "null" or (kind == "fixed" and schema["size"] == 0))

    def _named(self, name: str) -> _Weight:
        known = self._known.get(name)
        if known is not None:
            return known
        schema = self._types[name]
        if schema["type"] not in ("record", "error"):
            return self.of(schema) if schema["type"] != "fixed" else _Weight(0, 1, schema["size"] == 0)
        if name in self._open:
            return _Weight(_RECURSIVE, 1, False)
        self._open.add(name)
        fields = [self.of(field["type"]) for field in schema["fields"]]
        self._open.discard(name)
        made = _Weight(
            _deeper(max((field.depth for field in fields), default=0)),
            1 + sum(field.values for field in fields),
            all(field.empty for field in fields),
        )
        if made.values > VALUES_MAX:
            raise SchemaError(f"a {name.rpartition('.')[2]} holds more than {VALUES_MAX:,} values")
        self._known[name] = made
        return made


def _deeper(depth: int) -> int:
    return min(depth + 1, _RECURSIVE)


def _long(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length zig-zag number and the place after it. Raises EOFError, OverflowError."""
    number = shift = 0
    while shift < 70:
        if at >= len(data):
            raise EOFError
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7
    raise OverflowError


class _Walk:
    """Goes over a value of a recursive type before it is read, and looks how deep it nests. Slow, and rarely needed."""

    def __init__(self, data: bytes, types: Mapping[str, Any]) -> None:
        self._data = data
        self._types = types

    def check(self, schema: Any, start: int) -> None:
        """Raises Unfit for what is too deep, EOFError and IndexError for what is damaged."""
        self._over(schema, start, 0)

    def _over(self, schema: Any, at: int, depth: int) -> int:
        if isinstance(schema, list):
            index, at = _long(self._data, at)
            return self._over(schema[index], at, depth)
        kind = schema if isinstance(schema, str) else schema["type"]
        if kind in self._types:
            schema = self._types[kind]
            kind = schema["type"]
        if kind in ("record", "error", "array", "map"):
            depth += 1
            if depth > MAX_DEPTH:
                raise Unfit(f"nested deeper than {MAX_DEPTH} levels")
        if kind in ("record", "error"):
            for field in schema["fields"]:
                at = self._over(field["type"], at, depth)
            return at
        if kind in ("array", "map"):
            return self._blocks(schema, kind == "map", at, depth)
        if kind in ("int", "long", "enum"):
            return _long(self._data, at)[1]
        if kind in ("string", "bytes"):
            length, at = _long(self._data, at)
            return self._on(at, length)
        sizes = {"null": 0, "boolean": 1, "float": 4, "double": 8}
        return self._on(at, sizes[kind] if kind in sizes else schema["size"])

    def _blocks(self, schema: Any, is_map: bool, at: int, depth: int) -> int:
        while True:
            count, at = _long(self._data, at)
            if count < 0:
                count, (_, at) = -count, _long(self._data, at)
            if not count:
                return at
            for _ in range(count):
                if is_map:
                    length, at = _long(self._data, at)
                    at = self._on(at, length)
                at = self._over(schema["values" if is_map else "items"], at, depth)

    def _on(self, at: int, length: int) -> int:
        if length < 0 or at + length > len(self._data):
            raise EOFError
        return at + length
