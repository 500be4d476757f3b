"""The tables of schemas/README.md; the words around them are written by hand."""

from __future__ import annotations

import json

from schemas.generate.catalogue import Catalogue, Event, Field

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
    index = "\n| event | says |\n|---|---|\n"
    for event in catalogue.events:
        index += f"| [{event.type}](#{event.type.replace('.', '')}) | {event.about} |\n"
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
