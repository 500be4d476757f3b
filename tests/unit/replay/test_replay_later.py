"""What later events wrote is left out of a replay, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.model import Action, Contact, Kind
from bridge.replay.later import NAMES_MAX, Later, harmless


def upsert(email: str | None = "a@x", external_id: str | None = None, **body: Any) -> Action:
    names = {"email": email, "external_id": external_id}
    given = {name: value for name, value in names.items() if value is not None}
    return Action(Kind.UPSERT, "r", 0, {**given, **body}, Contact(email, external_id))


def other(kind: Kind, email: str = "a@x", **body: Any) -> Action:
    return Action(kind, "r", 0, body, Contact(email))


def left(action: Action, *later_actions: Action, at: int = 10, offset: int = 5) -> Action | None:
    """The action of a letter at `offset`, after these at `at`, `at + 1` …"""
    later = Later()
    watch = later.watch(offset, action)
    for number, each in enumerate(later_actions):
        later.see(at + number, [each])
    return harmless(action, watch)


def body(action: Action | None) -> dict[str, Any]:
    assert action is not None
    return dict(action.body)


def test_fields_that_were_written_later_are_left_out_one_by_one() -> None:
    action = upsert(first_name="A", last_name="B", custom_fields={"plan": "free", "country": "DE"})
    found = left(action, upsert(first_name="C", custom_fields={"plan": "pro"}))
    assert body(found) == {"email": "a@x", "last_name": "B", "custom_fields": {"country": "DE"}}


def test_an_upsert_of_which_nothing_is_left_still_names_its_contact() -> None:
    """Tracks and tags of its event may need the contact to exist."""
    action = upsert(external_id="7", custom_fields={"plan": "free"})
    assert body(left(action, upsert(external_id="7", custom_fields={"plan": "pro"}))) == {
        "email": "a@x",
        "external_id": "7",
    }


def test_without_later_writing_the_very_action_is_sent() -> None:
    action = upsert(source="signup", tag_names=["trial"], custom_fields={"plan": "free"})
    assert left(action, upsert("b@x", custom_fields={"plan": "pro"})) == action
    assert left(action, upsert(source="api", tag_names=["vip"], custom_fields={"country": "DE"})) == action


@pytest.mark.parametrize("at", [4, 5])
def test_what_came_before_or_is_the_record_itself_does_not_count(at: int) -> None:
    action = upsert(custom_fields={"plan": "free"})
    assert left(action, upsert(custom_fields={"plan": "pro"}), at=at) == action


def test_a_contact_is_known_by_any_of_its_names_and_by_those_that_later_events_add() -> None:
    action = upsert("a@x", "7", custom_fields={"plan": "free"})
    found = left(action, upsert(None, "7", custom_fields={"plan": "pro"}))
    assert "custom_fields" not in body(found)
    renamed = upsert("new@x", "7", first_name="N")
    found = left(action, renamed, upsert(" NEW@x ", custom_fields={"plan": "pro"}))
    assert "custom_fields" not in body(found)


def test_names_are_bounded() -> None:
    """An id whose email changes with every event does not make the watch grow with the log."""
    later = Later()
    watch = later.watch(0, upsert("a@x", "7"))
    for number in range(1, 3 * NAMES_MAX):
        later.see(number, [upsert(f"{number}@x", "7")])
    assert watch is not None and len(watch.names) == NAMES_MAX


def test_a_re_keyed_contact_keeps_its_newest_email() -> None:
    """Meisa goes by the external_id: the old email would take the new one's place."""
    action = upsert("old@x", "7", custom_fields={"plan": "free"})
    found = left(action, upsert("mid@x", "7"), upsert("new@x", "7"))
    assert body(found) == {"email": "new@x", "external_id": "7", "custom_fields": {"plan": "free"}}
    assert found is not None and found.contact == Contact("new@x", "7")
    unnamed = left(upsert("old@x", custom_fields={"plan": "free"}), upsert("old@x", "7"), upsert("new@x", "7"))
    assert body(unnamed)["email"] == "new@x"


def test_an_email_that_another_id_has_taken_is_sent_without_the_former_id() -> None:
    found = left(upsert("a@x", "7", first_name="A"), upsert("a@x", "8"))
    assert body(found) == {"email": "a@x", "first_name": "A"}


def test_the_newest_word_counts_in_whatever_order_it_is_heard() -> None:
    """The scan reads the log while live events come in."""
    later = Later()
    action = upsert("old@x", "7")
    watch = later.watch(1, action)
    later.see(9, [upsert("new@x", "7")])
    later.see(5, [upsert("mid@x", "7")])
    assert body(harmless(action, watch))["email"] == "new@x"


def test_a_tag_is_not_brought_back_and_not_taken_away_again() -> None:
    vip = {"tag_name": "vip"}
    assert left(other(Kind.ADD_TAG, **vip), other(Kind.REMOVE_TAG, **vip)) is None
    assert left(other(Kind.REMOVE_TAG, **vip), other(Kind.ADD_TAG, **vip)) is None
    assert left(other(Kind.REMOVE_TAG, **vip), upsert(tag_names=["vip"])) is None
    assert left(other(Kind.ADD_TAG, **vip), other(Kind.REMOVE_TAG, tag_name="other")) is not None
    assert left(other(Kind.ADD_TAG, **vip), other(Kind.ADD_TAG, **vip)) is not None
    found = left(upsert(tag_names=["vip", "trial"]), other(Kind.REMOVE_TAG, **vip))
    assert body(found)["tag_names"] == ["trial"]
    found = left(upsert(tag_names=["vip"]), other(Kind.REMOVE_TAG, **vip))
    assert "tag_names" not in body(found)


def test_a_triggers_recipient_counts_as_writing_on_both_sides() -> None:
    """It enriches the contact; the email itself is always sent, and its own address never changes."""
    recipient = {"email": "a@x", "first_name": "A", "custom_fields": {"plan": "free"}}
    trigger = other(Kind.TRIGGER, trigger_key="k", to_email="a@x", recipient=recipient)
    found = left(trigger, upsert(first_name="B", custom_fields={"plan": "pro"}))
    assert body(found) == {"trigger_key": "k", "to_email": "a@x", "recipient": {"email": "a@x"}}
    found = left(upsert(first_name="Z", last_name="Y"), trigger)
    assert body(found) == {"email": "a@x", "last_name": "Y"}


@pytest.mark.parametrize("kind", [Kind.TRACK, Kind.ENROLL, Kind.TRIGGER])
def test_moments_undo_nothing_and_need_no_watch(kind: Kind) -> None:
    """So no scan is made for them, whatever retention has removed."""
    assert Later().watch(1, other(kind, event_name="e")) is None
