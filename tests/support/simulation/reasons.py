"""Why an action may end without having been carried out: what answers said, by endpoint and action."""

from bridge.model import Call, Kind, LetterKind, Outcome, Verdict, email_key
from tests.support.simulation.events import Act
from tests.support.simulation.states import paths
from tests.support.simulation.world import World

IDEMPOTENCY_WINDOW_SECONDS = 3_300.0
UNKNOWN_CONTACT_SECONDS = 600.0
BELIEVABLE_SECONDS = 200.0
"""A mark that is further in the future than some minutes tells that clocks differ, and its trigger is parked."""


class Reasons:
    def __init__(self, world: World) -> None:
        self.world = world
        self._helpers: dict[str, Act] = {}
        self._last_success: dict[str, float] = {}
        self._scope_missing: dict[str, float] = {}
        """Endpoint → since when nothing but 403 came from it."""
        self._scope_missed: dict[str, float] = {}
        """Endpoint → when (wall) that ended, where it had lasted for the whole wait: letters come a little later."""

    def heard(self, call: Call, acts: list[Act], outcome: Outcome) -> None:
        """An outcome reached a member that lives."""
        now, verdict = self.world.now, outcome.verdict
        if not acts and call.endpoint == "upsert" and not paths(call.body or {}):
            email = email_key((call.body or {})["email"])
            acts = [self._helpers.setdefault(email, Act(None, 0, "", Kind.UPSERT, "", email))]  # type: ignore[arg-type]
        if verdict in (Verdict.DELIVERED, Verdict.REFUSED, Verdict.NEEDS_CONTACT):
            since = self._scope_missing.pop(call.endpoint, now)
            if now - since >= self.world.scenario.scope_wait_seconds:
                self._scope_missed[call.endpoint] = self.world.wall
            self._last_success[call.endpoint] = now
        if verdict is Verdict.SCOPE_MISSING:
            self._scope_missing.setdefault(call.endpoint, now)
        self._note(acts, call, outcome, alone=len(acts) == 1)

    def state_heard(self, call: Call, acts: list[Act], outcome: Outcome) -> None:
        """The same of upserts of state: whose of these values it carried nobody can tell."""
        self._note(acts, call, outcome, alone=True)

    def _note(self, acts: list[Act], call: Call, outcome: Outcome, *, alone: bool) -> None:
        now, verdict = self.world.now, outcome.verdict
        for act in acts:
            if outcome.detail == "suppressed":
                act.suppressed = True
            elif verdict is Verdict.REFUSED and alone:  # else it says nothing yet about each of them
                act.refused = outcome.message
            elif verdict is Verdict.NEEDS_CONTACT:
                act.contact_missing_since = act.contact_missing_since if act.contact_missing_since is not None else now
            elif verdict in (Verdict.RETRY, Verdict.UNKNOWN):
                act.failures += 1
                act.failed_alone = act.failed_alone or alone
                act.failed_at = call.endpoint
                act.first_failure = now if act.first_failure is None else act.first_failure
                if outcome.sent:
                    act.doubts += 1
                    sent_at = now - self.world.scenario.timeout_seconds
                    act.first_doubt = sent_at if act.first_doubt is None else act.first_doubt

    def any(self, act: Act, owners: int) -> bool:
        return any(self.may_die(act, kind, owners) for kind in LetterKind)

    def may_die(self, act: Act, kind: LetterKind, owners: int) -> bool:
        """Whether there is a reason for such a letter. `owners` is how many its partition has had."""
        now, skew = self.world.now, self.world.scenario.skew
        window = IDEMPOTENCY_WINDOW_SECONDS - skew
        if act.needs is not None and self.may_die(act.needs, kind, owners):
            return True
        tries = [act]
        if act.kind in (Kind.TRACK, Kind.ADD_TAG, Kind.REMOVE_TAG) and act.email in self._helpers:
            tries.append(self._helpers[act.email])
        match kind:
            case LetterKind.REJECTED:
                return any(each.refused for each in tries) or self._scope_waited(act)
            case LetterKind.EXHAUSTED:
                return any(self._exhausted(each) for each in tries)
            case LetterKind.EXPIRED:
                return act.max_age is not None and self.world.wall + skew > act.entry.event_wall + act.max_age
            case LetterKind.UNKNOWN_CONTACT:
                since = act.contact_missing_since
                patience = 0.0 if act.on_missing == "dead_letter" else UNKNOWN_CONTACT_SECONDS
                return since is not None and now - since >= patience
            case LetterKind.UNKNOWN_OUTCOME:
                if act.kind is not Kind.TRIGGER:
                    return False
                marked = self.world.wall if act.marked_wall is None else act.marked_wall
                if owners > 1 and self.world.wall - marked >= window:
                    return True  # whoever marked it may have been killed before or after it left
                if act.unsure and self.may_die(act, LetterKind.EXPIRED, owners):
                    return True
                if skew >= BELIEVABLE_SECONDS and act.marked_wall is not None:
                    return True  # before the first answer nobody knows whose clock is right
                if act.first_doubt is None:
                    return False
                return now - act.first_doubt >= window or self._exhausted(act)
        return False

    def _scope_waited(self, act: Act) -> bool:
        """Whether the scope of an endpoint that it needs has been missing for the whole wait."""
        endpoints = (
            [act.kind.value] if act.kind in (Kind.UPSERT, Kind.TRIGGER, Kind.ENROLL) else [act.kind.value, "upsert"]
        )
        since = [self._scope_missing[endpoint] for endpoint in endpoints if endpoint in self._scope_missing]
        if since and self.world.now - min(since) >= self.world.scenario.scope_wait_seconds:
            return True
        read_at = act.entry.read_at or self.world.wall
        return any(read_at <= self._scope_missed.get(endpoint, -1.0) for endpoint in endpoints)

    def _exhausted(self, act: Act) -> bool:
        scenario = self.world.scenario
        if act.first_failure is None or act.failures < scenario.attempts or not act.failed_alone:
            return False
        if self.world.now - act.first_failure < scenario.max_age_seconds:
            return False
        return self._last_success.get(act.failed_at, -1.0) > act.first_failure
