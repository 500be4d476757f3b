"""What rules did: counted for those in force."""

from __future__ import annotations

from bridge.model import Action, Contact, Kind, Letter, LetterKind, Plan, Record, RuleFailure
from bridge.observe.rule_uses import ERROR_CHARACTERS, RuleUses
from bridge.observe.snapshot import RuleUse


def action(rule: str, position: int = 0) -> Action:
    return Action(Kind.UPSERT, rule, position, {}, Contact(email="a@example.com"))


def letter(rule: str, message: str = "no", at: float = 5.0) -> Letter:
    return Letter(Record("users", 0, 1, 0, None, None), LetterKind.RULE, message, rule=rule, failed_at_wall_seconds=at)


def test_a_rule_counts_once_for_an_event_whatever_it_wants() -> None:
    uses = RuleUses({"signup", "plan", "idle"})
    uses.planned(Plan())
    uses.planned(Plan((action("signup"),)))
    uses.planned(Plan((action("signup"), action("signup", 1)), (RuleFailure("plan", "no"),)))
    assert [(use.name, use.events) for use in uses.states()] == [("idle", 0), ("plan", 1), ("signup", 2)]


def test_the_last_error_is_kept_cut_and_with_its_time() -> None:
    uses = RuleUses({"signup"})
    uses.heard(letter("signup", "first", 5.0))
    uses.heard(letter("signup", "x" * 5_000, 6.0))
    assert uses.states() == (RuleUse("signup", 0, 2, "x" * ERROR_CHARACTERS, 6.0),)


def test_what_no_rule_in_force_did_takes_no_room() -> None:
    """Letters of what cannot be decoded name none; a replay may name one that is gone."""
    uses = RuleUses({"signup"})
    for step in range(1_000):
        uses.heard(letter(f"gone-{step}"))
        uses.planned(Plan((action(f"gone-{step}"),)))
    uses.heard(letter(""))
    uses.planned(Plan((action("gone"), action("signup"))))
    assert uses.states() == (RuleUse("signup", 1),)


def test_a_reload_keeps_the_counts_of_rules_that_stay() -> None:
    uses = RuleUses({"signup", "old"})
    uses.planned(Plan((action("signup"), action("old"))))
    uses.heard(letter("signup"))
    uses.heard(letter("old"))
    uses.in_force({"signup", "new"})
    assert [(use.name, use.events, use.letters) for use in uses.states()] == [("new", 0, 0), ("signup", 1, 1)]
    uses.in_force({"old"})
    assert uses.states() == (RuleUse("old"),), "what was gone begins anew"
