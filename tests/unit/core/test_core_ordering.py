"""Order per contact, whatever names a contact goes by."""

import pytest

from bridge.core.ordering import GROUP_MAX, Ordering


def test_one_contact_goes_in_order_and_others_do_not_wait() -> None:
    """The second item of a contact is ready only once the first was released; another contact is ready at once."""
    ordering: Ordering[str] = Ordering()
    first, second, other = (ordering.admit(item, [item[0]]) for item in ("a1", "a2", "b1"))
    assert (first.ready, second.ready, other.ready) == (True, False, True)
    assert [ticket.item for ticket in ordering.release(first)] == ["a2"]
    assert second.ready


def test_an_item_without_names_waits_for_nothing() -> None:
    """`order: independent` and records without a contact are not one serial queue."""
    ordering: Ordering[str] = Ordering()
    first, second = ordering.admit("1", ()), ordering.admit("2", ())
    assert first.ready and second.ready
    assert ordering.release(first) == []


def test_names_that_came_together_are_linked() -> None:
    """After an item named id and email together, items that know only one of them keep the order of both."""
    ordering: Ordering[str] = Ordering()
    both = ordering.admit("upsert", ["x:7", "e:a"])
    by_email = ordering.admit("trigger", ["e:a"])
    by_id = ordering.admit("track", ["x:7"])
    assert not by_email.ready and not by_id.ready
    assert [ticket.item for ticket in ordering.release(both)] == ["trigger"]
    assert not by_id.ready
    assert [ticket.item for ticket in ordering.release(by_email)] == ["track"]


def test_linking_waits_for_what_both_names_had_before() -> None:
    """An item that brings two queues together waits for both of them."""
    ordering: Ordering[str] = Ordering()
    by_email, by_id = ordering.admit("1", ["e:a"]), ordering.admit("2", ["x:7"])
    both = ordering.admit("3", ["x:7", "e:a"])
    assert by_email.ready and by_id.ready
    assert ordering.release(by_id) == []
    assert ordering.release(by_email) == [both]


def test_links_are_transitive() -> None:
    """An id with a former and a present email is one queue for all three names."""
    ordering: Ordering[str] = Ordering()
    ordering.release(ordering.admit("1", ["x:7", "e:old"]))
    ordering.release(ordering.admit("2", ["x:7", "e:new"]))
    first = ordering.admit("3", ["e:old"])
    assert not ordering.admit("4", ["e:new"]).ready
    assert first.ready


def test_known_pairs_keep_their_group() -> None:
    """A pair that is known already is looked up, and both orders of its names mean the same queue."""
    ordering: Ordering[str] = Ordering()
    ordering.release(ordering.admit("1", ["x:7", "e:a", "a:stripe:c"]))
    first = ordering.admit("2", ["x:7", "e:a"])
    assert set(first.keys) == {"x:7", "e:a", "a:stripe:c"}
    assert not ordering.admit("3", ["a:stripe:c"]).ready


def test_a_repeated_name_counts_once() -> None:
    """An item cannot wait for itself."""
    ordering: Ordering[str] = Ordering()
    ticket = ordering.admit("1", ["x:7", "x:7"])
    assert ticket.ready
    assert ordering.release(ticket) == []
    assert ordering.size == 0 and ordering.contacts == 0


def test_release_is_refused_out_of_turn() -> None:
    """Releasing what waits, or twice, is a bug that must not go unnoticed."""
    ordering: Ordering[str] = Ordering()
    first = ordering.admit("1", ["a"])
    second = ordering.admit("2", ["a"])
    with pytest.raises(AssertionError, match="before its turn"):
        ordering.release(second)
    third = ordering.admit("3", ["a"])
    ordering.release(first)
    with pytest.raises(AssertionError, match="twice"):
        ordering.release(first)
    assert not third.ready


def test_a_contact_remembers_a_bounded_number_of_names() -> None:
    """An id whose email changes for ever does not make every admission dearer."""
    ordering: Ordering[str] = Ordering()
    for day in range(50):
        ordering.release(ordering.admit("upsert", ["x:7", f"e:{day}"]))
    assert len(ordering.admit("track", ["x:7"]).keys) <= GROUP_MAX + 1


def test_a_name_in_use_is_not_dropped_from_a_crowded_contact() -> None:
    """While something waits under an old name, later items by id still wait for it."""
    ordering: Ordering[str] = Ordering()
    held = ordering.admit("held", ["x:7", "e:0"])
    for day in range(1, 20):
        ordering.admit("upsert", ["x:7", f"e:{day}"])
    last = ordering.admit("track", ["e:0"])
    assert not last.ready
    assert "x:7" in last.keys
    assert held.ready


def test_links_are_forgotten_oldest_first_but_never_in_use() -> None:
    """The memory of links is bounded; a link whose queue has items stays."""
    ordering: Ordering[str] = Ordering(links_max=8)
    waiting = ordering.admit("1", ["x:0", "e:0"])
    for contact in range(1, 40):
        ordering.release(ordering.admit("upsert", [f"x:{contact}", f"e:{contact}"]))
    assert len(ordering._groups) <= 8
    behind = ordering.admit("2", ["e:0"])
    assert not behind.ready
    assert ordering.release(waiting) == [behind]
    forgotten = ordering.admit("3", ["x:1"])
    assert forgotten.keys == ("x:1",)


def test_a_crowd_of_links_in_use_does_not_make_an_admission_scan_them_all() -> None:
    """Where every link is in use the bound gives way to order, for as long as that lasts."""
    ordering: Ordering[str] = Ordering(links_max=4)
    tickets = [ordering.admit(str(contact), [f"x:{contact}", f"e:{contact}"]) for contact in range(50)]
    assert len(ordering._groups) == 100
    for ticket in tickets:
        ordering.release(ticket)
    for contact in range(50, 80):
        ordering.release(ordering.admit("upsert", [f"x:{contact}", f"e:{contact}"]))
    assert len(ordering._groups) <= 4


def test_how_many_wait_behind_one_is_known() -> None:
    """Status pages name the slowest contacts."""
    ordering: Ordering[str] = Ordering()
    first = ordering.admit("1", ["a"])
    ordering.admit("2", ["a"])
    ordering.admit("3", ["a", "b"])
    assert ordering.waiting_behind(first) == 2
    ordering_free = ordering.admit("4", ())
    assert ordering.waiting_behind(ordering_free) == 0


def test_the_last_of_all_its_queues_is_found_and_no_other() -> None:
    """Who joins a waiting item must stand behind nothing but that item, under every name."""
    ordering: Ordering[str] = Ordering()
    first = ordering.admit("1", ["a", "b"])
    assert ordering.last(ordering.joined(["a"])) is first
    assert ordering.last(("c",)) is None, "nobody waits there"
    other = ordering.admit("2", ["c"])
    assert ordering.last(("a", "b", "c")) is None, "two are last, each in another queue"
    assert ordering.last(("c", "d")) is other
    second = ordering.admit("3", ["a"])
    assert ordering.last(("a", "b")) is second


def test_an_extended_ticket_stands_in_its_new_queues_too() -> None:
    """A contribution that brought a new name: who knows only that name waits behind the item, and goes after it."""
    ordering: Ordering[str] = Ordering()
    first = ordering.admit("1", ["a"])
    names = ordering.joined(["a", "new"])
    ordering.extend(first, names)
    ordering.extend(first, names)
    ordering.extend(first, ("new",))
    assert first.keys == ("a", "new")
    behind = ordering.enter("2", ("new",))
    assert not behind.ready
    assert ordering.release(first) == [behind]


def test_what_stands_before_a_ticket_is_found_under_all_names() -> None:
    """In its own queues, and in those of what it waits for; nothing behind it, nothing of strangers."""
    ordering: Ordering[str] = Ordering()
    ordering.enter("other name", ("b",))
    ordering.enter("both", ("a", "b"))
    ordering.enter("own", ("a",))
    ordering.enter("stranger", ("z",))
    ordering.enter("behind both", ("b",))
    ticket = ordering.enter("urgent", ("a",))
    assert sorted(ordering.ahead(ticket, lambda item: False)) == ["both", "other name", "own"]


def test_the_search_ends_at_what_is_known() -> None:
    """What stands before a known item is known, too; a known item under another name is passed over."""
    ordering: Ordering[str] = Ordering()
    ordering.enter("far", ("a",))
    ordering.enter("known", ("a",))
    ordering.enter("known there", ("b",))
    ordering.enter("near", ("a", "b"))
    ticket = ordering.enter("urgent", ("a",))
    assert ordering.ahead(ticket, lambda item: item.startswith("known")) == ["near"]
    assert ordering.ahead(ordering.enter("first", ("q",)), lambda item: False) == []


def test_what_stands_behind_is_not_ahead() -> None:
    """The ticket need not be the last of its queues."""
    ordering: Ordering[str] = Ordering()
    ordering.enter("before", ("a",))
    ticket = ordering.enter("this", ("a", "b"))
    ordering.enter("behind", ("a",))
    ordering.enter("behind there", ("b",))
    assert ordering.ahead(ticket, lambda item: False) == ["before"]
