from tests.support.amount import examples
"""The quota against servers that count as they like: all is used, nothing is refused, urgent calls hardly wait."""
from tests.support.amount import examples

from tests.support.amount import examples
import pytest
from tests.support.amount import examples
from hypothesis import Phase, given, settings
from tests.support.amount import examples
from hypothesis import strategies as st
from tests.support.amount import examples

from tests.support.amount import examples
from benchmarks.quota import HOUR, LIMITS, Case, Found, Run, comes_and_goes
from tests.support.amount import examples

from tests.support.amount import examples
KINDS = ("sliding", "fixed", "token_bucket")
from tests.support.amount import examples

from tests.support.amount import examples

from tests.support.amount import examples
def worked(case: Case, seed: int, hours: int) -> Found:
from tests.support.amount import examples
    return Run(case, seed).run(hours)
from tests.support.amount import examples

from tests.support.amount import examples

from tests.support.amount import examples
@settings(max_examples=examples(5), deadline=None, phases=[Phase.generate])
from tests.support.amount import examples
@given(st.integers(0, 2**32), st.sampled_from(KINDS), st.booleans(), st.integers(0, 200))
from tests.support.amount import examples
def test_nothing_is_refused_and_all_is_used(seed: int, kind: str, small: bool, urgent_an_hour: int) -> None:
from tests.support.amount import examples
    """Whatever the server's windows are; a bucket of ten is learnt within the first minute."""
from tests.support.amount import examples
    burst = 10 if small and kind == "token_bucket" else 0
from tests.support.amount import examples
    found = worked(Case("", kind, burst=burst, urgent_an_hour=urgent_an_hour), seed, 3)
from tests.support.amount import examples
    assert len(found.refused) <= (5 if burst else 0)
from tests.support.amount import examples
    assert max(found.refused, default=0.0) < 60.0
from tests.support.amount import examples
    assert found.use() >= 0.99
from tests.support.amount import examples
    assert max(found.urgent(), default=0.0) < 30.0
from tests.support.amount import examples
    for limit, seconds in LIMITS:
from tests.support.amount import examples
        assert all(last - first >= seconds for first, last in zip(found.accepted, found.accepted[limit:], strict=False))
from tests.support.amount import examples

from tests.support.amount import examples

from tests.support.amount import examples
@pytest.mark.parametrize("retry_after", [True, False])
from tests.support.amount import examples
def test_a_neighbour_is_given_way_to_and_the_share_recovered(retry_after: bool) -> None:
from tests.support.amount import examples
    """Half of the key for two hours of six: few refusals, most of what is left is used, and all once it has gone."""
from tests.support.amount import examples
    found = worked(Case("", "sliding", neighbour=comes_and_goes, retry_after=retry_after), 2, hours=8)
from tests.support.amount import examples
    assert len(found.refused) < 20
from tests.support.amount import examples
    assert found.use() > 0.95
from tests.support.amount import examples
    assert sum(7 * HOUR <= at < 8 * HOUR for at in found.accepted) >= 900 * 0.99
from tests.support.amount import examples

from tests.support.amount import examples

from tests.support.amount import examples
def test_no_gap_is_long_while_there_is_work() -> None:
from tests.support.amount import examples
    """An hour's slots come back every 4 s after the first one; six urgent calls hold the others up for 24 s more."""
from tests.support.amount import examples
    found = worked(Case("", "sliding"), 3, hours=4)
from tests.support.amount import examples
    assert found.gap() < 40.0
from tests.support.amount import examples
    assert found.use() >= 0.99
from tests.support.amount import examples
    assert max(found.urgent()) < 5.0
