"""The audit is the demo's and the crash tests' judge: it must catch every kind of lie, and believe the truth."""

import ast
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from bridge.sandbox import audit as audit_module
from bridge.sandbox.audit import (
    CARRIED_FIELDS,
    EXPECTED_CALLS,
    EXPECTED_LETTERS,
    EXPECTED_TAGS,
    Audit,
    DeadLetter,
    audit,
)
from bridge.sandbox.stream import POISONS, SampleEvent, events

Entry = dict[str, Any]

STREAM = list(events(11, 600, 30, poison=10, now_wall_seconds=1_780_000_000.0))
PARTS = {"upsert": "custom_fields", "track": "properties", "trigger": "variables", "enroll": "metadata"}


def kind(event: SampleEvent) -> str:
    return str(orjson.loads(event.value)["type"])


def call(endpoint: str, event: SampleEvent, **changed: Any) -> Entry:
    """The ledger's entry for a call that a faithful bridge makes for this event."""
    data = orjson.loads(event.value)["data"]
    email = "to_email" if endpoint == "trigger" else "email"
    said = CARRIED_FIELDS.get(kind(event), ()) if endpoint == "upsert" else ()
    body: Entry = {email: data["email"], PARTS[endpoint]: {"seq": event.sequence, **{n: data[n] for n in said}}}
    return {"endpoint": endpoint, "status": 200, "carried_out": True, "repeated": False, "body": body, **changed}


def tag(endpoint: str) -> Entry:
    """Tag calls name a contact by id only: they carry neither user nor number."""
    return {"endpoint": endpoint, "status": 200, "carried_out": True, "body": {"tag_name": "paying"}}


def truth() -> tuple[list[Entry], list[DeadLetter]]:
    """What the sandbox and the dead-letter topic hold when everything went as it should."""
    ledger: list[Entry] = [{"endpoint": "ping", "status": 200, "carried_out": True, "body": None}]
    letters = []
    tagged: set[str] = set()
    for event in STREAM:
        if event.poison is not None:
            letters.append(DeadLetter(event.value, EXPECTED_LETTERS[event.poison], "as it should be"))
            if event.poison == "refused_address":
                ledger.append({"endpoint": "upsert", "status": 400, "carried_out": False, "body": {"email": "x"}})
            continue
        ledger += [call(endpoint, event) for endpoint in EXPECTED_CALLS[kind(event)]]
        endpoint = EXPECTED_TAGS.get(kind(event))
        if endpoint == "remove_tag" or (endpoint == "add_tag" and event.user not in tagged):
            ledger.append(tag(endpoint))
        if endpoint is not None:
            (tagged.add if endpoint == "add_tag" else tagged.discard)(event.user)
    return ledger, letters


def judged(change: Callable[[list[Entry], list[DeadLetter]], None] = lambda ledger, letters: None) -> Audit:
    ledger, letters = truth()
    change(ledger, letters)
    return audit(STREAM, ledger, letters)


def first(ledger: list[Entry], endpoint: str) -> int:
    return next(at for at, entry in enumerate(ledger) if entry["endpoint"] == endpoint and entry["carried_out"])


def of_one_user(ledger: list[Entry]) -> list[int]:
    """Places of the upserts of the busiest user, in order."""
    by_email: dict[str, list[int]] = {}
    for at, entry in enumerate(ledger):
        if entry["endpoint"] == "upsert" and entry["carried_out"]:
            by_email.setdefault(entry["body"]["email"], []).append(at)
    return max(by_email.values(), key=len)


def test_the_stream_holds_every_kind_that_the_audit_knows() -> None:
    """Else the tests below would prove nothing of the kinds that are missing."""
    kinds = {kind(event) for event in STREAM if event.poison is None}
    assert kinds == set(EXPECTED_CALLS)
    assert {event.poison for event in STREAM} == {None, *POISONS} == {None, *EXPECTED_LETTERS}


def test_a_clean_ledger_agrees() -> None:
    found = judged()
    assert found.agrees
    assert (found.lost, found.out_of_order, found.repeated, found.emails_twice, found.wrong_letters) == ([],) * 5
    assert found.events == 600
    assert sum(found.letters.values()) == 10
    assert found.refused == {"upsert 400": 2}
    assert found.calls["upsert"] > found.calls["trigger"] > 0


@pytest.mark.parametrize("endpoint", ["upsert", "track", "trigger", "enroll"])
def test_a_lost_call_is_lost(endpoint: str) -> None:
    """The first upsert is a sign-up's: an email follows, so no later upsert can have carried it."""
    found = judged(lambda ledger, letters: ledger.pop(first(ledger, endpoint)) and None)
    assert not found.agrees
    assert len(found.lost) == 1
    assert f": {endpoint} of event " in found.lost[0]


@pytest.mark.parametrize("endpoint", ["upsert", "track", "trigger", "enroll"])
def test_a_call_that_was_only_refused_is_lost(endpoint: str) -> None:
    """An error answer, and a connection cut before the call was carried out, deliver nothing."""
    for status in (503, 0):

        def refuse(ledger: list[Entry], letters: list[DeadLetter], status: int = status) -> None:
            ledger[first(ledger, endpoint)].update(status=status, carried_out=False)

        found = judged(refuse)
        assert not found.agrees
        assert len(found.lost) == 1


def test_a_refused_attempt_before_the_delivery_is_no_loss() -> None:
    """503, then 200: nothing is missing, and nothing came twice."""

    def retry(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        at = first(ledger, "upsert")
        ledger.insert(at, {**ledger[at], "status": 503, "carried_out": False})

    found = judged(retry)
    assert found.agrees
    assert found.repeated == []
    assert found.refused["upsert 503"] == 1


@pytest.mark.parametrize("endpoint", ["add_tag", "remove_tag"])
def test_missing_tags_are_lost(endpoint: str) -> None:
    found = judged(lambda ledger, letters: ledger.pop(first(ledger, endpoint)) and None)
    assert not found.agrees
    assert found.lost == [f"1 of {judged().calls[endpoint]} {endpoint} calls never came"]


def test_a_tag_that_its_user_has_needs_no_call() -> None:
    """It is told as unchanged; said once more it does no harm."""
    again = sum(EXPECTED_TAGS.get(kind(event)) == "add_tag" for event in STREAM if event.poison is None)
    again -= judged().calls["add_tag"]
    assert again > 0
    assert judged().unchanged == again
    found = judged(lambda ledger, letters: ledger.append(tag("add_tag")))
    assert found.agrees
    assert found.unchanged == again - 1


def adder() -> Entry:
    """The first upsert of an event that adds the tag."""
    event = next(event for event in STREAM if event.poison is None and EXPECTED_TAGS.get(kind(event)) == "add_tag")
    return call("upsert", event)


def test_a_tag_of_somebody_else_is_none_of_this_user() -> None:
    """Each user who is to have it gets it: one too many does not make up for another's."""

    def merge(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        ledger[:] = [entry for entry in ledger if entry["endpoint"] != "add_tag"]
        own = ledger[ledger.index(adder())]
        own["body"]["tag_names"] = ["paying"]
        ledger += [{"endpoint": "upsert", "status": 200, "carried_out": True, "body": {**own["body"]}}] * 50

    assert not judged(merge).agrees


@pytest.mark.parametrize("shared", [True, False])
def test_a_tag_that_rode_on_an_upsert_came(shared: bool) -> None:
    """`add_tag` may travel in an upsert's tag_names: in one of its own, or in that of another event."""

    def merge(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        ledger.pop(first(ledger, "add_tag"))
        own = ledger[ledger.index(adder())]
        if shared:
            own["body"]["tag_names"] = ["trial", "paying"]
        else:
            tagging = {"email": own["body"]["email"], "tag_names": ["paying"]}
            ledger.append({"endpoint": "upsert", "status": 200, "carried_out": True, "body": tagging})

    assert judged(merge).agrees


def test_an_upsert_with_other_tags_is_no_tag_that_came() -> None:
    """Sign-ups have tags of their own."""

    def lose(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        ledger.pop(first(ledger, "add_tag"))
        ledger[first(ledger, "upsert")]["body"]["tag_names"] = ["trial"]

    assert not judged(lose).agrees


def test_calls_out_of_order_are_found() -> None:
    """Two calls of one user in the wrong order, whatever stands between them."""

    def swap(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        one, two = of_one_user(ledger)[3:5]
        ledger[one], ledger[two] = ledger[two], ledger[one]

    found = judged(swap)
    assert not found.agrees
    assert found.lost == []
    assert found.out_of_order


def test_an_email_before_an_earlier_events_upsert_is_out_of_order() -> None:
    """Order holds across endpoints too."""

    def early(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        at = max(at for at, entry in enumerate(ledger) if entry["endpoint"] == "trigger")
        late = ledger.pop(at)
        email = late["body"]["to_email"]
        places = [n for n, entry in enumerate(ledger) if (entry["body"] or {}).get("email") == email]
        assert places[0] < at
        ledger.insert(places[0], late)

    found = judged(early)
    assert not found.agrees
    assert found.out_of_order


def test_users_are_independent_of_each_other() -> None:
    """Order across people is nobody's promise: any interleaving of whole users agrees."""
    ledger, letters = truth()

    def user(entry: Entry) -> str:
        body = entry["body"] or {}
        return str(body.get("email") or body.get("to_email") or "")

    shuffled = [entry for _, group in itertools.groupby(sorted(ledger, key=user), key=user) for entry in group]
    assert shuffled != ledger
    assert audit(STREAM, shuffled, letters).agrees


@pytest.mark.parametrize("endpoint", ["upsert", "track", "enroll"])
def test_a_repeated_call_is_told_but_allowed(endpoint: str) -> None:
    """A crash may repeat what has no key at Meisa; the summary says how often."""

    def repeat(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        at = first(ledger, endpoint)
        ledger.insert(at, dict(ledger[at]))

    found = judged(repeat)
    assert found.agrees
    assert len(found.repeated) == 1
    assert found.emails_twice == []


def test_a_doubled_email_is_never_allowed() -> None:
    def repeat(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        at = first(ledger, "trigger")
        ledger.insert(at, dict(ledger[at]))

    found = judged(repeat)
    assert not found.agrees
    assert len(found.emails_twice) == 1


def test_an_email_that_meisa_recognised_is_not_doubled() -> None:
    """The same idempotency key within the hour: answered again, no second email."""

    def repeat(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        at = first(ledger, "trigger")
        ledger.insert(at + 1, {**ledger[at], "repeated": True})

    found = judged(repeat)
    assert found.agrees
    assert found.repeated == []


def test_an_enrollment_that_runs_already_counts_as_delivered() -> None:
    def refuse(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        ledger[first(ledger, "enroll")].update(status=409, carried_out=False)

    assert judged(refuse).agrees


# Merged upserts


def in_a_row(*wanted: str) -> list[SampleEvent]:
    """Events of one user that follow each other directly and are of these types; the first such."""
    by_user: dict[str, list[SampleEvent]] = {}
    for event in STREAM:
        mine = by_user.setdefault(event.user, [])
        mine.append(event)
        tail = mine[-len(wanted) :]
        if all(each.poison is None for each in tail) and [kind(each) for each in tail] == list(wanted):
            return tail
    raise AssertionError(f"nobody has {wanted}")


def place(ledger: list[Entry], endpoint: str, event: SampleEvent) -> int:
    return ledger.index(call(endpoint, event))


def merging(run: list[SampleEvent], *, forgetting: str = "") -> Callable[[list[Entry], list[DeadLetter]], None]:
    """The run's upserts leave as one call, the newest's."""

    def merge(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        fields: Entry = {}
        for event in run[:-1]:
            fields |= ledger.pop(place(ledger, "upsert", event))["body"]["custom_fields"]
        newest = ledger[place(ledger, "upsert", run[-1])]
        newest["body"] = {**newest["body"], "custom_fields": {**fields, **newest["body"]["custom_fields"]}}
        newest["body"]["custom_fields"].pop(forgetting, None)

    return merge


LOG_IN, ONBOARDED = "user.logged_in", "onboarding.completed"


@pytest.mark.parametrize(
    "types",
    [
        (LOG_IN, LOG_IN),
        (LOG_IN, LOG_IN, LOG_IN, LOG_IN),
        (ONBOARDED, LOG_IN),
        (LOG_IN, ONBOARDED, LOG_IN),
        (LOG_IN, "plan.changed"),
        (LOG_IN, "invoice.payment_failed"),
    ],
)
def test_upserts_that_a_later_one_carried_came(types: tuple[str, ...]) -> None:
    """One call for all, the newest event's, with what the others had to say: nothing is lost, and each is counted."""
    found = judged(merging(in_a_row(*types)))
    assert found.agrees
    assert (found.lost, found.repeated, found.merged) == ([], [], len(types) - 1)
    assert found.calls["upsert"] == judged().calls["upsert"] - len(types) + 1
    assert judged().merged == 0


@pytest.mark.parametrize(
    ("types", "forgotten"),
    [
        ((ONBOARDED, LOG_IN), "onboarding_completed"),
        ((LOG_IN, ONBOARDED), "last_active"),
        ((LOG_IN, ONBOARDED, LOG_IN), "onboarding_completed"),
        ((LOG_IN, "plan.changed"), "signin_count"),
    ],
)
def test_an_upsert_that_the_next_one_does_not_carry_is_lost(types: tuple[str, ...], forgotten: str) -> None:
    """That a later upsert came is not enough: it has to say what the missing ones had to say."""
    run = in_a_row(*types)
    found = judged(merging(run, forgetting=forgotten))
    assert not found.agrees
    assert found.lost == [f"{event.user}: upsert of event {event.sequence} never came" for event in run[:-1]]
    assert found.merged == 0


def test_a_merged_call_with_an_older_events_value_is_a_loss() -> None:
    """Each field has the value of the last event that sets it."""
    run = in_a_row(LOG_IN, LOG_IN, ONBOARDED)

    def older(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        count = ledger[place(ledger, "upsert", run[0])]["body"]["custom_fields"]["signin_count"]
        merging(run)(ledger, letters)
        newest = next(
            e
            for e in ledger
            if (e["body"] or {}).get("custom_fields", {}).get("seq") == run[-1].sequence
            and e["body"]["email"] == orjson.loads(run[-1].value)["data"]["email"]
        )
        newest["body"]["custom_fields"]["signin_count"] = count

    assert not judged(older).agrees


@pytest.mark.parametrize(
    ("types", "barrier"),
    [
        ((LOG_IN, "invoice.paid", LOG_IN), "track"),
        (("invoice.payment_failed", LOG_IN), "trigger"),
        (("plan.changed", LOG_IN), "track"),
        (("subscription.canceled", LOG_IN), "enroll"),
    ],
)
def test_an_upsert_before_a_call_that_had_to_meet_it_is_lost(types: tuple[str, ...], barrier: str) -> None:
    """A track, an email or an enrollment stands between: a later upsert comes too late, whatever it says."""
    run = [event for event in in_a_row(*types) if "upsert" in EXPECTED_CALLS[kind(event)]]
    found = judged(merging(run))
    assert not found.agrees
    assert found.lost == [f"{run[0].user}: upsert of event {run[0].sequence} never came"]
    assert found.merged == 0


def test_a_users_last_upsert_cannot_have_been_carried() -> None:
    """Nothing of the user came after it; what comes of other people carries nothing."""
    ledger, letters = truth()
    last = max(of_one_user(ledger))
    number = ledger[last]["body"]["custom_fields"]["seq"]
    del ledger[last]
    found = audit(STREAM, ledger, letters)
    assert len(found.lost) == 1
    assert found.lost[0].endswith(f"upsert of event {number} never came")


def test_an_upsert_that_only_a_refused_call_carried_is_lost() -> None:
    """Both contributions of a call that was never carried out."""
    run = in_a_row(LOG_IN, LOG_IN)

    def refuse(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        newest = ledger[place(ledger, "upsert", run[-1])]
        merging(run)(ledger, letters)
        newest.update(status=503, carried_out=False)
        # The user's later upserts are gone too: nobody else can have carried it.
        ledger[:] = [e for e in ledger if e is newest or (e["body"] or {}).get("email") != newest["body"]["email"]]

    found = judged(refuse)
    for event in run:
        assert f"{event.user}: upsert of event {event.sequence} never came" in found.lost


def test_a_call_that_was_carried_before_is_a_repeat_and_sets_back() -> None:
    """Merged, and then alone once more: the contact has an older state for a moment."""
    run = in_a_row(LOG_IN, LOG_IN)

    def again(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        at = place(ledger, "upsert", run[-1])
        old = dict(ledger[place(ledger, "upsert", run[0])])
        merging(run)(ledger, letters)
        ledger.insert(at, old)  # one place further: the other one is gone

    found = judged(again)
    assert found.lost == []
    assert found.repeated == [f"{run[0].user}: upsert of event {run[0].sequence}"]
    assert found.out_of_order


def test_what_came_alone_and_then_within_a_merged_call_is_no_repeated_call() -> None:
    """After a crash: the first upsert once more, with a second one that is new. That call was needed."""
    run = in_a_row(ONBOARDED, LOG_IN)

    def again(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        at = place(ledger, "upsert", run[0])
        old = dict(ledger[at])
        merging(run)(ledger, letters)
        ledger.insert(at, old)

    found = judged(again)
    assert found.agrees
    assert (found.lost, found.repeated, found.merged) == ([], [], 0)


def test_a_good_event_among_the_dead_letters_is_wrong() -> None:
    good = next(event for event in STREAM if event.poison is None)
    found = judged(lambda ledger, letters: letters.append(DeadLetter(good.value, "rule", "so they say")))
    assert not found.agrees
    assert found.wrong_letters == ["a good event is a dead letter: rule: so they say"]


def test_a_strange_dead_letter_is_wrong() -> None:
    """Neither null nor something that nobody produced passes for one of ours."""
    for value in (None, b"", b"{}"):

        def add(ledger: list[Entry], letters: list[DeadLetter], value: bytes | None = value) -> None:
            letters.append(DeadLetter(value, "decode", "?"))

        assert not judged(add).agrees


@pytest.mark.parametrize("poison", POISONS)
def test_a_bad_event_that_is_no_dead_letter_is_lost(poison: str) -> None:
    bad = next(event for event in STREAM if event.poison == poison)

    def remove(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        letters[:] = [letter for letter in letters if letter.value != bad.value]

    found = judged(remove)
    assert not found.agrees
    assert found.lost == [f"{bad.user}: bad event {bad.sequence} is no dead letter"]


@pytest.mark.parametrize("poison", POISONS)
def test_a_dead_letter_of_the_wrong_kind_is_wrong(poison: str) -> None:
    bad = next(event for event in STREAM if event.poison == poison)

    def relabel(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        at = next(at for at, letter in enumerate(letters) if letter.value == bad.value)
        letters[at] = DeadLetter(bad.value, "exhausted", "guessed")

    found = judged(relabel)
    assert not found.agrees
    assert found.wrong_letters == [f"{poison} is a dead letter of kind exhausted: guessed"]


def test_a_bad_event_that_was_delivered_after_all_does_not_agree() -> None:
    """Its dead letter is missing then, whatever the ledger holds."""
    bad = next(event for event in STREAM if event.poison == "refused_address")

    def deliver(ledger: list[Entry], letters: list[DeadLetter]) -> None:
        ledger.append(call("upsert", bad))
        letters[:] = [letter for letter in letters if letter.value != bad.value]

    assert not judged(deliver).agrees


def test_an_empty_ledger_loses_everything() -> None:
    found = audit(STREAM, [], [])
    assert not found.agrees
    good = sum(event.poison is None for event in STREAM)
    assert len(found.lost) >= good + 10


def test_it_knows_nothing_of_the_bridge() -> None:
    """A judge that shared code with the accused would make the same mistakes: of this package it imports the stream of
    events only."""
    tree = ast.parse(Path(audit_module.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name for name in imported if name.startswith("bridge")} == {"bridge.sandbox.stream"}
