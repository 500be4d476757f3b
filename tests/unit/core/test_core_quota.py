"""Both windows hold, exactly, whatever the answers do."""

from itertools import pairwise

import pytest

from bridge.core.quota import EXACT_MAX, NEVER, Quota


def spend(quota: Quota, count: int, now: float, answered_after: float = 0.0) -> None:
    for _ in range(count):
        assert quota.acquire(now, urgent=True)
    for _ in range(count):
        quota.answered(now + answered_after)


def work(quota: Quota, begun: float, until: float) -> list[float]:
    """Makes every call that may be made, answered at once; returns when."""
    now, times = quota.earliest(begun), []
    while now < until:
        assert quota.acquire(now)
        quota.answered(now)
        times.append(now)
        now = quota.earliest(now)
    return times


@pytest.mark.parametrize("limits", [[(0, 60.0)], [(60, 0.0)]])
def test_a_window_needs_calls_and_seconds(limits: list[tuple[int, float]]) -> None:
    """A window without either would let nothing or everything pass."""
    with pytest.raises(ValueError, match="at least one call"):
        Quota(limits)


@pytest.mark.parametrize("reserve", [-0.1, 1.0])
def test_the_reserve_is_a_share(reserve: float) -> None:
    """A reserve of everything would stop all but urgent work for ever."""
    with pytest.raises(ValueError, match="share"):
        Quota([(60, 60.0)], reserve=reserve)


def test_a_call_counts_until_its_answer_plus_the_window() -> None:
    """The server may have counted it as late as its answer."""
    quota = Quota([(1, 60.0)])
    assert quota.acquire(0.0)
    assert not quota.acquire(59.0)
    assert quota.earliest(59.0) == NEVER
    quota.answered(5.0)
    assert not quota.acquire(64.999)
    assert quota.earliest(6.0) == 65.0
    assert quota.acquire(65.0)


def test_the_hour_binds_where_the_minute_does_not() -> None:
    """A call needs room in every window, and takes nothing where one of them refuses."""
    quota = Quota([(60, 60.0), (100, 3600.0)])
    spend(quota, 60, 0.0)
    assert not quota.acquire(1.0)
    spend(quota, 40, 61.0)
    assert not quota.acquire(62.0)
    assert quota.snapshot(62.0)[0].used == 40
    assert quota.earliest(62.0) == 3600.0
    assert quota.acquire(3600.0)


def test_a_call_without_an_answer_counts_longer() -> None:
    """It may still be on its way to the server."""
    quota = Quota([(1, 60.0)], unanswered_seconds=60.0)
    assert quota.acquire(0.0)
    quota.unanswered(10.0)
    assert quota.earliest(10.0) == 130.0


def test_a_call_that_never_left_counts_nowhere() -> None:
    """A slot that was booked and not used is free again."""
    quota = Quota([(1, 60.0)])
    assert quota.acquire(0.0)
    quota.unsent()
    assert quota.in_flight == 0
    assert quota.acquire(0.0)


def test_the_reserve_is_kept_for_urgent_calls() -> None:
    """A tenth of sixty: 54 for all, six more for the urgent."""
    quota = Quota([(60, 60.0)], reserve=0.1)
    assert len(work(quota, 0.0, 59.9)) == 54
    assert sum(quota.acquire(59.9, urgent=True) for _ in range(100)) == 6


def test_what_is_not_urgent_begins_quickly_and_goes_on_at_a_pace() -> None:
    """A few calls at once, ten in a second; later ones more and more slowly, so that slots come free all the time."""
    quota = Quota([(60, 60.0)], reserve=0.1)
    times = work(quota, 0.0, 60.0)
    assert times[2] == 0.0
    assert times[9] < 1.0
    assert times[26] < 15.0
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) < 5.0
    assert sum(quota.acquire(30.0, urgent=True) for _ in range(100)) == 6


def test_the_pace_is_not_for_the_urgent() -> None:
    """They may have all that is left, at once."""
    quota = Quota([(60, 60.0)], reserve=0.1)
    common = len(work(quota, 0.0, 5.0))
    assert not quota.acquire(5.0)
    assert sum(quota.acquire(5.0, urgent=True) for _ in range(100)) == 60 - common


def test_after_an_hour_of_work_slots_come_back_evenly() -> None:
    """However the first hour began: 900 of 1,000 an hour, one every 4 s and never half a minute apart."""
    quota = Quota([(60, 60.0), (1000, 3600.0)], reserve=0.1)
    times = work(quota, 0.0, 4 * 3600.0)
    for hour in range(4):
        assert 899 <= sum(hour <= at / 3600 < hour + 1 for at in times) <= 900
    later = [at for at in times if at >= 2 * 3600]
    assert max(after - before for before, after in pairwise(later)) < 8.0


def test_an_urgent_call_beyond_the_reserve_waits_for_the_next_slot_that_comes_back() -> None:
    """150 at once beside a backlog: 100 leave at once, each other one 4 s after the one before it."""
    quota = Quota([(60, 60.0), (1000, 3600.0)], reserve=0.1)
    now = 3 * 3600.0
    work(quota, 0.0, now)
    waits = []
    for _ in range(150):
        now = quota.earliest(now, urgent=True)
        assert quota.acquire(now, urgent=True)
        quota.answered(now)
        waits.append(now - 3 * 3600.0)
    assert waits[40] == 0.0
    assert waits[-1] < 65 + 50 * 8.0, "the minute's limit, then the hour's slots"
    assert max(after - before for before, after in pairwise(waits[101:])) < 8.0


def test_calls_that_come_a_little_late_catch_up() -> None:
    """Who looks every 50 ms only uses all of 6,000 calls a minute that are 11 ms apart."""
    quota = Quota([(6_000, 60.0)], reserve=0.1)
    made = 0
    for tick in range(2_400):
        while quota.acquire(tick * 0.05):
            quota.answered(tick * 0.05)
            made += 1
    assert made >= 2 * 5_400 * 0.99


def test_without_a_reserve_nothing_is_paced() -> None:
    """Who keeps nothing free for urgent calls wants all of it at once."""
    quota = Quota([(60, 60.0)])
    assert sum(quota.acquire(0.0) for _ in range(100)) == 60


def test_a_call_that_never_left_gives_its_turn_back() -> None:
    """Items that find their endpoint closed must not use the pace up."""
    quota, other = Quota([(60, 60.0)], reserve=0.1), Quota([(60, 60.0)], reserve=0.1)
    work(quota, 0.0, 10.0)
    work(other, 0.0, 10.0)
    at = quota.earliest(10.0)
    for _ in range(50):
        assert quota.acquire(at)
        quota.unsent()
    assert quota.acquire(at, urgent=True)
    quota.unsent(urgent=True)
    assert work(quota, 10.0, 60.0) == pytest.approx(work(other, 10.0, 60.0))


def evenly(quota: Quota, count: int, seconds: float) -> None:
    """So many calls up to then, none ahead of the others: no bucket is too small for them."""
    for number in range(count):
        spend(quota, 1, seconds * (number + 1) / count)


def test_a_neighbour_on_the_same_key_is_given_way_and_missed_when_gone() -> None:
    """A 429 without a burst: a twentieth less than what we had used, a little more after a minute, all after three."""
    quota = Quota([(60, 60.0)])
    evenly(quota, 40, 59.0)
    quota.throttled(60.0, 5.0)
    assert sum(quota.acquire(120.0) for _ in range(100)) == 38 + 3
    quota = Quota([(60, 60.0)])
    evenly(quota, 40, 59.0)
    quota.throttled(60.0, 5.0)
    assert sum(quota.acquire(240.0) for _ in range(100)) == 60


def test_it_tells_which_window_gives_way_and_to_how_many_calls() -> None:
    """Else status would show room in the window, and calls that wait for it."""
    quota = Quota([(60, 60.0), (1000, 3600.0)])
    evenly(quota, 40, 59.0)
    assert quota.yields(60.0) is None
    quota.throttled(60.0, 5.0)
    assert quota.yields(60.0) == (60.0, 38, 40)
    assert quota.yields(240.0) is None, "it has recovered"


def test_who_is_at_the_limit_of_its_own_count_gives_way_too() -> None:
    """Calls that were refused count here: they must not hide that somebody else uses the key."""
    quota = Quota([(60, 60.0)])
    evenly(quota, 60, 59.0)
    quota.throttled(60.0, 30.0)
    assert sum(quota.acquire(120.0) for _ in range(100)) == 57 + 3


def test_a_server_that_refuses_bursts_gets_smaller_ones_and_all_calls() -> None:
    """A bucket of ten tokens, one a second: after one refusal half as many at once, then one a second, for ever."""
    quota = Quota([(60, 60.0)])
    spend(quota, 11, 0.0)
    until = quota.throttled(0.0, 1.0)
    assert quota.earliest(until) == 6.0, "ten took tokens; the next one may be the fifth ahead"
    assert len(work(quota, 120.0, 179.9)) == 60
    assert sum(quota.acquire(600.0, urgent=True) for _ in range(20)) == 5, "an urgent call is refused like any other"
    assert quota.earliest(600.0, urgent=True) == 601.0
    quota.resize([0])
    assert quota.earliest(600.0, urgent=True) == NEVER


def test_refusals_under_way_together_took_no_tokens() -> None:
    """Forty calls at once, thirty of them refused: that is a bucket of ten."""
    quota = Quota([(60, 60.0)])
    spend(quota, 40, 0.0)
    for _ in range(30):
        quota.throttled(0.0, None)
    assert sum(quota.acquire(120.0) for _ in range(100)) == 5


def test_a_long_wait_or_even_calls_are_no_bucket() -> None:
    """A token comes within a second: who is to wait longer has a neighbour. So has who was not ahead of the rate."""
    waits = Quota([(60, 60.0)])
    spend(waits, 40, 0.0)
    waits.throttled(0.0, 30.0)
    assert sum(waits.acquire(60.0) for _ in range(100)) == 38 + 3
    even = Quota([(60, 60.0)])
    evenly(even, 40, 59.0)
    even.throttled(60.0, 1.0)
    assert sum(even.acquire(120.0) for _ in range(100)) == 38 + 3


def test_a_burst_that_never_left_is_none() -> None:
    """What was booked and given back took no token."""
    quota = Quota([(60, 60.0)])
    for _ in range(30):
        assert quota.acquire(0.0)
        quota.unsent()
    spend(quota, 1, 0.0)
    quota.throttled(0.0, 1.0)
    assert sum(quota.acquire(60.0) for _ in range(100)) == 15 + 3, "a neighbour, then"


def test_the_window_that_can_explain_the_wait_gives_way() -> None:
    """Ten minutes to wait are the hour's; without a word it is the minute's."""
    hour = Quota([(60, 60.0), (1000, 3600.0)])
    evenly(hour, 300, 3000.0)
    hour.throttled(3000.0, 600.0)
    assert sum(hour.acquire(3600.0) for _ in range(100)) == 0, "the hour's 285 are used"
    minute = Quota([(60, 60.0), (1000, 3600.0)])
    evenly(minute, 30, 50.0)
    minute.throttled(60.0, None)
    assert minute.snapshot(60.0)[1].used == 30
    assert sum(minute.acquire(120.0) for _ in range(100)) == 28 + 3


def test_of_windows_that_can_explain_a_wait_the_fullest_gives_way() -> None:
    """Half of the hour is used and a few of the minute: the minute's limit is not what was met."""
    quota = Quota([(60, 60.0), (1000, 3600.0)])
    evenly(quota, 500, 3000.0)
    quota.throttled(3000.0, None)
    assert not quota.acquire(3001.0)
    assert quota.earliest(3001.0) > 3060.0


def test_a_wait_longer_than_all_windows_is_the_longest_ones() -> None:
    """A day's limit that nobody told of: of ours the longest yields."""
    quota = Quota([(60, 60.0), (1000, 3600.0)])
    evenly(quota, 10, 50.0)
    quota.throttled(50.0, 7200.0)
    assert sum(quota.acquire(7250.0) for _ in range(100)) == 60


def test_a_refusal_of_hardly_used_windows_leaves_a_quarter_of_one() -> None:
    """A server that throttles for another reason: one 429 at the first call does not make a minute of what follows.

    Nor do many: the brake is what answers each of them."""
    quota = Quota([(6000, 60.0)])
    now = 0.0
    for _ in range(20):
        spend(quota, 1, now)
        now = quota.throttled(now, 1.0)
    assert sum(quota.acquire(now) for _ in range(2000)) == 1500 - 20


def test_a_wait_for_a_ceiling_to_rise_is_told() -> None:
    """What stands against a call may be the ceiling alone: it rises before anything runs out."""
    quota = Quota([(60, 60.0), (1000, 3600.0)])
    quota.remember(3600.0, 300)
    quota.throttled(3600.0, 600.0)
    at = quota.earliest(4200.0)
    assert 4200.0 < at < 7200.0
    assert not quota.acquire(at - 0.1)
    assert quota.acquire(at)


def test_a_share_can_grow_and_shrink() -> None:
    """Partitions come and go, and with them their part of the quota; what was used counts on."""
    quota = Quota([(60, 60.0), (1000, 3600.0)], reserve=0.1)
    spend(quota, 20, 0.0)
    quota.resize([10, 100])
    assert not quota.acquire(1.0, urgent=True)
    quota.resize([30, 500])
    assert sum(quota.acquire(1.0, urgent=True) for _ in range(100)) == 10
    quota.resize([0, 0])
    assert not quota.acquire(1e6, urgent=True)
    assert quota.earliest(1e6, urgent=True) == NEVER


def test_what_somebody_else_spent_of_our_share_counts() -> None:
    """A partition brings its former owner's calls along."""
    quota = Quota([(60, 60.0)])
    quota.remember(10.0, 50)
    assert sum(quota.acquire(20.0) for _ in range(100)) == 10
    assert quota.earliest(20.0) == 70.0


def test_a_reserve_leaves_at_least_one_call_for_all() -> None:
    """A large share of a small limit must not stop all other work."""
    quota = Quota([(1, 60.0)], reserve=0.9)
    assert quota.acquire(0.0)


def test_when_others_may_go_again_while_urgent_calls_used_the_reserve() -> None:
    """Several calls must run out before there is room outside the reserve."""
    quota = Quota([(10, 60.0)], reserve=0.2)
    for second in range(10):
        spend(quota, 1, float(second))
    assert not quota.acquire(20.0, urgent=True)
    assert quota.earliest(20.0, urgent=True) == 60.0
    assert quota.earliest(20.0) == 62.0
    assert not quota.acquire(61.9)
    assert quota.acquire(62.0)


def test_room_that_depends_on_answers_is_never_until_they_come() -> None:
    """With all calls in flight nobody can say when there will be room."""
    quota = Quota([(10, 60.0)], reserve=0.2)
    spend(quota, 1, 0.0)
    for _ in range(9):
        assert quota.acquire(1.0, urgent=True)
    assert quota.earliest(1.0) == NEVER


def test_retry_after_holds_the_whole_key_back() -> None:
    """The server's word goes before our own count."""
    quota = Quota([(60, 60.0)])
    assert quota.throttled(10.0, 7.0) == 17.0
    assert not quota.acquire(16.9)
    assert quota.earliest(11.0) == 17.0
    assert quota.braked_until(16.0) == 17.0
    assert quota.braked_until(17.0) is None
    assert quota.acquire(17.0)


def test_a_shorter_retry_after_does_not_release_a_longer_brake() -> None:
    """Answers under way together may carry different waits: the longest holds."""
    quota = Quota([(60, 60.0)])
    quota.throttled(10.0, 30.0)
    assert quota.throttled(11.0, 1.0) == 40.0


def test_without_retry_after_the_brake_doubles_and_starts_small_after_success() -> None:
    """1, 2, 4 … up to a minute; a burst of refusals counts once; an accepted call resets it."""
    quota = Quota([(600, 60.0)], brake_seconds=1.0, brake_seconds_max=4.0)
    now = 0.0
    waits = []
    for _ in range(5):
        until = quota.throttled(now, None)
        assert quota.throttled(now + 0.1, None) == until
        waits.append(until - now)
        now = until
    assert waits == [1.0, 2.0, 4.0, 4.0, 4.0]
    quota.accepted()
    assert quota.throttled(now, None) == now + 1.0


def test_large_limits_are_counted_in_fractions_of_the_window() -> None:
    """Memory stays bounded for a raised key, and the count errs on the safe side."""
    limit = EXACT_MAX * 3
    quota = Quota([(limit, 60.0)])
    for call in range(limit):
        assert quota.acquire(call * 0.001)
        quota.answered(call * 0.001)
    assert not quota.acquire(30.0)
    assert len(quota._windows[0]._ends) <= EXACT_MAX + 1
    first = quota.earliest(30.0)
    assert 60.0 <= first <= 60.0 + 60.0 / EXACT_MAX
    assert not quota.acquire(first - 0.001)
    assert quota.acquire(first)


def test_whether_our_own_count_has_room_does_not_ask_the_brake() -> None:
    """It tells a sending guardrail from the quota: a 429 while there is room here is not our spending."""
    quota = Quota([(2, 60.0)], reserve=0.5)
    quota.throttled(0.0, 30.0)
    assert quota.has_room(0.0)
    spend(quota, 2, 300.0)
    assert not quota.has_room(301.0)


def test_a_quota_of_its_own_lets_whatever_was_booked_leave() -> None:
    """Nobody else owns a part of it, and no commit has to permit it."""
    quota = Quota([(1, 60.0)])
    assert quota.acquire(0.0)
    assert quota.leaves(quota.slot)
    assert not quota.take_untold()
    assert not quota.none_owned


def demand(quota: Quota, since: float, seconds: float, step: float) -> int:
    """Calls that leave where one wants to at each step, each answered at once."""
    made = 0
    for number in range(round(seconds / step)):
        now = since + number * step
        if quota.acquire(now):
            quota.answered(now)
            made += 1
    return made


def test_a_refusal_on_a_quiet_key_costs_minutes_not_hours() -> None:
    """Where hardly anything of a window is used, our own count does not tell which one a neighbour has filled."""
    quota = Quota([(60, 60.0), (1000, 3600.0)], reserve=0.1)
    assert demand(quota, 0.0, 1800.0, 18.0) == 100
    quota.throttled(1800.0, 1.0)
    assert demand(quota, 1801.0, 240.0, 1.0) >= 50, "the minute has recovered by then"
    assert demand(quota, 2041.0, 600.0, 1.0) >= 200


def test_refusals_in_a_row_do_not_stop_a_quiet_key() -> None:
    """Some more cost some more minutes: an hour of which little was used is never taken for full."""
    quota = Quota([(60, 60.0), (1000, 3600.0)], reserve=0.1)
    assert demand(quota, 0.0, 1800.0, 18.0) == 100
    for number in range(3):
        quota.throttled(1800.0 + 3 * number, 1.0)
    assert demand(quota, 1810.0, 600.0, 1.0) >= 200


def test_a_refusal_draws_no_gap_that_outlasts_it() -> None:
    """Large windows of which little was used: their ceilings rise within seconds, and calls with them."""
    quota = Quota([(1_000_000, 60.0), (60_000_000, 3600.0)], reserve=0.1)
    assert demand(quota, 0.0, 0.5, 0.1) == 5
    quota.throttled(0.5, 1.0)
    assert demand(quota, 1.5, 10.0, 0.01) >= 100
