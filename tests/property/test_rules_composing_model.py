"""Bodies made by the quick check are the bodies that the pydantic models would make."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge.actions import MODELS
from bridge.model import Event, Kind, Record
from bridge.rules import load_text
from tests.support.amount import examples

FIELDS = {
    Kind.UPSERT: ["email", "external_id", "first_name", "source", "custom_fields", "tag_names"],
    Kind.TRACK: ["event_name", "email", "external_id", "properties"],
    Kind.TRIGGER: ["trigger_key", "to_email", "external_id", "variables", "recipient", "idempotency_key"],
    Kind.ENROLL: ["sequence_slug", "email", "external_id", "metadata", "override_unsubscribe"],
    Kind.ADD_TAG: ["tag_name", "email", "external_id"],
}
OPTIONS = {kind: ["contact", "aliases"] if kind is Kind.UPSERT else ["contact"] for kind in FIELDS}

values = st.one_of(
    st.sampled_from(["", "a", "7", "signup", "api", "true"]),
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.just(1.5),
    st.lists(st.sampled_from(["", "a", 7, None]), max_size=2),
    st.dictionaries(st.sampled_from(["", "k", "stripe"]), st.sampled_from(["", "v", 7, None, []]), max_size=2),
)


def _book(kind: Kind) -> Any:
    lines = [f"          {name}: ${{optional(data.{name}) if data.{name} != null else null}}" for name in FIELDS[kind]]
    beside = [f"        {name}: {{k: '${{data.{name}_k}}'}}" for name in OPTIONS[kind]]
    text = ["rules:", "  - name: r", "    match: '*'", "    do:", f"      - {kind.value}:", *lines, *beside]
    return load_text("\n".join(text))


BOOKS = {kind: _book(kind) for kind in FIELDS}


@pytest.mark.parametrize("kind", FIELDS, ids=str)
@settings(max_examples=examples(150), deadline=None)
@given(data=st.data())
def test_the_quick_check_agrees_with_the_model(kind: Kind, data: st.DataObject) -> None:
    fields = {name: data.draw(values, label=name) for name in FIELDS[kind]}
    beside = {name: data.draw(st.sampled_from(["v", "", 7, None]), label=name) for name in OPTIONS[kind]}
    event_data = {**fields, **{f"{name}_k": value for name, value in beside.items()}}
    record = Record("t", 0, 0, 0, None, None)
    event = Event(id="1", type="x", time="", time_wall_seconds=0.0, data=event_data, record=record)
    plan = BOOKS[kind].plan(event)
    try:
        model = MODELS[kind](**fields, **{name: {"k": value} for name, value in beside.items()})
    except ValidationError:
        assert plan.actions == () and len(plan.failures) == 1
        return
    assert plan.failures == ()
    (action,) = plan.actions
    assert action.body == model.body()
    assert action.contact == model.who()
