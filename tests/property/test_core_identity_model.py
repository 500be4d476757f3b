"""The identity table against what the whole history says, and against logs that are read again."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.identity import Identities
from bridge.model import Action, Contact, Kind, TopicPartition

IDS = ["7", "8", "9"]
EMAILS = ["a@x", "b@x", "c@x", "d@x"]
PAIRS = st.tuples(st.sampled_from(IDS), st.sampled_from(EMAILS))
P = TopicPartition("users", 0)
PARTITIONS = [P, TopicPartition("users", 1), TopicPartition("billing", 0)]


def upsert(pair: tuple[str, str]) -> Action:
    return Action(Kind.UPSERT, "rule", 0, {"external_id": pair[0], "email": pair[1]}, Contact(pair[1], pair[0]))


def resolved(table: Identities, email: str) -> str | None:
    return table.resolve(Action(Kind.TRACK, "rule", 0, {"email": email}, Contact(email))).contact.email


def filled(table: Identities, id: str) -> str | None:
    return table.resolve(Action(Kind.ENROLL, "rule", 0, {}, Contact(None, id))).contact.email


def answers(table: Identities) -> list[str | None]:
    return [resolved(table, email) for email in EMAILS] + [filled(table, id) for id in IDS]


def last_email(history: list[tuple[str, str]], id: str) -> str | None:
    return next((email for each, email in reversed(history) if each == id), None)


def expected(history: list[tuple[str, str]], email: str) -> str:
    """Whose the email was last, and which one that id has now, if nobody else has or had it then."""
    owner = next((id for id, each in reversed(history) if each == email), None)
    if owner is None:
        return email
    present = last_email(history, owner)
    assert present is not None
    if next(id for id, each in reversed(history) if each == present) != owner:
        return email
    given_at = max(at for at, (id, _) in enumerate(history) if id == owner)
    before = history[:given_at]
    rival = next((id for id, each in reversed(before) if each == present and id != owner), None)
    if rival is not None and last_email(before, rival) == present:
        return email
    return present


@given(st.lists(PAIRS, max_size=12))
def test_the_table_says_what_the_history_says(history: list[tuple[str, str]]) -> None:
    """After any upserts with id and email, each email leads where the whole history, looked through, leads it."""
    table = Identities()
    for offset, pair in enumerate(history):
        table.admit(upsert(pair), P, offset)
    for email in EMAILS:
        assert resolved(table, email) == expected(history, email)
    for id in IDS:
        assert filled(table, id) == last_email(history, id)


@given(st.lists(st.tuples(st.sampled_from(PARTITIONS), PAIRS), max_size=15), st.data())
def test_what_is_read_again_changes_no_answer(
    log: list[tuple[TopicPartition, tuple[str, str]]], data: st.DataObject
) -> None:
    """Any end of any partition, read again in order and as often as one likes, leaves every answer as it was."""
    table = Identities()
    read: dict[TopicPartition, list[tuple[str, str]]] = {partition: [] for partition in PARTITIONS}
    for partition, pair in log:
        table.admit(upsert(pair), partition, len(read[partition]))
        read[partition].append(pair)
    before = answers(table)
    for partition in data.draw(st.lists(st.sampled_from(PARTITIONS), max_size=3)):
        begin = data.draw(st.integers(0, len(read[partition])))
        for offset in range(begin, len(read[partition])):
            table.admit(upsert(read[partition][offset]), partition, offset)
        assert answers(table) == before


@given(st.lists(PAIRS, max_size=12), st.sampled_from(EMAILS))
def test_no_email_leads_to_an_id_that_never_had_it(history: list[tuple[str, str]], email: str) -> None:
    """Contacts are never merged: where an email leads is an email that one and the same id was given, and still has."""
    table = Identities()
    for offset, pair in enumerate(history):
        table.admit(upsert(pair), P, offset)
    found = resolved(table, email)
    if found != email:
        assert any((id, email) in history and last_email(history, id) == found for id in IDS)


@given(st.lists(PAIRS, max_size=12), st.sampled_from(EMAILS), st.integers(1, 4))
def test_a_small_table_never_leads_anywhere_else(history: list[tuple[str, str]], email: str, entries_max: int) -> None:
    """What is forgotten resolves less, never differently: at worst a name stays as it came."""
    table = Identities(entries_max=entries_max)
    for offset, pair in enumerate(history):
        table.admit(upsert(pair), P, offset)
    found = resolved(table, email)
    assert found == email or any((id, email) in history and last_email(history, id) == found for id in IDS)


@given(st.lists(PAIRS, max_size=12), st.sampled_from(EMAILS))
def test_who_is_forgotten_is_nowhere(history: list[tuple[str, str]], email: str) -> None:
    """Neither the email nor the id that claimed it last stands anywhere in the table."""
    table = Identities()
    for offset, pair in enumerate(history):
        table.admit(upsert(pair), P, offset)
    owner = next((id for id, each in reversed(history) if each == email), None)
    asyncio.run(table.forget(email))
    kept = repr(table._entries)
    assert email not in kept
    assert owner is None or (f"'{owner}'" not in kept and f"x:{owner}" not in kept)
