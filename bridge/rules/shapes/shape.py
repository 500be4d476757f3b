"""Shapes: what a value may be, as far as a schema tells.

A shape is a set of alternatives: null, true/false, numbers, texts (each perhaps out of a few values), lists, objects.
`ANY` is every JSON value, `NEVER` none. A shape may hold more than the schema allows, never less: where something is
not understood it is ANY, so a complaint that follows from a shape is never a false alarm.

Schemas may be recursive: what stands inside a list or a field is made when it is first looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, NamedTuple

ALTERNATIVES_MAX = 500
"""Of one shape: a topic with that many types of events is the largest that anybody keeps in one schema. Beyond, ANY."""

VALUES_MAX = 1_000
"""Of one enumeration; beyond, any value of its kind."""

NULL, BOOL, NUMBER, TEXT, LIST, OBJECT = "null", "true/false", "a number", "a text", "a list", "an object"
"""Kinds, as they are told to people. Whole numbers and others are one kind: JSON writes 1.0 for either."""

Step = str | int


class Openness(Enum):
    """What an object may hold besides the fields that its schema names."""

    CLOSED = "closed"
    """Nothing: Avro, `additionalProperties: false`."""
    SILENT = "silent"
    """JSON Schema lets anything through, but the author named the fields and did not say that there are more."""
    OPEN = "open"
    """More is expressly allowed."""
    FREE = "free"
    """No field is named at all."""


class Scalar(NamedTuple):
    kind: str
    values: frozenset[Any] | None = None
    """All that it can be; None: any value of its kind."""


class _Later:
    """A shape that is made when it is first asked for."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Shape | Callable[[], Shape]) -> None:
        self._make: Callable[[], Shape] | None = None if isinstance(make, Shape) else make
        self._made = make if isinstance(make, Shape) else NEVER

    @property
    def shape(self) -> Shape:
        if self._make is not None:
            make, self._make = self._make, None
            self._made = ANY  # for whoever asks while it is being made
            with suppress(RecursionError):  # of a schema that combines more than anybody could read
                self._made = make()
        return self._made


class Array(_Later):
    """A list; its shape is that of the items."""

    __slots__ = ()


class Field(_Later):
    """A field of an object; `always` says that it is never missing (it may still be null)."""

    __slots__ = ("always",)

    def __init__(self, shape: Shape | Callable[[], Shape], always: bool = True) -> None:
        super().__init__(shape)
        self.always = always


class Object:
    """An object: its named fields, and what others may be."""

    __slots__ = ("_rest", "fields", "openness")

    def __init__(
        self,
        fields: Mapping[str, Field],
        openness: Openness = Openness.CLOSED,
        rest: Shape | Callable[[], Shape] | _Later | None = None,
    ) -> None:
        self.fields = fields
        self.openness = openness
        self._rest = rest if isinstance(rest, _Later) else _Later(ANY if rest is None else rest)

    @property
    def rest(self) -> Shape:
        """Of a field that is not named."""
        return NEVER if self.openness is Openness.CLOSED else self._rest.shape

    def with_field(self, name: str, field: Field) -> Object:
        return Object({**self.fields, name: field}, self.openness, self._rest)


Alternative = Scalar | Array | Object


class Shape:
    """A set of alternatives; `unknown` is the set of all JSON values."""

    __slots__ = ("alternatives", "unknown")

    def __init__(self, alternatives: Iterable[Alternative] = (), *, unknown: bool = False) -> None:
        self.alternatives: tuple[Alternative, ...] = tuple(alternatives)
        self.unknown = unknown

    def __repr__(self) -> str:
        return "ANY" if self.unknown else words(self) or "NEVER"

    @property
    def never(self) -> bool:
        return not self.unknown and not self.alternatives

    @property
    def kinds(self) -> frozenset[str]:
        """Of ANY: all."""
        return ALL_KINDS if self.unknown else frozenset(map(kind_of, self.alternatives))

    @property
    def values(self) -> frozenset[Any] | None:
        """All that it can be, where that is known of every alternative; true is not 1 here."""
        if self.unknown:
            return None
        found: set[Any] = set()
        for each in self.alternatives:
            if not isinstance(each, Scalar) or each.values is None:
                return None
            found.update((each.kind, value) for value in each.values)
        return frozenset(found)

    def only(self, kinds: Iterable[str]) -> Shape:
        """The alternatives of these kinds; ANY stays as it is."""
        if self.unknown:
            return self
        kept = set(kinds)
        return Shape(each for each in self.alternatives if kind_of(each) in kept)

    def without(self, *kinds: str) -> Shape:
        return self.only(ALL_KINDS.difference(kinds))


ANY = Shape(unknown=True)
NEVER = Shape()
ALL_KINDS = frozenset({NULL, BOOL, NUMBER, TEXT, LIST, OBJECT})
NULL_SHAPE = Shape([Scalar(NULL, frozenset({None}))])
BOOL_SHAPE = Shape([Scalar(BOOL)])
NUMBER_SHAPE = Shape([Scalar(NUMBER)])
TEXT_SHAPE = Shape([Scalar(TEXT)])


def kind_of(alternative: Alternative) -> str:
    if isinstance(alternative, Scalar):
        return alternative.kind
    return LIST if isinstance(alternative, Array) else OBJECT


_ORDER = (TEXT, NUMBER, BOOL, LIST, OBJECT, NULL)


def words(shape: Shape) -> str:
    """The kinds for people: `a text or null`."""
    kinds = [kind for kind in _ORDER if kind in shape.kinds]
    return " or ".join([", ".join(kinds[:-1]), kinds[-1]] if len(kinds) > 1 else kinds)


def text_in(*values: str) -> Shape:
    """One of these texts."""
    return Shape([Scalar(TEXT, frozenset(values))])


def list_of(items: Shape | Callable[[], Shape]) -> Shape:
    return Shape([Array(items)])


def literal(value: Any) -> Shape:
    """Exactly this value, which JSON can carry; numbers are told apart by Python's ==."""
    if value is None:
        return NULL_SHAPE
    if isinstance(value, bool):
        return Shape([Scalar(BOOL, frozenset({value}))])
    if isinstance(value, (int, float)):
        return Shape([Scalar(NUMBER, frozenset({value}))])
    if isinstance(value, str):
        return text_in(value)
    if isinstance(value, list):
        return list_of(union(map(literal, value)))
    if isinstance(value, dict):
        return Shape([Object({str(name): Field(literal(item)) for name, item in value.items()})])
    return ANY


def union(shapes: Iterable[Shape]) -> Shape:
    """What is in any of them."""
    scalars: dict[str, frozenset[Any] | None] = {}
    others: dict[int, Alternative] = {}
    for shape in shapes:
        if shape.unknown:
            return ANY
        for each in shape.alternatives:
            if not isinstance(each, Scalar):
                others[id(each)] = each
            elif each.kind not in scalars:
                scalars[each.kind] = each.values
            else:
                known = scalars[each.kind]
                together = None if known is None or each.values is None else known | each.values
                scalars[each.kind] = together if together is None or len(together) <= VALUES_MAX else None
    if len(others) > ALTERNATIVES_MAX:
        return ANY
    return Shape([*(Scalar(kind, values) for kind, values in scalars.items()), *others.values()])


def intersection(left: Shape, right: Shape) -> Shape:
    """What is in both of them."""
    if left.unknown or right.unknown or left is right:
        return right if left.unknown else left
    if len(left.alternatives) * len(right.alternatives) > ALTERNATIVES_MAX**2:
        return ANY
    found = [_both(one, other) for one in left.alternatives for other in right.alternatives]
    return union(Shape([each]) for each in found if each is not None)


def _both(one: Alternative, other: Alternative) -> Alternative | None:
    if isinstance(one, Scalar) and isinstance(other, Scalar):
        if one.kind != other.kind:
            return None
        if one.values is None or other.values is None:
            return one if other.values is None else other
        values = one.values & other.values
        return Scalar(one.kind, values) if values else None
    if isinstance(one, Array) and isinstance(other, Array):
        return one if one is other else Array(lambda: intersection(one.shape, other.shape))
    if isinstance(one, Object) and isinstance(other, Object):
        return one if one is other else _both_objects(one, other)
    return None


_STRICTER = (Openness.CLOSED, Openness.OPEN, Openness.SILENT, Openness.FREE)


def _both_objects(one: Object, other: Object) -> Object | None:
    fields: dict[str, Field] = {}
    for name in {**one.fields, **other.fields}:
        mine, theirs = one.fields.get(name), other.fields.get(name)
        always = any(field is not None and field.always for field in (mine, theirs))
        if (mine is None and one.openness is Openness.CLOSED) or (theirs is None and other.openness is Openness.CLOSED):
            if always:
                return None
            continue  # one of the two forbids it
        fields[name] = Field(_shape_in_both(one, mine, other, theirs), always)
        if always and _known_values(mine, theirs) and fields[name].shape.never:
            return None
    openness = min(one.openness, other.openness, key=_STRICTER.index)
    return Object(fields, openness, lambda: intersection(one.rest, other.rest))


def _shape_in_both(one: Object, mine: Field | None, other: Object, theirs: Field | None) -> Callable[[], Shape]:
    return lambda: intersection(mine.shape if mine else one.rest, theirs.shape if theirs else other.rest)


def _known_values(mine: Field | None, theirs: Field | None) -> bool:
    """Both are made already, and scalars: looking at them cannot go round in circles."""
    return all(
        field is not None
        and field._make is None
        and not field.shape.unknown
        and all(isinstance(each, Scalar) for each in field.shape.alternatives)
        for field in (mine, theirs)
    )


# Reading a field -----------------------------------------------------------------------------------------------------


class Reading(NamedTuple):
    """What comes of reading one step of a value."""

    shape: Shape
    """Of what is there, where it is there."""
    missing: Shape
    """The alternatives of the value that never have it."""
    maybe: bool
    """It may be missing in alternatives that name it."""
    undeclared: bool
    """Only objects that do not name it, and do not say that there is more, could have it."""


def read(shape: Shape, step: Step) -> Reading:
    """The field, or the item at a fixed index, of a value."""
    if shape.unknown:
        return Reading(ANY, NEVER, False, False)
    found: list[Shape] = []
    missing: list[Alternative] = []
    maybe = undeclared = declared = False
    for each in shape.alternatives:
        if isinstance(each, Object) and isinstance(step, str):
            field = each.fields.get(step)
            if field is not None:
                maybe, declared = maybe or not field.always, True
                if not (field.shape.never and not field.always):
                    found.append(field.shape)
            elif each.openness is Openness.CLOSED:
                missing.append(each)
            else:
                undeclared = undeclared or each.openness is Openness.SILENT
                declared = declared or each.openness is not Openness.SILENT
                found.append(each.rest)
        elif isinstance(each, Array) and isinstance(step, int):
            declared = True
            found.append(each.shape)
        elif isinstance(each, Scalar) and each.kind == TEXT and isinstance(step, int):
            declared = True
            found.append(TEXT_SHAPE)
        else:
            missing.append(each)
    return Reading(union(found), Shape(missing), maybe, undeclared and not declared)


def names(shape: Shape) -> list[str]:
    """The fields that are named in any of the alternatives."""
    found: dict[str, None] = {}
    for each in shape.alternatives:
        if isinstance(each, Object):
            found.update(dict.fromkeys(each.fields))
    return list(found)


def members(shape: Shape) -> Shape:
    """Any field of the objects among the alternatives."""
    if shape.unknown:
        return ANY
    objects = [each for each in shape.alternatives if isinstance(each, Object)]
    return union(part for each in objects for part in (*(field.shape for field in each.fields.values()), each.rest))


def items(shape: Shape) -> Shape:
    """The items of the lists among the alternatives."""
    return ANY if shape.unknown else union(each.shape for each in shape.alternatives if isinstance(each, Array))


def may_be_equal(left: Shape, right: Shape) -> bool:
    """Whether a value of one can equal a value of the other."""
    if left.unknown or right.unknown:
        return True
    return any(_may_equal(one, other) for one in left.alternatives for other in right.alternatives)


def _may_equal(one: Alternative, other: Alternative) -> bool:
    if isinstance(one, Scalar) and isinstance(other, Scalar):
        if one.kind != other.kind and {one.kind, other.kind} != {BOOL, NUMBER}:
            return False
        if one.values is None or other.values is None:
            return True
        return any(mine == yours for mine in one.values for yours in other.values)
    return kind_of(one) == kind_of(other)
