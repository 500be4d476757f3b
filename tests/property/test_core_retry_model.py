"""The dialogue of a call against what its rules say, for any sequence of answers."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.retry import FOREVER, Policy, Reply, deliver
from bridge.model import Action, Contact, Ending, Handling, Kind, LetterKind, Outcome, Result, Verdict

EVENT_WALL = 1_000_000.0
POLICY = Policy(attempts=3, max_age_seconds=100.0, idempotency_window_seconds=300.0, scope_wait_seconds=200.0)

ANSWERS = {
    "delivered": Outcome(Verdict.DELIVERED, 200),
    "unavailable": Outcome(Verdict.RETRY, 503),
    "never_sent": Outcome(Verdict.RETRY, None, "", "never_sent"),
    "unanswered": Outcome(Verdict.UNKNOWN, None),
    "throttled": Outcome(Verdict.THROTTLED, 429),
    "refused": Outcome(Verdict.REFUSED, 400),
    "key": Outcome(Verdict.KEY_REFUSED, 401),
    "scope": Outcome(Verdict.SCOPE_MISSING, 403),
}


class World:
    def __init__(self) -> None:
        self.healthy = False

    def contact_id(self, contact: Contact) -> str | None:
        return None

    def forget_contact_id(self, contact: Contact) -> None:
        pass

    def filled(self, action: Action) -> Action | None:
        return None

    def succeeded_since(self, endpoint: str, now: float) -> bool:
        return self.healthy

    def random(self) -> float:
        return 0.5


@given(
    st.sampled_from([Kind.UPSERT, Kind.TRIGGER, Kind.ENROLL]),
    st.sampled_from([None, 400.0]),
    st.booleans(),
    st.lists(
        st.tuples(st.sampled_from(sorted(ANSWERS)), st.sampled_from([1.0, 30.0, 150.0]), st.booleans()), max_size=25
    ),
)
def test_every_end_is_one_that_the_rules_allow(
    kind: Kind, max_age: float | None, started: bool, answers: list[tuple[str, float, bool]]
) -> None:
    """What a list of the answers so far would say: attempts, ages, doubts; and never a send beyond its limit."""
    world = World()
    action = Action(kind, "rule", 0, {}, Contact("a@x"), Handling(max_age_seconds=max_age))
    trigger = kind is Kind.TRIGGER
    doubt: float | None = EVENT_WALL if trigger and started else None
    talk = deliver(action, "id", EVENT_WALL, POLICY, world, started_wall=doubt)
    expires = FOREVER if max_age is None else EVENT_WALL + max_age
    now, failures, failing_since, scope_since = 0.0, 0, None, None
    attempt = next(talk)
    for name, seconds, healthy in answers:
        outcome, world.healthy = ANSWERS[name], healthy
        limit = expires if doubt is None else doubt + POLICY.idempotency_window_seconds
        assert attempt.not_after_wall == limit
        assert attempt.in_doubt == (doubt is not None)
        if trigger:
            assert attempt.call.body is not None and attempt.call.body["idempotency_key"] == "id"
        sent_wall = EVENT_WALL + max(now, attempt.not_before)
        late = sent_wall > limit
        now = max(now, attempt.not_before) + (0 if late else seconds)
        wall = EVENT_WALL + now
        expected: LetterKind | Ending | None = None
        if late:
            expected = LetterKind.EXPIRED if doubt is None else LetterKind.UNKNOWN_OUTCOME
        elif name == "delivered":
            expected = Ending.DELIVERED
        elif name == "refused":
            expected = LetterKind.REJECTED
        elif name == "scope":
            scope_since = wall if scope_since is None else scope_since
            if wall - scope_since >= POLICY.scope_wait_seconds:
                expected = LetterKind.REJECTED
        elif name in ("unavailable", "never_sent", "unanswered"):
            if trigger and doubt is None and name != "never_sent":
                doubt = sent_wall
            failures += 1
            failing_since = wall if failing_since is None else failing_since
            if failures >= POLICY.attempts and wall - failing_since >= POLICY.max_age_seconds and healthy:
                expected = LetterKind.EXHAUSTED if doubt is None else LetterKind.UNKNOWN_OUTCOME
        try:
            attempt = talk.send(Reply(None if late else outcome, now, wall, sent_wall))
        except StopIteration as end:
            result: Result = end.value
            assert (result.letter or result.ending) == expected
            return
        assert expected is None
        assert attempt.not_before >= 0.0
