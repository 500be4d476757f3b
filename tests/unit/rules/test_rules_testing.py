"""Tests beside rules: what a test expects against what the rules make."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from bridge.actions import Track, Upsert
from bridge.cli.test import Known
from bridge.decode import JsonDecoder
from bridge.errors import ProblemsFound
from bridge.model import Contact, Event, Record
from bridge.rules.handlers import Handler
from bridge.rules.loader import load_text
from bridge.rules.testing import Bench, Ending, Result, World, pointless

RULE = """\
rules:
  - name: signup
    match: user.signed_up
    when: data.plan != "internal"
    do:
      - upsert:
          email: ${data.email}
          external_id: ${data.user_id}
          custom_fields: {plan: "${data.plan}", since: "${event.time}", country: "${optional(data.country)}"}
          tag_names: [a, b]
        aliases: {stripe: "${optional(data.stripe)}"}
      - trigger: {trigger_key: welcome, to_email: "${data.email}"}
        max_age: 2h
        when: data.plan != "free"
      - add_tag: {tag_name: new, email: "${data.email}"}
    tests:
"""
EVENT = "{type: user.signed_up, data: {email: a@x.io, user_id: 7, plan: pro}}"


def world(decoders: dict[str, Callable[[Record], Event | None]] | None = None) -> World:
    def people(contacts: Iterable[Contact]) -> Known:
        return Known(contacts)

    return World(JsonDecoder().decode, people, decoders or {})


def results(text: str, handlers: Iterable[Handler] = ()) -> list[Result]:
    book = load_text(text, "r.yaml", handlers=list(handlers))
    bench = Bench(book, world())
    return [bench.run(case) for case in book.tests]


def run(test: str) -> Result:
    """The one test, in flow style, beside the rule above."""
    (result,) = results(f"{RULE}      - {test}\n")
    return result


def told(result: Result) -> list[str]:
    return [str(line) for line in result.difference]


ALL = "[{upsert: {}}, {trigger: {}}, {add_tag: {}}]"


@pytest.mark.parametrize(
    "expect",
    [
        ALL,
        "[{upsert: }, {trigger: {to_email: a@x.io}}, {add_tag: {tag_name: new}}]",
        "[{upsert: {custom_fields: {plan: pro}}}, {trigger: {}}, {add_tag: {email: a@x.io}}]",
        "[{upsert: {external_id: 7, tag_names: [a, b]}}, {trigger: {}}, {add_tag: {}}]",
        '[{upsert: {external_id: "7", custom_fields: {country: null}}}, {trigger: {}}, {add_tag: {}}]',
        "[{upsert: {first_name: null}}, {trigger: {}, max_age: 120m, lane: transactional}, {add_tag: }]",
        "[{upsert: {}, aliases: {}}, {trigger: {trigger_key: welcome}, order: contact}, {add_tag: {}}]",
        "[{upsert: {}}, {trigger: {trigger_key: welcome, to_email: a@x.io}, exact: true}, {add_tag: {}}]",
    ],
)
def test_fields_that_are_not_named_are_free(expect: str) -> None:
    """In objects inside fields too; null is what is not there, and a number stands for its text."""
    result = run(f"{{event: {EVENT}, expect: {expect}}}")
    assert result.ending is Ending.PASSED, told(result)
    assert len(result.made) == 3


@pytest.mark.parametrize(
    ("expect", "lines"),
    [
        ("[]", 3),
        ("[{upsert: {}}, {trigger: {}}]", 1),
        ("[{trigger: {}}, {upsert: {}}, {add_tag: {}}]", 2),
        (f"{ALL[:-1]}, {{track: {{event_name: x}}}}]", 1),
        ("[{upsert: {custom_fields: {country: DE}}}, {trigger: {}}, {add_tag: {}}]", 3),
        ("[{upsert: {tag_names: [a]}}, {trigger: {}}, {add_tag: {}}]", 3),
        ("[{upsert: {tag_names: [b, a]}}, {trigger: {}}, {add_tag: {}}]", 3),
        ("[{upsert: {email: null}}, {trigger: {}}, {add_tag: {}}]", 3),
        ("[{upsert: {custom_fields: {plan: true}}}, {trigger: {}}, {add_tag: {}}]", 4),
        ("[{upsert: {}}, {trigger: {}, max_age: 1d}, {add_tag: {}}]", 3),
        ("[{upsert: {}, aliases: {stripe: c}}, {trigger: {}}, {add_tag: {}}]", 2),
    ],
)
def test_anything_else_fails(expect: str, lines: int) -> None:
    """All actions count, in order; lists are compared whole; true is no text."""
    result = run(f"{{event: {EVENT}, expect: {expect}}}")
    assert result.ending is Ending.FAILED
    assert len(result.difference) >= lines


def test_the_difference_holds_only_what_differs_as_yaml() -> None:
    expect = "[{upsert: {custom_fields: {plan: free, since: x}}}, {add_tag: {}}]"
    assert told(run(f"{{event: {EVENT}, expect: {expect}}}")) == [
        "  - upsert:",
        "      custom_fields:",
        "-       plan: free",
        "+       plan: pro",
        "-       since: x",
        '+       since: "2026-01-01T00:00:00Z"',
        "+ - trigger: {trigger_key: welcome, to_email: a@x.io}",
    ]


def test_an_option_that_differs_stands_beside_the_action() -> None:
    expect = "[{upsert: {}}, {trigger: {}, max_age: 1d}, {add_tag: {}}]"
    assert told(run(f"{{event: {EVENT}, expect: {expect}}}")) == [
        "  - trigger: …",
        "-   max_age: 1d",
        "+   max_age: 2h",
    ]


def test_exact_leaves_no_field_free() -> None:
    """On the test for all its actions, in objects too; options beside the fields stay free."""
    fields = "{email: a@x.io, external_id: 7, custom_fields: {plan: pro}, tag_names: [a, b]}"
    others = "{trigger: {trigger_key: welcome, to_email: a@x.io}}, {add_tag: {tag_name: new, email: a@x.io}}"
    result = run(f"{{event: {EVENT}, exact: true, expect: [{{upsert: {fields}}}, {others}]}}")
    assert told(result) == ["  - upsert:", "      custom_fields:", '+       since: "2026-01-01T00:00:00Z"']
    full = fields.replace("pro}", 'pro, since: "2026-01-01T00:00:00Z"}')
    assert run(f"{{event: {EVENT}, exact: true, expect: [{{upsert: {full}}}, {others}]}}").ending is Ending.PASSED


def test_aliases_that_are_not_named_fail_an_exact_test() -> None:
    event = EVENT.replace("plan: pro", "plan: free, stripe: cus_1")
    fields = (
        '{email: a@x.io, external_id: 7, custom_fields: {plan: free, since: "2026-01-01T00:00:00Z"}, tag_names: [a, b]}'
    )
    tag = "{add_tag: {tag_name: new, email: a@x.io}}"
    assert run(f"{{event: {event}, exact: true, expect: [{{upsert: {fields}}}, {tag}]}}").ending is Ending.FAILED
    named = f"{{upsert: {fields}, aliases: {{stripe: cus_1}}}}"
    assert run(f"{{event: {event}, exact: true, expect: [{named}, {tag}]}}").ending is Ending.PASSED


def test_what_is_too_old_now_is_left_out() -> None:
    """As in service: an action whose moment has passed is finished without a call; state has no age."""
    event = EVENT.replace("type:", 'time: "2026-01-01T00:00:00Z", type:')
    late = run(f'{{event: {event}, now: "2026-01-01T02:00:01Z", expect: [{{upsert: }}, {{add_tag: }}]}}')
    assert late.ending is Ending.PASSED
    assert late.notes == ("trigger is left out: at 2026-01-01T02:00:01Z it is older than 2h",)
    early = run(f'{{event: {event}, now: "2026-01-01T02:00:00Z", expect: {ALL}}}')
    assert early.ending is Ending.PASSED
    assert run(f'{{event: {EVENT}, now: "2031-01-01T00:00:00Z", expect: {ALL}}}').ending is Ending.PASSED


def test_several_events_are_planned_in_order() -> None:
    internal = EVENT.replace("plan: pro", "plan: internal")
    free = EVENT.replace("plan: pro", "plan: free")
    result = run(f"{{events: [{internal}, {free}, {EVENT}], expect: [{{upsert: }}, {{add_tag: }}, {ALL[1:]}}}")
    assert result.ending is Ending.PASSED, told(result)


def test_an_event_has_the_defaults_of_the_service() -> None:
    """Without id it is named by its place, without time it has the record's; key, headers and place can be given."""
    text = """\
rules:
  - name: all
    match: "*"
    topic: [billing, users]
    do:
      - track:
          event_name: e
          email: a@x.io
          properties:
            id: ${event.id}
            time: ${event.time}
            source: ${event.source}
            data: ${data}
            key: ${key}
            tenant: ${optional(headers.tenant)}
            at: ${topic + "/" + str(partition) + "/" + str(offset)}
            timestamp: ${timestamp}
    tests:
      - events: [{type: a}, {type: b, id: 5, time: "2026-01-02", source: s, data: [1], key: 9, headers: {tenant: t},
                 topic: users, partition: 2, offset: 30, timestamp: "2026-01-03T00:00:00Z"}]
        expect:
          - track: {properties: {id: billing/0/0, time: "2026-01-01T00:00:00Z", source: null, data: {}, key: null,
                                 tenant: null, at: billing/0/0, timestamp: 1767225600000}}
          - track: {properties: {id: "5", time: "2026-01-02T00:00:00Z", source: s, data: [1], key: "9", tenant: t,
                                 at: users/2/30, timestamp: 1767398400000}}
"""
    (result,) = results(text)
    assert result.ending is Ending.PASSED, told(result)


def test_an_event_may_be_given_as_the_value_of_its_record() -> None:
    """It is decoded as its topic says, and what cannot be decoded is an error that a test can expect."""
    test = """\
      - event: {topic: wrapped, value: {kind: user.signed_up, body: {email: a@x.io, user_id: 7, plan: free}}}
        expect: [{upsert: {email: a@x.io}}, {add_tag: }]
      - {event: {topic: wrapped, value: {body: {}}}, expect_error: {kind: decode}}
      - {event: {topic: wrapped, value: null}, expect: []}
"""
    from bridge.decode import Envelope
    from bridge.rules import compile_envelope_field

    envelope = Envelope(type=compile_envelope_field("${value.kind}"), data=compile_envelope_field("${value.body}"))
    book = load_text(RULE + test)
    bench = Bench(book, world({"events": JsonDecoder().decode, "wrapped": JsonDecoder(envelope).decode}))
    for case in book.tests:
        result = bench.run(case)
        assert result.ending is Ending.PASSED, told(result)


# Errors


def test_an_error_is_expected_by_kind_path_and_words() -> None:
    event = EVENT.replace("email: a@x.io, ", "")
    for expected in (
        "{kind: rule, path: data.email}",
        "{path: data.email}",
        "{message: is missing}",
        "{rule: signup}",
        "{}",
    ):
        assert run(f"{{event: {event}, expect_error: {expected}}}").ending is Ending.PASSED, expected
    for expected in ("{kind: decode}", "{path: data.user_id}", "{message: is there}", "{rule: other}"):
        result = run(f"{{event: {event}, expect_error: {expected}}}")
        assert told(result)[-1] == "+ expect_error: {kind: rule, path: data.email}"
        assert result.notes == ("upsert.email: data.email is missing",)


def test_an_error_that_nobody_expects_fails_a_test_and_so_does_a_missing_one() -> None:
    event = EVENT.replace("email: a@x.io, ", "")
    assert told(run(f"{{event: {event}, expect: []}}")) == ["+ expect_error: {kind: rule, path: data.email}"]
    assert told(run(f"{{event: {EVENT}, expect_error: {{kind: rule}}}}")) == ["- expect_error: {kind: rule}"]


def test_an_error_and_what_other_rules_make_can_be_expected_together() -> None:
    text = RULE + "  - name: log\n    match: user.*\n    do: [{track: {event_name: e, external_id: u}}]\n"
    text = text.replace("    tests:\n", "") + (
        "tests:\n"
        "  - event: {type: user.signed_up, data: {plan: pro}}\n"
        "    expect_error: {rule: signup}\n    expect: [{track: }]\n"
        "  - event: {type: user.signed_up, data: {plan: pro}}\n    expect_error: {rule: log}\n"
    )
    first, second = results(text)
    assert first.ending is Ending.PASSED, told(first)
    assert second.ending is Ending.FAILED


# Whom a test is about


TWO = """\
rules:
  - {name: one, match: a, do: [{track: {event_name: one, email: a@x.io}}]%s}
  - {name: two, match: "*", do: [{track: {event_name: two, email: a@x.io}}]}
"""


def test_a_test_beside_a_rule_tests_that_rule_alone_and_one_at_the_top_all() -> None:
    text = TWO % ", tests: [{event: {type: a}, expect: [{track: {event_name: one}}]}]" + (
        "tests:\n"
        "  - {event: {type: a}, expect: [{track: {event_name: one}}, {track: {event_name: two}}]}\n"
        "  - {rule: two, event: {type: a}, expect: [{track: {event_name: two}}]}\n"
    )
    assert [result.ending for result in results(text)] == [Ending.PASSED] * 3


def test_the_test_of_a_rule_that_is_not_enabled_is_skipped() -> None:
    text = TWO % ", enabled: false, tests: [{event: {type: a}, expect: [{track: {event_name: one}}]}]"
    (result,) = results(text)
    assert (result.ending, result.notes) == (Ending.SKIPPED, ("the rule is not enabled",))


def make_invoice(event: Event) -> Iterable[Upsert | Track]:
    yield Upsert(email=event.data["email"], custom_fields={"mrr": event.data["mrr"]})
    if event.data["mrr"] > 100:
        yield Track(event_name="big", email=event.data["email"], max_age="1h")


def test_handlers_are_tested_the_same_way() -> None:
    """By name or with all rules; errors have their kind and path, and the age of what they yield counts."""
    text = """\
tests:
  - handler: invoice
    event: {type: invoice.paid, data: {email: a@x.io, mrr: 200}}
    expect: [{upsert: {custom_fields: {mrr: 200}}}, {track: {event_name: big}, max_age: 1h, on_missing: upsert}]
  - event: {type: invoice.paid, time: "2026-01-01T00:00:00Z", data: {email: a@x.io, mrr: 200}}
    now: "2026-01-01T01:00:01Z"
    expect: [{upsert: }]
  - handler: invoice
    event: {type: invoice.paid, data: {email: a@x.io}}
    expect_error: {kind: rule, path: data.mrr}
"""
    handler = Handler("invoice", make_invoice, ("invoice.*",))
    for result in results(text, [handler]):
        assert result.ending is Ending.PASSED, (result.case.name, told(result), result.notes)


def test_a_test_that_names_nobody_is_a_problem_with_its_place_and_the_nearest_name() -> None:
    text = (
        TWO % ""
        + "tests:\n  - {rule: on, event: {type: a}, expect: []}\n  - {handler: one, event: {type: a}, expect: []}\n"
    )
    with pytest.raises(ProblemsFound) as raised:
        load_text(text, "r.yaml")
    assert [str(problem) for problem in raised.value.problems] == [
        "r.yaml:5:5: error MB191: no rule is named on (did you mean one?)",
        "r.yaml:6:5: error MB191: no handler is named one (it is a rule: rule: one)",
    ]


def test_a_rule_that_matches_none_of_its_events_is_told() -> None:
    """Such a test passes whatever the rule does. A topic that does not fit may be what is tested."""
    text = TWO % (
        ", topic: t, tests: [{event: {type: b}, expect: []}, {event: {type: a, topic: u}, expect: []},"
        " {events: [{type: b}, {type: a}], expect: [{track: }]}]"
    )
    book = load_text(text, "r.yaml")
    problems = pointless(book, book.tests)
    assert [(problem.code, problem.severity, problem.message) for problem in problems] == [
        ("MB193", "warning", "the rule one matches no event of type b")
    ]


def test_looking_for_such_tests_leaves_the_rules_as_they_are() -> None:
    """What all rules share, such as preserved paths, still holds for the actions of each of them afterwards."""
    text = TWO % ", preserve: [custom_fields.plan], tests: [{event: {type: a}, expect: [{track: }]}]"
    book = load_text(text + "tests: [{rule: two, event: {type: a}, expect: [{track: }]}]\n")
    before = [action.handling for rule in book.rules for action in rule.actions]
    assert pointless(book, book.tests) == []
    assert [action.handling for rule in book.rules for action in rule.actions] == before
    assert {handling.preserve for handling in before} == {("custom_fields.plan",)}


# Who is who

BY_ID = """\
rules:
  - name: paid
    match: invoice.paid
    do:
      - trigger: {trigger_key: thanks}
        contact: {stripe: "${data.customer}"}
      - track: {event_name: paid, external_id: "${data.user}"}
    tests:
      - event: {type: invoice.paid, data: {customer: cus_1, user: u1}}
"""


@pytest.mark.parametrize(
    ("given", "expected", "ending"),
    [
        (None, "expect: [{trigger: {to_email: null}, contact: {stripe: cus_1}}, {track: {external_id: u1}}]", "passed"),
        (
            "{email: a@x.io, external_id: u1, aliases: {stripe: cus_1}}",
            "expect: [{trigger: {to_email: a@x.io}, contact: {stripe: cus_1}}, {track: {external_id: u1}}]",
            "passed",
        ),
        ("{email: a@x.io, stripe: cus_1}", "expect: [{trigger: {to_email: a@x.io}}, {track: }]", "passed"),
        ("", "expect_error: {kind: unknown_contact}", "passed"),
        (None, "expect_error: {kind: unknown_contact}", "passed"),
        ("", "expect: [{trigger: }, {track: }]", "failed"),
    ],
)
def test_identities_are_looked_up_where_the_test_says_who_is_known(
    given: str | None, expected: str, ending: str
) -> None:
    """Without `given` actions stand as the rule makes them; with it, as they would leave, or not at all."""
    known = "" if given is None else f"        given: {{identities: [{given}]}}\n"
    (result,) = results(f"{BY_ID}{known}        {expected}\n")
    assert result.ending == ending, told(result)


def test_what_an_earlier_event_told_is_known_to_the_next() -> None:
    text = BY_ID.split("    tests:")[0] + (
        "  - {name: up, match: u, do: [{upsert: {email: a@x.io, external_id: u1}, aliases: {stripe: cus_1}}]}\n"
        "tests:\n"
        "  - given: {identities: []}\n"
        "    events: [{type: u}, {type: invoice.paid, data: {customer: cus_1, user: u1}}]\n"
        "    expect: [{upsert: }, {trigger: {to_email: a@x.io}}, {track: {external_id: u1}}]\n"
    )
    (result,) = results(text)
    assert result.ending is Ending.PASSED, told(result)


# Mistakes


@pytest.mark.parametrize(
    ("test", "code", "part"),
    [
        ("{event: {type: a}, expect: [], ^nowe: x}", "MB190", "did you mean now?"),
        ("{event: {type: a}, ^rule: b, expect: []}", "MB190", "no key rule"),
        ("^{event: {type: a}, events: [{type: a}], expect: []}", "MB190", "either event or events"),
        ("^{event: {type: a}}", "MB190", "expect: []"),
        ("{event: ^{data: {}}, expect: []}", "MB190", "no type"),
        ("{event: {type: ^7}, expect: []}", "MB190", "must be a text"),
        ("{event: {value: {}, ^type: a}, expect: []}", "MB190", "type comes from it"),
        ("{event: {type: a, time: ^soon}, expect: []}", "MB190", "time is no ISO 8601 time"),
        ("{event: {type: a, partition: ^-1}, expect: []}", "MB190", "whole number"),
        ("{event: {type: a, headers: ^[]}, expect: []}", "MB104", "must be a mapping"),
        ("{event: {type: a}, now: ^later, expect: []}", "MB190", "now is no"),
        ("{event: {type: a}, given: {^people: []}, expect: []}", "MB190", "known are identities"),
        ("{event: {type: a}, given: {identities: [^{email: a}]}, expect: []}", "MB190", "another id"),
        ("{event: {type: a}, expect: ^}", "MB104", "must be a list"),
        ("{event: {type: a}, expect: [^{trigr: {}}]}", "MB190", "did you mean trigger?"),
        ("{event: {type: a}, expect: [{upsert: {^emial: a}}]}", "MB192", "did you mean email?"),
        ("{event: {type: a}, expect: [{upsert: {^lane: sync}}]}", "MB192", "stands beside"),
        ("{event: {type: a}, expect: [{upsert: {}, ^when: true}]}", "MB192", "not how"),
        ("{event: {type: a}, expect: [{upsert: {}, ^order: contact}]}", "MB192", "beside an expected upsert"),
        ("{event: {type: a}, expect: [{upsert: {}, max_age: ^never}]}", "MB107", "or none"),
        ("{event: {type: a}, expect: [{upsert: {}, exact: ^yes}]}", "MB107", "true or false"),
        ("{event: {type: a}, expect_error: {^knd: rule}}", "MB190", "did you mean kind?"),
        ("{event: {type: a}, expect_error: {kind: ^rejected}}", "MB190", "known are rule"),
        ("{event: {type: a}, expect_error: {kind: ^expired}}", "MB190", "leave it out"),
        ("{event: {type: a}, expect_error: ^rule}", "MB104", "must be a mapping"),
    ],
)  # fmt: skip
def test_a_malformed_test_is_a_problem_with_its_place(test: str, code: str, part: str) -> None:
    text = RULE + "      - "
    column = test.index("^") + len("      - ") + 1
    with pytest.raises(ProblemsFound) as raised:
        load_text(text + test.replace("^", "") + "\n", "r.yaml")
    (problem,) = raised.value.problems
    assert (problem.code, problem.line, problem.column) == (code, text.count("\n") + 1, column)
    assert part in str(problem)


def test_a_test_without_a_name_is_numbered(make_event: Any) -> None:
    assert run(f"{{event: {EVENT}, expect: {ALL}}}").case.title == "signup: test 1"
