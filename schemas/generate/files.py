"""Which files there are, what stands in them, and which of them are not current."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from schemas.generate import asyncapi, avro, json_schema, readme
from schemas.generate.catalogue import Catalogue, example, load
from schemas.generate.compatibility import incompatible, without_words

FOLDER = Path(__file__).parents[1]
CATALOGUE = FOLDER / "catalogue.yaml"
RELEASED = FOLDER / "released"
WIDTH = 110
"""Characters of a line of JSON or YAML."""
BY_HAND = frozenset({"README.md", "catalogue.yaml", "bridge.schema.json", "rules.schema.json"})
"""Files beside the generated ones; the README only between its tables, the last two by `meisa-bridge schema`."""


def generated(catalogue: Catalogue) -> dict[str, str]:
    """Every generated file's text, by its path below schemas/."""
    files: dict[str, str] = {}
    for event in catalogue.events:
        files[f"{event.type}.avsc"] = _json(avro.schema(catalogue, event))
        files[f"{event.type}.schema.json"] = _json(json_schema.schema(catalogue, event))
        files[f"examples/{event.type}.json"] = _json(example(catalogue, event))
    files["events.avsc"] = _json(avro.for_topic(catalogue))
    files["events.schema.json"] = _json(json_schema.for_topic(catalogue))
    files["asyncapi.yaml"] = _yaml(asyncapi.document(catalogue))
    told = sorted((example(catalogue, event) for event in catalogue.events), key=lambda made: str(made["time"]))
    files["examples/all.jsonl"] = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in told)
    files["README.md"] = readme.with_tables((FOLDER / "README.md").read_text(encoding="utf-8"), catalogue)
    return files


def stale(catalogue: Catalogue) -> list[str]:
    """The files that are missing, are not what they would be made now, or that nothing makes any more."""
    files = generated(catalogue)
    wrong = [name for name, text in files.items() if not _is(FOLDER / name, text)]
    return sorted({*wrong, *_left_over(files)})


def write(catalogue: Catalogue) -> None:
    """Writes all files, and removes those of events that are no more."""
    files = generated(catalogue)
    (FOLDER / "examples").mkdir(exist_ok=True)
    for name, text in files.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for name in _left_over(files):
        (FOLDER / name).unlink()


def _left_over(files: dict[str, str]) -> list[str]:
    found = [*FOLDER.glob("*.avsc"), *FOLDER.glob("*.schema.json"), *FOLDER.glob("examples/*")]
    names = {path.relative_to(FOLDER).as_posix() for path in found}
    return sorted(names - files.keys() - BY_HAND)


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _json(document: Any) -> str:
    """As JSON; what fits into a line stands in one, so that a field is a line."""
    return _lines(document, "") + "\n"


def _lines(value: Any, indent: str) -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if not value or not isinstance(value, dict | list) or len(indent) + len(flat) <= WIDTH:
        return flat
    inner = indent + "  "
    if isinstance(value, list):
        items = [_lines(item, inner) for item in value]
    else:
        items = [f"{json.dumps(name)}: {_lines(item, inner)}" for name, item in value.items()]
    listed = f",\n{inner}".join(items)
    return (
        f"{'{' if isinstance(value, dict) else '['}\n{inner}{listed}\n{indent}{'}' if isinstance(value, dict) else ']'}"
    )


def _yaml(document: Any) -> str:
    """As YAML; every text in quotes where it could be read as anything else."""
    yaml = YAML()
    yaml.width = WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    stream.write("# Made from catalogue.yaml by `python -m schemas.generate`: change it there.\n")
    yaml.dump(document, stream)
    return stream.getvalue()


# Releases ------------------------------------------------------------------------------------------------------------


def snapshot(catalogue: Catalogue) -> dict[str, Any]:
    """What a release holds for ever: each event's schemas, without their words, and its example."""
    return {
        event.type: {
            "avro": without_words(avro.schema(catalogue, event)),
            "json_schema": without_words(json_schema.schema(catalogue, event)),
            "example": example(catalogue, event),
        }
        for event in catalogue.events
    }


def releases() -> dict[str, dict[str, Any]]:
    """All released versions, oldest first, with what `snapshot` said then."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RELEASED.glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: [int(part) for part in item[0].split(".")]))


def problems(catalogue: Catalogue) -> list[str]:
    """What keeps the catalogue from being what it says: incompatible with a release, or changed without a version."""
    now = snapshot(catalogue)
    found = [f"{each} (since {version})" for version, then in releases().items() for each in incompatible(then, now)]
    same = releases().get(catalogue.version)
    if not found and same is not None and _schemas(same) != _schemas(now):
        found.append(f"version {catalogue.version} is released and never changes: give the catalogue a higher one")
    return found


def _schemas(release: dict[str, Any]) -> Any:
    return {type: (each["avro"], each["json_schema"]) for type, each in release.items()}


def release(catalogue: Catalogue) -> Path:
    """Records the catalogue's version for ever. Raises ValueError with what is wrong."""
    if wrong := problems(catalogue):
        raise ValueError("\n".join(wrong))
    known = releases()
    if catalogue.version in known:
        raise ValueError(f"version {catalogue.version} is released already: give the catalogue a higher one")
    path = RELEASED / f"{catalogue.version}.json"
    lines = ",\n".join(f"{json.dumps(type)}: {json.dumps(each)}" for type, each in snapshot(catalogue).items())
    RELEASED.mkdir(exist_ok=True)
    path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    return path


def current() -> Catalogue:
    return load(CATALOGUE)
