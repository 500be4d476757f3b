"""What was probably meant by a misspelt name, and a place as a problem carries it."""

from __future__ import annotations

import pytest

from bridge.places import Place, did_you_mean, nearest


@pytest.mark.parametrize(
    ("name", "expected"),
    [("timeot", "timeout"), ("TIMEOUT", "timeout"), ("Group", "Groups"), ("xyz", ""), ("", "")],
)
def test_the_nearest_name_is_found_whatever_its_case_and_given_as_it_is_known(name: str, expected: str) -> None:
    assert nearest(name, ["timeout", "retry", "Groups"]) == expected


def test_a_hint_names_the_nearest_or_says_something_else() -> None:
    assert did_you_mean("trak", ["track", "trigger"]) == "did you mean track?"
    assert did_you_mean("xyz", ["track"]) == ""
    assert did_you_mean("xyz", ["track"], "known is track") == "known is track"


def test_a_problem_carries_its_place() -> None:
    problem = Place("a.yaml", 2, 3).problem("MB001", "wrong", "write it right", "warning")
    assert str(problem) == "a.yaml:2:3: warning MB001: wrong (write it right)"
