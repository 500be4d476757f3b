"""Which scopes a key needs for its work, judged by what its ping tells."""

from types import SimpleNamespace
from typing import Any

import pytest

from bridge.model import Kind, Outcome, Verdict
from bridge.scopes import missing_scopes, unneeded_scopes

ALL = ["contacts:read", "contacts:write", "emails:trigger", "events:track", "sequences:enroll", "sequences:read"]


def settings(*own: str, environment: str = "live") -> Any:
    return SimpleNamespace(meisa=SimpleNamespace(keys=dict.fromkeys(own), environment=environment))


def book(*kinds: Kind, handlers: tuple[str, ...] = ()) -> Any:
    return SimpleNamespace(kinds=lambda: frozenset(kinds), handlers=handlers)


def ping(*scopes: str) -> Outcome:
    return Outcome(Verdict.DELIVERED, 200, data={"scopes": list(scopes)})


@pytest.mark.parametrize(
    ("kinds", "needed"),
    [
        ([Kind.UPSERT], ["contacts:write"]),
        ([Kind.TRACK], ["contacts:write", "events:track"]),
        ([Kind.TRIGGER], ["contacts:read", "emails:trigger"]),
        ([Kind.ENROLL], ["contacts:read", "sequences:enroll", "sequences:read"]),
        ([Kind.ADD_TAG, Kind.REMOVE_TAG], ["contacts:write"]),
        ([], []),
    ],
)
def test_one_key_needs_what_the_rules_do(kinds: list[Kind], needed: list[str]) -> None:
    """And what belongs to it: a contact for a track, the suppression list, a sequence's state."""
    left = unneeded_scopes(settings(), book(*kinds), {"default": ping(*ALL)})
    assert left.get("default", []) == sorted(set(ALL) - set(needed))


def test_a_key_of_its_own_needs_its_kind_only() -> None:
    """A track's contact is made with the key of upsert; the first key that may reads the suppression list."""
    pings: dict[str, Outcome | None] = {"default": ping("contacts:write"), "track": ping(*ALL), "trigger": ping(*ALL)}
    left = unneeded_scopes(settings("track", "trigger"), book(Kind.TRACK, Kind.TRIGGER), pings)
    assert left == {
        "track": ["contacts:write", "emails:trigger", "sequences:enroll", "sequences:read"],
        "trigger": ["contacts:read", "contacts:write", "events:track", "sequences:enroll", "sequences:read"],
    }


def test_where_nothing_is_said() -> None:
    """A single test key, handlers that may yield anything, an answer without scopes."""
    pings: dict[str, Outcome | None] = {"default": ping(*ALL)}
    assert unneeded_scopes(settings(environment="test"), book(Kind.UPSERT), pings) == {}
    assert unneeded_scopes(settings("track", environment="test"), book(Kind.UPSERT), pings) != {}
    assert unneeded_scopes(settings(), book(Kind.UPSERT, handlers=("h",)), pings) == {}
    for silent in (None, Outcome(Verdict.DELIVERED, 200, data={}), Outcome(Verdict.DELIVERED, 200, data=[])):
        assert unneeded_scopes(settings(), book(Kind.UPSERT), {"default": silent}) == {}
    assert missing_scopes(settings(), book(Kind.UPSERT), "default", Outcome(Verdict.DELIVERED, 200, data={})) == []


def test_a_missing_scope_is_that_of_the_key_which_the_kind_uses() -> None:
    rules = book(Kind.UPSERT, Kind.TRIGGER)
    assert missing_scopes(settings("trigger"), rules, "trigger", ping("contacts:write")) == ["trigger"]
    assert missing_scopes(settings("trigger"), rules, "default", ping("contacts:write")) == []
