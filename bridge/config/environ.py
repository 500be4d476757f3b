"""Overrides from the environment: `MEISA_BRIDGE__MEISA__TIMEOUT=5s`.

Two underscores go one level down; upper and lower case are the same. How names in maps are written, since few shells
allow dots and dashes in a variable's name:

- An existing key is found with every character other than a letter or digit read as `_`:
  `MEISA_BRIDGE__TOPICS__USER_EVENTS__START=latest` sets `start` of `user-events`.
- A new Kafka property gets dots for underscores: `MEISA_BRIDGE__KAFKA__PROPERTIES__GROUP_INSTANCE_ID` sets
  `group.instance.id`.
- A new topic can't be named this way (`-`, `.` and `_` would look alike); give the whole map as JSON:
  `MEISA_BRIDGE__TOPICS={"user-events": {"start": "latest"}}`.

Lists and maps are JSON (or YAML in one line) and replace what the file says; a longer name is applied after a shorter
one. The value of a secret may stand in its variable: it is not written into a file then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from bridge.config import codes
from bridge.config.shape import Shape
from bridge.errors import Problem
from bridge.places import Place, nearest
from bridge.yamldoc import Node, parse

PREFIX: Final = "MEISA_BRIDGE__"
REFERENCE_KEYS: Final = frozenset({"env", "file"})


def apply_overrides(root: Node, shape: Shape, environ: Mapping[str, str]) -> list[Problem]:
    """Puts the environment's values into the tree, each as a node that names its variable."""
    problems: list[Problem] = []
    names = sorted(
        (name for name in environ if name.upper().startswith(PREFIX)), key=lambda name: (name.count("__"), name)
    )
    taken: dict[tuple[str, ...], str] = {}
    for name in names:
        place = Place(f"environment {name}")
        found = _resolve(shape, root, name[len(PREFIX) :], ())
        if isinstance(found, _Unresolved):
            problems.append(place.problem(found.code, found.message, found.hint or _suggestion(name, shape, root)))
            continue
        path, target = found
        if path in taken:
            problems.append(
                place.problem(codes.BAD_OVERRIDE, f"{taken[path]} sets the same", "keep one of the two variables")
            )
            continue
        taken[path] = name
        node, faults = _value(target, environ[name], name, place)
        problems += faults
        if node is not None:
            _put(root, path, node)
    return problems


class _Unresolved:
    def __init__(self, code: str, message: str, hint: str = "") -> None:
        self.code = code
        self.message = message
        self.hint = hint


def normal(key: str) -> str:
    """A key as it can be written in a variable's name: `user-events` is USER_EVENTS."""
    return re.sub(r"[^A-Za-z0-9]", "_", key).upper()


def override_name(path: Iterable[str | int]) -> str:
    """The variable that overrides a setting which the file has."""
    return PREFIX + "__".join(normal(str(key)) for key in path)


def _resolve(
    shape: Shape, node: Node | None, rest: str, path: tuple[str, ...]
) -> tuple[tuple[str, ...], Shape] | _Unresolved:
    """The path of keys that `rest`, the name without what was understood already, stands for."""
    unknown = _Unresolved(codes.UNKNOWN_OVERRIDE, "names no setting")
    if shape.kind not in ("model", "map", "either"):
        return unknown
    existing = node.value if node is not None and isinstance(node.value, dict) else {}
    keys = [*shape.fields, *shape.keys] if shape.fields or shape.keys else list(existing)
    # The longest key wins: a topic `a__b` before a topic `a`.
    matches = [key for key in keys if normal(rest) == normal(key) or normal(rest).startswith(normal(key) + "__")]
    longest = max((len(key) for key in matches), default=0)
    matches = [key for key in matches if len(key) == longest]
    if len(matches) > 1:
        same = " and ".join(f"`{key}`" for key in sorted(matches))
        hint = f"set {PREFIX}{'__'.join(normal(key) for key in path)} as JSON"
        return _Unresolved(codes.BAD_OVERRIDE, f"may mean {same}", hint)
    if not matches:
        return _new_key(shape, rest, path) or unknown
    key = matches[0]
    below = shape.fields.get(key) or shape.item
    assert below is not None
    here = (*path, key)
    if len(rest) == len(key):
        return here, below
    return _resolve(below, existing.get(key), rest[len(key) + 2 :], here)


def _new_key(shape: Shape, rest: str, path: tuple[str, ...]) -> tuple[tuple[str, ...], Shape] | _Unresolved | None:
    if shape.kind != "map" or shape.keys or not rest or shape.item is None:
        return None
    if path == ("kafka", "properties") and re.fullmatch(r"[A-Za-z0-9]+([._][A-Za-z0-9]+)*", rest):
        return (*path, rest.lower().replace("_", ".")), shape.item
    if path == ("topics",):
        return _Unresolved(
            codes.UNKNOWN_OVERRIDE,
            "names no topic of the file",
            f'a topic that the file lacks is given as JSON: {PREFIX}TOPICS={{"user-events": {{}}}}',
        )
    return None


def _suggestion(name: str, shape: Shape, root: Node) -> str:
    known = list(_names(shape, root))
    close = nearest(name[len(PREFIX) :], known)
    return (
        f"did you mean {PREFIX}{close.upper()}?"
        if close
        else "two underscores go one level down: " + PREFIX + "MEISA__TIMEOUT"
    )


def _names(shape: Shape, node: Node | None, above: str = "") -> list[str]:
    existing = node.value if node is not None and isinstance(node.value, dict) else {}
    keys = [*shape.fields, *shape.keys] if shape.fields or shape.keys else list(existing)
    names: list[str] = []
    for key in keys:
        written = above + normal(key).lower()
        names.append(written)
        below = shape.fields.get(key) or shape.item
        if below is not None:
            names += _names(below, existing.get(key), written + "__")
    return names


def _value(target: Shape, text: str, name: str, place: Place) -> tuple[Node | None, list[Problem]]:
    """The variable's value as a node. A scalar stays text, which the models turn into what is due."""
    if target.kind in ("scalar", "secret") or (target.kind == "either" and not text.lstrip().startswith("{")):
        return _scalar_value(target, text, name, place), []
    node, problems = parse(text, place.file, codes.YAML, override=name)
    wanted = list if target.kind == "list" else dict
    if problems or node is None or not isinstance(node.value, wanted):
        what, example = ("a list", '["rules/*.yaml"]') if wanted is list else ("a map", '{"key": "value"}')
        return None, [place.problem(codes.BAD_OVERRIDE, f"should be {what} as JSON", f"e.g. {example}")]
    return node, []


def _scalar_value(target: Shape, text: str, name: str, place: Place) -> Node:
    """Text as it stands (a password may hold any character), but for a reference, quotes around it all, and null."""
    plain = Node(text, place, place, name)
    start = text.strip()[:1]
    if start == "{" or (target.kind != "secret" and (start in ("'", '"') or text.strip() in ("null", "~"))):
        node, problems = parse(text, place.file, codes.YAML, override=name)
        is_reference = node is not None and isinstance(node.value, dict) and bool(set(node.value) & REFERENCE_KEYS)
        if node is not None and not problems and (is_reference or node.value is None or isinstance(node.value, str)):
            return node
    return plain


def _put(root: Node, path: tuple[str, ...], node: Node) -> None:
    here = root
    for key in path[:-1]:
        if not isinstance(here.value, dict):
            here.value = {}  # the file had null or nothing there
        here = here.value.setdefault(key, Node({}, node.place, node.place, node.override))
    if not isinstance(here.value, dict):
        here.value = {}
    here.value[path[-1]] = node
