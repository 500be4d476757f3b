"""The dialogue of one action: what each answer means for it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from bridge.core.retry import FOREVER, Attempt, Policy, Reply, Wait, backoff, deliver
from bridge.model import Action, Call, Contact, Ending, Handling, Kind, LetterKind, Outcome, Result, Verdict

EVENT_WALL = 1_000_000.0
POLICY = Policy(backoff_seconds=1.0)

DELIVERED = Outcome(Verdict.DELIVERED, 200, detail="done", contact_id="c-1")
UNAVAILABLE = Outcome(Verdict.RETRY, 503, "unavailable")
NEVER_SENT = Outcome(Verdict.RETRY, None, "refused", "never_sent")
UNANSWERED = Outcome(Verdict.UNKNOWN, None, "timed out")
THROTTLED = Outcome(Verdict.THROTTLED, 429, "slow down")
REFUSED = Outcome(Verdict.REFUSED, 400, "bad field", data={"error": "bad field"})
NO_CONTACT = Outcome(Verdict.NEEDS_CONTACT, 404, "no such contact")
GONE = Outcome(Verdict.REFUSED, 404, "no such contact", "no_contact")
SUPPRESSED = Outcome(Verdict.REFUSED, 422, "unsubscribed", "suppressed")
KEY_REFUSED = Outcome(Verdict.KEY_REFUSED, 401, "invalid key")
SCOPE_MISSING = Outcome(Verdict.SCOPE_MISSING, 403, "lacks emails:trigger")


@dataclass
class World:
    """Facts that a test sets."""

    ids: dict[Contact, str] = field(default_factory=dict)
    healthy: bool = True
    known: dict[Contact, str] | None = None
    """Emails of those who lack one; None where there is no table that lasts."""

    def contact_id(self, contact: Contact) -> str | None:
        return self.ids.get(contact)

    def forget_contact_id(self, contact: Contact) -> None:
        self.ids.pop(contact, None)

    def filled(self, action: Action) -> Action | None:
        if self.known is None:
            return None
        email = self.known.get(action.contact)
        return action if email is None else replace(action, contact=action.contact._replace(email=email))

    def succeeded_since(self, endpoint: str, now: float) -> bool:
        return self.healthy

    def random(self) -> float:
        return 0.5


def action(kind: Kind, *, email: str | None = "a@example.com", external_id: str | None = None, **more: Any) -> Action:
    handling = Handling(**{name: more.pop(name) for name in list(more) if name in Handling.__slots__})
    return Action(kind, "rule", 0, more, Contact(email, external_id), handling)


class Talk:
    """A dialogue driven by hand on a clock that each answer moves."""

    def __init__(self, what: Action, world: World | None = None, policy: Policy = POLICY) -> None:
        self.dialogue = deliver(what, "id-1", EVENT_WALL, policy, world or World())
        self.now = 0.0
        self.result: Result | None = None
        self.attempts: list[Attempt] = []
        self.asks: list[float] = []
        """When (monotonic) it asked for its contact."""
        self.wait: Wait | None = None
        self._advance(lambda: next(self.dialogue))
        if self.wait is not None:
            assert self.wait.seconds == 0, "it asks at once"
            self.ask()

    def _advance(self, step: Callable[[], Attempt | Wait]) -> None:
        self.wait = None
        try:
            said = step()
        except StopIteration as end:
            self.result = end.value
            return
        if isinstance(said, Wait):
            self.wait = said
        else:
            self.attempts.append(said)

    def ask(self, times: int = 1) -> "Talk":
        """Lets so many of its waits pass."""
        for _ in range(times):
            assert self.wait is not None, "it waits for nobody"
            self.now += self.wait.seconds
            self.asks.append(self.now)
            self._advance(lambda: self.dialogue.send(Reply(None, self.now, EVENT_WALL + self.now)))
        return self

    @property
    def attempt(self) -> Attempt:
        return self.attempts[-1]

    def answer(self, *outcomes: Outcome | None, after: float = 0.0) -> "Talk":
        """Answers attempts as they come, each sent no earlier than it may be and answered `after` seconds later."""
        for outcome in outcomes:
            assert self.result is None, f"already ended: {self.result}"
            sent = max(self.now, self.attempt.not_before)
            self.now = sent + after
            self._advance(
                lambda outcome=outcome, sent=sent: self.dialogue.send(
                    Reply(outcome, self.now, EVENT_WALL + self.now, EVENT_WALL + sent)
                )
            )
        return self

    def waits(self) -> float:
        return max(0.0, self.attempt.not_before - self.now)

    def ended(self) -> Result:
        assert self.result is not None, "still talking"
        return self.result


def test_delivered_at_once() -> None:
    """One good answer ends an action."""
    result = Talk(action(Kind.UPSERT, email="a@example.com")).answer(DELIVERED).ended()
    assert (result.ending, result.status, result.attempts) == (Ending.DELIVERED, 200, 1)


def test_a_throttle_a_server_error_and_then_success() -> None:
    """429 → 503 → 200: the throttle is no attempt, the error is one and is waited for."""
    talk = Talk(action(Kind.UPSERT))
    talk.answer(THROTTLED)
    assert talk.waits() == 0.0, "the key is held back by its quota, not by the action"
    talk.answer(UNAVAILABLE)
    assert talk.waits() == 1.0
    assert talk.answer(DELIVERED).ended().attempts == 2


def test_a_refusal_is_final() -> None:
    """A 4xx fails again the same way: dead letter, with what was sent and answered."""
    result = Talk(action(Kind.UPSERT, first_name="x")).answer(REFUSED).ended()
    assert result.letter is LetterKind.REJECTED
    assert result.request == {"first_name": "x"}
    assert result.response == {"error": "bad field"}
    assert (result.status, result.message) == (400, "bad field")


def test_a_suppressed_address_is_not_a_dead_letter_unless_asked() -> None:
    """Meisa's own suppression list decides; `on_suppressed: dead_letter` opts out."""
    assert Talk(action(Kind.TRIGGER, trigger_key="k")).answer(SUPPRESSED).ended().ending is Ending.SUPPRESSED
    loud = action(Kind.TRIGGER, trigger_key="k", on_suppressed="dead_letter")
    assert Talk(loud).answer(SUPPRESSED).ended().letter is LetterKind.REJECTED


def test_a_trigger_carries_its_action_id_as_idempotency_key() -> None:
    """Every repeat of it carries the same key; a key that the rule gives goes first."""
    assert Talk(action(Kind.TRIGGER, trigger_key="k")).attempt.call.body == {
        "trigger_key": "k",
        "idempotency_key": "id-1",
    }
    own = Talk(action(Kind.TRIGGER, trigger_key="k", idempotency_key="mine"))
    assert own.attempt.call.body == {"trigger_key": "k", "idempotency_key": "mine"}


# Poison or outage


def test_exhausted_needs_attempts_age_and_others_success() -> None:
    """Ten attempts within seconds are not enough; nor is age alone."""
    policy = Policy(attempts=3, max_age_seconds=100.0, backoff_seconds=1.0, backoff_seconds_max=1.0)
    talk = Talk(action(Kind.UPSERT), policy=policy).answer(*[UNAVAILABLE] * 50)
    assert talk.result is None, "the attempts are used up, the age is not"
    talk.answer(*[UNAVAILABLE] * 51)
    result = talk.ended()
    assert result.letter is LetterKind.EXHAUSTED
    assert result.attempts == 101


def test_age_alone_does_not_exhaust() -> None:
    """A few slow failures are not ten attempts."""
    policy = Policy(attempts=3, max_age_seconds=10.0)
    talk = Talk(action(Kind.UPSERT), policy=policy).answer(UNAVAILABLE, UNAVAILABLE, after=60.0)
    assert talk.result is None
    assert talk.answer(UNAVAILABLE, after=60.0).ended().letter is LetterKind.EXHAUSTED


def test_an_outage_exhausts_nothing() -> None:
    """While nobody's call to the endpoint succeeds, the event is not to blame, however long it lasts."""
    world = World(healthy=False)
    talk = Talk(action(Kind.UPSERT), world, Policy(attempts=2, max_age_seconds=10.0))
    talk.answer(*[UNAVAILABLE] * 2_000)
    assert talk.result is None
    assert talk.answer(DELIVERED).ended().ending is Ending.DELIVERED


def test_waits_double_up_to_a_minute() -> None:
    """Half a second, one, two … sixty; give or take half, so that contacts do not come back in step."""
    policy = Policy()
    assert [backoff(failure, policy, lambda: 0.5) for failure in (1, 2, 3, 8, 5_000)] == [0.5, 1.0, 2.0, 60.0, 60.0]
    assert backoff(1, policy, lambda: 0.0) == 0.25
    assert backoff(1, policy, lambda: 0.999) < 0.75


def test_an_unanswered_upsert_or_track_is_repeated() -> None:
    """They are at least once: Meisa has no key for them, and losing them would be worse."""
    assert Talk(action(Kind.UPSERT)).answer(UNANSWERED, DELIVERED).ended().attempts == 2
    assert Talk(action(Kind.TRACK, event_name="e")).answer(UNANSWERED, DELIVERED).ended().attempts == 2


# Triggers in doubt


def trigger(**more: Any) -> Action:
    return action(Kind.TRIGGER, trigger_key="k", max_age_seconds=more.pop("max_age_seconds", None), **more)


def test_a_trigger_in_doubt_is_repeated_only_while_meisa_knows_its_key() -> None:
    """After the idempotency window a repeat would be a second email: a person decides."""
    talk = Talk(trigger())
    assert talk.attempt.not_after_wall == FOREVER
    talk.answer(UNANSWERED, after=10.0)
    assert talk.attempt.not_after_wall == EVENT_WALL + 3300.0, "counted from when it first left"
    result = talk.answer(None).ended()
    assert result.letter is LetterKind.UNKNOWN_OUTCOME
    assert result.attempts == 1


@pytest.mark.parametrize("clear", [THROTTLED, NEVER_SENT, KEY_REFUSED])
def test_no_later_answer_takes_a_doubt_back(clear: Outcome) -> None:
    """A throttle that answers the repeat says nothing about the first send."""
    talk = Talk(trigger()).answer(UNANSWERED, clear)
    assert talk.attempt.not_after_wall == EVENT_WALL + 3300.0


@pytest.mark.parametrize("harmless", [THROTTLED, NEVER_SENT, KEY_REFUSED, SCOPE_MISSING])
def test_an_attempt_known_to_be_unsent_raises_no_doubt(harmless: Outcome) -> None:
    """What was refused or never left cannot have sent an email."""
    assert Talk(trigger()).answer(harmless).attempt.not_after_wall == FOREVER


def test_a_server_error_on_a_trigger_raises_doubt() -> None:
    """A 5xx may come after the email was handed on."""
    assert Talk(trigger()).answer(UNAVAILABLE).attempt.not_after_wall == EVENT_WALL + 3300.0


def test_a_doubtful_trigger_is_never_called_exhausted() -> None:
    """`exhausted` would read as not sent."""
    talk = Talk(trigger(), policy=Policy(attempts=1, max_age_seconds=0.0))
    assert talk.answer(UNANSWERED).ended().letter is LetterKind.UNKNOWN_OUTCOME
    unsent = Talk(trigger(), policy=Policy(attempts=1, max_age_seconds=0.0))
    assert unsent.answer(NEVER_SENT).ended().letter is LetterKind.EXHAUSTED


def test_too_old_by_waiting_is_expired() -> None:
    """`max_age` counts from the event and is checked when the call is about to leave."""
    talk = Talk(trigger(max_age_seconds=60.0))
    assert talk.attempt.not_after_wall == EVENT_WALL + 60.0
    result = talk.answer(None).ended()
    assert result.letter is LetterKind.EXPIRED
    assert result.attempts == 0


def test_a_trigger_in_doubt_is_not_called_expired() -> None:
    """It may have been sent: the idempotency window counts, not the age."""
    talk = Talk(trigger(max_age_seconds=60.0)).answer(UNANSWERED)
    assert talk.attempt.not_after_wall == EVENT_WALL + 3300.0
    assert talk.answer(None).ended().letter is LetterKind.UNKNOWN_OUTCOME


# Keys and scopes


def test_a_refused_key_is_no_attempt_and_loses_nothing() -> None:
    """The action waits as it is until the key works."""
    talk = Talk(action(Kind.UPSERT)).answer(*[KEY_REFUSED] * 50)
    assert talk.result is None
    assert talk.answer(DELIVERED).ended().attempts == 1


def test_a_missing_scope_is_waited_for_and_then_rejected() -> None:
    """An hour for somebody to grant it."""
    talk = Talk(action(Kind.TRIGGER, trigger_key="k"), policy=Policy(scope_wait_seconds=100.0))
    talk.answer(*[SCOPE_MISSING] * 4)
    assert talk.waits() == 30.0
    result = talk.answer(SCOPE_MISSING).ended()
    assert (result.letter, result.status) == (LetterKind.REJECTED, 403)


# Contacts


def test_an_upsert_that_would_change_nothing_is_no_call() -> None:
    dialogue = deliver(action(Kind.UPSERT), "id", EVENT_WALL, POLICY, World())
    next(dialogue)
    with pytest.raises(StopIteration) as end:
        dialogue.send(Reply(Outcome(Verdict.SPARED, detail="unchanged"), 0.0, EVENT_WALL))
    assert end.value.value == Result(Ending.UNCHANGED, detail="unchanged")


def test_a_track_that_finds_nobody_sends_what_its_event_had_spared() -> None:
    """Meisa was believed to have it."""
    body = {"email": "a@example.com", "custom_fields": {"plan": "pro"}}
    dialogue = deliver(action(Kind.TRACK), "id", EVENT_WALL, POLICY, World(), spared_body=body)
    next(dialogue)
    attempt = dialogue.send(Reply(NO_CONTACT, 0.0, EVENT_WALL))
    assert isinstance(attempt, Attempt)
    assert (attempt.call.endpoint, attempt.call.body) == ("upsert", body)


def test_track_of_a_new_contact_upserts_it_and_tracks_again() -> None:
    """The 404's cure, once, under the names that the event has."""
    talk = Talk(action(Kind.TRACK, external_id="7", event_name="e"))
    talk.answer(NO_CONTACT)
    assert talk.attempt.call.endpoint == "upsert"
    assert talk.attempt.call.body == {"email": "a@example.com", "external_id": "7"}
    talk.answer(DELIVERED)
    assert talk.attempt.call.endpoint == "track"
    assert talk.answer(DELIVERED).ended().ending is Ending.DELIVERED


def test_a_contact_that_stays_missing_is_refused() -> None:
    """The second 404 is final: no endless exchange of upsert and track."""
    talk = Talk(action(Kind.TRACK, event_name="e")).answer(NO_CONTACT, DELIVERED, NO_CONTACT)
    assert talk.ended().letter is LetterKind.REJECTED


def test_a_contact_that_cannot_be_made_refuses_the_track() -> None:
    """The letter names the refusal of the upsert."""
    result = Talk(action(Kind.TRACK, event_name="e")).answer(NO_CONTACT, REFUSED).ended()
    assert (result.letter, result.status) == (LetterKind.REJECTED, 400)


def test_an_outage_while_the_contact_is_made_ends_like_any_outage() -> None:
    """The upsert in between follows the same rules."""
    talk = Talk(action(Kind.TRACK, event_name="e"), policy=Policy(attempts=1, max_age_seconds=0.0))
    assert talk.answer(NO_CONTACT, UNAVAILABLE).ended().letter is LetterKind.EXHAUSTED


@pytest.mark.parametrize(("email", "on_missing"), [(None, "upsert"), ("a@example.com", "wait")])
def test_track_waits_for_a_contact_it_cannot_make(email: str | None, on_missing: str) -> None:
    """Without an email, or told so, it asks again until `unknown_contact_after`."""
    what = action(Kind.TRACK, email=email, external_id="7", on_missing=on_missing, event_name="e")
    talk = Talk(what, policy=Policy(unknown_contact_seconds=12.0))
    talk.answer(NO_CONTACT)
    assert talk.waits() == 5.0
    talk.answer(NO_CONTACT, NO_CONTACT)
    assert talk.result is None
    assert talk.answer(NO_CONTACT).ended().letter is LetterKind.UNKNOWN_CONTACT


def test_track_dead_letters_an_unknown_contact_when_told_so() -> None:
    """`on_missing: dead_letter` asks once."""
    what = action(Kind.TRACK, event_name="e", on_missing="dead_letter")
    assert Talk(what).answer(NO_CONTACT).ended().letter is LetterKind.UNKNOWN_CONTACT


def test_a_refused_or_exhausted_track_ends() -> None:
    """Other refusals of a track are as final as anywhere."""
    assert Talk(action(Kind.TRACK, event_name="e")).answer(REFUSED).ended().letter is LetterKind.REJECTED
    talk = Talk(action(Kind.TRACK, event_name="e"), policy=Policy(attempts=1, max_age_seconds=0.0))
    assert talk.answer(UNAVAILABLE).ended().letter is LetterKind.EXHAUSTED


@pytest.mark.parametrize(
    "what",
    [
        action(Kind.UPSERT, email=None, external_id="7"),
        action(Kind.TRIGGER, email=None, external_id="7", trigger_key="k"),
        action(Kind.TRACK, email=None, event_name="e"),
        action(Kind.ADD_TAG, email=None, tag_name="t"),
    ],
)
def test_without_a_way_to_name_the_contact_nothing_is_sent(what: Action) -> None:
    """The endpoint needs an email that nobody knows."""
    result = Talk(what).ended()
    assert result.letter is LetterKind.UNKNOWN_CONTACT
    assert result.attempts == 0


UNNAMED = action(Kind.ENROLL, email=None, external_id="7", sequence_slug="s")


def test_an_unknown_contact_is_asked_for_until_its_time_is_over() -> None:
    """At once, then every few seconds, and exactly at the end; no call is made, and it is no attempt."""
    talk = Talk(UNNAMED, World(known={}), Policy(unknown_contact_seconds=12.0, contact_retry_seconds=5.0))
    talk.ask(3)
    assert talk.asks == [0.0, 5.0, 10.0, 12.0]
    assert not talk.attempts
    result = talk.ended()
    assert (result.ending, result.letter, result.attempts) == (
        Ending.DEAD_LETTERED,
        LetterKind.UNKNOWN_CONTACT,
        0,
    )
    assert result.request == {"sequence_slug": "s"}


@pytest.mark.parametrize("kind", [Kind.ENROLL, Kind.REMOVE_TAG, Kind.TRIGGER])
def test_a_contact_that_becomes_known_is_met(kind: Kind) -> None:
    """The action goes on as one that had the email from the beginning."""
    what = action(kind, email=None, external_id="7", tag_name="vip")
    world = World(known={})
    talk = Talk(what, world).ask(2)
    world.known = {what.contact: "late@example.com"}
    talk.ask()
    assert talk.attempt.call.endpoint in (kind.value, "upsert")
    if kind is Kind.REMOVE_TAG:
        assert talk.attempt.call.body == {"email": "late@example.com", "external_id": "7"}
        talk.answer(DELIVERED)
    assert talk.answer(DELIVERED).ended().ending is Ending.DELIVERED


def test_what_its_endpoint_can_name_waits_for_nobody() -> None:
    """A track by external_id, and a tag whose contact's id at Meisa is known."""
    assert Talk(action(Kind.TRACK, email=None, external_id="7", event_name="e"), World(known={})).attempts
    tag = action(Kind.REMOVE_TAG, email=None, external_id="7", tag_name="v")
    assert Talk(tag, World(ids={tag.contact: "c-1"}, known={})).attempts


def test_a_tag_whose_contact_is_gone_and_has_no_email_is_dead_lettered() -> None:
    """The id at Meisa that was known is nobody's any more, and without an email no upsert can learn it anew."""
    tag = action(Kind.REMOVE_TAG, email=None, external_id="7", tag_name="v")
    result = Talk(tag, World(ids={tag.contact: "c-1"}, known={})).answer(GONE).ended()
    assert result.letter is LetterKind.UNKNOWN_CONTACT


# Tags


@pytest.mark.parametrize("known", [{}, {Contact("a@example.com"): "c-9"}])
def test_a_tag_rides_on_an_upsert_where_the_email_is_known(known: dict[Contact, str]) -> None:
    """One call, whether or not Meisa's id is known: upsert adds tags, and what waits of the contact may join it."""
    talk = Talk(action(Kind.ADD_TAG, tag_name="vip"), World(known))
    assert talk.attempt.call.endpoint == "upsert"
    assert talk.attempt.call.body == {"email": "a@example.com", "tag_names": ["vip"]}
    assert talk.answer(DELIVERED).ended().ending is Ending.DELIVERED


def test_a_doubt_that_is_a_guess_does_not_outlive_the_events_age() -> None:
    """Nobody knows whether it ever left: both the idempotency window and its `max_age` bound it."""
    for max_age, limit in ((100.0, EVENT_WALL + 100.0), (1e9, EVENT_WALL + POLICY.idempotency_window_seconds)):
        what = action(Kind.TRIGGER, trigger_key="k", max_age_seconds=max_age)
        attempt = next(deliver(what, "id-1", EVENT_WALL, POLICY, World(), "default", EVENT_WALL, unsure=True))
        assert (attempt.not_after_wall, attempt.in_doubt) == (limit, True)


def test_a_call_that_is_spared_is_no_attempt() -> None:
    """It was never made: a letter about it counts none."""
    spared = Outcome(Verdict.SPARED, message="on the list", detail="suppressed")
    result = Talk(action(Kind.TRIGGER, trigger_key="k")).answer(spared).ended()
    assert (result.ending, result.attempts, result.status) == (Ending.SUPPRESSED, 0, None)
    result = Talk(action(Kind.TRIGGER, trigger_key="k", on_suppressed="dead_letter")).answer(spared).ended()
    assert (result.letter, result.message, result.attempts) == (LetterKind.REJECTED, "on the list", 0)


def test_a_tag_that_may_share_no_call_still_needs_one_only() -> None:
    """`coalesce: false`: by Meisa's id where that is known, else by an upsert of its own."""
    what = action(Kind.ADD_TAG, tag_name="vip", coalesce=False)
    assert Talk(what).answer(REFUSED).ended().letter is LetterKind.REJECTED
    talk = Talk(what, World({what.contact: "c-9"}))
    assert (talk.attempt.call.endpoint, talk.attempt.call.contact_id) == ("add_tag", "c-9")
    talk = Talk(what)
    assert talk.attempt.call.body == {"email": "a@example.com", "tag_names": ["vip"]}
    assert talk.answer(DELIVERED).ended().ending is Ending.DELIVERED


def test_a_known_contact_is_tagged_by_its_id() -> None:
    """The tag endpoints want the id that an upsert returned."""
    what = action(Kind.REMOVE_TAG, tag_name="vip")
    talk = Talk(what, World({what.contact: "c-9"}))
    assert (talk.attempt.call.endpoint, talk.attempt.call.contact_id) == ("remove_tag", "c-9")
    assert talk.answer(DELIVERED).ended().ending is Ending.DELIVERED


@pytest.mark.parametrize("what", [action(Kind.REMOVE_TAG, tag_name="v"), action(Kind.ADD_TAG, tag_id="t-1")])
def test_a_tag_that_cannot_ride_learns_the_id_by_an_upsert(what: Action) -> None:
    """An upsert that changes nothing fires nothing, and tells the id."""
    talk = Talk(what)
    assert talk.attempt.call.endpoint == "upsert"
    talk.answer(DELIVERED)
    assert (talk.attempt.call.endpoint, talk.attempt.call.contact_id) == (what.kind, "c-1")
    assert talk.answer(DELIVERED).ended().ending is Ending.DELIVERED


def test_a_stale_id_is_learned_anew_once() -> None:
    """The contact may have been merged or made again under another id."""
    what = action(Kind.REMOVE_TAG, tag_name="v")
    world = World({what.contact: "old"})
    talk = Talk(what, world).answer(GONE)
    assert talk.attempt.call.endpoint == "upsert"
    talk.answer(DELIVERED, GONE)
    assert (talk.ended().letter, talk.ended().status) == (LetterKind.REJECTED, 404)


def test_refusals_and_outages_of_tags_end_like_all_others() -> None:
    """At the upsert that learns the id, and at the tag's own endpoint."""
    what = action(Kind.REMOVE_TAG, tag_name="v")
    assert Talk(what).answer(REFUSED).ended().letter is LetterKind.REJECTED
    known = World({what.contact: "c-9"})
    assert Talk(what, known).answer(REFUSED).ended().letter is LetterKind.REJECTED
    quick = Policy(attempts=1, max_age_seconds=0.0)
    assert Talk(what, policy=quick).answer(UNAVAILABLE).ended().letter is LetterKind.EXHAUSTED
    assert Talk(what, known, quick).answer(UNAVAILABLE).ended().letter is LetterKind.EXHAUSTED


def test_an_upsert_that_tells_no_id_is_a_dead_letter() -> None:
    """Without the id the tag cannot be named; guessing would tag somebody else."""
    result = Talk(action(Kind.REMOVE_TAG, tag_name="v")).answer(DELIVERED._replace(contact_id=None)).ended()
    assert result.letter is LetterKind.REJECTED
    assert "id" in result.message


def test_an_attempt_is_too_late_outside_its_span_of_wall_time() -> None:
    """After its limit; in doubt also before the time at which clocks could still agree on the mark's age."""
    attempt = Attempt(Call("trigger"), 0.0, not_after_wall=100.0, not_before_wall=10.0)
    assert [attempt.too_late(0.0, wall) for wall in (9.0, 10.0, 100.0, 101.0)] == [True, False, False, True]
    assert not Attempt(Call("upsert"), 0.0).too_late(1e18, 1e18)


@pytest.mark.parametrize(("max_age", "limit"), [(60.0, EVENT_WALL + 60.0), (None, EVENT_WALL - 100.0 + 3300.0)])
def test_what_perhaps_never_left_may_not_leave_when_it_is_too_old_either(max_age: float | None, limit: float) -> None:
    """A former owner may have sent it, nobody knows: its key and its own age both bound it; then it is parked."""
    what = action(Kind.TRIGGER, max_age_seconds=max_age)
    talk = deliver(what, "id-1", EVENT_WALL, POLICY, World(), started_wall=EVENT_WALL - 100.0, unsure=True)
    attempt = next(talk)
    assert attempt.not_after_wall == limit
    with pytest.raises(StopIteration) as end:
        talk.send(Reply(None, 1.0, limit + 1.0))
    assert end.value.value.letter is LetterKind.UNKNOWN_OUTCOME
    assert "cannot be read" in end.value.value.message


def test_a_mark_is_at_least_as_old_as_what_was_known_of_it() -> None:
    """Clocks that differ may show it younger: what this process itself has waited since it read of it counts too."""
    started = deliver(
        action(Kind.TRIGGER), "id-1", EVENT_WALL, POLICY, World(), started_wall=EVENT_WALL + 1200.0, read_at=50.0
    )
    attempt = next(started)
    assert isinstance(attempt, Attempt)
    assert not attempt.too_late(50.0 + 3300.0, EVENT_WALL + 1200.0)
    assert attempt.too_late(50.0 + 3301.0, EVENT_WALL + 1200.0)


def test_what_was_tried_here_is_as_old_as_its_first_try() -> None:
    """Whatever the clock says later, even one that was set back."""
    attempt = Talk(action(Kind.TRIGGER)).answer(UNANSWERED).attempt
    assert attempt.in_doubt
    assert attempt.too_late(3400.0, attempt.not_after_wall) and not attempt.too_late(3200.0, attempt.not_after_wall)


def test_a_contact_that_a_track_needs_is_made_with_the_key_of_upserts() -> None:
    """A key for tracks alone may not write contacts."""
    dialogue = deliver(action(Kind.TRACK), "id", EVENT_WALL, POLICY, World(), "track", contact_key="default")
    keys = [next(dialogue).call.key]
    for outcome in (Outcome(Verdict.NEEDS_CONTACT, 404), Outcome(Verdict.DELIVERED, 200)):
        keys.append(dialogue.send(Reply(outcome, 0.0, EVENT_WALL)).call.key)
    assert keys == ["track", "default", "track"]
