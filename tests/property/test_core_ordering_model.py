"""Ordering against the rule it stands for, in random traffic."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.ordering import Ordering, Ticket

NAMES = st.lists(st.sampled_from([f"n{number}" for number in range(6)]), max_size=3)


@given(st.lists(NAMES, max_size=40), st.randoms(use_true_random=False))
def test_items_that_share_a_name_go_in_order_and_all_go(items: list[list[str]], dice: object) -> None:
    """Random items with up to three names each, released in random order: order holds, and nothing is stuck."""
    ordering: Ordering[int] = Ordering()
    ready: list[Ticket[int]] = []
    gone: list[int] = []

    def release_one() -> None:
        ticket = ready.pop(dice.randrange(len(ready)))  # type: ignore[attr-defined]
        gone.append(ticket.item)
        ready.extend(ordering.release(ticket))

    for number, names in enumerate(items):
        ticket = ordering.admit(number, names)
        assert set(names) <= set(ticket.keys)
        if ticket.ready:
            ready.append(ticket)
        if ready and dice.random() < 0.4:  # type: ignore[attr-defined]
            release_one()
    while ready:
        release_one()

    assert sorted(gone) == list(range(len(items))), "something is stuck"
    assert ordering.size == 0 and ordering.contacts == 0
    place = {number: turn for turn, number in enumerate(gone)}
    for later, names in enumerate(items):
        for earlier in range(later):
            if set(names) & set(items[earlier]):
                assert place[earlier] < place[later]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=40))
def test_a_linked_contact_is_one_queue(items: list[tuple[int, bool, bool]]) -> None:
    """Once a contact's id and email came together, all its items go in order, whichever name they know."""
    ordering: Ordering[int] = Ordering()
    for contact in range(4):
        ordering.release(ordering.admit(-1, [f"x:{contact}", f"e:{contact}"]))
    tickets = []
    for number, (contact, by_id, by_email) in enumerate(items):
        names = [f"x:{contact}"] * by_id + [f"e:{contact}"] * by_email
        tickets.append((contact, bool(names), ordering.admit(number, names)))
    for contact in range(4):
        own = [ticket for whose, named, ticket in tickets if whose == contact and named]
        assert [ticket.ready for ticket in own] == [place == 0 for place in range(len(own))]


@given(st.lists(st.tuples(NAMES, st.booleans()), max_size=40), st.randoms(use_true_random=False))
def test_what_joins_the_last_item_never_passes_another(items: list[tuple[list[str], bool]], dice: object) -> None:
    """Some items join the one that `last` names instead of standing behind it: order holds all the same."""
    ordering: Ordering[list[int]] = Ordering()
    ready: list[Ticket[list[int]]] = []
    gone: list[int] = []

    def release_one() -> None:
        ticket = ready.pop(dice.randrange(len(ready)))  # type: ignore[attr-defined]
        gone.extend(ticket.item)
        ready.extend(ordering.release(ticket))

    for number, (keys, joins) in enumerate(items):
        names = ordering.joined(keys)
        last = ordering.last(names)
        if joins and last is not None:
            last.item.append(number)
            ordering.extend(last, names)
        else:
            ticket = ordering.enter([number], names)
            if ticket.ready:
                ready.append(ticket)
        if ready and dice.random() < 0.4:  # type: ignore[attr-defined]
            release_one()
    while ready:
        release_one()
    assert sorted(gone) == list(range(len(items))), "something is stuck"
    assert ordering.size == 0 and ordering.contacts == 0
    place = {number: turn for turn, number in enumerate(gone)}
    for later, (names, _) in enumerate(items):
        for earlier in range(later):
            if set(names) & set(items[earlier][0]):
                assert place[earlier] < place[later]
