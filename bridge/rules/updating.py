"""`meisa-bridge test --update`: writes what the rules made into the tests that expected something else.

Only the `expect` of a failed test is touched, and of it only what differs: everything around it stays byte for byte,
and comments, quotes and layout inside it stay too. The lines of the `expect` are cut out, changed as a document of
their own (ruamel's round trip), and put back. Then the file is read again: unless nothing but that expectation has
changed, and the test holds now, the test is left as it was. What is shared by anchors and aliases is never touched,
since a change would reach other places.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Final, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, ScalarString

from bridge.rules import yaml_traps
from bridge.rules.cases import CaseReader, Expected
from bridge.rules.comparing import Written, beside_of, difference, fits, flow, paired, same_texts
from bridge.rules.reading import Reader
from bridge.rules.testing import Result
from bridge.yamldoc import Node as Tree
from bridge.yamldoc import parse

FLOW_MAX: Final = 80
"""Characters of an object or list that is added in one line."""

_BY_HAND: Final = "change it by hand"


class Refused(Exception):
    """A test cannot be updated; the text says why."""


class Edit(NamedTuple):
    """What replaces a part of the file."""

    start: int
    end: int
    text: str


def updated(text: str, results: Sequence[Result]) -> tuple[str, list[str]]:
    """The text of a rules file with the expectations of these failed tests renewed; per test why not, else nothing.

    Line ends are `\\n`.
    """
    reasons = [""] * len(results)
    edits: list[tuple[int, Edit]] = []
    root = YAML(typ="safe", pure=True).compose(text)
    shared = _shared(root)
    for index, result in enumerate(results):
        try:
            edits.append((index, _edit(text, root, shared, result)))
        except Refused as refused:
            reasons[index] = str(refused)
    for index, edit in sorted(edits, key=lambda each: -each[1].start):  # from the end: places before stay
        changed = text[: edit.start] + edit.text + text[edit.end :]
        if _is_right(text, changed, results[index]):
            text = changed
        else:
            reasons[index] = f"it cannot be written without touching more than that; {_BY_HAND}"
    return text, reasons


def _shared(root: Node) -> set[int]:
    """The nodes that stand in more than one place, by anchors and aliases."""
    seen: set[int] = set()
    shared: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            shared.add(id(node))
            continue
        seen.add(id(node))
        waiting += _below(node)
    return shared


def _below(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _edit(text: str, root: Node, shared: set[int], result: Result) -> Edit:
    """Raises Refused."""
    case = result.case
    if case.expect is None:
        raise Refused("it expects an error")
    if any(line.text.startswith("expect_error") for line in result.difference):
        raise Refused("what differs is an error; only expect is written")
    parent, key, value = _found(root, shared, case.route)
    if not isinstance(value, SequenceNode) or _tied(value, shared):
        raise Refused(f"its expect has anchors, aliases or merge keys; {_BY_HAND}")
    start, end = key.start_mark.index, _end(value)
    if not value.flow_style:
        line_end = text.find("\n", end)
        end = len(text) if line_end < 0 else line_end  # with the comment behind it
    column = key.start_mark.column
    cut = _dedented(text[start:end], column)
    try:
        document, yaml = _read(cut, value.start_mark.column - column if not value.flow_style else 2)
    except (YAMLError, ValueError):  # e.g. a date without quotes that does not exist, which is text to us
        raise Refused(f"its expect is YAML that cannot be kept as it is; {_BY_HAND}") from None
    items = document["expect"]
    if value.flow_style and (items or parent.flow_style):
        items.fa.set_flow_style()
    else:
        items.fa.set_block_style()
    _renew(items, case.expect, result.made)
    return Edit(start, end, _indented(_with_comments(cut, _written(document, yaml)), column))


def _found(root: Node, shared: set[int], route: Sequence[str | int]) -> tuple[MappingNode, ScalarNode, Node]:
    """The test, and the key and value of its `expect`. Raises Refused where it is reached by an alias or merge key."""
    node = root
    for step in route:
        node = node.value[step] if isinstance(step, int) else _entry(node, step)[1]
        if id(node) in shared:
            raise Refused(f"it stands in several places by an anchor; {_BY_HAND}")
    assert isinstance(node, MappingNode)
    key, value = _entry(node, "expect")
    return node, key, value


def _entry(node: Node, name: str) -> tuple[ScalarNode, Node]:
    for key, value in node.value:
        if isinstance(key, ScalarNode) and key.value == name:
            return key, value
    raise Refused(f"its {name} comes by a merge key; {_BY_HAND}")


def _tied(node: Node, shared: set[int]) -> bool:
    merge = isinstance(node, ScalarNode) and node.value == "<<" and node.style is None
    return id(node) in shared or bool(node.anchor) or merge or any(_tied(below, shared) for below in _below(node))


def _end(node: Node) -> int:
    """Where a node ends; that of a block is the end of its last scalar, not of the blank lines behind it."""
    if not isinstance(node, CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = _below(node)[-1]
    if isinstance(last, ScalarNode) and last.start_mark.index == last.end_mark.index:
        # Nothing is written there: the parser places it somewhere behind.
        if isinstance(node, SequenceNode):
            raise Refused(f"its expect ends in an empty item; {_BY_HAND}")
        return int(node.value[-1][0].end_mark.index) + 1
    return _end(last)


def _dedented(cut: str, column: int) -> str:
    first, *others = cut.rstrip("\n").split("\n")
    return (
        "\n".join([first, *(line[column:] if not line[:column].strip() else line.lstrip() for line in others)]) + "\n"
    )


def _indented(made: str, column: int) -> str:
    first, *others = made.rstrip("\n").split("\n")
    return "\n".join([first, *(" " * column + line if line.strip() else line for line in others)])


def _read(cut: str, offset: int) -> tuple[CommentedMap, YAML]:
    """The document, and the layout that writes it as it was, or nearly so."""
    layouts = [(2, offset), (4, offset), (2, 0), (2, 2), (4, 2)]
    for mapping, dash in layouts:
        yaml = _layout(mapping, dash)
        document = yaml.load(cut)
        if _written(document, yaml) == cut:
            return yaml.load(cut), yaml
    yaml = _layout(*layouts[0])
    return yaml.load(cut), yaml


def _layout(mapping: int, dash: int) -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = 10_000
    yaml.brace_single_entry_mapping_in_flow_sequence = True
    yaml.indent(mapping=mapping, sequence=dash + 2, offset=dash)
    return yaml


def _written(document: CommentedMap, yaml: YAML) -> str:
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _with_comments(before: str, after: str) -> str:
    """Puts back the comment lines that ruamel lost: it keeps them with what stood before them, which may be gone."""
    lines = after.split("\n")
    left = Counter(line.strip() for line in lines)
    old = before.split("\n")
    at = len(lines) - 1  # where what follows in the old text stands in the new one
    for position in range(len(old) - 1, -1, -1):
        text = old[position].strip()
        earlier = [index for index in range(at) if lines[index].strip() == text]
        if earlier and text:
            at = earlier[-1]
            left[text] -= 1
        elif text.startswith("#") and left[text] <= 0:
            lead = len(lines[at]) - len(lines[at].lstrip()) if lines[at].strip() else 2
            lines.insert(at, " " * lead + text)
    return "\n".join(lines)


# The new expectation -------------------------------------------------------------------------------------------------


def _renew(items: CommentedSeq, expected: Sequence[Expected], made: Sequence[Written]) -> None:
    position = 0
    for pair in paired(expected, made):
        if pair.made is None:
            del items[position]
            continue
        found = made[pair.made]
        if pair.expected is None:
            items.insert(position, _styled(found.item(), whole=False))
        else:
            _renew_item(items[position], expected[pair.expected], found)
        position += 1


def _renew_item(item: CommentedMap, expected: Expected, found: Written) -> None:
    name = expected.kind.value
    wanted = same_texts(expected)
    if item[name] is None and not fits(wanted, found.fields, expected.exact):
        item[name] = CommentedMap()
    if item[name] is not None:
        _renew_mapping(item[name], wanted, found.fields, expected.exact)
        if not item.fa.flow_style() and len(flow(item[name])) > FLOW_MAX:
            item[name].fa.set_block_style()
    left, right = beside_of(expected, found)
    for option, value in left.items():
        if fits(value, right.get(option), expected.exact):
            continue
        if option == "aliases" and "contact" in item:
            item.pop("contact")
        if right.get(option) is None:
            item.pop(option, None)
        else:
            item[option] = _styled(right[option])


def _renew_mapping(node: CommentedMap, wanted: Mapping[str, Any], found: Mapping[str, Any], exact: bool) -> None:
    for name, value in wanted.items():
        there = found.get(name)
        if fits(value, there, exact):
            continue
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            _renew_mapping(node[name], value, there, exact)
        elif there is None and name not in found:
            del node[name]
        else:
            node[name] = _as_before(node[name], there)
    if exact:
        for name, value in found.items():
            if name not in wanted and value is not None:
                node[name] = _styled(value)


def _as_before(old: Any, new: Any) -> Any:
    """The new value in the quotes of the old one, or among those of its items that stay."""
    if isinstance(new, list) and isinstance(old, CommentedSeq):
        matcher = SequenceMatcher(None, [flow(item) for item in old], [flow(item) for item in new], autojunk=False)
        for what, since, until, new_since, new_until in reversed(matcher.get_opcodes()):
            if what != "equal":
                for position in reversed(range(since, until)):
                    del old[position]
                for position in reversed(range(new_since, new_until)):
                    old.insert(since, _styled(new[position]))
        return old
    if isinstance(new, str) and isinstance(old, ScalarString) and "\n" not in new:
        return type(old)(new)
    return _styled(new)


def _styled(value: Any, *, whole: bool = True) -> Any:
    """A value as ruamel writes it well: short objects in one line, quotes where other readers of YAML need them."""
    if isinstance(value, Mapping):
        mapping = CommentedMap({_styled(name): _styled(item) for name, item in value.items()})
        if whole and len(flow(value)) <= FLOW_MAX:
            mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list | tuple):
        sequence = CommentedSeq([_styled(item) for item in value])
        if len(flow(value)) <= FLOW_MAX:
            sequence.fa.set_flow_style()
        return sequence
    if isinstance(value, str) and flow(value).startswith('"'):
        return DoubleQuotedScalarString(value)
    return value


# Afterwards ----------------------------------------------------------------------------------------------------------


def _is_right(before: str, after: str, result: Result) -> bool:
    """Whether nothing but the expectation differs, and the test holds now."""
    old, problems = parse(before, "", yaml_traps.YAML)
    new, more = parse(after, "", yaml_traps.YAML)
    if old is None or new is None or problems or more:
        return False
    test = _at(new, result.case.route)
    left, right = old.plain(), new.plain()
    for plain in (left, right):
        _inside(plain, result.case.route).pop("expect", None)
    if left != right or not isinstance(test.value, dict) or "expect" not in test.value:
        return False
    reader = Reader()
    expected = CaseReader(reader).expectation(test.value)
    return not reader.problems and expected is not None and not difference(expected, result.made)


def _at(root: Tree, route: Iterable[str | int]) -> Tree:
    node = root
    for step in route:
        node = node.value[step]  # type: ignore[index, assignment]  # the route comes from this very shape
    return node


def _inside(plain: Any, route: Iterable[str | int]) -> Any:
    for step in route:
        plain = plain[step]
    return plain
