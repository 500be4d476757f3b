"""Meisa's ids of contacts: found by any name, forgotten oldest first."""

from bridge.model import Contact
from bridge.runtime.contact_ids import ContactIds


def test_an_id_is_found_by_any_name_of_its_contact() -> None:
    """The upsert knew both names; a later tag may know one. Emails compare trimmed and case-folded."""
    ids = ContactIds()
    ids.remember(Contact("A@x", "7"), "c-1")
    assert ids.get(Contact(" a@X ")) == ids.get(Contact(external_id="7")) == "c-1"
    assert ids.get(Contact("b@x")) is None
    ids.forget(Contact("a@x"))
    assert ids.get(Contact("a@x")) is None


def test_memory_is_bounded() -> None:
    """The least recently told goes first: it costs one upsert more, no more."""
    ids = ContactIds(most=3)
    for number in range(4):
        ids.remember(Contact(f"{number}@x"), f"c-{number}")
        ids.remember(Contact("0@x"), "c-0")
    assert ids.get(Contact("0@x")) == "c-0"
    assert ids.get(Contact("1@x")) is None
    assert ids.get(Contact("3@x")) == "c-3"
