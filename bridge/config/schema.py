"""The JSON Schema of bridge.yaml, so that editors complete and check it."""

from __future__ import annotations

from typing import Any, Final

from bridge.config.explain import duration_text
from bridge.config.secret import SECRET_TYPE
from bridge.config.settings import DURATION_PATTERN, Settings

TITLE: Final = "Meisa bridge configuration"
_REFERENCE: Final[dict[str, Any]] = {
    "title": "Reference",
    "description": "Stands for any scalar: the value is read from an environment variable or a file.",
    "oneOf": [
        {
            "type": "object",
            "properties": {"env": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}},
            "required": ["env"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"file": {"type": "string", "minLength": 1}},
            "required": ["file"],
            "additionalProperties": False,
        },
    ],
}
_SCALARS: Final = frozenset({"string", "integer", "number", "boolean"})
_ASIDE: Final = ("description", "default", "examples")


def json_schema() -> dict[str, Any]:
    """The schema as plain data, the same on every run."""
    schema: dict[str, Any] = _with_references(Settings.model_json_schema(by_alias=True))
    schema["title"] = TITLE
    schema["description"] = "Made by: meisa-bridge schema config"
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["patternProperties"] = {"^x-": {"description": "For anchors; ignored."}}
    schema.setdefault("$defs", {})["Reference"] = _REFERENCE
    return schema


def _with_references(schema: Any) -> Any:
    """Lets every scalar be a reference too. Walks only where schemas stand, never into defaults or examples."""
    if not isinstance(schema, dict):
        return schema
    made = {key: value for key, value in schema.items() if key != "title"}
    if (
        "patternProperties" in made
    ):  # topics: a name that does not match is a mistake; nothing below a name is the defaults
        ((pattern, below),) = made.pop("patternProperties").items()
        made["propertyNames"] = {"pattern": pattern}
        made["additionalProperties"] = {"anyOf": [below, {"type": "null"}]}
    for keyword in ("properties", "$defs"):
        if keyword in made:
            made[keyword] = {name: _with_references(below) for name, below in made[keyword].items()}
    for keyword in ("items", "additionalProperties"):
        if keyword in made:
            made[keyword] = _with_references(made[keyword])
    if "anyOf" in made:
        made["anyOf"] = [_with_references(arm) for arm in made["anyOf"]]
    types = made.get("type")
    if types == SECRET_TYPE:
        del made["type"]
        return {**made, "$ref": "#/$defs/Reference"}
    if types is not None and set([types] if isinstance(types, str) else types) <= _SCALARS:
        aside = {key: made.pop(key) for key in _ASIDE if key in made}
        if made.get("pattern") == DURATION_PATTERN and isinstance(aside.get("default"), float):
            aside["default"] = duration_text(aside["default"])
        return {**aside, "anyOf": [made, {"$ref": "#/$defs/Reference"}]}
    return made
