"""The reference pages that are made from the code: settings, commands, rules, HTTP, headers of dead letters.

What has a description in the code (settings, options, keys of rules) is taken from there. Routes and headers have none:
theirs stand here, and tests/unit/docs hold them to the route table and to what is written.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Union, get_args, get_origin

import click

from bridge.cli import COMMANDS
from bridge.cli import main as cli
from bridge.config import json_schema as config_schema
from bridge.config.environ import override_name
from bridge.config.explain import duration_text
from bridge.config.settings import DURATION_PATTERN, Section, Settings
from bridge.rules import schema as rules_schema

GENERATED = "<!-- Made from the code by docs/generate.py: change it there. -->\n"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head)]
    lines.append(["---"] * len(lines[0]))
    lines += [[cell(text) for text in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def sentence(text: str) -> str:
    return (text[0].upper() + text[1:]).rstrip(".") + "."


# --- configuration ----------------------------------------------------------------------------------------------------

SECTIONS: Mapping[str, str] = {
    "kafka": "Where events come from.",
    "topics.<topic>": "One for each topic that is read; an empty one (`user-events: {}`) is JSON as it comes.",
    "topics.<topic>.envelope": "Expressions over `value`, `key`, `headers` …: see [formats.md](formats.md).",
    "topics.<topic>.registry": "A schema registry: see [formats.md](formats.md).",
    "meisa": "Where they go. What the key may do is told by `meisa-bridge check`.",
    "meisa.quota": "What a key may do, and who shares it: see [quota.md](quota.md).",
    "meisa.retry": "When a call that fails again and again is given up; never in an outage.",
    "dead_letters": "See [dead-letters.md](dead-letters.md).",
    "dead_letters.stop_at": "When too much is dead-lettered.",
    "state": "What outlives it: identities, [what Meisa has](unchanged-state.md), [lazy fields](lazy-fields.md).",
    "delivery": "How long things may wait.",
    "admin": "The bridge's own pages: see [http.md](http.md).",
    "tracing": "OpenTelemetry, off where this is absent: see [tracing.md](tracing.md).",
}


def _section(annotation: Any) -> tuple[type[Section], bool] | None:
    """The section that a setting holds, and whether under names of the user's own."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is dict:
        found = _section(arguments[1])
        return (found[0], True) if found else None
    for arm in arguments if origin in (Union, types.UnionType) else (annotation,):
        if isinstance(arm, type) and issubclass(arm, Section):
            return arm, False
    return None


def _kind(schema: Mapping[str, Any]) -> str:
    """A setting's type in words."""
    if "anyOf" in schema:
        kinds = [_kind(arm) for arm in schema["anyOf"] if arm.get("type") != "null"]
        plain = [kind for kind in kinds if kind != "secret"]
        return " or ".join(plain or kinds)
    if "$ref" in schema:
        return "secret"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("pattern") == DURATION_PATTERN:
        return "duration"
    kind = schema.get("type")
    if kind == "array":
        return f"list: {_kind(schema['items'])}"
    if kind == "object":
        names = schema.get("propertyNames", {}).get("enum")
        of = f" for {', '.join(f'`{name}`' for name in names)}" if names else ""
        return f"map{of}: {_kind(schema['additionalProperties'])}"
    if isinstance(kind, list):
        return " or ".join(_kind({"type": one}) for one in kind)
    return {"string": "text", "integer": "whole number", "boolean": "`true` or `false`"}.get(str(kind), str(kind))


_SIGNS = (("gt", "above"), ("ge", "from"), ("lt", "below"), ("le", "up to"))


def _bounds(metadata: Iterable[Any], is_duration: bool) -> str:
    """`from 1 up to 4096`, of what pydantic holds beside the annotation."""
    told = []
    for sign, word in _SIGNS:
        for item in metadata:
            bound = getattr(item, sign, None)
            if bound is not None:
                told.append(f"{word} {duration_text(bound) if is_duration and bound else f'{bound:,}'}")
    return " ".join(told)


def _default(info: Any, schema: Mapping[str, Any]) -> str:
    if info.is_required():
        return "**required**"
    value = schema.get("default")
    if value is None:
        return "empty" if info.default_factory else "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def settings(
    model: type[Section] = Settings, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], tuple[str, str, str]]]:
    """Every setting: its path, and type with bounds, default, meaning."""
    whole = config_schema()
    properties = (whole if model is Settings else whole["$defs"][model.__name__])["properties"]
    for name, info in model.model_fields.items():
        key = info.alias or name
        below = _section(info.annotation)
        if below is not None:
            section, named = below
            yield from settings(section, (*path, key, "<topic>") if named else (*path, key))
            continue
        schema = properties[key]
        kind = _kind(schema)
        bounds = _bounds(info.metadata, "duration" in kind)
        if not info.description:
            raise ValueError(f"{'.'.join((*path, key))} has no description in bridge/config/settings.py")
        yield (
            (*path, key),
            (f"{kind}{', ' if bounds else ''}{bounds}", _default(info, schema), info.description.replace("<", "\\<")),
        )


def variable(path: Iterable[str]) -> str:
    return override_name(path).replace("_TOPIC_", "<TOPIC>", 1)


def configuration() -> str:
    """docs/configuration.md"""
    sections: dict[str, list[tuple[str, str, str, str]]] = {}
    for path, (kind, default, meaning) in settings():
        row = (f"`{path[-1]}`<br>`{variable(path)}`", kind, default, meaning)
        sections.setdefault(".".join(path[:-1]), []).append(row)
    top = sections.pop("")
    page = f"""{GENERATED}
# Configuration

Every setting of `bridge.yaml`. [config/bridge.yaml](../config/bridge.yaml) is a commented sample, `meisa-bridge init`
writes a starter, `meisa-bridge check` tells every mistake with its place, and
[bridge.schema.json](../schemas/bridge.schema.json) (`meisa-bridge schema config`) lets editors complete it.

- A **duration** is a number and a unit: `500ms`, `30s`, `10m`, `2h`, `1d`.
- A **secret** is `{{env: NAME}}` or `{{file: PATH}}`; a literal one is refused. The same two may stand for any other
  value. Relative paths start at the folder of `bridge.yaml`.
- Each setting can be given by an **environment variable** instead, whose name stands below it: two underscores go one
  level down, and whatever is neither letter nor digit is `_`. So `start` of the topic `user-events` is
  `MEISA_BRIDGE__TOPICS__USER_EVENTS__START`. Lists and maps are JSON there. A topic that the file lacks can only be
  given with the whole map: `MEISA_BRIDGE__TOPICS={{"user-events": {{}}}}`.
- Unknown keys are errors, but for `x-…` at the top (for YAML anchors). `kafka`, `topics` and `meisa` must be there.
- [reloading.md](reloading.md) tells what is read again while the bridge runs; for the rest it is started anew.
"""
    head = ("setting, and its variable", "type", "default", "meaning")
    page += f"\n## At the top\n\n{table(head, top)}"
    for name, rows in sections.items():
        page += f"\n## `{name}`\n\n{SECTIONS[name]}\n\n{table(head, rows)}"
    return page


# --- commands ---------------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command that does something, by its whole name."""
    top = click.Context(cli, info_name="meisa-bridge")
    for name in COMMANDS:
        command = cli.get_command(top, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=top)
        if not isinstance(command, click.Group):
            yield f"meisa-bridge {name}", command, context
            continue
        for below, child in command.commands.items():
            yield f"meisa-bridge {name} {below}", child, click.Context(child, info_name=below, parent=context)


def _help(command: click.Command) -> str:
    """Its text as Markdown: what click keeps as it is, is code."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    made = []
    for paragraph in paragraphs:
        kept, _, lines = paragraph.partition("\b\n")
        made.append(f"```\n{lines}\n```" if lines else kept.replace("<", "\\<"))
    return "\n\n".join(made)


def _options(command: click.Command, context: click.Context) -> list[tuple[str, str]]:
    rows = []
    for param in command.get_params(context):
        record = param.get_help_record(context) if isinstance(param, click.Option) else None
        if record is not None and "--help" not in param.opts:
            if not record[1]:
                raise ValueError(f"{context.command_path} {record[0]} has no help")
            text = record[1].replace("<", "\\<")
            rows.append((f"`{record[0]}`", text if text.endswith("]") else sentence(text)))
    return rows


def command_line() -> str:
    """docs/commands.md"""
    page = f"""{GENERATED}
# Commands

`--help` (or `-h`) behind any of them tells the same in a terminal; `python -m bridge` is the same program.

| exit status | |
|---|---|
| 0 | done |
| 1 | the command found a problem, or the work failed |
| 2 | the command line is wrong, a file cannot be read, or a secret is missing |
| 130 | ended by Ctrl-C; `run` drains and ends with 0 |

Errors go to standard error, facts to standard output. A user's mistake is one line that says where and what to do.
Commands that destroy ask first, and `--yes` answers; without it and without a terminal they do nothing and exit 2.
`MEISA_BRIDGE_DEBUG=1` shows where in the code a bug is. Without `-c` the configuration is `config/bridge.yaml`.
"""
    for name, command, context in commands():
        pieces = " ".join(command.collect_usage_pieces(context))
        options = _options(command, context)
        page += f"\n## {name}\n\n```\n{name} {pieces}\n```\n\n{_help(command)}\n"
        if options:
            page += f"\n{table(('option', ''), options)}"
    return page


# --- rules ------------------------------------------------------------------------------------------------------------


_MANY: Mapping[str, str] = {
    "text": "texts", "action": "actions", "event": "events", "test": "tests", "expected": "actions",
}  # fmt: skip


def _takes(shape: Mapping[str, Any]) -> str:
    """What may stand under a key of a rules file, in words; that most of it may be `${…}` is said once."""
    if "$ref" in shape:
        name = shape["$ref"].rpartition("/")[2]
        return {"max_age": "duration, `none`"}.get(name, name.replace("_", " "))
    arms = shape.get("anyOf", ())
    if arms:
        words = dict.fromkeys(_takes(arm) for arm in arms)
        return ", ".join(word for word in words if word)
    if "enum" in shape or "const" in shape:
        return ", ".join(f"`{value}`" for value in shape.get("enum", [shape.get("const")]))
    kinds = shape.get("type", "any value")
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if shape.get("pattern", "").startswith((r"\$", r"^\$")) or kinds == ["null"]:
        return ""
    if kinds[0] == "array":
        of = _takes(shape["items"])
        return f"list of {_MANY.get(of, of)}"
    if kinds[0] == "string":
        return "expression" if "boolean" in kinds else "text"
    return {"integer": "whole number", "boolean": "`true`, `false`", "object": "map"}.get(kinds[0], kinds[0])


def rules() -> str:
    """docs/rules.md"""
    schema = rules_schema
    definitions = schema.json_schema()["$defs"]
    events = definitions["event"]["properties"]
    options = {
        name: shape
        for kind in schema.ACTIONS
        for name, shape in definitions[kind.value]["properties"].items()
        if name != kind.value
    }

    def rows(
        shapes: Mapping[str, Any], said: Mapping[str, str], required: Iterable[str] = ()
    ) -> list[tuple[str, str, str]]:
        needed = set(required)
        return [
            (f"`{name}`" + (" (required)" if name in needed else ""), _takes(shape), said[name])
            for name, shape in shapes.items()
        ]

    head = ("key", "takes", "")

    page = f"""{GENERATED}
# Rules

Every key of a rules file. [rule-tests.md](rule-tests.md) tells how to test rules, [expressions.md](expressions.md)
what stands in `${{…}}` and `when`, [check.md](check.md) what is said of mistakes, and
[rules.schema.json](../schemas/rules.schema.json) (`meisa-bridge schema rules`) lets editors complete them.

```yaml
rules:
  - name: plan-changed
    match: plan.changed
    do:
      - upsert:
          email: ${{data.email}}
          custom_fields: {{plan: "${{data.plan}}"}}
```

A file has `rules`, `tests` of all rules together, and `x-…` for YAML anchors. All rules that match an event apply, in
the order of the files (sorted by path) and within a file from top to bottom. In the fields of an action any text may
be, or hold, `${{…}}`.

## A rule

{table(head, rows(definitions["rule"]["properties"], schema.RULE, definitions["rule"]["required"]))}
## Actions

An action is a map with its kind, and beside it [options](#options-of-an-action). The fields under its kind are Meisa's
own.
"""
    for kind, said in schema.ACTIONS.items():
        definition = definitions[kind.value]["properties"]
        body = definition[kind.value]
        page += f"\n### {kind.value}\n\n{said}\n\n"
        page += table(head, rows(body["properties"], schema.FIELDS, body.get("required", ())))
        beside = ", ".join(f"`{name}`" for name in definition if name != kind.value)
        either = " Either `tag_name` or `tag_id`, not both." if "oneOf" in body else ""
        page += f"\nOptions: {beside}.{either}\n"
    error = definitions["test"]["properties"]["expect_error"]["properties"]
    page += f"""
### Options of an action

{table(head, rows({name: options[name] for name in schema.OPTIONS}, schema.OPTIONS))}
An action names its contact by `email` (`to_email`), `external_id` or `contact`. Where Meisa needs an email and the
event has only an id, the one last seen for that id is used; see `state` in [configuration.md](configuration.md#state).

## Tests

Beside a rule under its `tests`, or at the top of a file.

{table(head, rows(definitions["top_test"]["properties"], schema.TEST))}
`rule` and `handler` are for tests at the top of a file. Of `expect_error`:

{table(head, rows(error, {key: said["description"] for key, said in error.items()}))}
The `event` of a test:

{table(head, rows(events, schema.EVENT))}"""
    return page
