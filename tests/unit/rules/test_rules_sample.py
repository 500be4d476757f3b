"""config/rules/*.yaml: the sample rules that ship with the project."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bridge.cli import main
from bridge.model import Event, Kind, Record
from bridge.rules import load

CONFIG = Path(__file__).parents[3] / "config"

EVENTS: dict[str, dict[str, Any]] = {
    "user.signed_up": {"plan": "pro", "trial_days": 14},
    "user.updated": {"country": "DE"},
    "user.logged_in": {},
    "plan.changed": {"plan": "pro", "mrr_cents": 4_900, "previous_mrr_cents": 0},
    "invoice.paid": {"amount_cents": 4_900, "currency": "eur", "attempt": 2},
    "invoice.payment_failed": {"amount_cents": 4_900, "currency": "eur"},
    "onboarding.completed": {"steps": ["a"]},
    "subscription.canceled": {},
}


def plan(type: str, data: dict[str, Any]) -> Any:
    record = Record("user-events", 0, 1, 1_767_323_045_000, b"u1", b"{}")
    data = {"email": "ada@example.com", "user_id": "u1", **data}
    time = "2026-01-02T03:04:05Z"
    event = Event(id="1", type=type, time=time, time_wall_seconds=1_767_323_045.0, data=data, record=record)
    return load(["rules/*.yaml"], CONFIG).plan(event)


@pytest.mark.parametrize("type", EVENTS)
def test_every_sample_event_is_planned_without_failure(type: str) -> None:
    made = plan(type, EVENTS[type])
    assert made.actions and not made.failures


def test_the_samples_use_every_kind_of_action_and_need_no_identity_table() -> None:
    book = load(["rules/*.yaml"], CONFIG)
    assert book.kinds() == set(Kind)
    assert book.needs_identities() == []


def test_the_tests_beside_the_sample_rules_hold() -> None:
    """By the command that users run; without the configuration's secrets."""
    result = CliRunner().invoke(main, ["test", "-c", str(CONFIG / "bridge.yaml")], env={"MEISA_API_KEY": ""})
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert re.match(r"\d+ tests: \d+ passed\n", result.stdout)
