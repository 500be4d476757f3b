"""One action of a rules file becomes an ActionTemplate: its fields one compiled function, its literals checked now."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bridge.actions import MODELS, ActionModel
from bridge.errors import Problem, RuleError
from bridge.model import Kind, Lane
from bridge.places import Place, did_you_mean
from bridge.rules import conditions, scan, yaml_traps
from bridge.rules.composing import ActionTemplate, fits, told
from bridge.rules.handling import ActionOptions, RuleOptions, handling_of
from bridge.rules.language import RULE_NAMES, Expression, compile_expression
from bridge.rules.planner import FieldReference
from bridge.rules.reading import Reader, shape
from bridge.rules.scan import ExpressionError
from bridge.rules.template import translate_text
from bridge.rules.translator import Translator
from bridge.rules.unit import Unit
from bridge.rules.writers import writes_of
from bridge.rules.written import WrittenAction
from bridge.yamldoc import Node

_LOADER_OPTIONS = frozenset({"when", "missing"})
_IDENTIFYING = frozenset({"email", "to_email", "external_id", "contact"})


@cache
def _adapter(model: type[ActionModel], name: str) -> TypeAdapter[Any]:
    info = model.model_fields[name]
    config = ConfigDict(coerce_numbers_to_str=True, hide_input_in_errors=True)
    annotation: Any = info.annotation
    if info.metadata:
        annotation = Annotated[(annotation, *info.metadata)]
    return TypeAdapter(annotation, config=config)


@dataclass(slots=True)
class _Value:
    """A value of the file, compiled."""

    made: ast.expr
    literal: bool
    plain: Any = None
    """Of a literal: the value. Else a stand-in of its shape, or None where only the event decides."""
    droppable: bool = False


def _constant(value: Any) -> ast.expr:
    if isinstance(value, dict):
        return ast.Dict([ast.Constant(name) for name in value], [_constant(item) for item in value.values()])
    if isinstance(value, list):
        return ast.List([_constant(item) for item in value], ast.Load())
    return ast.Constant(value)


def _places(action: Node, fields: dict[str, Node], beside: dict[str, Node]) -> dict[str, Place]:
    """Where an action, its fields and options are written; values inside a field that is an object as well."""
    found = {"": action.key_place}
    for name, node in (*fields.items(), *beside.items()):
        found[name] = node.place
        if isinstance(node.value, dict):
            found.update((f"{name}.{below}", inner.place) for below, inner in node.value.items())
    return found


def _helper(name: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


class ActionLoader:
    """Loads the actions of one rule; `watched` so that its conditionals remember their outcomes."""

    def __init__(self, reader: Reader, rule_name: str, options: RuleOptions, *, watched: bool = False) -> None:
        self._reader = reader
        self._rule_name = rule_name
        self._options = options
        self._watched = watched
        self.references: list[FieldReference] = []
        self.identity_problems: list[Problem] = []
        self.advice: list[Problem] = []
        """Warnings: what can be carried out, and is hardly what was meant."""

    def load(self, item: Node) -> ActionTemplate | None:
        """The action, or None where problems were found (all of them are collected)."""
        reader = self._reader
        before = len(reader.problems)
        entries = reader.mapping(item, "an item of do")
        if entries is None:
            return None
        kinds = [name for name in entries if name in MODELS]
        if len(kinds) != 1:
            self._no_action(item, entries, kinds)
            return None
        kind = Kind(kinds[0])
        model = MODELS[kind]
        self._known_options(entries, kind, model)
        fields_node = entries[kind.value]
        fields = reader.mapping(fields_node, kind.value)
        omit = reader.choice(entries.get("missing"), "missing", ["omit"]) == "omit"
        when = self.condition(entries.get("when"), f"{kind.value}.when")
        options = self._action_options(entries, model)
        if fields is None:
            return None
        template = self._template(kind, model, item, fields, entries, omit, when, options)
        return template if len(reader.problems) == before else None

    def condition(self, node: Node | None, where: str) -> Expression | None:
        """A `when`."""
        if node is None:
            return None
        if isinstance(node.value, bool):
            made = compile_expression("true" if node.value else "false")
            self._constant(node, where, made.text)
            return made
        if not isinstance(node.value, str):
            self._reader.problem("MB104", node.place, f"{where} must be an expression, not {shape(node.value)}")
            return None
        try:
            made = compile_expression(node.value, watched=self._watched)
        except ExpressionError as error:
            at = node.value.find("${")
            bare = ExpressionError("MB137", "takes the bare expression", at, "write it without ${ }")
            self._reader.expression_problem(node, bare if at >= 0 else error, where)
            return None
        self._refer(node, where, made.references)
        made.place = node.place
        for conditional in made.conditionals:
            conditional.place = node.at(conditional.offset)
        found = conditions.of_condition(node.value)
        self._advise(node, where, found)
        if not found and not made.references:
            self._constant(node, where, made.text)
        return made

    def _constant(self, node: Node, where: str, text: str) -> None:
        """A condition that names nothing of the event."""
        try:
            met = bool(compile_expression(text).evaluate(None))
        except RuleError:
            return  # it fails for every event, which tests show; what is told here is that it never applies
        if not met:
            hint = "remove the action" if where != "when" else "to turn a rule off, write enabled: false"
            self._advise(node, where, [conditions.Finding(conditions.NEVER, 0, "it is false for every event", hint)])

    def _advise(self, node: Node, where: str, found: Iterable[conditions.Finding]) -> None:
        for each in found:
            message = f"{where}: {each.message}"
            self.advice.append(node.at(each.offset).problem(each.code, message, each.hint, "warning"))

    def _refer(self, node: Node, where: str, references: Any) -> None:
        for reference in references:
            place = node.at(reference.offset)
            self.references.append(FieldReference(reference.path, reference.guarded, where, place.line, place.column))

    # What stands beside the fields -----------------------------------------------------------------------------------

    def _no_action(self, item: Node, entries: dict[str, Node], kinds: list[str]) -> None:
        names = [kind.value for kind in Kind]
        if kinds:
            hint = "begin each action with a dash of its own"
            self._reader.problem("MB121", item.place, f"one item of do holds {' and '.join(kinds)}", hint)
            return
        for name, below in entries.items():
            if hint := did_you_mean(name, names):
                self._reader.problem("MB120", below.key_place, f"unknown action {name}", hint)
                return
        self._reader.problem("MB121", item.place, "an item of do holds no action", f"known are {', '.join(names)}")

    def _known_options(self, entries: dict[str, Node], kind: Kind, model: type[ActionModel]) -> None:
        known = sorted(model.OPTIONS | _LOADER_OPTIONS)
        everywhere = {name for other in MODELS.values() for name in other.OPTIONS}
        for name, below in entries.items():
            if name == kind.value or name in known:
                continue
            if name in model.model_fields:
                hint = f"indent it under {kind.value}"
                self._reader.problem(
                    "MB127", below.key_place, f"{name} is a field of {kind.value} and stands beside it", hint
                )
            elif name in everywhere:
                owners = [other.value for other, its in MODELS.items() if name in its.OPTIONS]
                self._reader.problem(
                    "MB127", below.key_place, f"{kind.value} has no option {name}", f"{', '.join(owners)} has it"
                )
            else:
                hint = did_you_mean(name, known, f"known are {', '.join(known)}")
                self._reader.problem("MB103", below.key_place, f"{kind.value} has no option {name}", hint)

    def _action_options(self, entries: dict[str, Node], model: type[ActionModel]) -> ActionOptions:
        reader = self._reader

        def choice(name: str) -> str | None:
            if name not in model.OPTIONS:
                return None
            allowed = [str(value) for part in get_args(model.model_fields[name].annotation) for value in get_args(part)]
            return reader.choice(entries.get(name), name, allowed)

        lane = reader.choice(entries.get("lane"), "lane", [lane.value for lane in Lane])
        return ActionOptions(
            max_age=reader.duration(entries.get("max_age"), "max_age", none=True),
            lane=None if lane is None else Lane(lane),
            on_missing=choice("on_missing"),
            on_suppressed=choice("on_suppressed"),
            order=choice("order"),
        )

    # The fields ------------------------------------------------------------------------------------------------------

    def _template(
        self,
        kind: Kind,
        model: type[ActionModel],
        item: Node,
        given_fields: dict[str, Node],
        entries: dict[str, Node],
        omit: bool,
        when: Expression | None,
        options: ActionOptions,
    ) -> ActionTemplate | None:
        unit = Unit(watched=self._watched)
        translator = Translator(unit, RULE_NAMES)
        given: dict[str, Node] = {
            name: entries[name] for name in ("contact", "aliases") if name in entries and name in model.OPTIONS
        }
        names: list[ast.expr | None] = []
        values: list[ast.expr] = []
        droppable: list[ast.expr] = []
        checks = []
        paths: dict[str, str] = {}
        fields: dict[str, Node] = {**self._fields(given_fields, kind, model), **given}
        for name, node in fields.items():
            since = len(unit.references)
            value = self._value(translator, unit, node, f"{kind.value}.{name}", omit and name not in _IDENTIFYING)
            if value is None:
                continue
            required = model.model_fields[name].is_required()
            made = self._checked(model, name, node, value, kind)
            if made is None:
                continue
            if not value.literal:
                checks.append((name, fits(model, name), required))
                used = {reference.path for reference in unit.references[since:]}
                if len(used) == 1:
                    paths[name] = used.pop()
            names.append(ast.Constant(name))
            values.append(made)
            if value.droppable:
                droppable.append(ast.Constant(name))
        present = {name for name, node in (*given_fields.items(), *given.items()) if node.value is not None}
        self._complete(kind, model, entries[kind.value].key_place, present)
        body: ast.expr = ast.Dict(names, values)
        if droppable:
            body = _helper("drop", body, ast.Tuple(droppable, ast.Load()))
        try:
            build = unit.compile(body, RULE_NAMES)
        except ExpressionError as error:
            self._reader.expression_problem(entries[kind.value], error, kind.value)
            return None
        with_email = handling_of(kind, self._options, options, email_known=True)
        without = handling_of(kind, self._options, options, email_known=False)
        line = item.place.line
        writes = writes_of(kind, {name: node.plain() for name, node in (*given_fields.items(), *given.items())})
        beside = {name: node for name, node in entries.items() if name != kind.value}
        return ActionTemplate(
            kind,
            model,
            build,
            unit,
            tuple(checks),
            paths,
            when,
            with_email,
            without,
            line,
            writes,
            given={name: node.plain() for name, node in (*given_fields.items(), *beside.items())},
            places=_places(entries[kind.value], given_fields, beside),
            written=WrittenAction(fields, entries.get("when"), omit),
        )

    def _fields(self, given: dict[str, Node], kind: Kind, model: type[ActionModel]) -> dict[str, Node]:
        """The fields that this action has; others are problems."""
        known = [name for name in model.model_fields if name not in model.OPTIONS]
        found: dict[str, Node] = {}
        for name, value in given.items():
            if name in known:
                found[name] = value
            elif name in model.OPTIONS | _LOADER_OPTIONS:
                hint = f"write it in line with {kind.value}:, not under it"
                self._reader.problem("MB126", value.key_place, f"{name} stands beside {kind.value}, not inside", hint)
            else:
                hint = did_you_mean(name, known, f"known are {', '.join(known)}")
                self._reader.problem("MB122", value.key_place, f"{kind.value} has no field {name}", hint)
        return found

    def _value(self, translator: Translator, unit: Unit, node: Node, where: str, omit: bool) -> _Value | None:
        value = node.value
        if isinstance(value, str):
            return self._text(translator, unit, node, value, where, omit)
        if isinstance(value, dict):
            return self._mapping(translator, unit, value, where, omit)
        if isinstance(value, list):
            items = [self._value(translator, unit, item, f"{where}[{n}]", omit) for n, item in enumerate(value)]
            found = [item for item in items if item is not None]
            if len(found) < len(items):
                return None
            if all(item.literal for item in found):
                plain = [item.plain for item in found]
                return _Value(_constant(plain), True, plain)
            made: ast.expr = ast.List([item.made for item in found], ast.Load())
            if any(item.droppable for item in found):
                made = _helper("drop_items", made)
            return _Value(made, False, [item.plain for item in found if item.literal])
        return _Value(ast.Constant(value), True, value)

    def _mapping(
        self, translator: Translator, unit: Unit, entries: dict[str, Node], where: str, omit: bool
    ) -> _Value | None:
        found: dict[str, _Value] = {}
        for name, inner in entries.items():
            if "${" in name:
                hint = "only values can hold ${ }"
                self._reader.problem("MB104", inner.key_place, f"{where}: keys are literal", hint)
                return None
            value = self._value(translator, unit, inner, f"{where}.{name}", omit)
            if value is not None:
                found[name] = value
        if len(found) < len(entries):
            return None
        if all(value.literal for value in found.values()):
            plain = {name: value.plain for name, value in found.items()}
            return _Value(_constant(plain), True, plain)
        made: ast.expr = ast.Dict([ast.Constant(name) for name in found], [value.made for value in found.values()])
        droppable: list[ast.expr] = [ast.Constant(name) for name, value in found.items() if value.droppable]
        if droppable:
            made = _helper("drop", made, ast.Tuple(droppable, ast.Load()))
        return _Value(made, False, {name: value.plain for name, value in found.items() if value.literal})

    def _text(self, translator: Translator, unit: Unit, node: Node, text: str, where: str, omit: bool) -> _Value | None:
        unit.where = where
        since, before = len(unit.references), len(unit.conditionals)
        try:
            made, droppable = translate_text(translator, unit, text, omit=omit)
        except ExpressionError as error:
            self._reader.expression_problem(node, error, where)
            return None
        if cut := yaml_traps.cut_by_comment(node, where):
            self.advice.append(cut)
        if isinstance(made, ast.Constant) and "${" not in text.replace("$${", ""):
            return _Value(made, True, made.value)
        self._advise(node, where, conditions.of_template(text))
        self._refer(node, where, unit.references[since:])
        for conditional in unit.conditionals[before:]:
            conditional.place = node.at(conditional.offset)
        whole = len(scan.parts(text)) == 1
        return _Value(made, False, None if whole else "text", droppable)

    def _checked(self, model: type[ActionModel], name: str, node: Node, value: _Value, kind: Kind) -> ast.expr | None:
        """The value, a literal one as the model takes it; None where it cannot be right."""
        if not value.literal and value.plain is None:
            return value.made
        if not value.literal and value.plain == "text" and fits(model, name)("text"):
            return value.made
        try:
            made = _adapter(model, name).validate_python(value.plain)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            at = node
            place = [kind.value, name]
            for step in first["loc"]:
                inner = at.value
                if isinstance(inner, dict) and step in inner:
                    at = inner[str(step)]
                elif isinstance(inner, list) and isinstance(step, int) and step < len(inner) and value.literal:
                    at = inner[step]
                else:
                    break
                place.append(str(step))
            self._reader.problem("MB123", at.place, f"{'.'.join(place)} {told(first['type'], first['msg'])}")
            return None
        return _constant(made) if value.literal else value.made

    def _complete(self, kind: Kind, model: type[ActionModel], place: Place, present: set[str]) -> None:
        """What must be there, whatever the event holds."""
        reader = self._reader
        for name, info in model.model_fields.items():
            if info.is_required() and name not in present:
                reader.problem("MB124", place, f"{kind.value} needs {name}")
        if kind in (Kind.ADD_TAG, Kind.REMOVE_TAG) and ("tag_name" in present) == ("tag_id" in present):
            reader.problem("MB124", place, f"{kind.value} needs either tag_name or tag_id")
        if not present & {model.EMAIL_FIELD, "external_id", "contact", "aliases"}:
            hint = f"give {model.EMAIL_FIELD}, external_id or, beside the action, contact: {{alias: …}}"
            reader.problem("MB125", place, f"{kind.value} names no contact", hint)
        elif model.EMAIL_FIELD not in present and not (kind is Kind.TRACK and "external_id" in present):
            also = " or external_id" if kind is Kind.TRACK else ""
            hint = f"give {model.EMAIL_FIELD}{also}, or set state.url to sqlite:/// or redis://"
            message = (
                f"rule {self._rule_name}: {kind.value} has no {model.EMAIL_FIELD}{also}, so it needs the identity table"
            )
            self.identity_problems.append(place.problem("MB150", message, hint))
