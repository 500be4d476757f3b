"""The engine on a virtual clock: what a preview counts is what the engine did, and all of it adds up."""

import ast
import time
from pathlib import Path
from typing import Any

import pytest

from bridge.preview.rehearsal import Rehearsed
from bridge.preview.tally import SAVED
from tests.support.previews import CONFIG, event, iso, rehearsed, settings

RULES = """\
rules:
  - name: signup
    match: user.signed_up
    do:
      - upsert: {email: "${data.email}", external_id: "${data.id}", custom_fields: {plan: "${data.plan}"}}
      - trigger: {trigger_key: welcome, to_email: "${data.email}"}
        max_age: 1h
      - enroll: {sequence_slug: onboarding, email: "${data.email}"}
  - name: plan
    match: plan.changed
    when: data.plan != "secret"
    do:
      - upsert: {email: "${data.email}", custom_fields: {plan: "${data.plan}"}}
      - add_tag: {email: "${data.email}", tag_name: "${data.plan}"}
  - name: seen
    match: user.seen
    lazy: [custom_fields.seen]
    do:
      - upsert: {email: "${data.email}", custom_fields: {seen: "${event.time}"}}
  - name: moment
    match: moment
    do:
      - track: {email: "${data.email}", event_name: "${data.name}"}
  - name: never
    match: nothing.ever
    do:
      - upsert: {email: "${data.email}"}
"""
ROOT = Path(__file__).parents[3]
ANN, BOB = "ann@example.com", "bob@example.com"


def of(tmp_path: Path, events: list[Any], *, rules: str = RULES, config: str = CONFIG, **options: Any) -> Rehearsed:
    found = rehearsed(settings(tmp_path, rules, config), events, **options)
    planned, made = found.tally.total()
    assert planned == made, "what is planned, called and saved must add up"
    assert set(found.tally.saved) <= set(SAVED)
    assert found.unfinished == 0
    return found


def signup(email: str, after: float = 0.0, plan: str = "free") -> dict[str, Any]:
    return event("user.signed_up", after, email=email, id=email[:3], plan=plan)


def test_each_event_is_finished_and_each_call_counted(tmp_path: Path) -> None:
    """One sign-up: an upsert, an email and an enrollment, beside the service's own calls."""
    tally = of(tmp_path, [signup(ANN)]).tally
    assert tally.endings == {"delivered": 1}
    assert {name: tally.calls[name] for name in ("upsert", "trigger", "enroll")} == {
        "upsert": 1,
        "trigger": 1,
        "enroll": 1,
    }
    assert tally.extra == {"service": tally.calls["ping"] + tally.calls["unsubscribed"]}
    assert not tally.saved


def test_a_backlog_is_merged_and_a_stream_is_not(tmp_path: Path) -> None:
    """Ten changes of a plan: all at once they are few calls; an hour apart each is one of its own."""
    changes = [event("plan.changed", hour * 3600, email=ANN, plan=f"p{hour}") for hour in range(10)]
    spread_out = of(tmp_path, changes).tally
    assert (spread_out.calls["upsert"], spread_out.saved["tags"]) == (10, 10)
    at_once = of(tmp_path, changes, at_once=True).tally
    assert at_once.calls["upsert"] <= 2
    assert at_once.saved["merged"] >= 8
    assert at_once.saved["tags"] >= 8


def test_lazy_and_unchanged_state_needs_no_calls(tmp_path: Path) -> None:
    """What is seen again within a day rides or waits; what Meisa has already is not sent."""
    events = [signup(ANN), *(event("user.seen", 60.0 * n, email=ANN) for n in range(1, 11))]
    events += [event("plan.changed", 900, email=ANN, plan="pro"), event("plan.changed", 1800, email=ANN, plan="pro")]
    tally = of(tmp_path, events).tally
    assert tally.saved == {"lazy": 9, "tags": 1, "unchanged": 2}
    assert tally.calls["upsert"] == 3, "the sign-up, the first time seen, and the plan with its tag"


def test_old_events_expire_when_they_are_read_late(tmp_path: Path) -> None:
    """A sign-up of two hours ago sends no welcome any more; read in its time it does."""
    assert of(tmp_path, [signup(ANN)], at_once=True, now=7200.0).tally.saved == {"expired": 1}
    assert of(tmp_path, [signup(ANN)], at_once=True, now=60.0).tally.calls["trigger"] == 1


def test_a_track_of_somebody_unknown_creates_the_contact_first(tmp_path: Path) -> None:
    """The 404, the upsert and the track again: two calls that no action asked for."""
    events = [event("moment", email=ANN, name="first"), event("moment", 60, email=ANN, name="second")]
    known = of(tmp_path, events).tally
    assert (known.calls["track"], known.calls["upsert"]) == (2, 0), "in an account that is in use she exists"
    tally = of(tmp_path, events, new_account=True).tally
    assert (tally.calls["track"], tally.calls["upsert"], tally.extra["contacts"]) == (3, 1, 2)
    assert tally.answers["track", 404] == 1


def test_time_at_the_quota_is_the_quotas(tmp_path: Path) -> None:
    """A hundred calls at ten a minute take some ten minutes, and no minute has more."""
    config = CONFIG.replace("environment: test", "environment: test, quota: {per_minute: 10, per_hour: 100000}")
    events = [event("plan.changed", email=f"u{n}@example.com", plan="pro") for n in range(100)]
    found = of(tmp_path, events, config=config, at_once=True)
    assert 9 * 60 <= found.seconds <= 12 * 60
    assert max(minute.calls for minute in found.tally.minutes.values()) <= 10
    assert found.tally.endings == {"delivered": 100}


def test_email_goes_first_in_a_backlog(tmp_path: Path) -> None:
    """Its delay counts from when its event could be read."""
    config = CONFIG.replace("environment: test", "environment: test, quota: {per_minute: 10, per_hour: 100000}")
    events: list[Any] = [event("plan.changed", n, email=f"u{n}@example.com", plan="pro") for n in range(60)]
    events.append(signup(ANN, 60))
    found = of(tmp_path, events, config=config, at_once=True)
    (delay,) = found.tally.delays
    assert 0 < delay < found.seconds / 2


def test_what_cannot_be_delivered_is_told_with_its_line(tmp_path: Path) -> None:
    """Bad lines, rules that fail, and what Meisa refuses; the rest goes on."""
    events = [signup(ANN), b"no JSON", event("plan.changed", plan="pro"), signup("no address"), signup(BOB)]
    tally = of(tmp_path, events).tally
    assert tally.endings["delivered"] == 2
    samples = {sample.kind: sample for by in tally.letter_samples.values() for sample in by}
    assert set(samples) == {"decode", "rule", "rejected"}
    assert {kind: sample.line for kind, sample in samples.items()} == {"decode": 2, "rule": 3, "rejected": 4}
    assert "data.email" in samples["rule"].message
    assert samples["rejected"].type == "user.signed_up"


def test_a_topic_that_its_letters_would_stop_goes_on_and_says_so(tmp_path: Path) -> None:
    """Nobody is there to resume it, and what comes after must be seen too."""
    config = CONFIG + "dead_letters: {stop_at: {share: 0.5, of: 10}}\n"
    tally = of(tmp_path, [b"bad"] * 30 + [signup(ANN)], config=config).tally
    assert tally.stops["users"] >= 1
    assert (tally.endings["dead_lettered"], tally.endings["delivered"]) == (30, 1)


def test_rules_are_told_apart_by_what_they_did(tmp_path: Path) -> None:
    """Matched by type, applied, failed; and those that no event matched."""
    events = [signup(ANN), event("plan.changed", plan="pro"), event("plan.changed", email=ANN, plan="secret")]
    tally = of(tmp_path, [*events, event("other.type")]).tally
    plan, signed = tally.of_rule("plan"), tally.of_rule("signup")
    assert (plan.matched, plan.applied, plan.failed) == (2, 0, 1)
    assert (signed.matched, signed.applied, signed.actions) == (1, 1, 3)
    assert tally.of_rule("never").matched == 0
    assert tally.types["users", "other.type"].wanted == 0


def test_an_action_that_waits_for_an_unknown_contact_ends(tmp_path: Path) -> None:
    """Its virtual ten minutes take no time, and the preview says why it is dead-lettered."""
    rules = """\
rules:
  - name: pay
    match: paid
    do:
      - track: {event_name: paid}
        contact: {stripe: "${data.customer}"}
"""
    config = CONFIG + "state: {url: 'sqlite:///state.db'}\n"
    found = of(tmp_path, [event("paid", customer="c1")], rules=rules, config=config)
    assert found.tally.letters == {("unknown_contact", "pay"): 1}
    assert found.seconds >= 600
    assert not (tmp_path / "state.db").exists(), "the state of the service is not touched"


def test_the_same_events_give_the_same_calls_at_the_same_moments(tmp_path: Path) -> None:
    """Nothing is random, and no clock of this machine is asked."""
    events = [
        make(f"u{n % 7}@example.com", n * 10.0)
        for n in range(60)
        for make in (signup, lambda email, after: event("plan.changed", after, email=email, plan=f"p{after}"))
    ]
    first, again = (of(tmp_path, events).tally for _ in range(2))
    assert first.samples == again.samples
    assert (first.minutes, list(first.delays)) == (again.minutes, list(again.delays))


def test_an_event_that_comes_again_is_a_duplicate(tmp_path: Path) -> None:
    """Where the topic asks for it, within its time and no longer."""
    config = CONFIG.replace("keyed_by: contact", "keyed_by: contact, dedupe: 10m")
    first = event("plan.changed", 0, email=ANN, plan="pro") | {"id": "e1"}
    again, later = ({**first, "time": iso(seconds)} for seconds in (300, 7200))
    tally = of(tmp_path, [first, again, later], config=config).tally
    assert tally.endings["duplicate"] == 1
    assert sum(tally.endings.values()) == 3


def test_nothing_that_decides_what_is_sent_is_left_out() -> None:
    """The service gives its delivery and its engine nothing that a preview does not, but what is named here."""
    without = {
        "Delivery": {"key_refused"},  # no key is ever refused
        "Engine": {"failed", "revoke_seconds", "schemas", "spend"},  # nothing is revoked or fetched; one instance
    }

    def given(file: str) -> dict[str, set[str | None]]:
        tree = ast.parse((ROOT / "bridge" / file).read_text(encoding="utf-8"))
        made = [each for each in ast.walk(tree) if isinstance(each, ast.Call) and isinstance(each.func, ast.Name)]
        return {each.func.id.lstrip("_"): {part.arg for part in each.keywords} for each in made}  # type: ignore[attr-defined]

    service, preview = given("app.py"), given("preview/rehearsal.py")
    for name, missing in without.items():
        assert service[name] - preview[name] == missing, f"{name}: what is new there belongs into bridge/preview too"


def test_no_events_make_no_calls(tmp_path: Path) -> None:
    """An empty file ends at once."""
    found = of(tmp_path, [])
    assert (sum(found.tally.calls.values()), found.seconds) == (0, 0.0)


def test_a_year_between_two_events_takes_no_time(tmp_path: Path) -> None:
    """Only work costs."""
    began = time.monotonic()
    found = of(tmp_path, [signup(ANN), signup(BOB, 365 * 86_400.0 / 2)], now=365 * 86_400.0)
    assert found.tally.endings == {"delivered": 2}
    assert time.monotonic() - began < 600, "a hang, not a measurement"


@pytest.mark.parametrize("partitions", [1, 3])
def test_more_than_a_window_holds_passes_through(tmp_path: Path, partitions: int) -> None:
    """Back-pressure pauses the imagined topic, and lets it go on."""
    config = CONFIG.replace("environment: test", "environment: test, quota: {per_minute: 100000, per_hour: 1000000}")
    events = [
        {"value": event("moment", n * 0.001, email=f"u{n % 50}@example.com", name=f"n{n}"), "partition": n % partitions}
        for n in range(3000)
    ]
    found = of(tmp_path, events, config=config, at_once=True)
    assert found.tally.endings["delivered"] == 3000
