"""Who is who: re-keyed emails, aliases, and records that are read again."""

import asyncio
from typing import Any

import pytest

from bridge.core.identity import Identities
from bridge.core.registers import PLACES_MAX
from bridge.model import Action, Contact, Kind, Record, TopicPartition, action_id
from bridge.state.memory import MemoryStore

P, Q = TopicPartition("users", 0), TopicPartition("billing", 3)
IN_BODY = {Kind.UPSERT: ("email", "external_id"), Kind.TRACK: ("email", "external_id"), Kind.ENROLL: ("email",)}


def action(kind: Kind, email: str | None = None, id: str | None = None, **aliases: str) -> Action:
    """An action as the rules make it: what the endpoint takes stands in its body."""
    named = {"to_email": email} if kind is Kind.TRIGGER else {"email": email, "external_id": id}
    known = (*IN_BODY.get(kind, ()), "to_email")
    body: dict[str, Any] = {name: value for name, value in named.items() if value is not None and name in known}
    return Action(
        kind, "rule", 3, {**body, "more": 1}, Contact(email, id, tuple(sorted(aliases.items()))), occurrence=2
    )


def upsert(email: str | None = None, id: str | None = None, **aliases: str) -> Action:
    return action(Kind.UPSERT, email, id, **aliases)


class Log:
    """A table that is fed one action per offset of a partition."""

    def __init__(self, **limits: int) -> None:
        self.table = Identities(**limits)
        self.ends = {P: 0, Q: 0}

    def add(self, *actions: Action, to: TopicPartition = P) -> Action:
        """Admits them under one offset; gives the last one as it was resolved."""
        offset = self.ends[to]
        self.ends[to] += 1
        return [self.table.admit(each, to, offset) for each in actions][-1]

    def email(self, email: str, kind: Kind = Kind.TRACK) -> str | None:
        """Which email an action ends under that names this one."""
        return self.table.resolve(action(kind, email)).contact.email

    def of_id(self, id: str) -> str | None:
        return self.table.resolve(action(Kind.ENROLL, id=id)).contact.email

    def of_alias(self, **aliases: str) -> Contact:
        return self.table.resolve(action(Kind.ENROLL, **aliases)).contact


def rekeyed(**limits: int) -> Log:
    """Contact 7 was a@x and is b@x now."""
    log = Log(**limits)
    log.add(upsert("a@x", "7"))
    log.add(upsert("b@x", "7"))
    return log


@pytest.mark.parametrize("kind", [Kind.UPSERT, Kind.TRACK, Kind.ENROLL, Kind.ADD_TAG, Kind.REMOVE_TAG])
def test_a_former_email_resolves_to_the_present_one(kind: Kind) -> None:
    """Request and contact name the present email; the old name still counts for order, and nothing else moved."""
    before = action(kind, " A@x ")
    after = rekeyed().add(before)
    assert after.contact.email == "b@x" and after.contact.external_id == "7"
    assert set(after.contact.ordering_keys()) == {"e:a@x", "e:b@x", "x:7"}
    assert after.contact.names() == ("x:7", "e:b@x")
    expected = {"email": "b@x", "external_id": "7", "more": 1, "to_email": None}
    assert after.body == {name: expected[name] for name in ("more", *IN_BODY.get(kind, ()))}
    assert (after.kind, after.rule, after.position, after.occurrence) == (kind, "rule", 3, 2)
    record = Record("users", 0, 9, 0, None, b"{}")
    assert action_id("group", record, after) == action_id("group", record, before)


def test_a_triggers_to_email_never_changes() -> None:
    """The mail goes where the event said, in the order of all names of the person."""
    after = rekeyed().table.resolve(action(Kind.TRIGGER, "a@x"))
    assert after.body["to_email"] == "a@x" and after.contact.email == "a@x"
    assert set(after.contact.ordering_keys()) == {"e:a@x", "e:b@x", "x:7"}


def test_what_concerns_nobody_known_stays_the_same_object() -> None:
    """An unknown email, the present one, and one whose id is another are not touched."""
    table = rekeyed().table
    for each in (
        action(Kind.TRACK, "new@x"),
        action(Kind.TRACK, "b@x"),
        action(Kind.TRACK, "B@X"),
        action(Kind.TRACK, "a@x", "8"),
        action(Kind.ENROLL, id="9"),
        action(Kind.ENROLL, stripe="c"),
    ):
        assert table.resolve(each) is each


@pytest.mark.parametrize("kind", [Kind.TRACK, Kind.ENROLL, Kind.ADD_TAG])
def test_an_id_with_its_former_email_resolves_too(kind: Kind) -> None:
    """Otherwise the upsert that a tag or a track makes where Meisa knows no contact would re-key it back."""
    assert rekeyed().table.resolve(action(kind, "a@x", "7")).contact.email == "b@x"


def test_an_upsert_with_both_is_the_statement_itself() -> None:
    """The id's email changes back if an upsert says so, and the other one is the former one then."""
    log = rekeyed()
    statement = upsert("a@x", "7")
    assert log.table.resolve(statement) is statement
    back = log.add(statement)
    assert back.body["email"] == "a@x" and back.contact.also == ("e:b@x",)
    assert (log.email("a@x"), log.email("b@x")) == ("a@x", "a@x")


def test_a_rekey_goes_behind_what_knew_the_former_email_alone() -> None:
    """Its ordering keys hold the former email; an upsert that changes nothing needs no more names."""
    log = Log()
    assert log.add(upsert("a@x", "7")).contact.also == ()
    assert log.add(upsert("A@x", "7")).contact.also == ()
    assert log.add(upsert("b@x", "7")).contact.also == ("e:a@x",)


def test_all_former_emails_resolve_in_one_step() -> None:
    log = rekeyed()
    log.add(upsert("c@x", "7"))
    assert (log.email("a@x"), log.email("b@x"), log.email("c@x")) == ("c@x", "c@x", "c@x")


def test_another_id_that_claims_the_former_email_ends_it() -> None:
    """a@x is 8's from then on, and 7 keeps what it has."""
    log = rekeyed()
    log.add(upsert("a@x", "8"))
    assert (log.email("a@x"), log.of_id("7"), log.of_id("8")) == ("a@x", "b@x", "a@x")
    log.add(upsert("d@x", "8"))
    assert (log.email("a@x"), log.email("b@x")) == ("d@x", "b@x")


def test_an_upsert_without_id_claims_nothing() -> None:
    """An upsert of the former email is about the person who had it."""
    log = rekeyed()
    after = log.add(upsert("a@x"))
    assert after.body == {"email": "b@x", "external_id": "7", "more": 1}
    assert log.email("a@x") == "b@x"


def test_an_id_that_is_given_anothers_present_email_is_uncertain() -> None:
    """Meisa may refuse that: 7's former email must not lead to 8's contact until 8 has left the email to it."""
    log = Log()
    log.add(upsert("a@x", "7"))
    log.add(upsert("b@x", "8"))
    log.add(upsert("b@x", "7"))
    log.add(upsert("b@x", "7"))
    assert log.email("a@x") == "a@x"
    log.add(upsert("c@x", "8"))
    log.add(upsert("b@x", "7"))
    assert (log.email("a@x"), log.email("b@x")) == ("b@x", "b@x")


def test_an_id_whose_present_email_another_claims_resolves_no_more() -> None:
    """b@x is 8's now, and 7's former email must not lead there."""
    log = rekeyed()
    log.add(upsert("b@x", "8"))
    assert log.email("a@x") == "a@x"


def test_a_refused_rekey_is_not_believed() -> None:
    """Its contact still has the former email at Meisa, so names stay as they come until a further upsert says so."""
    log = Log()
    log.add(upsert("a@x", "7"))
    log.add(upsert("b@x", "7"))
    log.table.refused(Contact("b@x", "7"), P, 1)
    assert log.email("a@x") == "a@x"
    log.table.admit(upsert("b@x", "7"), P, 1)
    assert log.email("a@x") == "a@x", "a record that is read again says nothing new"
    log.add(upsert("b@x", "7"))
    assert log.email("a@x") == "b@x"


@pytest.mark.parametrize(
    ("contact", "place", "offset"),
    [
        (Contact("b@x"), P, 1),
        (Contact(None, "7"), P, 1),
        (Contact("b@x", "9"), P, 1),
        (Contact("a@x", "7"), P, 0),
        (Contact("b@x", "7"), Q, 1),
    ],
)
def test_a_refusal_of_anything_else_takes_nothing_back(contact: Contact, place: TopicPartition, offset: int) -> None:
    log = rekeyed()
    log.table.refused(contact, place, offset)
    assert log.email("a@x") == "b@x"


def test_a_refused_upsert_that_changed_no_email_takes_nothing_back() -> None:
    """Something else in it was wrong; that 7 is b@x was true before."""
    log = rekeyed()
    log.add(upsert("b@x", "7"))
    log.table.refused(Contact("b@x", "7"), P, 2)
    assert log.email("a@x") == "b@x"


# Filling in


def test_a_missing_email_is_filled_in_from_the_id() -> None:
    """Where the endpoint needs it, and for what the bridge does itself (a track's upsert after a 404)."""
    table = rekeyed().table
    filled = {kind: table.resolve(action(kind, id="7")) for kind in Kind}
    assert all(each.contact == Contact("b@x", "7") for each in filled.values())
    assert filled[Kind.UPSERT].body == {"email": "b@x", "external_id": "7", "more": 1}
    assert filled[Kind.TRACK].body == {"external_id": "7", "more": 1}
    assert filled[Kind.ENROLL].body == {"email": "b@x", "more": 1}
    assert filled[Kind.TRIGGER].body == {"to_email": "b@x", "more": 1}
    assert filled[Kind.ADD_TAG].body == filled[Kind.REMOVE_TAG].body == {"more": 1}


def test_an_alias_finds_its_person_through_a_rekey() -> None:
    """The alias belongs to the id, not to the email that it came with."""
    log = Log()
    log.add(upsert("a@x", "7", stripe="c"))
    log.add(upsert("b@x", "7"))
    log.add(upsert("a@x", "8"))
    after = log.table.resolve(action(Kind.TRACK, stripe="c"))
    assert after.contact == Contact("b@x", "7", (("stripe", "c"),))
    assert after.body == {"email": "b@x", "external_id": "7", "more": 1}


def test_an_alias_of_an_email_follows_it() -> None:
    """It came without an id; the email was claimed by 7 later, and 7 is b@x now."""
    log = Log()
    log.add(upsert("a@x", stripe="c"))
    assert log.of_alias(stripe="c") == Contact("a@x", None, (("stripe", "c"),))
    log.add(upsert("a@x", "7"))
    log.add(upsert("b@x", "7"))
    assert log.of_alias(stripe="c")[:2] == ("b@x", "7")


def test_an_alias_whose_email_passed_to_somebody_else_finds_nobody() -> None:
    """Whose it is cannot be told any more; a new upsert with it tells."""
    log = Log()
    log.add(upsert("a@x", stripe="c"))
    log.add(upsert("a@x", "7"))
    log.add(upsert("a@x", "8"))
    assert log.of_alias(stripe="c").email is None
    log.add(upsert("a@x", stripe="c"))
    assert log.of_alias(stripe="c")[:2] == ("a@x", "8")


def test_an_alias_of_an_id_alone_waits_for_its_email() -> None:
    log = Log()
    log.add(upsert(id="7", stripe="c"))
    assert log.of_alias(stripe="c").email is None
    log.add(upsert("a@x", "7"))
    assert log.of_alias(stripe="c")[:2] == ("a@x", "7")


def test_an_alias_of_another_alias_that_nobody_knows_is_not_kept() -> None:
    """Nothing could be found by it."""
    log = Log()
    log.add(upsert(stripe="c", paddle="d"))
    assert len(log.table) == 0


def test_learning_by_itself_takes_in_pairs_and_aliases_alike() -> None:
    """`learn` serves what seeds the table, with whatever names are at hand."""
    table = Identities()
    table.learn(Contact("a@x", None), P, 0)
    assert len(table) == 0
    table.learn(Contact("a@x", "7", (("stripe", "c"),)), P, 1)
    assert len(table) == 3


def test_the_first_alias_that_is_known_counts() -> None:
    log = Log()
    log.add(upsert("a@x", "7", stripe="c"))
    assert log.of_alias(paddle="unknown", stripe="c").email == "a@x"


def test_an_alias_of_somebody_else_fills_in_nothing_for_an_id() -> None:
    """The action names 9, of whom no email is known; 7's is not 9's."""
    log = Log()
    log.add(upsert("a@x", "7", stripe="c"))
    each = action(Kind.ENROLL, id="9", stripe="c")
    assert log.table.resolve(each) is each


def test_an_upsert_by_alias_teaches_its_further_aliases() -> None:
    log = Log()
    log.add(upsert("a@x", "7", stripe="c"))
    log.add(upsert(stripe="c", paddle="d"))
    assert log.of_alias(paddle="d")[:2] == ("a@x", "7")


# Read again


def test_a_record_that_is_read_again_undoes_nothing() -> None:
    log = rekeyed()
    log.table.learn(Contact("a@x", "7", (("stripe", "c"),)), P, 0)
    assert (log.email("a@x"), log.of_id("7")) == ("b@x", "b@x")
    log.add(upsert("a@x", "8"))
    log.table.learn(Contact("a@x", "7"), P, 0)
    assert log.email("a@x") == "a@x"


def test_an_upsert_that_is_read_again_does_not_rekey_its_contact_back() -> None:
    """It carries its fields to the present email, and what it says of the former one counts for order alone."""
    log = rekeyed()
    again = log.table.admit(upsert("a@x", "7"), P, 0)
    assert again.body == {"email": "b@x", "external_id": "7", "more": 1}
    assert again.contact == Contact("b@x", "7", also=("e:a@x",))


def test_it_stands_as_it_is_where_the_present_email_was_somebody_elses() -> None:
    """Read again, 7 goes before the upsert by which 8 left b@x: sent to b@x now, Meisa would refuse it."""
    log = Log()
    log.add(upsert("b@x", "8"))
    log.add(upsert("a@x", "7"))
    log.add(upsert("c@x", "8"))
    log.add(upsert("b@x", "7"))
    assert log.table.admit(upsert("a@x", "7"), P, 1).body["email"] == "a@x"


def test_an_alias_that_is_read_again_does_not_go_back_to_its_former_owner() -> None:
    log = Log()
    log.add(upsert("a@x", "7", stripe="c"))
    log.add(upsert("b@x", "8", stripe="c"))
    log.table.learn(Contact("a@x", "7", (("stripe", "c"),)), P, 0)
    assert log.of_alias(stripe="c")[:2] == ("b@x", "8")


def test_it_undoes_nothing_that_another_partition_said_since() -> None:
    """Between partitions the last to arrive wins; a second arrival is no arrival."""
    log = Log()
    log.add(upsert("a@x", "7"), to=P)
    log.add(upsert("b@x", "7"), to=Q)
    log.table.learn(Contact("a@x", "7"), P, 0)
    assert log.of_id("7") == "b@x"
    log.add(upsert("a@x", "7"), to=P)
    assert log.of_id("7") == "a@x"


def test_a_record_may_speak_twice_of_one_person() -> None:
    """Its second word counts, also when it is read again."""
    log = Log()
    for _ in range(2):
        log.add(upsert("a@x", "7"), upsert("b@x", "7"))
        log.ends[P] = 0
        assert log.of_id("7") == "b@x"


def test_offsets_that_begin_anew_are_believed() -> None:
    """The topic was recreated: its small offsets are no old ones. Another partition's marks stay."""
    log = Log()
    for _ in range(5):
        log.add(upsert("a@x", "7"), to=P)
    log.add(upsert("q@x", "8"), upsert("r@x", "8"), to=Q)
    log.table.restarted(P)
    log.table.learn(Contact("b@x", "7"), P, 0)
    assert log.of_id("7") == "b@x"
    log.ends[Q] = 7
    log.add(upsert("s@x", "8"), to=Q)
    log.table.learn(Contact("r@x", "8"), Q, 0)
    assert log.of_id("8") == "s@x"


# Bounds


def test_memory_is_bounded_and_the_least_used_go() -> None:
    """Of twenty people the present emails of the last are known; a forgotten one stays as it came."""
    log = rekeyed(entries_max=6)
    for number in range(20):
        assert log.email("a@x") == "b@x", "in use, so kept"
        log.add(upsert(f"{number}@x", f"n{number}"))
    assert len(log.table) == 6
    assert log.of_id("n19") == "19@x" and log.of_id("n0") is None
    for number in range(20):
        log.add(upsert(f"{number}@x", f"n{number}"))
    assert log.email("a@x") == "a@x"


def test_half_forgotten_people_are_left_alone() -> None:
    """Without the id's register, or that of its present email, nothing is certain: names stay as they came."""
    for forgotten in ("x:7", "e:b@x"):
        log = rekeyed(entries_max=3)
        log.table.resolve(action(Kind.TRACK, "a@x", "nobody"))  # looks at a@x alone
        if forgotten == "x:7":
            log.table.resolve(action(Kind.TRACK, "b@x", "nobody"))
        else:
            log.table.refused(Contact("b@x", "7"), Q, 9)
        log.table.learn(Contact(None, "8", (("n", "1"),)), Q, 0)
        assert forgotten not in log.table._entries
        assert log.email("a@x") == "a@x"


def test_an_alias_of_a_forgotten_id_knows_what_it_came_with() -> None:
    log = Log(entries_max=3)
    log.add(upsert("a@x", "7", stripe="c"))
    log.table.learn(Contact(None, "8", (("n", "1"),)), P, 1)
    log.table.learn(Contact(None, "8", (("n", "2"),)), P, 1)
    assert log.of_alias(stripe="c")[:2] == ("a@x", "7")
    assert log.of_id("7") is None


def test_an_entry_remembers_few_partitions() -> None:
    """A person's records come from one or two; of more the last ones count."""
    table = Identities()
    for number in range(PLACES_MAX + 1):
        table.learn(Contact(f"{number}@x", "7"), TopicPartition("t", number), 5)
    table.learn(Contact("again@x", "7"), TopicPartition("t", 1), 4)
    assert table.resolve(action(Kind.ENROLL, id="7")).contact.email == f"{PLACES_MAX}@x"
    table.learn(Contact("again@x", "7"), TopicPartition("t", 0), 4)
    assert table.resolve(action(Kind.ENROLL, id="7")).contact.email == "again@x"


def test_a_table_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Identities(entries_max=0)


# Forgetting


def test_forgetting_a_person_erases_all_its_names() -> None:
    """By its former email as by its present one, with aliases; nobody else's."""
    for email in (" A@x", "b@x"):
        log = Log()
        log.add(upsert("a@x", "7", stripe="c"))
        log.add(upsert("b@x", "7"))
        log.add(upsert("z@x", "8", stripe="d"))
        assert len(asyncio.run(log.table.forget(email)).registers) == 4
        assert log.of_id("7") is None and log.email("a@x") == "a@x" and log.of_alias(stripe="c").email is None
        assert log.of_id("8") == log.of_alias(stripe="d").email == "z@x"
        assert "7" not in repr(log.table._entries.items()).replace("7)", "")
        assert len(asyncio.run(log.table.forget(email)).registers) == 0


def test_forgetting_leaves_to_others_what_they_have_claimed_since() -> None:
    """a@x is 8's; that it was 7's once is forgotten, that it had another owner is not: an alias could be either's."""
    log = Log()
    log.add(upsert("a@x", stripe="c"))
    log.add(upsert("a@x", "seven"))
    log.add(upsert("b@x", "seven"))
    log.add(upsert("a@x", "8"))
    assert len(asyncio.run(log.table.forget("b@x")).registers) == 2
    assert "seven" not in repr(log.table._entries)
    assert log.of_id("8") == "a@x" and log.of_alias(stripe="c").email is None


def test_forgetting_an_email_erases_who_was_last_said_to_have_it() -> None:
    """Two ids were given it; and an alias that came with it alone."""
    log = Log()
    log.add(upsert("b@x", "7"))
    log.add(upsert("b@x", "8"))
    assert len(asyncio.run(log.table.forget("b@x")).registers) == 3
    assert len(log.table) == 0
    log.add(upsert("c@x", stripe="c"))
    assert len(asyncio.run(log.table.forget("c@x")).registers) == 1


def stored(store: MemoryStore) -> dict[str, bytes | None]:
    return {name: store.get(name) for name in ("x:7", "e:a@x", "e:b@x")}


def test_what_was_said_before_is_not_written_again() -> None:
    """A third upsert with the same names leaves the store as it was; one that says something else does not."""
    log = Log()
    store = MemoryStore()
    log.table = Identities(store=store)
    log.add(upsert("a@x", "7"))
    log.add(upsert("a@x", "7"))
    before = stored(store)
    log.add(upsert("a@x", "7"))
    assert stored(store) == before
    log.add(upsert("b@x", "7"))
    assert stored(store) != before and log.of_id("7") == "b@x"


@pytest.mark.parametrize("between", [upsert("a@x", "8"), upsert("b@x", "7"), upsert("A@x", "7")])
@pytest.mark.parametrize("to", [P, Q])
def test_what_others_said_since_is_answered(between: Action, to: TopicPartition) -> None:
    """An upsert that somebody contradicted meanwhile counts again, from wherever that came."""
    log = Log()
    for _ in range(3):
        log.add(upsert("a@x", "7"))
    log.add(between, to=to)
    log.add(upsert("a@x", "7"))
    assert log.of_id("7") == "a@x"
    assert log.email("a@x") == "a@x"


def test_a_repeated_word_moves_the_marks() -> None:
    """What stands in the log before it, and was never told (its rule failed), undoes nothing when it is replayed."""
    table = Identities()
    for offset in (0, 1, 2, 9):
        table.admit(upsert("b@x", "7"), P, offset)
    table.admit(upsert("a@x", "7"), P, 5)
    assert table.resolve(action(Kind.ENROLL, id="7")).contact.email == "b@x"
    table.admit(upsert("a@x", "7"), P, 10)
    assert table.resolve(action(Kind.ENROLL, id="7")).contact.email == "a@x"


def test_what_a_refusal_left_uncertain_is_cleared_by_the_next_word() -> None:
    """Meisa takes what it refused before: from then on the former email leads to the present one."""
    log = rekeyed()
    log.table.refused(Contact("b@x", "7"), P, 1)
    assert log.email("a@x") == "a@x"
    log.add(upsert("b@x", "7"))
    assert log.email("a@x") == "b@x"


def test_rehearsing_teaches_nothing() -> None:
    """What is only tried out moves no mark."""
    store = MemoryStore()
    table = Identities(store=store)
    for offset in range(3):
        table.admit(upsert("b@x", "7"), P, offset)
    assert table.lacking(lambda: table.admit(upsert("b@x", "7"), P, 9)) == set()
    table.admit(upsert("a@x", "7"), P, 5)
    assert table.resolve(action(Kind.ENROLL, id="7")).contact.email == "a@x"


def test_an_event_that_says_what_was_imported_makes_it_the_logs_word() -> None:
    """What is imported later replaces nothing that an event has said."""
    log = Log()
    assert log.table.seed(Contact("a@x", "7"))
    log.add(upsert("a@x", "7"))
    log.table.seed(Contact("b@x", "7"))
    assert log.of_id("7") == "a@x"


def test_what_another_partition_repeats_does_not_let_older_records_speak_again() -> None:
    """The marks of both partitions stay: a record that is read again still says nothing new."""
    log = Log()
    for _ in range(3):
        log.add(upsert("a@x", "7"))
    log.add(upsert("a@x", "7"), to=Q)
    log.table.admit(upsert("a@x", "7"), P, 0)
    log.table.admit(upsert("b@x", "7"), P, 1)
    assert log.of_id("7") == "a@x"
