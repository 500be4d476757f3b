"""The tables of schemas/README.md; the words around them are written by hand.

What is made of an event is what the sample rules in config/ make of its example.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

from bridge.decode import decoder_for
from bridge.model import Action, Kind, Record
from bridge.rules import RuleBook, load
from schemas.generate.catalogue import Catalogue, Event, Field, example

CONFIG = Path(__file__).parents[2] / "config"
NAMED_BY: dict[Kind, str] = {
    Kind.TRACK: "event_name",
    Kind.TRIGGER: "trigger_key",
    Kind.ENROLL: "sequence_slug",
    Kind.ADD_TAG: "tag_name",
    Kind.REMOVE_TAG: "tag_name",
}

BEGIN = "<!-- The tables below are made from catalogue.yaml by `python -m schemas.generate`: change them there. -->\n"
END = "<!-- Here the tables end. -->\n"


def with_tables(page: str, catalogue: Catalogue) -> str:
    """The page with its tables renewed. Raises ValueError where it has no place for them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("schemas/README.md has lost the lines between which its tables stand")
    return f"{before}{BEGIN}{tables(catalogue)}\n{END}{after}"


def tables(catalogue: Catalogue) -> str:
    made_of = _sample_rules(catalogue)
    index = "\n| event | says | the sample rules make of it |\n|---|---|---|\n"
    for event in catalogue.events:
        index += f"| [{event.type}](#{event.type.replace('.', '')}) | {event.about} | {made_of(event)} |\n"
    return index + "".join(_theme(catalogue, theme, about) for theme, about in catalogue.themes.items())


def _theme(catalogue: Catalogue, theme: str, about: str) -> str:
    page = f"\n### {theme.capitalize()}\n\n{about}\n"
    for event in catalogue.events:
        if event.theme == theme:
            page += f"\n#### `{event.type}`\n\n{event.about}\n\n{_files(event)}\n\n"
            page += "| field | type | | example |\n|---|---|---|---|\n"
            page += "".join(_row("data.", each) for each in event.data)
    return page


def _files(event: Event) -> str:
    names = (f"{event.type}.avsc", f"{event.type}.schema.json", f"examples/{event.type}.json")
    labels = ("Avro", "JSON Schema", "example")
    return ", ".join(f"[{label}]({name})" for label, name in zip(labels, names, strict=True))


def _row(prefix: str, each: Field) -> str:
    rows = f"| `{prefix}{each.name}` | {_type(each)} | {each.about} | {_shown(each)} |\n"
    return rows + "".join(_row(f"{prefix}{each.name}.", inner) for inner in each.type.fields)


def _type(each: Field) -> str:
    symbols = each.type.symbols
    name = "object" if each.type.fields else "one of " + ", ".join(symbols) if symbols else each.type.name
    return f"{name}, optional" if each.optional else name


def _shown(each: Field) -> str:
    return "" if each.type.fields else f"`{json.dumps(each.example, ensure_ascii=False)}`"


def _sample_rules(catalogue: Catalogue) -> Callable[[Event], str]:
    """Tells the actions that the rules in config/ plan for an event's example."""
    book = _book()
    decoder = decoder_for("json")

    def told(event: Event) -> str:
        value = json.dumps(example(catalogue, event)).encode()
        decoded = decoder.decode(Record(catalogue.topic, 0, 0, 0, None, value))
        return ", ".join(map(_told, book.plan(decoded).actions)) if decoded is not None else ""

    return told


@cache
def _book() -> RuleBook:
    return load(["rules/*.yaml"], CONFIG)


def _told(action: Action) -> str:
    key = NAMED_BY.get(action.kind)
    return f"{action.kind.value} `{action.body[key]}`" if key else action.kind.value
