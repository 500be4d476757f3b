"""Whom the suppression list spares a call."""

import pytest

from bridge.core.suppression import FRESH_SECONDS, Suppressions
from bridge.model import Action, Contact, Kind


def action(kind: Kind, email: str | None = "gone@x.io", **body: object) -> Action:
    return Action(kind, "rule", 0, body, Contact(email))


@pytest.mark.parametrize(
    ("what", "spared"),
    [
        (action(Kind.TRIGGER), True),
        (action(Kind.TRIGGER, " Gone@X.io"), True),
        (action(Kind.TRIGGER, "other@x.io"), False),
        (action(Kind.TRIGGER, None), False),
        (action(Kind.ENROLL), True),
        (action(Kind.ENROLL, override_unsubscribe=False), True),
        (action(Kind.ENROLL, override_unsubscribe=True), False),
        (action(Kind.UPSERT), False),
        (action(Kind.TRACK), False),
        (action(Kind.ADD_TAG), False),
    ],
)
def test_only_what_meisa_would_refuse_is_spared(what: Action, spared: bool) -> None:
    """State and events of a suppressed person are taken; an override enrolls all the same."""
    suppressions = Suppressions()
    assert suppressions.learn(["Gone@x.io ", "another@x.io"], asked_at=100.0)
    assert suppressions.spares(what, 100.0) is spared


def test_a_list_is_believed_while_it_is_fresh() -> None:
    """From the moment at which it was asked for; without one nobody is spared."""
    suppressions = Suppressions()
    assert not suppressions.fresh(0.0) and not suppressions.spares(action(Kind.TRIGGER), 0.0)
    suppressions.learn(["gone@x.io"], asked_at=100.0)
    assert suppressions.spares(action(Kind.TRIGGER), 100.0 + FRESH_SECONDS - 0.1)
    assert not suppressions.spares(action(Kind.TRIGGER), 100.0 + FRESH_SECONDS)


def test_a_new_list_replaces_the_former() -> None:
    """Who subscribed again is written to again."""
    suppressions = Suppressions()
    suppressions.learn(["gone@x.io"], 0.0)
    suppressions.learn(["other@x.io"], 1.0)
    assert not suppressions.spares(action(Kind.TRIGGER), 1.0)
    assert len(suppressions) == 1


def test_a_list_that_is_too_long_is_no_list() -> None:
    """Also where the one before was not: that one is wrong by now."""
    suppressions = Suppressions(addresses_max=2)
    assert suppressions.learn(["gone@x.io", "b@x.io"], 0.0)
    assert not suppressions.learn(["gone@x.io", "b@x.io", "c@x.io"], 1.0)
    assert (len(suppressions), suppressions.fresh(1.0)) == (0, False)
