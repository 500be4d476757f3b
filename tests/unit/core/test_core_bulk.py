"""Which enrollments may share a call, and how they come apart."""

from typing import Any

import pytest

from bridge.core.bulk import BULK_MAX, Shelf, Shelves, apart, bulkable, linger_seconds, shelf_of
from bridge.model import Action, Contact, Kind


def enroll(kind: Kind = Kind.ENROLL, email: str | None = "a@x", **body: Any) -> Action:
    return Action(kind, "rule", 0, {"email": email, "sequence_slug": "welcome", **body}, Contact(email))


@pytest.mark.parametrize(
    ("action", "may"),
    [
        (enroll(), True),
        (enroll(override_unsubscribe=True), True),
        (enroll(metadata={}), False),
        (enroll(trigger_source="app"), False),
        (enroll(Kind.UPSERT), False),
        (Action(Kind.ENROLL, "rule", 0, {"email": "a@x"}, Contact("a@x")), False),
    ],
)
def test_what_one_bulk_call_can_say(action: Action, may: bool) -> None:
    """It has no field for metadata or a trigger_source."""
    assert bulkable(action) is may


def test_what_differs_lies_on_different_shelves() -> None:
    """By key, sequence, override and size; not setting the override and setting it to false are the same."""
    plain = shelf_of(enroll(), "default", BULK_MAX)
    assert plain == shelf_of(enroll(override_unsubscribe=False, email="b@x"), "default", BULK_MAX)
    others = [
        shelf_of(enroll(override_unsubscribe=True), "default", BULK_MAX),
        shelf_of(enroll(sequence_slug="other"), "default", BULK_MAX),
        shelf_of(enroll(), "enroll", BULK_MAX),
        shelf_of(enroll(), "default", 62),
    ]
    assert len({plain, *others}) == 5


def test_what_goes_alone_lies_on_no_shelf() -> None:
    """After all failures in company, and without an email."""
    assert shelf_of(enroll(), "default", 1) is None
    assert shelf_of(enroll(email=None), "default", BULK_MAX) is None


def test_the_call_says_the_override_only_where_it_is_set() -> None:
    assert Shelf("default", "s", False, 500).body(["a@x"]) == {"sequence_slug": "s", "emails": ["a@x"]}
    assert Shelf("default", "s", True, 500).body(["a@x"])["override_unsubscribe"] is True


def test_what_came_first_goes_along_first_and_no_more_than_asked_for() -> None:
    shelves: Shelves[str] = Shelves()
    for sequence, name in enumerate("abcd"):
        shelves.put(name, "one", sequence)
    shelves.put("z", "two", 9)
    assert shelves.others("one", 3) == ["a", "b", "c"]
    shelves.take(1)
    shelves.take(1)
    assert shelves.others("one", 9) == ["a", "c", "d"]
    shelves.take(9)
    assert shelves.others("two", 9) == []
    assert len(shelves) == 3


@pytest.mark.parametrize("refused", [True, False])
def test_a_call_that_fails_comes_apart_until_each_is_asked_for_alone(refused: bool) -> None:
    """In few steps, each smaller than the one before."""
    sizes = [BULK_MAX]
    while sizes[-1] > 1:
        sizes.append(apart(sizes[-1], refused=refused))
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[-1] == 1
    assert len(sizes) == (4 if refused else 9)


def test_how_long_an_enrollment_waits_for_others() -> None:
    """A second; where the quota is short a tenth of its age, five minutes at most."""
    assert linger_seconds(7200.0, short=False) == 1.0
    assert linger_seconds(-5.0, short=True) == linger_seconds(9.0, short=True) == 1.0
    assert linger_seconds(600.0, short=True) == 60.0
    assert linger_seconds(7200.0, short=True) == 300.0
