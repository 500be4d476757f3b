"""From a file and the environment to settings: every problem with its place, no secret in any message.

    text → tree (yamldoc) → overrides (environ) → plain data (here, along the shape) → models (settings) → checks

A section with a problem of its own is left out of the checks that need it, so that one mistake hides no other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from bridge.config import codes
from bridge.config.checks import run_checks
from bridge.config.environ import REFERENCE_KEYS, apply_overrides, override_name
from bridge.config.explain import HINTS, Route, as_problem, dotted
from bridge.config.kafka_security import located
from bridge.config.secret import Secret
from bridge.config.settings import FROM_FILE, Settings, nearest_place
from bridge.config.shape import Shape, dotted_names, shape_of
from bridge.errors import Problem, ProblemsFound, UsageError
from bridge.places import Place, nearest
from bridge.secret_names import SECRET_PROPERTY
from bridge.yamldoc import Node, parse

FILE_BYTES_MAX: Final = 1_048_576
"""A configuration is a few kilobytes; a larger file is the wrong one."""

_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?:\}|:?[-+?=][^}]*\})|^\$([A-Za-z_][A-Za-z0-9_]*)$")
"""`${NAME}` or `${NAME:-default}` anywhere, `$NAME` as the whole."""
_MEISA_KEY: Final = re.compile(r"meisa_(live|test)_", re.IGNORECASE)
_URL_PASSWORD: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s]*:[^/@\s]+@", re.IGNORECASE)


class SecretMissing(UsageError, ProblemsFound):
    """Among the problems is a secret that cannot be read (exit status 2)."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What is known of a configuration: its settings where nothing is wrong, and every problem, warnings included."""

    settings: Settings | None
    problems: list[Problem]
    sections: Mapping[str, Any] = field(default_factory=dict)
    """The sections that are valid by themselves, by name; for checks that can go on beside a mistake elsewhere."""
    base_dir: Path = Path()
    places: Mapping[Route, Place] = field(default_factory=dict)

    def place(self, *route: str | int) -> Place:
        """Where a setting is written, else the nearest thing around it."""
        return nearest_place(self.places, route, "")

    def settings_or_raise(self) -> Settings:
        """Raises SecretMissing or ProblemsFound where there is an error; warnings pass."""
        if self.settings is not None:
            return self.settings
        errors = [problem for problem in self.problems if problem.severity == "error"]
        if any(problem.code in codes.UNREADABLE for problem in errors):
            raise SecretMissing(errors)
        raise ProblemsFound(errors)


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings of a file with the environment's overrides.

    Raises UsageError where the file cannot be read, SecretMissing (a UsageError) where a secret is missing, and
    ProblemsFound with everything else that is wrong.
    """
    return examine(path, environ).settings_or_raise()


def examine(path: Path, environ: Mapping[str, str]) -> Examined:
    """Like `load`, but gives the problems back. Raises UsageError only where the file itself cannot be read."""
    root, problems = parse(_read(path), str(path), codes.YAML)
    if root is None:
        if problems:
            return Examined(None, problems)
        root = Node({}, Place(str(path), 1, 1), Place(str(path), 1, 1))  # an empty file: all may come from overrides
    if not isinstance(root.value, dict):
        return Examined(
            None,
            [*problems, root.place.problem(codes.WRONG_TYPE, "should be a map of settings", "start with kafka:")],
        )
    for name in [name for name in root.value if name.startswith("x-")]:
        del root.value[name]
    shape = shape_of(Settings)
    problems += apply_overrides(root, shape, environ)
    walk = _Walk(environ, path.parent.resolve(), problems)
    data = walk.model(shape, root, ())
    sections = _sections(data, walk, str(path))
    problems += run_checks(sections, walk.places, str(path))
    problems = sorted(set(problems), key=lambda problem: (problem.line, problem.column, problem.file, problem.code))
    if any(problem.severity == "error" for problem in problems):
        return Examined(None, problems, sections, walk.base_dir, walk.places)
    settings = Settings(**sections).located(path, walk.places)
    return Examined(settings, problems, sections, walk.base_dir, walk.places)


def _is_map(node: Node) -> bool:
    """Whether a node is a map of its own, and no reference."""
    return isinstance(node.value, dict) and not (len(node.value) == 1 and set(node.value) <= REFERENCE_KEYS)


def placed(problems: list[Problem], place: Callable[[str], Place]) -> list[Problem]:
    """Problems without a file, such as a pattern that fits none, get the place of the setting that they begin with."""
    made = []
    for problem in problems:
        setting = problem.message.partition(": ")[0]
        if not problem.file and setting in ("rules", "handlers"):
            at = place(setting)
            problem = replace(problem, file=at.file, line=at.line, column=at.column)
        made.append(problem)
    return made


def _read(path: Path) -> str:
    how = "name the configuration with -c PATH"
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; {how}") from None
    except IsADirectoryError:
        raise UsageError(f"{path}: is a directory, not a file; {how}") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a usable file name"
        raise UsageError(f"{path}: cannot be read ({reason}); {how}") from None
    if len(content) > FILE_BYTES_MAX:
        raise UsageError(f"{path}: larger than {FILE_BYTES_MAX:,} bytes, so surely not a configuration; {how}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    annotation: Any = Settings.model_fields[name].rebuild_annotation()
    return TypeAdapter(annotation)


def _sections(data: dict[str, Any], walk: _Walk, file: str) -> dict[str, Any]:
    """The sections that are valid by themselves; the others' problems go to the walk's list."""
    sections: dict[str, Any] = {}
    broken = {route[0] for route in walk.excused}
    for name, info in Settings.model_fields.items():
        if name not in data:
            if name not in broken and not info.is_required():
                sections[name] = info.get_default(call_default_factory=True)
            elif name not in broken:
                where = nearest_place(walk.places, (), file)
                code = codes.NO_TOPIC if name == "topics" else codes.MISSING_KEY
                walk.problems.append(where.problem(code, f"`{name}` is missing", HINTS.get(name, "")))
            continue
        try:
            made = _adapter(name).validate_python(data[name], context=FROM_FILE)
            if name not in broken:  # else what was left out might look like a default
                sections[name] = made
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_input=False):
                route = (name, *detail["loc"])
                if route not in walk.excused:
                    place = nearest_place(walk.places, route, file)
                    walk.problems.append(as_problem(route, detail, place, walk.shown.get(route)))
    return sections


@dataclass(slots=True)
class _Walk:
    """Goes through tree and shape together and makes plain data for the models."""

    environ: Mapping[str, str]
    base_dir: Path
    problems: list[Problem]
    places: dict[Route, Place] = field(default_factory=dict)
    excused: set[Route] = field(default_factory=set)
    """What a problem was reported for already: the models need not complain again."""
    shown: dict[Route, str] = field(default_factory=dict)
    """Values that stand in the file itself and are no secrets, so a message may quote them."""

    def model(self, shape: Shape, node: Node, route: Route) -> dict[str, Any]:
        self.places[route] = node.key_place if route else Place(node.place.file, 1, 1)
        data: dict[str, Any] = {}
        for key, below in self._entries(node).items():
            if key in shape.fields:
                self._add(data, key, shape.fields[key], below, (*route, key))
            else:
                self._unknown(shape, key, below, route)
        return data

    def _entries(self, node: Node) -> dict[str, Node]:
        assert isinstance(node.value, dict)
        return node.value

    def _add(self, data: dict[str, Any], key: str, shape: Shape, node: Node, route: Route) -> None:
        """Puts what the node means under `key`, unless a problem makes that meaningless."""
        whole = shape.kind in ("model", "map", "list") or (shape.kind == "either" and _is_map(node))
        self.places[route] = node.key_place if whole else node.place
        if shape.kind == "secret" or (route[:2] == ("kafka", "properties") and SECRET_PROPERTY.search(key)):
            self._secret(data, key, shape, node, route)
        elif shape.kind == "scalar" or (shape.kind == "either" and not _is_map(node)):
            self._scalar(data, key, node, route)
        elif node.value is None:
            data[key] = [] if shape.kind == "list" else {}  # `admin:` with everything below it commented out
        elif shape.kind == "list":
            self._list(data, key, shape, node, route)
        elif not isinstance(node.value, dict):
            self._complain(route, node, codes.WRONG_TYPE, f"`{dotted(route)}` should be a map", HINTS.get(key, ""))
        elif shape.kind == "model":
            data[key] = self.model(shape, node, route)
        else:
            data[key] = self._map(shape, node, route)

    def _map(self, shape: Shape, node: Node, route: Route) -> dict[str, Any]:
        assert shape.item is not None
        data: dict[str, Any] = {}
        for key, below in self._entries(node).items():
            if shape.keys and key not in shape.keys:
                self._unknown(shape, key, below, route)
            else:
                self._add(data, key, shape.item, below, (*route, key))
        return data

    def _list(self, data: dict[str, Any], key: str, shape: Shape, node: Node, route: Route) -> None:
        if not isinstance(node.value, list):
            self._complain(
                route, node, codes.WRONG_TYPE, f"`{dotted(route)}` should be a list", HINTS.get(key, "write [one, two]")
            )
            return
        assert shape.item is not None
        kept: dict[str, Any] = {}
        for index, item in enumerate(node.value):
            self._add(kept, str(index), shape.item, item, (*route, index))
        data[key] = list(kept.values())

    def _unknown(self, shape: Shape, key: str, node: Node, route: Route) -> None:
        known = [*shape.fields, *shape.keys]
        close = nearest(key, known)
        hint = f"did you mean `{close}`?" if close else ""
        if close:
            self.excused.add((*route, close))
        elif route == ("kafka",) and "." in key:
            hint = "librdkafka's own properties stand under kafka.properties"
        elif elsewhere := [name for name in dotted_names(shape_of(Settings)) if name.rpartition(".")[2] == key]:
            hint = f"it belongs to `{elsewhere[0].rpartition('.')[0] or 'the top level'}`"
        else:
            hint = "known here: " + ", ".join(sorted(known))
        where = f" in `{dotted(route)}`" if route else ""
        self.problems.append(node.key_place.problem(codes.UNKNOWN_KEY, f"unknown key `{key}`{where}", hint))

    def _scalar(self, data: dict[str, Any], key: str, node: Node, route: Route) -> None:
        if isinstance(node.value, dict) and set(node.value) & REFERENCE_KEYS:
            found = self._resolve(node, route)
            if found is not None:
                data[key] = found
            return
        if isinstance(node.value, dict | list):
            what = "a map" if isinstance(node.value, dict) else "a list"
            hint = HINTS.get(key, "")
            self._complain(
                route, node, codes.WRONG_TYPE, f"`{dotted(route)}` should be a single value, not {what}", hint
            )
            return
        if isinstance(node.value, str) and not node.override:
            if _MEISA_KEY.match(node.value) or _URL_PASSWORD.match(node.value):
                self._literal(node, route)
                return
            if self._variable(node, route):
                return
            self.shown[route] = node.value
        in_kafka = route[:2] == ("kafka", "properties")
        data[key] = located(self.base_dir, key, node.value) if in_kafka else node.value

    def _variable(self, node: Node, route: Route) -> bool:
        """Tells `${NAME}`, as shells and other tools have it; an envelope's `${…}` are expressions."""
        if not isinstance(node.value, str) or "envelope" in route[2:3] or not (found := _VARIABLE.search(node.value)):
            return False
        name = found[1] or found[2]
        if not name or (found[2] and found[0] != node.value):  # a bare $ may be part of a text
            return False
        key = f"{route[-1]}: " if isinstance(route[-1], str) else ""
        hint = f"write {key}{{env: {name}}}"
        if found[0] != node.value:
            hint += ", which stands for the whole value"
        elif ":" in found[0]:
            hint += "; a default stands in the file, and is overridden by the environment"
        if all(isinstance(part, str) for part in route):
            hint += f"; or set {override_name(route)}"
        message = f"`{dotted(route)}`: variables are not filled into text"
        self._complain(route, node, codes.BAD_REFERENCE, message, hint)
        return True

    def _secret(self, data: dict[str, Any], key: str, shape: Shape, node: Node, route: Route) -> None:
        """A secret stays a reference; a Kafka property that holds one is resolved, since librdkafka wants the text."""
        wants_text = shape.kind != "secret"
        if isinstance(node.value, dict):
            found = self._resolve(node, route, as_secret=not wants_text)
            if found is not None:
                data[key] = found
        elif node.value is None:
            data[key] = None
        elif isinstance(node.value, list):
            message = f"`{dotted(route)}` should be {{env: NAME}} or {{file: PATH}}"
            self._complain(route, node, codes.WRONG_TYPE, message)
        elif not node.override:
            if not self._variable(node, route):
                self._literal(node, route)
        elif wants_text:
            data[key] = node.value
        else:
            data[key] = self._readable(Secret.from_env(node.override, self.environ), node, route)

    def _literal(self, node: Node, route: Route) -> None:
        message = f"`{dotted(route)}` is a secret written into the file"
        self._complain(
            route, node, codes.LITERAL_SECRET, message, "write {env: NAME} or {file: PATH}, and replace the secret"
        )

    def _resolve(self, node: Node, route: Route, *, as_secret: bool = False) -> Any:
        """What `{env: NAME}` or `{file: PATH}` stands for; None after a problem."""
        entries = self._entries(node)
        name = dotted(route)
        kind, below = next(iter(entries.items()), ("", node))
        if len(entries) != 1 or kind not in REFERENCE_KEYS or not isinstance(below.value, str) or not below.value:
            message = f"`{name}` should be either {{env: NAME}} or {{file: PATH}}, with nothing beside it"
            return self._complain(route, node, codes.BAD_REFERENCE, message)
        if _MEISA_KEY.match(below.value):
            return self._literal(node, route)
        if kind == "env" and not _ENV_NAME.fullmatch(below.value):
            message = f"`{name}`: env takes the name of an environment variable"
            return self._complain(route, node, codes.BAD_REFERENCE, message, "e.g. {env: MEISA_API_KEY}")
        made = (
            Secret.from_env(below.value, self.environ)
            if kind == "env"
            else Secret.from_file(self.base_dir / below.value)
        )
        return self._readable(made, node, route, keep=as_secret)

    def _readable(self, made: Secret, node: Node, route: Route, *, keep: bool = True) -> Any:
        try:
            value = made.read()
        except UsageError as error:
            hint = "set it, or name another" if made.source.startswith("environment") else "create it, or name another"
            return self._complain(route, node, codes.UNREADABLE_REFERENCE, f"`{dotted(route)}`: {error}", hint)
        return made if keep else value

    def _complain(self, route: Route, node: Node, code: str, message: str, hint: str = "") -> None:
        self.problems.append(node.place.problem(code, message, hint))
        self.excused.add(route)


__all__ = ["Examined", "SecretMissing", "examine", "load", "placed"]
