"""Plans: which rules apply to an event, what they make of it, and how failures stay apart."""

# ruff: noqa: E501  # tables read better with one case per line

from __future__ import annotations

import textwrap
import tracemalloc
from typing import Any

import pytest

from bridge.model import EMPTY_PLAN, Contact, Kind, RuleFailure
from bridge.rules import RuleBook, load_text
from bridge.rules import planner as planner_module


def book(text: str) -> RuleBook:
    return load_text("rules:\n" + textwrap.indent(textwrap.dedent(text), "  "))


def rule(do: str, *, match: str = "user.x", extra: str = "") -> RuleBook:
    text = f"rules:\n  - name: r\n    match: {match}\n    do:\n" + textwrap.indent(textwrap.dedent(do).strip(), " " * 6)
    return load_text(text + "\n" + textwrap.indent(textwrap.dedent(extra).strip(), " " * 4) + "\n")


def test_an_event_that_no_rule_wants_has_the_empty_plan(make_event: Any) -> None:
    made = rule("- upsert: {email: a}")
    assert made.plan(make_event("user.y")) is EMPTY_PLAN
    assert made.plan(make_event("user.y")) is EMPTY_PLAN
    assert RuleBook().plan(make_event("user.y")) is EMPTY_PLAN


@pytest.mark.parametrize(
    ("match", "wanted", "unwanted"),
    [
        ("user.x", ["user.x"], ["user.xy", "user", "User.x"]),
        ("[user.x, user.y]", ["user.x", "user.y"], ["user.z"]),
        ("user.*", ["user.x", "user.x.y", "user."], ["users.x", "a.user.x"]),
        ('"*.deleted"', ["user.deleted"], ["user.deleted.x"]),
        ('"*"', ["anything", ""], []),
        ("a?c", ["abc"], ["ac", "abbc"]),
        ("[user.x, 'b*', c]", ["user.x", "bee", "c"], ["cc"]),
    ],
)
def test_match_takes_types_lists_and_globs(match: str, wanted: list[str], unwanted: list[str]) -> None:
    made = rule("- upsert: {email: a}", match=match)
    assert [type for type in (*wanted, *unwanted) if made.wants("t", type)] == wanted


def test_types_that_are_no_names_are_not_kept_in_memory(make_event: Any) -> None:
    """A broken producer may send a megabyte as a type, another one with each event."""
    made = rule("- upsert: {email: a}", match="b*")
    tracemalloc.start()
    try:
        for number in range(20):
            assert made.plan(make_event(f"a{number}" + "x" * 1_000_000)) is EMPTY_PLAN
            assert made.plan(make_event(f"b{number}" + "x" * 1_000_000)).actions
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()


def test_topic_restricts_a_rule(make_event: Any) -> None:
    made = rule("- upsert: {email: a}", extra="topic: billing")
    assert made.plan(make_event("user.x", "billing")).actions
    assert made.plan(make_event("user.x", "users")) is EMPTY_PLAN


def test_all_matching_rules_apply_in_file_order_and_disabled_ones_do_not(make_event: Any) -> None:
    made = book("""
        - {name: b, match: "*", do: [{upsert: {email: b}}]}
        - {name: off, match: "*", enabled: false, do: [{upsert: {email: off}}]}
        - {name: a, match: user.x, do: [{upsert: {email: a}}, {upsert: {email: c}}]}
    """)
    plan = made.plan(make_event("user.x"))
    assert [(action.rule, action.position, action.body["email"]) for action in plan.actions] == [
        ("b", 0, "b"),
        ("a", 1, "a"),
        ("a", 2, "c"),
    ]
    assert [rule.name for rule in made.rules] == ["b", "off", "a"]


def test_remembered_types_are_bounded(make_event: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer that puts ids into its types must not fill the memory, nor change what is planned."""
    monkeypatch.setattr(planner_module, "MATCHES_MAX", 5)
    made = rule("- upsert: {email: a}", match="user.*")
    for n in range(50):
        assert len(made.plan(make_event(f"user.{n}")).actions) == 1
        assert made.plan(make_event(f"other.{n}")) is EMPTY_PLAN
        assert len(made._wanted) <= 5


def test_an_unmet_when_is_counted_and_a_missing_field_makes_it_unmet(make_event: Any) -> None:
    made = book("""
        - {name: a, match: "*", when: data.plan == "pro", do: [{upsert: {email: a}}]}
        - {name: b, match: "*", when: data.absent.deep == 1, do: [{upsert: {email: a}}]}
        - {name: c, match: "*", when: not has(data.absent), do: [{upsert: {email: a}}]}
        - {name: d, match: "*", do: [{upsert: {email: a}, when: data.absent}]}
        - {name: e, match: "*", do: [{upsert: {email: a}, when: data.absent}, {upsert: {email: e}}]}
    """)
    plan = made.plan(make_event(plan="free"))
    assert [action.rule for action in plan.actions] == ["c", "e"]
    assert (plan.unmet, plan.missing, plan.failures) == (3, 2, ())


def test_a_failing_rule_fails_alone_and_contributes_nothing(make_event: Any) -> None:
    """Its earlier actions do not leave either: half of a rule is not what its author meant."""
    made = book("""
        - name: bad
          match: "*"
          do:
            - upsert: {email: "${data.email}"}
            - track: {event_name: x, email: "${data.email}", properties: {a: "${data.deep.a}"}}
        - {name: worse, match: "*", when: data.email < 1, do: [{upsert: {email: a}}]}
        - {name: good, match: "*", do: [{upsert: {email: "${data.email}"}}]}
    """)
    plan = made.plan(make_event(email="secret@example.com"))
    assert [(action.rule, action.position) for action in plan.actions] == [("good", 0)]
    bad, worse = plan.failures
    assert bad == RuleFailure("bad", "track.properties.a: data.deep is missing", "data.deep")
    assert (worse.rule, worse.path) == ("worse", "data.email") and worse.message.startswith("when: cannot compare")
    assert "secret" not in f"{plan.failures}"


@pytest.mark.parametrize(
    ("do", "data", "body", "contact"),
    [
        ("- upsert: {email: '${data.e}', first_name: '${optional(data.f)}'}", {"e": "a"}, {"email": "a"}, Contact("a")),
        ("- upsert: {email: '${data.e}', first_name: '${data.f}'}", {"e": "a", "f": None}, {"email": "a"}, Contact("a")),
        ("- upsert: {email: '${data.e}', external_id: '${data.i}'}", {"e": "a", "i": 7},
         {"email": "a", "external_id": "7"}, Contact("a", "7")),
        ("- upsert: {email: a, external_id: 7}", {}, {"email": "a", "external_id": "7"}, Contact("a", "7")),
        ("- upsert: {email: a, tag_names: [b, '${data.t}', '${optional(data.u)}']}", {"t": 5},
         {"email": "a", "tag_names": ["b", "5"]}, Contact("a")),
        ("- upsert: {email: a, tag_names: '${data.t}'}", {"t": ["x"]}, {"email": "a", "tag_names": ["x"]}, Contact("a")),
        ("- upsert: {email: a, custom_fields: '${data.c}'}", {"c": {"x": None}},
         {"email": "a", "custom_fields": {"x": None}}, Contact("a")),
        ("- upsert:\n    email: a\n    custom_fields: {x: {y: ['${optional(data.q)}', 1], z: '${optional(data.q)}'}, w: '${data.n}'}",
         {"n": None}, {"email": "a", "custom_fields": {"x": {"y": [1]}, "w": None}}, Contact("a")),
        ("- upsert: {email: a}\n  aliases: {stripe: '${optional(data.s)}', b: '${data.b}'}\n  contact: {z: y}", {"b": 3},
         {"email": "a"}, Contact("a", None, (("b", "3"), ("z", "y")))),
        ("- upsert: {email: a}\n  aliases: {stripe: '${optional(data.s)}'}", {}, {"email": "a"}, Contact("a")),
        ("- track: {event_name: 'x_${data.n}', external_id: '${data.i}'}", {"n": 1, "i": "7"},
         {"event_name": "x_1", "external_id": "7"}, Contact(None, "7")),
        ("- track: {event_name: x}\n  contact: {stripe: '${data.i}'}", {"i": "c7"}, {"event_name": "x"},
         Contact(None, None, (("stripe", "c7"),))),
        ("- trigger: {trigger_key: k, to_email: '${data.e}', external_id: '${data.i}', variables: {a: 1}}",
         {"e": "a", "i": "7"}, {"trigger_key": "k", "to_email": "a", "variables": {"a": 1}}, Contact("a", "7")),
        ("- enroll: {sequence_slug: s, email: a, external_id: '7', override_unsubscribe: '${data.o}'}", {"o": True},
         {"sequence_slug": "s", "email": "a", "override_unsubscribe": True}, Contact("a", "7")),
        ("- add_tag: {tag_name: '${data.t}', email: a, external_id: b}", {"t": "x"}, {"tag_name": "x"}, Contact("a", "b")),
        ("- upsert: {email: '$${a}', source: '${data.s}'}", {"s": "signup"}, {"email": "${a}", "source": "signup"},
         Contact("${a}")),
    ],
)  # fmt: skip
def test_bodies_and_contacts(make_event: Any, do: str, data: dict[str, Any], body: Any, contact: Contact) -> None:
    plan = rule(do).plan(make_event("user.x", **data))
    assert plan.failures == ()
    (action,) = plan.actions
    assert action.body == body
    assert action.contact == contact


@pytest.mark.parametrize(
    ("do", "data", "message", "path"),
    [
        ("- upsert: {email: '${data.e}'}", {"e": None}, "upsert: names no contact", "data.e"),
        ("- upsert: {email: '${data.e}'}", {"e": ""}, "upsert.email: must not be empty", "data.e"),
        ("- upsert: {email: '${data.e}'}", {"e": True}, "upsert.email: must be a text", "data.e"),
        ("- upsert: {email: '${data.e}'}", {"e": {"hunter2": 1}}, "upsert.email: must be a text", "data.e"),
        ("- upsert: {email: '${optional(data.e)}'}", {}, "upsert: names no contact", "data.e"),
        ("- upsert: {email: a, tag_names: '${data.t}'}", {"t": "hunter2"}, "must be a list", "data.t"),
        ("- upsert: {email: a, tag_names: ['${data.t}']}", {"t": ""}, "must not be empty", "data.t"),
        ("- upsert: {email: a, custom_fields: '${data.c}'}", {"c": ["hunter2"]}, "must be an object", "data.c"),
        ("- upsert: {email: a, source: '${data.s}'}", {"s": "hunter2"}, "must be 'api'", "data.s"),
        ("- track: {email: a, event_name: '${optional(data.n)}'}", {}, "track.event_name: is required", "data.n"),
        ("- track: {email: a, event_name: '${data.n}'}", {"n": None}, "track.event_name: must be a text", "data.n"),
        ("- add_tag: {email: a, tag_name: '${optional(data.n)}'}", {}, "tag_name or tag_id", "",),
        ("- enroll: {email: a, sequence_slug: s, override_unsubscribe: '${data.o}'}", {"o": "hunter2"}, "true or false", "data.o"),
        ("- upsert: {email: a}\n  aliases: {s: '${data.s}'}", {"s": []}, "upsert.aliases.s: must be a text", "data.s"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_fails_the_rule_without_being_shown(
    make_event: Any, do: str, data: dict[str, Any], message: str, path: str
) -> None:
    plan = rule(do).plan(make_event("user.x", **data))
    assert plan.actions == ()
    (failure,) = plan.failures
    assert message in failure.message and "hunter2" not in failure.message
    if path:
        assert failure.path == path


def test_missing_omit_leaves_out_all_but_what_identifies_the_contact(make_event: Any) -> None:
    made = rule("""
        - upsert:
            email: ${data.email}
            first_name: ${data.first}
            last_name: Dr ${data.last}
            custom_fields: {a: "${data.a}", b: "${data.b.c.upper()}", c: "${data.c}", d: [1, "${data.d}"]}
          missing: omit
    """)
    plan = made.plan(make_event("user.x", email="a", c=None))
    assert plan.actions[0].body == {"email": "a", "custom_fields": {"c": None, "d": [1]}}
    full = made.plan(make_event("user.x", email="a", first="f", last="l", a=1, b={"c": "x"}, c=2, d=3))
    assert full.actions[0].body == {
        "email": "a", "first_name": "f", "last_name": "Dr l", "custom_fields": {"a": 1, "b": "X", "c": 2, "d": [1, 3]},
    }  # fmt: skip
    (failure,) = made.plan(make_event("user.x", first="f")).failures
    assert failure.path == "data.email"


def test_missing_omit_does_not_hide_other_faults(make_event: Any) -> None:
    made = rule("- upsert: {email: a, custom_fields: {n: '${data.n + 1}'}}\n  missing: omit")
    (failure,) = made.plan(make_event("user.x", n="x")).failures
    assert "cannot add a text and a number" in failure.message


def test_needs_names_the_nearest_preceding_upsert_of_the_same_person(make_event: Any) -> None:
    made = book("""
        - {name: a, match: "*", do: [{upsert: {email: A@x, external_id: "1"}}, {upsert: {email: other}}]}
        - name: b
          match: "*"
          do:
            - track: {event_name: t, external_id: "1"}
            - track: {event_name: t, email: " a@X "}
            - track: {event_name: t, email: nobody}
            - trigger: {trigger_key: t, to_email: A@x}
            - enroll: {sequence_slug: t, email: A@x}
            - add_tag: {tag_name: t, email: other}
            - upsert: {email: A@x}
            - remove_tag: {tag_name: t, email: A@x}
    """)
    plan = made.plan(make_event())
    assert [(action.kind.value, action.needs) for action in plan.actions] == [
        ("upsert", None), ("upsert", None), ("track", 0), ("track", 0), ("track", None), ("trigger", None),
        ("enroll", None), ("add_tag", 1), ("upsert", None), ("remove_tag", 8),
    ]  # fmt: skip


def test_occurrence_counts_same_kind_and_trigger_key_within_the_rule(make_event: Any) -> None:
    made = book("""
        - name: a
          match: "*"
          do:
            - trigger: {trigger_key: x, to_email: a}
            - trigger: {trigger_key: "${data.k}", to_email: b}
            - trigger: {trigger_key: y, to_email: a}
            - track: {event_name: e, email: a}
            - track: {event_name: f, email: a}
        - {name: b, match: "*", do: [{trigger: {trigger_key: x, to_email: a}}]}
    """)
    assert [action.occurrence for action in made.plan(make_event(k="x")).actions] == [0, 1, 0, 0, 1, 0]


def test_handling_is_shared_by_all_plans(make_event: Any) -> None:
    """Made once at load: an event must not pay for it."""
    made = rule("- upsert: {email: a}")
    first, second = (made.plan(make_event("user.x")).actions[0] for _ in range(2))
    assert first.handling is second.handling


def test_a_track_is_upserted_on_404_only_where_an_email_is_known(make_event: Any) -> None:
    made = rule("- track: {event_name: x, external_id: '7', email: '${optional(data.e)}'}")
    with_email = made.plan(make_event("user.x", e="a")).actions[0]
    without = made.plan(make_event("user.x")).actions[0]
    assert (with_email.handling.on_missing, without.handling.on_missing) == ("upsert", "wait")


def test_one_event_never_sees_what_another_made(make_event: Any) -> None:
    """Bodies are built anew: a literal list or mapping of the rules is never shared between actions."""
    made = rule("- upsert: {email: a, tag_names: [t], custom_fields: {x: {y: 1}}}")
    first = made.plan(make_event("user.x")).actions[0].body
    first["custom_fields"]["x"]["y"] = 2
    first["tag_names"].append("u")
    second = made.plan(make_event("user.x")).actions[0].body
    assert second == {"email": "a", "tag_names": ["t"], "custom_fields": {"x": {"y": 1}}}


@pytest.mark.parametrize("data", [None, [], "text", 7, {"data": None}])
def test_data_that_is_no_object_is_a_missing_field(make_event: Any, data: Any) -> None:
    event = make_event("user.x")
    event.data = data
    (failure,) = rule("- upsert: {email: '${data.email}'}").plan(event).failures
    assert failure == RuleFailure("r", "upsert.email: data.email is missing", "data.email")
    assert rule("- upsert: {email: a}", extra="when: data.email").plan(event).missing == 1


def test_kinds_of_the_model_are_all_planned(make_event: Any) -> None:
    made = rule("""
        - upsert: {email: a}
        - track: {event_name: x, email: a}
        - trigger: {trigger_key: x, to_email: a}
        - enroll: {sequence_slug: x, email: a}
        - add_tag: {tag_name: x, email: a}
        - remove_tag: {tag_id: x, email: a}
    """)
    assert [action.kind for action in made.plan(make_event("user.x")).actions] == list(Kind)
