"""What Meisa is known to hold: believed exactly as long as nobody else can have written since its answer."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from bridge.core.known import DOUBT_SECONDS, FACTS_MAX, PREFIX, Known, erase, name_of, names_in
from bridge.errors import StoreFailed
from bridge.model import TopicPartition
from bridge.state.memory import MemoryStore

P0, P1 = TopicPartition("events", 0), TopicPartition("events", 1)
WALL = 1_780_000_000.0
DAY = 86_400.0

ANSWER = {
    "id": "m1",
    "email": "Ada@Example.com",
    "external_id": "7",
    "first_name": "Ada",
    "last_name": "",
    "custom_fields": {"plan": "free", "seats": 3, "address": {"city": "Ulm", "zip": "1"}, "gone": None},
    "tags": [{"id": "t1", "name": "trial"}, "odd", {"id": "t2"}],
}
BODY = {"email": "ada@example.com", "external_id": "7", "custom_fields": {"plan": "free"}, "tag_names": ["trial"]}


def known(**settings: Any) -> Known:
    """One that owns the first partition."""
    made = Known(DAY, **settings)
    made.assigned(P0)
    return made


def told(
    known: Known,
    answer: Mapping[str, Any] = ANSWER,
    body: Mapping[str, Any] = BODY,
    *,
    now: float = 0.0,
    wall: float = WALL,
) -> bool:
    """An upsert of this body leaves and is answered so."""
    departure = known.departs(names_in(body), now)
    known.ended(departure)
    return known.learn(departure, body, answer, wall)


def differing(known: Known, body: Mapping[str, Any], **settings: Any) -> set[str] | None:
    found = known.differing(body, [P0], WALL, **settings)
    return None if found is None else set(found)


def test_nothing_is_known_before_meisa_has_answered() -> None:
    one = known()
    assert differing(one, BODY) is None
    departure = one.departs(names_in(BODY), 0.0)
    assert differing(one, BODY) is None, "what was merely sent is not believed"
    one.ended(departure)
    assert differing(one, BODY) is None
    assert one.learn(departure, BODY, ANSWER, WALL)
    assert differing(one, BODY) == set()


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({"email": " ADA@example.com"}, set()),
        ({"email": "ada@example.com", "first_name": "Ada", "last_name": "", "source": "signup"}, set()),
        ({"email": "ada@example.com", "first_name": "Eva"}, {"first_name"}),
        ({"email": "ada@example.com", "display_name": "Ada"}, {"display_name"}),
        ({"email": "ada@example.com", "external_id": "8"}, {"external_id"}),
        ({"email": "ada@example.com", "custom_fields": {"plan": "pro", "seats": 3}}, {"custom_fields.plan"}),
        ({"email": "ada@example.com", "custom_fields": {"seats": "3"}}, {"custom_fields.seats"}),
        ({"email": "ada@example.com", "custom_fields": {"seats": True}}, {"custom_fields.seats"}),
        ({"email": "ada@example.com", "custom_fields": {"address": {"zip": "1", "city": "Ulm"}}}, set()),
        ({"email": "ada@example.com", "custom_fields": {"address": {"city": "Ulm"}}}, {"custom_fields.address"}),
        ({"email": "ada@example.com", "custom_fields": {"gone": None, "other": None}}, {"custom_fields.other"}),
        ({"email": "ada@example.com", "tag_names": ["trial", "vip"]}, {"tag_names.vip"}),
        ({"email": "ada@example.com", "custom_fields": "odd", "tag_names": "odd"}, {"custom_fields", "tag_names"}),
        ({"email": "ada@example.com", "seq": 1}, {"seq"}),
    ],
)
def test_an_upsert_differs_in_the_paths_that_the_answer_does_not_say(body: Mapping[str, Any], paths: set[str]) -> None:
    one = known()
    assert told(one)
    assert differing(one, body) == paths


def test_whoever_is_named_otherwise_is_not_known() -> None:
    one = known()
    assert told(one)
    assert differing(one, {"email": "eva@example.com"}) is None
    assert differing(one, {"external_id": "7"}) is None


@pytest.mark.parametrize("answer", [None, 7])
def test_an_answer_without_an_email_teaches_nothing(answer: Any) -> None:
    one = known()
    assert not told(one, {**ANSWER, "email": answer})
    assert differing(one, BODY) is None


def test_an_answer_that_tells_little_teaches_little() -> None:
    one = known()
    assert told(one, {"email": "ada@example.com", "custom_fields": None})
    assert differing(one, BODY) == {"external_id", "custom_fields.plan", "tag_names.trial"}
    assert told(one, {"email": "ada@example.com"}, {"email": 7})


def test_an_answer_is_believed_for_a_time() -> None:
    """And not at all where the clock was set back behind it."""
    one = known()
    assert told(one)
    for wall, believed in ((WALL + DAY - 1, True), (WALL + DAY, False), (WALL - 1, False), (WALL, True)):
        assert (one.differing(BODY, [P0], wall) is not None) is believed


def test_a_partition_believes_only_answers_since_it_was_assigned() -> None:
    one = known()
    assert told(one)
    assert one.differing(BODY, [P0, P1], WALL) is None
    one.assigned(P1)
    assert one.differing(BODY, [P1], WALL) is None
    assert one.differing(BODY, [P0, P1], WALL) is None
    assert one.differing(BODY, [P0], WALL) == set()
    one.gone(P0)
    assert one.differing(BODY, [P0], WALL) is None
    one.assigned(P0)
    assert one.differing(BODY, [P0], WALL) is None, "another owner may have been there meanwhile"
    assert told(one)
    assert one.differing(BODY, [P0, P1], WALL) == set()
    one.gone(P1)
    one.gone(P1)


def test_an_answer_counts_as_of_when_its_call_left() -> None:
    """A former owner of a partition may have written after the call was carried out, before its answer came."""
    one = known()
    departure = one.departs(names_in(BODY), 0.0)
    one.assigned(P1)
    one.ended(departure)
    assert one.learn(departure, BODY, ANSWER, WALL)
    assert one.differing(BODY, [P1], WALL) is None
    assert one.differing(BODY, [P0], WALL) == set()


@pytest.mark.parametrize("key", ["e:ada@example.com", "x:7", "i:m1"])
def test_forgetting_any_name_forgets_the_contact(key: str) -> None:
    one = known()
    assert told(one)
    one.forget([name_of(key)], 0.0)
    assert differing(one, BODY) is None
    assert told(one)
    assert differing(one, BODY) == set()


@pytest.mark.parametrize("key", ["e:ada@example.com", "x:7", "i:m1"])
def test_whatever_may_change_a_contact_makes_it_unknown(key: str) -> None:
    """From when it leaves; and what other calls were answered meanwhile is not believed."""
    one = known()
    assert told(one)
    removal = one.departs([name_of(key)], 0.0)
    assert differing(one, BODY) is None
    assert not told(one), "one of the two came last, and nobody knows which"
    one.ended(removal)
    assert differing(one, BODY) is None
    assert told(one)
    assert differing(one, BODY) == set()


@pytest.mark.parametrize("key", ["e:ada@example.com", "x:7", "i:m1"])
def test_an_answer_is_not_believed_where_another_call_came_and_went_meanwhile(key: str) -> None:
    one = known()
    upsert = one.departs(names_in(BODY), 0.0)
    removal = one.departs([name_of(key)], 0.0)
    one.ended(removal)
    one.ended(upsert)
    assert not one.learn(upsert, BODY, ANSWER, WALL)
    assert differing(one, BODY) is None


def test_of_two_answers_about_one_person_at_once_neither_is_believed() -> None:
    """Two upserts that share no name before Meisa says that they are of one person."""
    one = known()
    by_email = {"email": "ada@example.com"}
    moved = {"email": "new@example.com", "external_id": "7"}
    first = one.departs(names_in(by_email), 0.0)
    second = one.departs(names_in(moved), 0.0)
    one.ended(first)
    assert not one.learn(first, by_email, ANSWER, WALL)
    one.ended(second)
    assert not one.learn(second, moved, {**ANSWER, **moved}, WALL)
    third = one.departs(names_in({"email": "x@example.com"}), 0.0)
    assert told(one)
    one.ended(third)
    assert not one.learn(third, by_email, ANSWER, WALL), "what came meanwhile may be older, or newer"
    assert differing(one, BODY) is None
    assert differing(one, moved) is None


def test_a_re_key_makes_the_former_email_unknown() -> None:
    one = known()
    assert told(one)
    moved = {"email": "new@example.com", "external_id": "7"}
    assert told(one, {**ANSWER, **moved}, moved)
    assert differing(one, moved) == set()
    assert differing(one, {"email": "ada@example.com"}) is None


def test_an_email_that_another_id_takes_over_is_that_ones() -> None:
    one = known()
    assert told(one)
    assert told(one, {**ANSWER, "id": "m2", "external_id": "8"}, {**BODY, "external_id": "8"})
    assert differing(one, BODY) == {"external_id"}
    assert differing(one, {**BODY, "external_id": "8"}) == set()


def test_after_a_call_without_an_answer_nothing_is_learned_for_a_while() -> None:
    """It may be carried out after the next one was answered."""
    one = known()
    departure = one.departs(names_in(BODY), 100.0)
    one.ended(departure)
    one.forget(departure.names, 110.0, doubt=True)
    one.forget(departure.names, 111.0)
    assert not told(one, now=110.0 + DOUBT_SECONDS - 1)
    assert differing(one, BODY) is None
    assert told(one, now=110.0 + DOUBT_SECONDS)
    assert differing(one, BODY) == set()


def test_a_path_that_others_write_is_never_known() -> None:
    one = known(others=lambda path: path == "custom_fields.plan")
    assert told(one)
    assert differing(one, BODY) == {"custom_fields.plan"}
    assert differing(one, {"email": "ada@example.com", "first_name": "Ada"}) == set()


def test_where_others_may_re_key_all_partitions_must_have_been_ours() -> None:
    one = known()
    assert told(one)
    assert differing(one, BODY, others_write=True) is None
    assert differing(one, BODY, rekeys_elsewhere=True) is None
    one.whole()
    assert differing(one, BODY, others_write=True) is None, "it was learned before"
    assert told(one)
    assert differing(one, BODY, others_write=True) == set()
    assert differing(one, BODY, rekeys_elsewhere=True) == set()
    one.not_whole()
    assert differing(one, BODY, others_write=True) is None
    assert differing(one, BODY) == set()


def test_who_has_no_id_is_re_keyed_by_nobody_of_the_same_topic() -> None:
    one = known()
    assert told(one, {**ANSWER, "external_id": None})
    assert differing(one, {"email": "ada@example.com"}, rekeys_elsewhere=True) == set()
    assert differing(one, {"email": "ada@example.com"}, others_write=True) is None


def test_the_least_recently_used_contact_is_forgotten_first() -> None:
    one = known(registers_max=6)
    bodies = [{"email": f"{name}@example.com", "external_id": name} for name in "abc"]
    for body in bodies[:2]:
        assert told(one, {**body, "id": body["external_id"]}, body)
    assert differing(one, bodies[0]) == set()
    assert told(one, {**bodies[2], "id": "c"}, bodies[2])
    assert differing(one, bodies[1]) is None
    assert differing(one, bodies[0]) == set()
    assert differing(one, bodies[2]) == set()
    assert len(one) == 6


def test_a_contact_has_a_bounded_number_of_facts_what_was_sent_first() -> None:
    fields = {f"f{number}": number for number in range(FACTS_MAX + 10)}
    last = f"f{FACTS_MAX + 9}"
    one = known()
    assert told(
        one,
        {"email": "a@x", "custom_fields": fields},
        {"email": "a@x", "custom_fields": {last: fields[last], "f1": 1}},
    )
    assert differing(one, {"email": "a@x", "custom_fields": {last: fields[last], "f1": 1}}) == set()
    found = differing(one, {"email": "a@x", "custom_fields": fields})
    assert found is not None and len(found) == 11


def test_a_table_without_room_for_one_contact_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="three names"):
        Known(DAY, registers_max=2)


# In a store

MINE, NEXT, OTHER = b"assign-1", b"assign-2", b"assign-3"


def stored() -> MemoryStore:
    """A store in which the first assignment has kept what it learned."""
    store = MemoryStore()
    one = Known(DAY, store=store)
    one.assigned(P0, MINE)
    departure = one.departs(names_in(BODY), 0.0)
    one.ended(departure)
    assert one.learn(departure, BODY, ANSWER, WALL, P0)
    return store


def of(store: MemoryStore, before: bytes = MINE, **settings: Any) -> Known:
    """The next process, whose assignment came right after that one."""
    one = Known(DAY, store=store, **settings)
    one.assigned(P0, NEXT, before)
    return one


def test_what_is_stored_is_believed_by_the_assignment_right_behind() -> None:
    store = stored()
    assert differing(of(store), BODY) == set()
    assert differing(of(store), {**BODY, "first_name": "Eva", "tag_names": ["vip"]}) == {"first_name", "tag_names.vip"}
    assert differing(of(store), {"email": "eva@example.com"}) is None
    assert of(store).differing(BODY, [P0], WALL + DAY) is None
    for before in (b"", OTHER):
        assert differing(of(store, before), BODY) is None
    assert of(store).differing(BODY, [P1], WALL) is None


def test_what_is_stored_names_nobody() -> None:
    store = stored()
    assert len(store._values) == 3
    assert not any(text in f"{name}{value!r}" for name, value in store._values.items() for text in ("ada", "example"))


def test_what_was_learned_and_put_away_is_read_again() -> None:
    """The same assignment finds in the store what there was no room for here."""
    store = stored()
    one = of(store, registers_max=3)
    assert differing(one, BODY) == set()
    other = {"email": "eva@example.com", "external_id": "8"}
    departure = one.departs(names_in(other), 0.0)
    one.ended(departure)
    assert one.learn(departure, other, {**other, "id": "m8"}, WALL, P0)
    one.forget([b"somebody", b"else"], 0.0)
    assert differing(one, other) == set()
    assert differing(one, BODY) == set()
    assert differing(one, other) == set()


@pytest.mark.parametrize("key", ["e:ada@example.com", "x:7", "i:m1"])
def test_what_is_forgotten_is_so_for_the_next_process_too(key: str) -> None:
    store = stored()
    of(store).forget([name_of(key)], 0.0)
    assert differing(of(store), BODY) is None
    store = stored()
    of(store).departs([name_of(key)], 0.0)
    assert differing(of(store), BODY) is None


def test_what_was_learned_as_the_whole_group_is_believed_by_the_next_one() -> None:
    """If none of all partitions had another owner in between."""
    for first, before, believed in ((b"whole--1", b"whole--1", True), (b"whole--1", b"", False), (b"", b"", False)):
        store = MemoryStore()
        one = Known(DAY, store=store)
        one.assigned(P0, MINE)
        if first:
            one.whole(first)
        departure = one.departs(names_in(BODY), 0.0)
        one.ended(departure)
        assert one.learn(departure, BODY, ANSWER, WALL, P0)
        again = of(store)
        again.whole(b"whole--2", before)
        assert (differing(again, BODY, others_write=True) == set()) is believed
        again.assigned(P1)
        assert (again.differing(BODY, [P1], WALL, others_write=True) == set()) is believed
        assert differing(again, BODY) == set()
        again.not_whole()
        assert differing(again, BODY, others_write=True) is None


def test_an_answer_to_a_call_of_before_we_were_the_whole_group_is_none_of_it() -> None:
    store = MemoryStore()
    one = Known(DAY, store=store)
    one.assigned(P0, MINE)
    departure = one.departs(names_in(BODY), 0.0)
    one.whole(b"whole--1")
    assert one.is_whole
    one.ended(departure)
    assert one.learn(departure, BODY, ANSWER, WALL, P0)
    assert differing(one, BODY, others_write=True) is None
    again = of(store)
    again.whole(b"whole--2", b"whole--1")
    assert differing(again, BODY, others_write=True) is None


def test_what_is_learned_for_no_assignment_is_not_stored() -> None:
    """Nor after its partition went, or came anew while the call was under way."""
    for partition, again in ((None, False), (P1, False), (P0, True)):
        store = MemoryStore()
        one = Known(DAY, store=store)
        one.assigned(P0, MINE)
        departure = one.departs(names_in(BODY), 0.0)
        if again:
            one.assigned(P0, NEXT, MINE)
        one.ended(departure)
        assert one.learn(departure, BODY, ANSWER, WALL, partition)
        assert not store._values


@pytest.mark.parametrize("value", [b"", b"x", b"\x01", b"\x02short", b"\x03" + bytes(60), bytes(60)])
def test_a_foreign_value_in_the_store_says_nothing(value: bytes) -> None:
    for broken in ("e:ada@example.com", "x:7"):
        store = stored()
        store.put(f"{PREFIX}{name_of(broken).hex()}", value)
        assert differing(of(store), BODY) is None


def test_a_cut_value_in_the_store_says_nothing() -> None:
    name = f"{PREFIX}{name_of('e:ada@example.com').hex()}"
    store = stored()
    whole = store.get(name)
    assert whole is not None
    for length in range(len(whole)):
        store.put(name, whole[:length])
        found = differing(of(store), {**BODY, "first_name": "Eva"})
        assert found is None or "first_name" in found, length  # cut behind a fact, those before it still hold


def test_a_store_that_cannot_be_read_says_nothing() -> None:
    class Failing(MemoryStore):
        def get(self, name: str) -> bytes | None:
            raise StoreFailed("away")

    assert differing(of(Failing()), BODY) is None


# Erasing


@pytest.mark.parametrize("key", ["e:ada@example.com", "x:7", "i:m1"])
def test_erasing_by_any_name_erases_all_that_is_stored_of_a_contact_and_of_nobody_else(key: str) -> None:
    store = stored()
    store.put(f"{PREFIX}{name_of('e:eve@example.com').hex()}", b"another's")
    assert len(asyncio.run(erase(store, [key]))) == 3
    assert [register for register in store._values if register.startswith(PREFIX)] == [
        f"{PREFIX}{name_of('e:eve@example.com').hex()}"
    ]
    assert asyncio.run(erase(store, [key])) == []


def test_erasing_finds_links_that_were_left_behind_and_damaged_registers() -> None:
    """A call that knew the contact by email alone has made its entry unknown, but not what had led to it."""
    store = stored()
    entry = f"{PREFIX}{name_of('e:ada@example.com').hex()}"
    store.delete(entry)
    assert len(asyncio.run(erase(store, ["e:ada@example.com"]))) == 2
    store.put(entry, b"damaged")
    assert asyncio.run(erase(store, ["e:ada@example.com"])) == [entry]
    assert store.get(entry) is None
