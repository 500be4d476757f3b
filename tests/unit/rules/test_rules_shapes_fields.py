"""Rules against the views of topics: which notes become problems, where they stand, what action fields take."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import Problem
from bridge.rules import load_text
from bridge.rules.shapes.events import Enveloped, View, of_changes, of_data, of_typed_changes, of_unknown
from bridge.rules.shapes.fields import check_rule, unmatched
from bridge.rules.shapes.json_schema import from_json_schema
from bridge.rules.shapes.shape import ANY

SIGNED_UP: dict[str, Any] = {
    "properties": {
        "email": {"type": "string"},
        "user_id": {"type": "integer"},
        "plan": {"enum": ["free", "pro"]},
        "name": {"type": ["string", "null"]},
        "country": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "numbers": {"type": "array", "items": {"type": "boolean"}},
        "address": {"type": "object", "properties": {"city": {"type": "string"}}},
        "source": {"enum": ["signup", "web"]},
        "vip": {"type": "boolean"},
    },
    "required": ["email", "user_id", "plan", "name", "tags", "numbers", "address", "source", "vip"],
    "additionalProperties": False,
}
DELETED: dict[str, Any] = {
    "properties": {"email": {"type": "string"}},
    "required": ["email"],
    "additionalProperties": False,
}
VIEWS = [
    View("user-events", from_json_schema(SIGNED_UP), "user.signed_up"),
    View("user-events", from_json_schema(DELETED), "user.deleted"),
]


def problems(do: str, *, match: str = "user.signed_up", more: str = "", views: list[View] = VIEWS) -> list[str]:
    """The problems of a rule with these actions, as `line:column severity code message`."""
    book = load_text(f"rules:\n  - name: r\n    match: {match}\n{more}    do:\n{do}")
    found = check_rule(book.rules[0], views)
    return [told(problem) for problem in sorted(found, key=lambda problem: (problem.line, problem.column))]


def told(problem: Problem) -> str:
    return f"{problem.line}:{problem.column} {problem.severity[0]} {problem.code} {problem.message}"


def upsert(*fields: str) -> str:
    return "      - upsert:\n          email: ${data.email}\n" + "".join(f"          {field}\n" for field in fields)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("first_name: ${data.nmae}", "7:25 e MB161 upsert.first_name: there is no field data.nmae"),
        ("external_id: ${data.user_id}", ""),
        ("first_name: ${data.name}", ""),
        (
            "first_name: ${data.address}",
            "7:25 e MB163 upsert.first_name: data.address is an object; the field takes a text",
        ),
        ("first_name: ${data.vip}", "7:25 e MB163 upsert.first_name: data.vip is true/false; the field takes a text"),
        (
            "custom_fields: {country: '${data.country}'}",
            "7:39 w MB162 upsert.custom_fields.country: data.country may be missing: the rule then fails",
        ),
        ("custom_fields: {country: '${optional(data.country)}'}", ""),
        ("custom_fields: {a: {b: '${data.address}'}}", ""),
        ("custom_fields: ${data.address}", ""),
        (
            "custom_fields: ${data.tags}",
            "7:28 e MB163 upsert.custom_fields: data.tags is a list; the field takes an object",
        ),
        ("tag_names: ${data.tags}", ""),
        ("tag_names: ['${data.plan}', 'x-${data.plan}']", ""),
        (
            "tag_names: ['${data.name}']",
            "7:26 w MB162 upsert.tag_names[0]: data.name may be null; the field takes a text",
        ),
        (
            "tag_names: ['${data.tags}']",
            "7:26 e MB163 upsert.tag_names[0]: data.tags is a list; the field takes a text",
        ),
        ("tag_names: ['${optional(data.name)}']", ""),
        (
            "tag_names: ${data.plan}",
            "7:24 e MB163 upsert.tag_names: data.plan is a text; the field takes a list of texts",
        ),
        (
            "tag_names: ${data.numbers}",
            "7:24 w MB163 upsert.tag_names: data.numbers holds true/false; the field takes a list of texts",
        ),
        (
            "source: ${data.source}",
            "7:21 w MB163 upsert.source: data.source may be web; the field takes one of api, import, "
            "initial_sync, manual, signup",
        ),
        (
            "source: ${data.plan}",
            "7:21 e MB163 upsert.source: data.plan is free, pro; the field takes one of api, import, "
            "initial_sync, manual, signup",
        ),
        (
            "display_name: Dear ${data.name}",
            "7:32 w MB162 upsert.display_name: data.name may be null: cannot put null into a text",
        ),
        ("display_name: 'of ${data.address}'", "7:31 w MB163 upsert.display_name: data.address is an object"),
        ("display_name: 'of ${default(data.name, \"\")} ${data.vip} ${data.user_id}'", ""),
        (
            'display_name: "a ${data.plan\\\n            + 1}"',
            "7:30 e MB163 upsert.display_name: cannot add a text and a number: data.plan+ 1",
        ),
    ],
)
def test_fields_of_actions(field: str, expected: str) -> None:
    """Each mistake at its own line and column; what the action's model takes is in order."""
    assert problems(upsert(field)) == ([expected] if expected else [])


def test_emails_are_texts() -> None:
    """A number becomes text where text is due, but is no address."""
    found = problems("      - trigger: {trigger_key: x, to_email: '${data.user_id}'}\n")
    assert found == ["5:48 e MB163 trigger.to_email: data.user_id is a number; the field takes an email address"]


def test_required_fields_and_the_only_name_are_not_null() -> None:
    """A null leaves a field out; one that is required, or alone names the contact, must be there."""
    assert problems("      - track: {event_name: '${data.name}', email: '${data.email}'}\n") == [
        "5:32 w MB162 track.event_name: data.name may be null; the field takes a text"
    ]
    assert problems("      - track: {event_name: x, email: '${data.name}'}\n") == [
        "5:40 w MB162 track.email: ${data.name} may be missing or null, and nothing else names the contact: the rule "
        "then fails"
    ]
    assert problems("      - track: {event_name: x, email: '${data.name}', external_id: '${data.user_id}'}\n") == []
    beside = "      - track: {event_name: x}\n        contact: {stripe: '${data.name}'}\n"
    assert problems(beside) == ["6:30 w MB162 track.contact.stripe: data.name may be null; the field takes a text"]


def test_missing_omit_forgives_what_is_missing() -> None:
    """`missing: omit` leaves such fields out, but no misspelt ones, and not what names the contact."""
    assert problems(upsert("first_name: ${data.country}") + "        missing: omit\n") == []
    assert problems(upsert("first_name: ${data.cuontry}") + "        missing: omit\n") == [
        "7:25 e MB161 upsert.first_name: there is no field data.cuontry"
    ]
    naming = "      - upsert: {email: '${data.country}', first_name: x}\n        missing: omit\n"
    assert problems(naming) == ["5:28 w MB162 upsert.email: data.country may be missing: the rule then fails"]


def test_conditions_narrow_the_actions() -> None:
    """What a rule's `when` and an action's `when` say holds for what stands below."""
    first_name = upsert("first_name: ${data.name.title()}", "last_name: ${data.country}")
    assert len(problems(first_name)) == 2
    assert problems(first_name, more="    when: data.name != null and has(data.country)\n") == []
    assert problems(first_name + "        when: has(data.name) and has(data.country)\n") == []
    assert problems(upsert("source: ${data.source}"), more='    when: data.source == "signup"\n') == []


def test_types_of_events_are_looked_at_one_by_one() -> None:
    """A field that one of the types lacks fails for its events; in a condition, or guarded, only one that all lack."""
    assert problems(upsert("first_name: ${data.plan}"), match="user.*") == [
        "7:25 e MB161 upsert.first_name: there is no field data.plan, in user.deleted"
    ]
    assert problems(upsert("first_name: ${optional(data.plan)}"), match="user.*") == []
    assert problems(upsert("first_name: ${data.plan}"), match="user.*", more="    when: data.plan == 'pro'\n") == []
    assert problems(upsert("first_name: ${data.plan if event.type == 'user.signed_up' else ''}"), match="user.*") == []
    for condition in ("event.type.startswith('user.s')", "'signed' in event.type", "not event.type.endswith('deleted')",
                      "len(event.type) > 13 and topic == 'user-events'"):  # fmt: skip
        assert problems(upsert("first_name: ${data.plan}"), match="user.*", more=f'    when: "{condition}"\n') == []
    everywhere = ["7:25 e MB161 upsert.first_name: there is no field data.paln"]
    assert problems(upsert("first_name: ${data.paln}"), match="user.*") == everywhere
    assert problems(upsert("first_name: ${optional(data.paln)}"), match="user.*") == [
        "7:34 e MB161 upsert.first_name: there is no field data.paln"
    ]
    assert (
        problems(upsert("first_name: ${optional(data.paln)}"), match="user.*", views=[*VIEWS, *of_unknown("x")]) == []
    )
    enum = "    when: data.plan == 'premium'\n"
    assert problems(upsert(), more=enum) == ["4:24 w MB164 when: data.plan is never 'premium'"]
    assert problems(upsert(), more=enum, views=[*VIEWS, View("x", ANY, "user.signed_up")]) == []


def test_the_nearest_name_of_all_types_is_the_hint() -> None:
    """Of several types the one counts that has the name; what each of them lists is no hint for all."""
    book = load_text(
        "rules:\n  - name: r\n    match: user.*\n    when: event.type == 'user.deletde'\n    do:\n" + upsert()
    )
    assert [problem.hint for problem in check_rule(book.rules[0], VIEWS)] == ["did you mean user.deleted?"]
    book = load_text("rules:\n  - name: r\n    match: user.*\n    when: event.type == 'xyz'\n    do:\n" + upsert())
    assert [problem.hint for problem in check_rule(book.rules[0], VIEWS)] == [""]


def test_a_wrong_condition_hides_nothing_below() -> None:
    """Where a condition can never be true because of a mistake that is told, the actions are looked at all the same."""
    found = problems(upsert("first_name: ${data.nmae}"), more="    when: data.paln == 'pro'\n")
    assert [line.split()[2] for line in found] == ["MB161", "MB161"]


def test_without_a_schema_only_what_is_certain() -> None:
    """Nothing is known of data, all of what surrounds it."""
    assert problems(upsert("first_name: ${data.a.b.c + 1}"), views=of_unknown("x")) == []
    assert problems(upsert("first_name: ${partition.lower()}"), views=of_unknown("x")) == [
        "7:25 e MB163 upsert.first_name: partition is a number: cannot use lower() on a number"
    ]
    assert problems(upsert("first_name: '${1 + \"a\"}'"), views=of_unknown("x")) == [
        '7:26 e MB163 upsert.first_name: cannot add a number and a text: 1 + "a"'
    ]


def test_patterns_that_match_nothing() -> None:
    """A type that no schema has is told with the nearest one, at its own place in a list."""
    book = load_text(
        "rules:\n  - name: r\n    match: [user.signed_up, user.singed_up, invoice.*]\n    do:\n" + upsert()
    )
    found = unmatched(book.rules[0], VIEWS, [view.type for view in VIEWS])
    assert [(told(problem), problem.hint) for problem in found] == [
        ("3:29 w MB165 match: by the schemas no event has the type user.singed_up", "did you mean user.signed_up?"),
        (
            "3:45 w MB165 match: by the schemas no event has the type invoice.*",
            "known are user.deleted, user.signed_up",
        ),
    ]
    assert unmatched(book.rules[0], [*VIEWS, *of_unknown("x")], []) == []
    assert unmatched(book.rules[0], [], []) == []


# What events look like -----------------------------------------------------------------------------------------------


def envelope(*types: dict[str, Any]) -> Any:
    return from_json_schema({"oneOf": list(types)})


def typed(name: str, **fields: Any) -> dict[str, Any]:
    return {"properties": {"type": {"const": name}, "data": {"properties": fields}}, "required": ["type", "data"]}


def test_types_are_told_apart_by_the_schema() -> None:
    """A schema for all types of a topic gives a view for each value that it lists for the type."""
    views = Enveloped("t", {}).whole(envelope(typed("a.x", one={}), typed("a.y", two={})))
    assert [(view.type, problems(upsert("first_name: ${data.one}"), match="a.*", views=[view])) for view in views] == [
        ("a.x", ["6:20 e MB161 upsert.email: there is no field data.email",
                 "7:25 w MB162 upsert.first_name: data.one may be missing: the rule then fails"]),
        ("a.y", ["6:20 e MB161 upsert.email: there is no field data.email",
                 "7:25 e MB161 upsert.first_name: there is no field data.one"]),
    ]  # fmt: skip


def test_a_rule_for_more_types_than_are_told_apart() -> None:
    """Of hundreds of types the first are looked at one by one, the rest as one; a mistake is found in either."""
    data = from_json_schema(SIGNED_UP)
    views = [View("t", data, f"t{number}") for number in range(300)]
    assert problems(upsert("first_name: ${data.nmae}"), match='"*"', views=views) == [
        "7:25 e MB161 upsert.first_name: there is no field data.nmae"
    ]
    assert problems(upsert("first_name: ${data.name}"), match='"*"', views=views) == []
    last = [*views, View("t", from_json_schema(DELETED), "last")]
    found = problems(upsert("first_name: ${data.plan}"), match='"*"', views=last)
    assert [line.split()[:3] for line in found] == [["7:25", "w", "MB162"]]


def test_an_envelope_says_where_the_parts_are() -> None:
    """Type and data are followed through the envelope's expressions; what those name in vain is told."""
    value = {
        "properties": {
            "kind": {"enum": ["a", "b"]},
            "payload": {"properties": {"x": {"type": "string"}}, "required": ["x"]},
        }
    }
    shape = from_json_schema({**value, "required": ["kind", "payload"]})
    made = Enveloped("t", {"type": "${value.kind}", "data": "${value.payload}"})
    views = made.whole(shape)
    assert [view.type for view in views] == ["a", "b"]
    assert not made.notes
    assert problems("      - track: {event_name: '${data.x + 1}', email: a}\n", match="a", views=views) == [
        "5:32 e MB163 track.event_name: cannot add a text and a number: data.x + 1"
    ]
    wrong = Enveloped("t", {"type": "${value.kind}", "data": "${value.paylod}"})
    wrong.whole(shape)
    assert {(part, note.message) for part, note in wrong.notes} == {("data", "there is no field value.paylod")}
    ids = Enveloped(
        "t", {"type": "${value.kind}", "data": "${value.payload}", "id": "${value.x}", "time": "${value.y}"}
    )
    ids.whole(shape)
    assert {(part, note.message) for part, note in ids.notes} == {
        ("id", "there is no field value.x"),
        ("time", "there is no field value.y"),
    }
    composed = Enveloped("t", {"type": "user.${value.kind}", "data": "${value.payload}"}).whole(shape)
    assert [view.type for view in composed] == [""]


def test_a_schema_of_data_alone_is_told() -> None:
    """Where the schema has no data at all, it describes something else than the record's value."""
    made = Enveloped("t", {})
    made.whole(from_json_schema({"properties": {"email": {"type": "string"}}}))
    assert made.no_data
    mixed = Enveloped("t", {})
    mixed.whole(envelope(typed("a"), {"properties": {"type": {"const": "b"}}, "required": ["type"]}))
    assert not mixed.no_data


def test_schemas_by_type_leave_other_types_open() -> None:
    """With a map of schemas nothing is known of the types that are not listed."""
    data = from_json_schema(typed("a", x={"type": "string"}))
    views = Enveloped("t", {}).by_type({"a": data})
    assert [(view.type, view.data.unknown) for view in views] == [("a", False), ("", True)]
    assert [(view.type, view.data.unknown) for view in of_data("t", None, {"a": data})] == [("a", False), ("", True)]
    assert [(view.type, view.data.unknown) for view in of_data("t", data, {})] == [("", False)]


ROW = {"properties": {"email": {"type": "string"}}, "required": ["email"], "additionalProperties": False}
CHANGE = {
    "properties": {
        "op": {"enum": ["c", "u", "d", "r"]},
        "before": {"anyOf": [ROW, {"type": "null"}]},
        "after": {"anyOf": [ROW, {"type": "null"}]},
        "source": {"properties": {"table": {"type": "string"}}},
    },
    "required": ["op", "before", "after", "source"],
}


def change(do: str, match: str) -> list[str]:
    return problems(do, match=match, views=of_changes("cdc", from_json_schema(CHANGE)))


def test_change_events_have_the_rows_of_their_operation() -> None:
    """A created row has no before, a deleted one no after; an update may lack its before."""
    after = "      - upsert: {email: '${data.after.email}'}\n"
    before = "      - upsert: {email: '${data.before.email}'}\n"
    assert change(after, "users.created") == []
    assert change(after, "users.updated") == []
    assert change(before, "users.created") == [
        "5:28 e MB161 upsert.email: data.before.email is never there: data.before is null"
    ]
    assert change(after, "users.deleted")[0].startswith("5:28 e MB161 upsert.email: data.after.email is never there")
    assert change(before, "users.updated")[0].startswith("5:28 w MB162 upsert.email: data.before.email may be missing")
    assert change("      - upsert: {email: '${data.after.emial}'}\n", "users.*")[0].startswith("5:28 e MB161")


def test_change_events_by_type() -> None:
    """A map of schemas by type says which operation each is for; nothing is known of other tables."""
    views = of_typed_changes("cdc", {"users.deleted": from_json_schema(CHANGE), "message": from_json_schema({})})
    assert [(view.type, view.data.unknown) for view in views] == [
        ("users.deleted", False),
        ("message", True),
        ("", True),
    ]
    after = "      - upsert: {email: '${data.after.email}'}\n"
    assert problems(after, match="users.deleted", views=views)[0].startswith("5:28 e MB161")
    assert problems(after, match="teams.deleted", views=views) == []


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("users.created", True), ("*.created", True), ("users.*", True), ("*", True), ("users.deleted", False),
     ("*.deleted", False), ("users.creat*", True), ("users.[c]reated", True), ("users", False)],
)  # fmt: skip
def test_a_type_of_which_only_the_end_is_known(pattern: str, expected: bool) -> None:
    """The table may have any name, the operation is known."""
    assert View("cdc", ANY, ending=".created").may_match(pattern) is expected
