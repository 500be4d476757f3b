"""Reads the schema files that topics name; each mistake becomes a problem with its place. Nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urldefrag, urlsplit
from urllib.request import url2pathname

from bridge.config import codes
from bridge.config.formats import schema_paths
from bridge.decode.schema import Schema, SchemaError, TopicSchemas, parse, parse_json
from bridge.errors import Problem, UsageError
from bridge.places import Place

if TYPE_CHECKING:
    from bridge.config import Topic

BYTES_MAX = 4 * 1_048_576
"""The largest schemas that people publish are a few hundred KB."""
NEIGHBOURS_MAX = 1_000
"""Files of a folder in which an `$id` is looked for."""


def load_schemas(
    topics: Mapping[str, Topic], base_dir: Path, place: Callable[..., Place]
) -> tuple[dict[str, TopicSchemas], list[Problem]]:
    """The schemas of each topic, and what is wrong with its files. `place` tells where a setting is written."""
    found: dict[str, TopicSchemas] = {}
    problems: list[Problem] = []
    for name, topic in topics.items():
        made: dict[str, Schema] = {}
        for route, written in schema_paths(name, topic):
            try:
                made[str(route[-1])] = load_schema(base_dir / written)
            except UsageError as error:
                hint = "paths start from the folder of bridge.yaml" if not Path(written).is_absolute() else ""
                problems.append(place(*route).problem(codes.UNREADABLE_SCHEMA, str(error), hint))
            except SchemaError as error:
                at = Place(shown(base_dir / written), error.line, error.column) if error.line else place(*route)
                message = error.message if error.line else f"the schema {written}: {error.message}"
                problems.append(at.problem(codes.NOT_A_SCHEMA, message))
        whole = made.get("schema") if isinstance(topic.schemas, str) else None
        found[name] = TopicSchemas(whole, {} if whole else made)
    return found, problems


def load_schema(path: Path) -> Schema:
    """One schema file. Raises UsageError where it cannot be read, SchemaError where it is no schema."""
    folder = path.parent

    def beside(name: str) -> str | None:
        other = folder / name
        return read(other) if name == other.name and other.is_file() else None

    return parse(read(path), path.resolve(), beside, _Neighbours(path.resolve()))


class _Neighbours:
    """The text of a JSON Schema by its URI: the file that it names, or one of the same folder with that `$id`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_id: dict[str, str] | None = None

    def __call__(self, uri: str) -> str | None:
        """None where there is none. Raises UsageError where it cannot be read."""
        parts = urlsplit(uri)
        if parts.scheme == "file":
            path = Path(url2pathname(parts.path))
            return read(path) if path.exists() else None
        if self._by_id is None:
            self._by_id = dict(self._ids())
        return self._by_id.get(uri)

    def _ids(self) -> Iterator[tuple[str, str]]:
        """Every `$id` in the folder, with its file's text; a file that is no JSON has none."""
        for path in sorted(self._path.parent.glob("*.json"))[:NEIGHBOURS_MAX]:
            try:
                text = read(path)
                document = parse_json(text)
            except (UsageError, SchemaError):
                continue
            id = document.get("$id") if isinstance(document, dict) else None
            if isinstance(id, str):
                yield urldefrag(id).url, text


def read(path: Path) -> str:
    """A schema file's text. Raises UsageError with the reason."""
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"the schema file {shown(path)} does not exist") from None
    except IsADirectoryError:
        raise UsageError(f"{shown(path)} is a directory, not a schema file") from None
    except UnicodeDecodeError:
        raise UsageError(f"the schema file {shown(path)} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a usable file name"
        raise UsageError(f"the schema file {shown(path)} cannot be read: {reason}") from None
    if len(content) > BYTES_MAX:
        raise UsageError(f"the schema file {shown(path)} is larger than {BYTES_MAX:,} bytes: surely not the right one")
    return text


def shown(path: Path) -> str:
    """A path as short as it can be told: from the present folder where it lies below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
