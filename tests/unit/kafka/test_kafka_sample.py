"""How much of a topic is read: shares of partitions, spots over a day, and the order of what was read."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bridge.kafka.sample import Slice, fitted, in_time, spread
from bridge.model import Record, TopicPartition

lengths = st.lists(st.integers(0, 50), max_size=8)


def slices(of: list[int]) -> list[Slice]:
    return [Slice(TopicPartition("t", number), 100, 100 + length) for number, length in enumerate(of)]


@given(lengths, st.integers(0, 200))
def test_a_share_for_each_partition_and_all_of_a_short_one(of: list[int], count: int) -> None:
    """Together exactly as many as wanted, if there are; nobody gives two more than one who has more to give."""
    found = {each.partition.partition: each for each in fitted(slices(of), count)}
    assert sum(each.length for each in found.values()) == min(count, sum(of))
    given_by = [found[number].length if number in found else 0 for number in range(len(of))]
    assert all(each.end == 100 + of[number] for number, each in found.items())
    for number, length in enumerate(of):
        if given_by[number] < length:
            assert given_by[number] >= max(given_by) - 1


@given(lengths, st.integers(1, 100), st.integers(1, 8))
def test_spots_lie_within_the_slices_and_never_meet(of: list[int], count: int, spots: int) -> None:
    """Each round has a partition once; over all rounds no offset is read twice, and each partition is."""
    seen: set[tuple[int, int]] = set()
    rounds = spread(slices(of), count, spots)
    for each_round in rounds:
        assert len({each.partition for each in each_round}) == len(each_round)
        for each in each_round:
            offsets = {(each.partition.partition, offset) for offset in range(each.start, each.end)}
            assert offsets and not offsets & seen
            assert each.start >= 100 and each.end <= 100 + of[each.partition.partition]
            seen |= offsets
    assert {partition for partition, _ in seen} == {number for number, length in enumerate(of) if length}
    assert len(seen) <= max(count, spots * len(of))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 20)), max_size=30))
def test_records_are_merged_by_time_without_leaving_their_order(of: list[tuple[int, int]]) -> None:
    """Offsets of a partition rise; a record that is older than its predecessor stays behind it."""
    records = [Record("t", partition, offset, time, None, b"") for offset, (partition, time) in enumerate(of)]
    found = list(in_time(records))
    assert sorted(found) == sorted(records)
    for partition in range(3):
        offsets = [each.offset for each in found if each.partition == partition]
        assert offsets == sorted(offsets)
    if all(a.timestamp_ms <= b.timestamp_ms for a, b in pairwise(records)):
        assert [each.timestamp_ms for each in found] == [each.timestamp_ms for each in records]
