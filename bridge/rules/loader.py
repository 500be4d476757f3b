"""Rules files to a RuleBook: every mistake is found and told with its place, not only the first."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from bridge.actions import MODELS, duration_seconds
from bridge.errors import Problem, ProblemsFound, UsageError
from bridge.model import Kind, Lane
from bridge.places import Place, did_you_mean
from bridge.rules import yaml_traps
from bridge.rules.action_loader import ActionLoader
from bridge.rules.cases import Case, CaseReader, unknown_subjects
from bridge.rules.composing import ActionTemplate
from bridge.rules.handlers import Handler, load_handlers
from bridge.rules.handling import RuleOptions
from bridge.rules.planner import Rule, RuleBook
from bridge.rules.reading import Reader
from bridge.rules.written import WrittenRule
from bridge.yamldoc import Node, parse

BYTES_MAX = 1_000_000
"""One file; a thousand rules have about 500 kB."""

HANDLER_CODES = ("MB140", "MB141", "MB142")
"""While a module of handlers is not loaded, nobody knows which handlers there are."""

_NEVER_LAZY = ("email", "external_id", "source", "tag_names")
RULE_KEYS = ("name", "match", "topic", "when", "do", "enabled", "lane", "coalesce", "preserve", "linger", "lazy",
              "lazy_every", "tests")  # fmt: skip
_FILE_KEYS = ("rules", "tests")


@dataclass(slots=True)
class _Loaded:
    """What the files read so far hold."""

    watched: bool = False
    problems: list[Problem] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    tests: list[Case] = field(default_factory=list)
    """Those at the top of files."""

    def book(self, handlers: Sequence[Handler]) -> RuleBook:
        """Raises ProblemsFound."""
        self.problems += _repeated_names(self.rules, handlers)
        if not any(problem.code in HANDLER_CODES for problem in self.problems):
            rule_names, handler_names = ([each.name for each in them] for them in (self.rules, handlers))
            self.problems += unknown_subjects(self.tests, rule_names, handler_names)
        if self.problems:
            raise ProblemsFound(self.problems)
        return RuleBook(self.rules, handlers, self.tests)


def load(
    patterns: Sequence[str],
    base_dir: Path,
    handlers: Sequence[str] = (),
    *,
    imported: Sequence[Handler] | None = None,
    watched: bool = False,
) -> RuleBook:
    """Loads rules files (globs relative to `base_dir`, sorted by path) and the modules of handlers.

    Installed entry points of the group `meisa_bridge.handlers` are loaded too. With handlers that are `imported`
    already, for a reload, neither is looked at. `watched` makes the rules remember what tests had of them
    (coverage.py). Raises ProblemsFound with all problems, UsageError where a file cannot be read.
    """
    loaded = _Loaded(watched)
    for path in _files(patterns, base_dir, loaded.problems):
        _load_file(path, loaded)
    found: list[Handler] = []
    try:
        found = load_handlers(handlers, base_dir) if imported is None else list(imported)
    except ProblemsFound as error:
        loaded.problems += error.problems
    return loaded.book(found)


def load_text(
    text: str, file: str = "rules.yaml", *, handlers: Sequence[Handler] = (), watched: bool = False
) -> RuleBook:
    """Loads the text of one rules file, with handlers that are there already. Raises ProblemsFound."""
    loaded = _Loaded(watched)
    _load_text(text, file, loaded)
    return loaded.book(handlers)


def rules_files(patterns: Sequence[str], base_dir: Path) -> list[Path]:
    """The rules files that the patterns name at this moment, sorted by path."""
    return _files(patterns, base_dir, [])


def _files(patterns: Sequence[str], base_dir: Path, problems: list[Problem]) -> list[Path]:
    found: set[Path] = set()
    for pattern in patterns:
        matches = [Path(name) for name in glob.glob(str(base_dir / pattern), recursive=True)]  # noqa: PTH207  # absolute patterns
        files = [path for path in matches if not path.is_dir()]
        if not files:
            hint = f"it is looked up from {_shown(base_dir)}"
            if matches:
                hint = f"name the files in it: {pattern.rstrip('/')}/*.yaml"
            problems.append(Problem("MB101", f"rules: no file matches {pattern}", hint=hint))
        found.update(files)
    return sorted(found)


def _shown(path: Path) -> str:
    """The path as a person would write it here."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return str(path)
    return str(path) if relative.startswith("..") else relative


def _load_file(path: Path, loaded: _Loaded) -> None:
    file = _shown(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the rules in {file}: {error.strerror or type(error).__name__}") from None
    if len(raw) > BYTES_MAX:
        hint = f"split it: one file has at most {BYTES_MAX // 1000} kB"
        loaded.problems.append(Problem("MB108", "the file is too large", file, hint=hint))
        return
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        loaded.problems.append(Problem("MB100", "not UTF-8 text", file, line, hint="save the file as UTF-8"))
        return
    _load_text(text, file, loaded)


def _load_text(text: str, file: str, loaded: _Loaded) -> None:
    root, found = parse(text.replace("\r\n", "\n"), file, yaml_traps.YAML)
    reader = Reader()
    reader.problems += found  # those of YAML come first
    if root is not None:
        _FileLoader(reader, loaded).take(root)
    elif not found:
        reader.problem("MB105", Place(file), "the file is empty", "it begins with rules:")
    loaded.problems += sorted(reader.problems, key=lambda problem: (problem.line, problem.column))


class _FileLoader:
    """The rules of one file."""

    def __init__(self, reader: Reader, loaded: _Loaded) -> None:
        self._reader = reader
        self._loaded = loaded
        self._cases = CaseReader(reader)

    def take(self, root: Node) -> None:
        reader = self._reader
        entries = reader.mapping(root, "a rules file")
        if entries is None:
            return
        for name, below in entries.items():
            if name not in _FILE_KEYS and not name.startswith("x-"):
                hint = did_you_mean(name, _FILE_KEYS, "a rules file has rules, tests, and x-… for anchors")
                reader.problem("MB103", below.key_place, f"a rules file has no key {name}", hint)
        if "rules" not in entries and "tests" not in entries and entries:
            reader.problem("MB105", root.place, "the file has no rules", "list them under rules:")
        items = reader.items(entries["rules"], "rules") if "rules" in entries else None
        found = [self._rule(item, index) for index, item in enumerate(items or ())]
        self._loaded.rules += [rule for rule in found if rule is not None]
        self._loaded.tests += self._cases.at_the_top(entries.get("tests"))

    def _rule(self, node: Node, index: int) -> Rule | None:
        reader = self._reader
        entries = reader.mapping(node, "a rule")
        if entries is None:
            return None
        reader.known_keys(entries, RULE_KEYS, "a rule")
        for name in ("name", "match", "do"):
            if name not in entries:
                reader.problem("MB105", node.place, f"the rule has no {name}", _EXAMPLES[name])
        name = reader.text(entries.get("name"), "name") or ""
        place = entries.get("name", node).place
        options = self._options(entries)
        loader = ActionLoader(reader, name, options, watched=self._loaded.watched)
        when = loader.condition(entries.get("when"), "when")
        actions = self._actions(entries.get("do"), loader)
        return Rule(
            name=name,
            match=reader.texts(entries.get("match"), "match"),
            topics=reader.texts(entries.get("topic"), "topic"),
            enabled=reader.flag(entries.get("enabled"), "enabled", True),
            when=when,
            actions=tuple(action for action in actions if action is not None),
            options=options,
            tests=self._cases.beside(entries.get("tests"), name, ("rules", index, "tests")),
            digest=_digest(entries),
            references=tuple(loader.references),
            identity_problems=tuple(loader.identity_problems),
            advice=tuple([*self._odd_patterns(entries.get("match")), *loader.advice]),
            lazy_notice=_lazy_notice(entries["lazy"], name) if options.lazy else None,
            written=_written(entries),
            file=place.file,
            line=place.line,
            column=place.column,
            places=_places(entries),
        )

    def _odd_patterns(self, node: Node | None) -> Iterator[Problem]:
        """Patterns that look like something else than a type or a glob; taken as they are, they match nothing."""
        if node is None:
            return
        for item in node.value if isinstance(node.value, list) else [node]:
            odd = _ODD.search(str(item.value))
            if odd:
                hint = "write a type, or a glob: * for any text, ? for a character, [ab] for one of some"
                types = [part.strip() for part in re.split(r"[,|]", str(item.value))]
                if item is node and len(types) > 1 and not any(_ODD.search(part) for part in types):
                    hint = f"write match: [{', '.join(types)}]"
                message = f"match: {odd[0]!r} stands for itself here, and hardly for part of an event's type"
                yield item.at(odd.start()).problem("MB176", message, hint, "warning")

    def _actions(self, node: Node | None, loader: ActionLoader) -> list[ActionTemplate | None]:
        if node is None:
            return []
        items = self._reader.items(node, "do")
        if items == []:
            self._reader.problem("MB104", node.place, "do holds no action", f"known are {', '.join(Kind)}")
        return [loader.load(item) for item in items or ()]

    def _options(self, entries: dict[str, Node]) -> RuleOptions:
        reader = self._reader
        lane = reader.choice(entries.get("lane"), "lane", [lane.value for lane in Lane])
        linger = reader.duration(entries.get("linger"), "linger")
        every = reader.duration(entries.get("lazy_every"), "lazy_every")
        return RuleOptions(
            lane=None if lane is None else Lane(lane),
            coalesce=reader.flag(entries.get("coalesce"), "coalesce", True),
            linger_seconds=0.0 if linger is None else duration_seconds(linger),
            preserve=self._upsert_paths(entries.get("preserve"), "preserve"),
            lazy=self._lazy_paths(entries.get("lazy")),
            lazy_every_seconds=None if every is None else duration_seconds(every),
        )

    def _upsert_paths(self, node: Node | None, what: str) -> tuple[str, ...]:
        """Paths into an upsert's body, such as custom_fields.plan."""
        model = MODELS[Kind.UPSERT]
        known = [name for name in model.model_fields if name not in model.OPTIONS]
        paths = self._reader.texts(node, what)
        for path in paths:
            head = path.split(".")[0]
            if head not in known and node is not None:
                hint = did_you_mean(head, known, f"write custom_fields.{path}")
                self._reader.problem("MB107", node.place, f"{what}: an upsert has no field {head}", hint)
        return paths

    def _lazy_paths(self, node: Node | None) -> tuple[str, ...]:
        paths = self._upsert_paths(node, "lazy")
        for path in paths:
            if path in _NEVER_LAZY and node is not None:
                hint = "a tag or a name is a change worth a call; name custom_fields.… or a plain field"
                self._reader.problem("MB107", node.place, f"lazy: {path} is never lazy", hint)
        return paths


_ODD = re.compile(r"\$\{|[,|^{}\\]|(?<=.)\$$")
"""Hardly a type of any event has these, but lists, regular expressions and shells' braces do. `$identify` is a type."""


def _digest(entries: dict[str, Node]) -> str:
    told = {name: below.plain() for name, below in entries.items() if name != "tests"}
    return blake2b(json.dumps(told, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


_EXAMPLES = {
    "name": "e.g. name: signup; it identifies the rule's actions for ever",
    "match": "e.g. match: user.signed_up, or a glob: user.*",
    "do": "list its actions under do:",
}


def _repeated_names(rules: Sequence[Rule], handlers: Sequence[Handler]) -> list[Problem]:
    seen: dict[str, str] = {}
    problems = []
    for rule in rules:
        if not rule.name:
            continue
        place = f"{rule.file}:{rule.line}"
        if rule.name in seen:
            hint = f"the first is at {seen[rule.name]}"
            problems.append(
                Problem("MB106", f"a second rule is named {rule.name}", rule.file, rule.line, rule.column, hint)
            )
        seen.setdefault(rule.name, place)
    for handler in handlers:
        if handler.name in seen:
            hint = f'the first is {seen[handler.name]}; give this one a name: @handles(…, name="…")'
            problems.append(Problem("MB106", f"a second rule or handler is named {handler.name}", hint=hint))
        seen.setdefault(handler.name, f"in {handler.module}")
    return problems


def _places(entries: dict[str, Node]) -> dict[str, Place]:
    """Where the values of a rule are written, and the items of its lists."""
    found = {}
    for name, node in entries.items():
        found[name] = node.place
        if isinstance(node.value, list):
            found.update((f"{name}[{number}]", item.place) for number, item in enumerate(node.value))
    return found


def _written(entries: dict[str, Node]) -> WrittenRule:
    match = entries.get("match")
    nodes = match.value if match is not None and isinstance(match.value, list) else [match] if match else []
    return WrittenRule(tuple(nodes), entries.get("when"))


def _lazy_notice(node: Node, rule: str) -> Problem:
    return node.place.problem(
        "MB152",
        f"rule {rule}: with `state: memory` a restart forgets the values of lazy fields that wait for a call",
        "set state.url to sqlite:/// or redis:// to keep them",
        severity="notice",
    )
