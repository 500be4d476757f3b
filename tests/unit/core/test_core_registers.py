"""Registers: how a store keeps them, and what stays of two writings."""

import json

import pytest

from bridge.core.identity import Identities
from bridge.core.registers import PLACES_MAX, Alias, Claim, Entry, Generation, Marks, Present, decoded, encoded, merged
from bridge.model import Action, Contact, Kind, TopicPartition
from bridge.state.memory import MemoryStore

P, Q, R = (TopicPartition("users", 0), TopicPartition("users", 1), TopicPartition("billing#2", 3))


def marks(*each: tuple[TopicPartition, int]) -> Marks:
    return each


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("x:7", Present("Ä@x", True, False, marks((P, 3), (R, 2**40)))),
        ("x:7", Present("a@x")),
        ("e:a@x", Claim("7", None, marks((Q, 0)))),
        ("e:a@x", Claim("7", "", ())),
        ("a:stripe:c", Alias(None, "7", marks((P, 1)))),
        ("a:stripe:c", Alias("a@x", None)),
        ("p:users/0", Generation(3, 4_000_000_000)),
        ("p:users/0", Generation(1)),
    ],
)
def test_what_is_written_is_read_back_as_it_was(name: str, entry: Entry) -> None:
    assert decoded(name, encoded(entry)) == entry


@pytest.mark.parametrize(
    "value", [b"", b"{}", b"[]", b"7", b"[1]", b'["a", 1]', b'["a", false, true, [["t"]]]', b"\xff", b"null"]
)
@pytest.mark.parametrize("name", ["x:7", "e:a@x", "a:b:c", "p:t/0"])
def test_what_nobody_of_us_wrote_counts_as_never_written(name: str, value: bytes) -> None:
    if (name, value) == ("p:t/0", b'["a", 1]'):
        value = b'["a", 1, 2]'
    assert decoded(name, value) is None


def after(stored: Entry, mine: Entry, name: str = "x:7") -> Entry | None:
    return decoded(name, merged(name, encoded(stored), encoded(mine)))


def test_a_later_record_of_the_same_partition_stays() -> None:
    old, new = Present("old@x", marks=marks((P, 3))), Present("new@x", marks=marks((P, 4)))
    assert after(old, new) == new
    assert after(new, old) == new


def test_the_same_record_may_say_more() -> None:
    """That its re-key turned out to be uncertain; but not once another partition has spoken since."""
    said = Present("a@x", False, True, marks((P, 3)))
    doubted = said._replace(uncertain=True)
    assert after(said, doubted) == doubted
    since = Present("b@x", marks=marks((P, 3), (Q, 0)))
    assert after(since, doubted) == since


def test_between_partitions_the_last_to_write_stays_and_both_are_remembered() -> None:
    """So that neither is read again as something new."""
    theirs, mine = Present("theirs@x", marks=marks((Q, 9))), Present("mine@x", marks=marks((Q, 4), (P, 1)))
    assert after(theirs, mine) == Present("mine@x", marks=marks((Q, 9), (P, 1)))


def test_few_partitions_are_remembered_the_last_ones() -> None:
    many = marks(*((TopicPartition("t", number), 5) for number in range(PLACES_MAX)))
    kept = after(Present("a@x", marks=many), Present("b@x", marks=marks((P, 1))))
    assert isinstance(kept, Present)
    assert kept.marks == (*many[1:], (P, 1))


def test_a_claim_that_met_another_ids_knows_its_rival() -> None:
    theirs, mine = Claim("8", None, marks((Q, 1))), Claim("7", None, marks((P, 1)))
    assert after(theirs, mine, "e:a@x") == Claim("7", "8", marks((Q, 1), (P, 1)))
    assert after(mine, mine._replace(marks=marks((P, 2))), "e:a@x") == Claim("7", None, marks((P, 2)))
    known = Claim("7", "6", marks((P, 1)))
    assert after(theirs, known, "e:a@x") == Claim("7", "6", marks((Q, 1), (P, 1)))


def test_what_events_taught_outweighs_a_seed_and_a_seed_an_earlier_one() -> None:
    taught, seed = Present("taught@x", marks=marks((P, 1))), Present("seed@x")
    assert after(taught, seed) == taught
    assert after(seed, taught) == taught
    assert after(seed, Present("later@x")) == Present("later@x")


@pytest.mark.parametrize(("name", "stored"), [("f:print", b"old"), ("p:users/0", b"[1,null]"), ("x:7", b"damaged")])
def test_what_is_no_register_is_replaced(name: str, stored: bytes) -> None:
    mine = encoded(Generation(2)) if name.startswith("p:") else encoded(Present("a@x", marks=marks((P, 1))))
    assert merged(name, stored, mine) == mine


# The table over a store


def stored(store: MemoryStore) -> dict[str, list[object]]:
    return {name: json.loads(value) for name, value in store._values.items()}


def enroll(id: str) -> Action:
    return Action(Kind.ENROLL, "rule", 0, {}, Contact(None, id))


def test_another_table_over_the_same_store_knows_the_same() -> None:
    store = MemoryStore()
    Identities(store=store).learn(Contact("a@x", "7", (("stripe", "c"),)), P, 4)
    other = Identities(store=store)
    assert other.resolve(enroll("7")).contact.email == "a@x"
    assert stored(store) == {
        "e:a@x": ["7", None, [["users", 0, 4]]],
        "x:7": ["a@x", False, True, [["users", 0, 4]]],
        "a:stripe:c": ["a@x", "7", [["users", 0, 4]]],
    }


def test_what_was_dropped_from_the_table_is_found_in_the_store() -> None:
    table = Identities(store=MemoryStore(), entries_max=1)
    for number in range(5):
        table.learn(Contact(f"{number}@x", str(number)), P, number)
    assert [table.resolve(enroll(str(number))).contact.email for number in range(5)] == [f"{n}@x" for n in range(5)]
    assert len(table) == 1


def test_the_same_topic_goes_on_where_it_was_and_another_begins_anew() -> None:
    """By its hash; where that is not known it may be another."""
    store = MemoryStore()
    for topic_hash, offset, email in ((5, 9, "a@x"), (5, 3, "a@x"), (6, 3, "d@x"), (None, 1, "e@x"), (6, 0, "e@x")):
        table = Identities(store=store)
        table.restarted(P, topic_hash)
        table.learn(Contact(email if offset != 3 or topic_hash == 6 else "b@x", "7"), P, offset)
        assert table.resolve(enroll("7")).contact.email == email, (topic_hash, offset)
        table.left(P)


def test_a_partition_that_another_owner_had_is_looked_up_again() -> None:
    """Meanwhile its topic was created anew, which the other owner has noted."""
    store = MemoryStore()
    one, other = Identities(store=store), Identities(store=store)
    one.learn(Contact("a@x", "7"), P, 9)
    one.left(P)
    other.restarted(P)
    other.learn(Contact("b@x", "7"), P, 0)
    assert stored(store)["x:7"][-1] == [["users", 0, 9], ["users#1", 0, 0]]
    one._entries.clear()  # as `refresh` does
    one.learn(Contact("c@x", "7"), P, 1)
    assert one.resolve(enroll("7")).contact.email == "c@x"


def test_a_seed_is_taken_in_once_and_never_over_an_event() -> None:
    table = Identities(store=MemoryStore())
    person = Contact("a@x", "7", (("stripe", "c"),))
    assert table.seed(person) and not table.seed(person)
    table.learn(Contact("b@x", "7"), P, 0)
    assert not table.seed(Contact("a@x", "7"))
    assert table.resolve(enroll("7")).contact.email == "b@x"
    assert table.seed(Contact("z@x", None, (("stripe", "d"),)))


@pytest.mark.parametrize("entries_max", [1, 100])
async def test_forgetting_reaches_what_only_the_store_has(entries_max: int) -> None:
    """By any of the person's emails, with what others have of it; and nobody else's."""
    store = MemoryStore()
    table = Identities(store=store, entries_max=entries_max)
    table.learn(Contact("a@x", "seven", (("stripe", "c"),)), P, 0)
    table.learn(Contact("b@x", "seven"), P, 1)
    table.learn(Contact("z@x", "8", (("stripe", "d"),)), P, 2)
    table.learn(Contact("a@x", "8"), P, 3)
    table.restarted(P)
    table.learn(Contact("y@x", "9"), P, 0)
    assert len((await table.forget(" B@x")).registers) == 3
    assert "seven" not in repr(stored(store)) and "b@x" not in repr(stored(store))
    assert table.resolve(enroll("8")).contact.email == "a@x"
    assert len((await table.forget("b@x")).registers) == 0


async def test_an_email_of_an_id_that_the_store_lost_is_forgotten_all_the_same() -> None:
    store = MemoryStore()
    table = Identities(store=store, entries_max=1)
    table.learn(Contact("a@x", "7"), P, 0)
    store.delete("x:7")
    table.learn(Contact("z@x", None, (("stripe", "d"),)), P, 1)
    store.put("e:other@x", b"damaged")
    assert len((await table.forget("a@x")).registers) == 1
    assert set(stored_names(store)) == {"a:stripe:d", "e:other@x"}


def stored_names(store: MemoryStore) -> list[str]:
    return list(store._values)


def test_a_rehearsal_names_what_is_missing_and_changes_nothing() -> None:
    """Each round finds what the last one's loading made known; the last one finds nothing."""

    class Far(MemoryStore):
        local = False

        def __init__(self) -> None:
            super().__init__()
            self.hand: set[str] = set()

        def at_hand(self, name: str) -> bool:
            return name in self.hand

    store = Far()
    table = Identities(store=store)
    store.hand = {"x:7", "e:a@x", "e:b@x", "a:stripe:c", "p:users/0"}
    table.learn(Contact("a@x", "7", (("stripe", "c"),)), P, 0)
    table._entries.clear()
    table.left(P)
    before = stored(store)
    store.hand = set()
    upsert = Action(Kind.UPSERT, "rule", 0, {}, Contact("b@x", "7"))
    by_alias = Action(Kind.ENROLL, "rule", 0, {}, Contact(None, None, (("stripe", "c"),)))

    def work() -> None:
        table.restarted(P)
        table.admit(upsert, P, 1)
        table.admit(by_alias, P, 2)

    rounds = []
    while lacking := table.lacking(work):
        rounds.append(lacking)
        store.hand |= lacking
    assert len(rounds) in (1, 2, 3) and {"x:7", "e:b@x", "a:stripe:c", "p:users/0"} <= set().union(*rounds)
    assert stored(store) == before
    assert table.admit(by_alias, P, 2).contact.email == "a@x"
    work()
    assert table.admit(by_alias, P, 2).contact.email == "b@x"
    assert stored(store)["p:users/0"] == [1, None]


def test_what_others_wrote_is_read_again_once_the_store_says_so() -> None:
    class Changed(MemoryStore):
        def refresh(self) -> bool:
            return True

    store = Changed()
    one, other = Identities(store=store), Identities(store=store)
    one.learn(Contact("a@x", "7"), P, 0)
    other.learn(Contact("b@x", "7"), P, 1)
    assert one.resolve(enroll("7")).contact.email == "a@x"
    one.refresh()
    assert one.resolve(enroll("7")).contact.email == "b@x"


def test_whether_a_table_lasts_is_its_stores_to_say() -> None:
    assert not Identities().lasting and not Identities(store=MemoryStore()).lasting
    Identities(store=MemoryStore()).refresh()
