"""The quota against servers that count as they like: all is used, nothing is refused, urgent calls hardly wait."""

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from benchmarks.quota import HOUR, LIMITS, Case, Found, Run, comes_and_goes
from tests.support.amount import examples

KINDS = ("sliding", "fixed", "token_bucket")


def worked(case: Case, seed: int, hours: int) -> Found:
    return Run(case, seed).run(hours)


@settings(max_examples=examples(5, everyday=2), deadline=None, phases=[Phase.generate])
@given(st.integers(0, 2**32), st.sampled_from(KINDS), st.booleans(), st.integers(0, 200))
def test_nothing_is_refused_and_all_is_used(seed: int, kind: str, small: bool, urgent_an_hour: int) -> None:
    """Whatever the server's windows are; a bucket of ten is learnt within the first minute."""
    burst = 10 if small and kind == "token_bucket" else 0
    found = worked(Case("", kind, burst=burst, urgent_an_hour=urgent_an_hour), seed, 3)
    assert len(found.refused) <= (5 if burst else 0)
    assert max(found.refused, default=0.0) < 60.0
    assert found.use() >= 0.99
    assert max(found.urgent(), default=0.0) < 30.0
    for limit, seconds in LIMITS:
        assert all(last - first >= seconds for first, last in zip(found.accepted, found.accepted[limit:], strict=False))


@pytest.mark.parametrize("retry_after", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_neighbour_is_given_way_to_and_the_share_recovered(retry_after: bool) -> None:
    """Half of the key for two hours of six: few refusals, most of what is left is used, and all once it has gone."""
    found = worked(Case("", "sliding", neighbour=comes_and_goes, retry_after=retry_after), 2, hours=8)
    assert len(found.refused) < 20
    assert found.use() > 0.9
    assert sum(7 * HOUR <= at < 8 * HOUR for at in found.accepted) >= 900 * 0.99


def test_no_gap_is_long_while_there_is_work() -> None:
    """An hour's slots come back every 4 s after the first one; six urgent calls hold the others up for 24 s more."""
    found = worked(Case("", "sliding"), 3, hours=4)
    assert found.gap() < 40.0
    assert found.use() >= 0.99
    assert max(found.urgent()) < 5.0
