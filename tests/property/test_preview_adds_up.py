"""Whatever the events are: a preview's numbers add up, every event ends, the quota holds, tracks keep their order."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.model import Call
from bridge.preview.tally import SAVED
from tests.support import previews
from tests.support.amount import examples

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
    preserve: [custom_fields.status]
    do:
      - upsert: {email: "${data.email}", custom_fields: {plan: "${data.plan}", status: "${data.plan}"}}
      - add_tag: {email: "${data.email}", tag_name: "${data.plan}"}
      - remove_tag: {email: "${data.email}", tag_name: old}
        when: data.plan == "a"
  - name: seen
    match: user.seen
    lazy: [custom_fields.seen]
    do:
      - upsert: {email: "${data.email}", custom_fields: {seen: "${data.number}"}}
  - name: moment
    match: moment
    do:
      - track: {external_id: "${data.id}", event_name: "${data.plan}", properties: {number: "${data.number}"}}
  - name: known
    match: known
    do:
      - track: {event_name: known, properties: {number: "${data.number}"}}
        contact: {stripe: "${data.plan}"}
        on_missing: wait
"""
PER_MINUTE = 20
CONFIG = previews.CONFIG.replace(
    "environment: test", f"environment: test, quota: {{per_minute: {PER_MINUTE}, per_hour: 400}}"
)
CONFIG += "state: {url: 'sqlite:///state.db'}\n"

KINDS = ("user.signed_up", "plan.changed", "user.seen", "moment", "known", "nobody.wants")
events = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.integers(0, 4),  # who
        st.sampled_from("abc"),  # the plan
        st.sampled_from([0.0, 0.0, 5.0, 600.0, 7200.0, 90_000.0]),  # since the one before
        st.sampled_from(["", "", "", "", "bad line", "bad address", "no address"]),
    ),
    max_size=60,
)


def written(of: list[tuple[str, int, str, float, str]]) -> list[Any]:
    found: list[Any] = []
    after = 0.0
    for number, (kind, who, plan, wait, fault) in enumerate(of):
        after += wait
        data = {"email": f"u{who}@example.com", "id": f"x{who}", "plan": plan, "number": number}
        if fault == "bad address":
            data["email"] = "nowhere"
        elif fault == "no address":
            del data["email"]
        found.append(b"bad line" if fault == "bad line" else previews.event(kind, after, **data))
    return found


@settings(max_examples=examples(60), deadline=None)
@given(of=events, at_once=st.booleans(), new_account=st.booleans())
def test_every_number_is_accounted_for(
    of: list[tuple[str, int, str, float, str]], at_once: bool, new_account: bool
) -> None:
    """Actions planned and calls beside them are calls made, actions saved and letters; nothing waits for ever."""
    tracked: dict[str, list[int]] = defaultdict(list)
    sent: list[float] = []

    def called(call: Call, status: int, seconds: float) -> None:
        sent.append(seconds)
        if call.endpoint == "track" and status == 200 and call.body is not None:
            tracked[str(call.body.get("external_id"))].append(call.body["properties"]["number"])

    with tempfile.TemporaryDirectory() as folder:
        made = previews.settings(Path(folder), RULES, CONFIG)
        found = previews.rehearsed(
            made, written(of), at_once=at_once, now=400_000.0, new_account=new_account, called=called
        )
    tally = found.tally
    planned, accounted = tally.total()
    assert planned == accounted
    assert set(tally.saved) <= set(SAVED)
    assert sum(tally.endings.values()) == len(of)
    assert found.unfinished == 0
    assert not tally.broken
    assert sum(tally.calls.values()) == len(sent)
    sent.sort()
    assert all(later - earlier > 60.0 for earlier, later in zip(sent, sent[PER_MINUTE:], strict=False))
    for numbers in tracked.values():
        assert numbers == sorted(numbers)
