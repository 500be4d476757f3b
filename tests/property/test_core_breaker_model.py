"""The breaker in random traffic."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.breaker import Breaker

ENDS = ["worked", "failed", "scope", "throttled", "nothing"]


PAUSES = [0.5, 0.5, 40.0]
"""Seconds between two steps. The longest outlasts the wait for a scope: else hardly a probe would ever go out."""

STEPS = st.tuples(
    st.sampled_from(["call", "call", *ENDS]), st.sampled_from("abcd"), st.integers(0, 5), st.sampled_from(PAUSES)
)


@given(st.lists(STEPS, max_size=150))
def test_at_most_one_probe_is_under_way_and_work_can_always_go_on(steps: list[tuple[str, str, int, float]]) -> None:
    """Calls that overlap and end in any order: while it is open one probe at most is under way, and once all have ended
    there is a moment within reach from which a call is allowed again."""
    breaker = Breaker()
    now = 0.0
    under_way: list[bool] = []

    def end(what: str, contact: str, probe: bool) -> None:
        if what == "worked":
            breaker.worked()
            assert not breaker.is_open
        elif what == "failed":
            breaker.failed(now, contact, probe=probe)
        elif what == "scope":
            breaker.scope_missing(now, probe=probe)
        elif what == "throttled":
            breaker.throttled(now, contact, 2.0, probe=probe)
        else:
            breaker.told_nothing(probe=probe)

    for what, contact, which, pause in steps:
        now += pause
        if what == "call":
            probe = breaker.is_open
            if breaker.allow(now):
                assert not (probe and any(under_way))
                under_way.append(probe)
                continue
            assert probe
        elif under_way:
            end(what, contact, under_way.pop(which % len(under_way)))
            if what == "worked":
                # Probes of an earlier opening are ordinary calls now.
                under_way = [False] * len(under_way)
    for probe in under_way:
        end("failed", "a", probe)
    assert not breaker.is_open or breaker.probe_at <= now + 75.0


@given(st.lists(st.sampled_from("ab"), max_size=300))
def test_two_contacts_alone_never_open_it(contacts: list[str]) -> None:
    """Two poison events at once are still poison."""
    breaker = Breaker()
    for contact in contacts:
        breaker.failed(0.0, contact)
        assert breaker.allow(0.0)
