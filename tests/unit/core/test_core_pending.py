"""Upserts that merge into one call, and come apart again."""

from dataclasses import dataclass
from typing import Any

import pytest

from bridge.core.pending import Pending, merged
from bridge.model import Action, Contact, Handling, Kind


@dataclass
class Part:
    name: str
    action: Action


def upsert(
    name: str = "",
    *,
    email: str | None = "a@x",
    external_id: str | None = None,
    kind: Kind = Kind.UPSERT,
    handling: Handling | None = None,
    preserve: tuple[str, ...] = (),
    **body: Any,
) -> Part:
    contact = Contact(email, external_id)
    return Part(name, Action(kind, "rule", 0, body, contact, handling or Handling(preserve=preserve)))


def joined(*parts: Part) -> Pending[Part]:
    pending = Pending(parts[0])
    for part in parts[1:]:
        assert pending.takes(part.action)
        pending.add(part)
    return pending


def names(group: Any) -> list[str]:
    return [part.name for part in group]


def test_the_last_value_of_each_field_is_sent_and_tags_unite() -> None:
    """Meisa ends in the state that the single calls would leave it in; it keeps the first `source` itself."""
    pending = joined(
        upsert(email="a@x", first_name="A", source="signup", custom_fields={"plan": "free", "n": 1}, tag_names=["t"]),
        upsert(email="a@x", source="api", custom_fields={"plan": "pro"}, tag_names=["u", "t"]),
        upsert(email="a@x", last_name="B"),
    )
    assert pending.body() == {
        "first_name": "A",
        "last_name": "B",
        "source": "signup",
        "custom_fields": {"plan": "pro", "n": 1},
        "tag_names": ["t", "u"],
    }
    assert len(pending) == 3


def test_merging_changes_no_body_that_was_planned() -> None:
    """The contributions are sent alone after a refusal: each as it was."""
    one, two = {"custom_fields": {"a": 1}, "tag_names": ["t"]}, {"custom_fields": {"b": 2}, "tag_names": ["u"]}
    merged([one, two])
    assert one == {"custom_fields": {"a": 1}, "tag_names": ["t"]}


def test_a_single_contribution_is_sent_as_it_is() -> None:
    """No copy, no change."""
    part = upsert(first_name="A")
    assert Pending(part).body() is part.action.body


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (upsert(), upsert(email="b@x")),
        (upsert(external_id="7"), upsert(external_id="8")),
        (upsert(), upsert(external_id="7")),
        (upsert(), upsert(email=None, external_id="7")),
        (upsert(email=None, external_id="7"), upsert(email=None, external_id="7")),
        (upsert(), upsert(kind=Kind.TRACK)),
        (upsert(kind=Kind.TRACK), upsert()),
        (upsert(kind=Kind.TRIGGER), upsert(kind=Kind.TRIGGER)),
        (upsert(), upsert(kind=Kind.ADD_TAG, tag_id="t-1")),
        (upsert(kind=Kind.ADD_TAG, tag_id="t-1"), upsert()),
        (upsert(), upsert(kind=Kind.REMOVE_TAG, tag_name="t")),
        (upsert(kind=Kind.REMOVE_TAG, tag_name="t"), upsert()),
        (upsert(), upsert(kind=Kind.ADD_TAG, tag_name="t", handling=Handling(coalesce=False))),
        (upsert(), upsert(kind=Kind.ADD_TAG, tag_name="t", email="b@x")),
        (upsert(), upsert(handling=Handling(coalesce=False))),
        (upsert(handling=Handling(coalesce=False)), upsert()),
        (upsert(), upsert(handling=Handling(max_age_seconds=5.0))),
        (upsert(), upsert(handling=Handling(ordered=False))),
    ],
    ids=[
        "another email",
        "another id",
        "an id that the earlier one lacks: Meisa may know it as somebody else",
        "no email",
        "neither has an email",
        "a track",
        "onto a track",
        "two triggers",
        "a tag by its id",
        "onto a tag by its id",
        "a removed tag",
        "onto a removed tag",
        "coalesce: false, a tag",
        "another email's tag",
        "coalesce: false, later",
        "coalesce: false, earlier",
        "its own age limit",
        "out of order",
    ],
)
def test_what_must_not_merge(first: Part, second: Part) -> None:
    """Only upserts merge, only where Meisa would find the same contact, and only where the rule allows it."""
    assert not Pending(first).takes(second.action)


def test_a_tag_rides_before_between_and_behind_upserts() -> None:
    """It adds its name, and no field of the contact."""
    pending = joined(
        upsert(kind=Kind.ADD_TAG, tag_name="t"),
        upsert(email="a@x", source="signup", custom_fields={"n": 1}, tag_names=["u"]),
        upsert(kind=Kind.ADD_TAG, tag_name="v"),
        upsert(email="a@x", custom_fields={"n": 2}),
        upsert(kind=Kind.ADD_TAG, tag_name="t"),
    )
    assert pending.body() == {"email": "a@x", "custom_fields": {"n": 2}, "tag_names": ["t", "u", "v"]}


def test_a_tag_alone_is_an_upsert_with_that_tag() -> None:
    """Under the names that its action has for the contact."""
    tag = upsert(kind=Kind.ADD_TAG, tag_name="t", external_id="7")
    assert Pending(tag).body() == {"email": "a@x", "external_id": "7", "tag_names": ["t"]}


def test_emails_compare_as_meisa_compares_them() -> None:
    """Trimmed and case-folded; the later spelling is sent."""
    pending = joined(upsert(email=" A@x"), upsert(email="a@X"))
    assert len(pending) == 2


def test_an_id_known_already_need_not_be_repeated() -> None:
    """The first upsert tied the email to the id."""
    assert len(joined(upsert(external_id="7"), upsert(), upsert(external_id="7"))) == 3


def test_a_preserved_field_never_loses_a_value() -> None:
    """`preserve`: another value waits for a call of its own; the same value, or none, may join."""
    preserve = ("custom_fields.plan", "first_name")
    pending = joined(
        upsert(preserve=preserve, custom_fields={"n": 1}),
        upsert(preserve=preserve, custom_fields={"plan": "free"}),
        upsert(preserve=preserve, custom_fields={"plan": "free"}, first_name="A"),
        upsert(preserve=preserve, custom_fields={"n": 2}),
    )
    assert not pending.takes(upsert(preserve=preserve, custom_fields={"plan": "pro"}).action)
    assert not pending.takes(upsert(preserve=preserve, first_name="B").action)
    assert pending.takes(upsert(preserve=preserve, first_name="A").action)


def test_what_was_planned_to_be_preserved_stays_so_when_the_rules_change() -> None:
    """What comes under rules that preserve nothing any more does not merge a value away that waits."""
    waiting = Pending(upsert(preserve=("custom_fields.plan",), custom_fields={"plan": "free"}))
    assert not waiting.takes(upsert(custom_fields={"plan": "pro"}).action)
    assert waiting.takes(upsert(custom_fields={"n": 1}).action)


def test_preserved_values_compare_as_json() -> None:
    """1 and true are two values, though Python calls them equal."""
    preserve = ("custom_fields.flag",)
    pending = Pending(upsert(preserve=preserve, custom_fields={"flag": 1}))
    assert not pending.takes(upsert(preserve=preserve, custom_fields={"flag": True}).action)
    assert pending.takes(upsert(preserve=preserve, custom_fields={"flag": 1}).action)


def test_a_refused_call_is_halved_until_what_was_refused_stands_alone() -> None:
    """In order, and nothing joins it any more."""
    pending = joined(*(upsert(str(n)) for n in range(5)))
    assert pending.halve()
    assert [names(group) for group in pending.groups] == [["0", "1"], ["2", "3", "4"]]
    assert not pending.takes(upsert().action)
    assert pending.halve()
    assert not pending.halve()
    assert names(pending.next()) == ["0"]
    assert names(pending.next()) == ["1"]
    assert names(pending.group) == ["2", "3", "4"]


def test_a_cut_call_is_followed_by_the_rest_and_takes_more() -> None:
    """Only so many may leave now; what follows is one call, and later contributions join that."""
    pending = joined(*(upsert(str(n)) for n in range(4)))
    pending.cut(4)
    pending.cut(0)
    assert len(pending.groups) == 1
    pending.cut(3)
    pending.add(upsert("4"))
    assert [names(group) for group in pending.groups] == [["0", "1", "2"], ["3", "4"]]


def test_what_is_revoked_is_taken_out_wherever_it_stands() -> None:
    """And only that; the rest is sent as if it had never been there."""
    parts = [upsert(str(n), custom_fields={f"f{n}": n}) for n in range(4)]
    pending = joined(*parts)
    pending.cut(2)
    pending.remove([parts[0], parts[2], parts[3]])
    assert [names(group) for group in pending.groups] == [["1"]]
    assert pending.body() == {"custom_fields": {"f1": 1}}
    pending.remove([parts[1]])
    assert not pending.takes(upsert().action), "nothing is left to join"
    assert names(pending) == []
