"""The sample stream is the same for the same seed, believable, and explains every gap in a user's sequence."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from bridge.decode import JsonDecoder
from bridge.errors import DecodeError
from bridge.model import Record
from bridge.sandbox.stream import POISONS, SampleEvent, events, write_jsonl

NOW = 1_795_337_657.0


def stream(seed: int = 1, count: int = 5000, users: int = 200, poison: int = 10, **options: Any) -> list[SampleEvent]:
    return list(events(seed, count, users, poison=poison, now_wall_seconds=NOW, **options))


def good(sample: list[SampleEvent]) -> list[tuple[SampleEvent, dict[str, Any]]]:
    return [(event, json.loads(event.value)) for event in sample if event.poison is None]


def test_the_same_seed_gives_the_same_bytes_and_another_other_ones() -> None:
    assert stream(7) == stream(7)
    assert stream(7) != stream(8)


def test_as_many_events_bad_events_and_users_as_asked_for() -> None:
    sample = stream()
    assert len(sample) == 5000
    assert Counter(event.poison for event in sample if event.poison) == dict.fromkeys(POISONS, 2)
    assert len({event.user for event in sample}) == 200


def test_everybodys_first_event_is_the_sign_up_and_there_is_only_one() -> None:
    first: dict[str, str] = {}
    sign_ups: Counter[str] = Counter()
    sample = stream()
    for event in sample:
        if event.poison is not None:
            assert event.user in first, "a bad event came before its user's sign-up"
            continue
        type = json.loads(event.value)["type"]
        first.setdefault(event.user, type)
        sign_ups[event.user] += type == "user.signed_up"
    assert set(first.values()) == {"user.signed_up"}
    assert set(sign_ups.values()) == {1}


def test_sequences_count_from_one_without_gaps_bad_events_included() -> None:
    sequences = defaultdict(list)
    for event in stream():
        sequences[event.user].append(event.sequence)
    for user, numbers in sequences.items():
        assert numbers == list(range(1, len(numbers) + 1)), user


def test_every_good_event_names_its_user_its_address_and_its_number() -> None:
    addresses: dict[str, str] = {}
    for event, value in good(stream()):
        data = value["data"]
        assert (event.key.decode(), data["user_id"], data["seq"]) == (event.user, event.user, event.sequence)
        assert addresses.setdefault(event.user, data["email"]) == data["email"]
    assert len(set(addresses.values())) == len(addresses)


def test_activity_is_zipf_distributed() -> None:
    """The busiest tenth makes more than 40 % of the events; all alike it would be 10 %."""
    activity = Counter(event.user for event in stream(count=10_000, users=500, poison=0)).most_common()
    assert sum(count for _, count in activity[:50]) > 0.4 * 10_000
    assert activity[0][0] == "u_00001"
    flat = Counter(event.user for event in stream(count=10_000, users=500, poison=0, zipf_s=0)).most_common()
    assert sum(count for _, count in flat[:50]) < 0.2 * 10_000


def test_all_the_usual_events_occur_and_log_ins_most() -> None:
    types = Counter(value["type"] for _, value in good(stream(count=10_000, users=500)))
    assert set(types) == {
        "user.signed_up",
        "user.logged_in",
        "onboarding.completed",
        "plan.changed",
        "invoice.paid",
        "invoice.payment_failed",
        "subscription.canceled",
    }
    assert types.most_common(1)[0][0] == "user.logged_in"
    assert min(types.values()) > 20


def test_a_users_story_is_consistent() -> None:
    """Invoices only for paying users, a new plan differs from the former, log-ins count up."""
    plan: dict[str, str] = {}
    signins: Counter[str] = Counter()
    for event, value in good(stream(count=10_000, users=300)):
        data = value["data"]
        match value["type"]:
            case "plan.changed":
                assert data["previous_plan"] == plan[event.user] != data["plan"]
                assert data["mrr"] > 0
            case "invoice.paid" | "invoice.payment_failed":
                assert data["plan"] == plan[event.user]
                assert data["plan"] in ("standard", "pro")
                assert data["amount"] > 0
            case "user.logged_in":
                signins[event.user] += 1
                assert data["signin_count"] == signins[event.user]
        plan[event.user] = data.get("plan", plan.get(event.user))


def test_time_advances_up_to_now() -> None:
    times = [datetime.fromisoformat(value["time"]).timestamp() for _, value in good(stream(span_seconds=600))]
    assert times == sorted(times)
    assert NOW - 600 - 0.001 <= times[0] < NOW - 595
    assert NOW - 5 < times[-1] <= NOW


def test_ids_are_unique() -> None:
    ids = [value["id"] for _, value in good(stream())]
    assert len(set(ids)) == len(ids)


def test_each_bad_event_is_bad_in_its_own_way() -> None:
    outcomes: dict[str, str] = {}
    for event in stream(poison=5):
        try:
            decoded = JsonDecoder().decode(Record("t", 0, 0, 0, event.key, event.value))
        except DecodeError as error:
            outcomes[event.poison or "good"] = error.message
            continue
        assert decoded is not None
        if event.poison:
            outcomes[event.poison] = str(decoded.data.get("email", "no address"))
    assert set(outcomes) == set(POISONS)
    assert outcomes["broken_json"].startswith("invalid JSON")
    assert outcomes["missing_type"].startswith("value.type is missing")
    assert outcomes["invalid_utf8"].startswith("invalid UTF-8")
    assert outcomes["missing_email"] == "no address"
    assert "@" not in outcomes["refused_address"]


def test_fewer_events_than_users() -> None:
    sample = stream(count=10, users=50, poison=2)
    assert len(sample) == 10
    assert len({event.user for event in sample if not event.poison}) == 8
    assert stream(count=0, users=1, poison=0) == []


@pytest.mark.parametrize(("count", "users", "poison"), [(5, 0, 0), (-1, 1, 0), (5, 1, 5), (5, 1, -1), (0, 1, 1)])
def test_numbers_that_make_no_stream_are_refused(count: int, users: int, poison: int) -> None:
    with pytest.raises(ValueError, match="at least one user"):
        stream(count=count, users=users, poison=poison)


def test_jsonl_has_one_line_per_event_and_keeps_the_bad_ones(tmp_path: Path) -> None:
    sample = stream(count=100, users=10, poison=5)
    path = tmp_path / "events.jsonl"
    assert write_jsonl(path, sample) == 100
    assert path.read_bytes().splitlines() == [event.value for event in sample]


def test_events_have_the_times_that_are_given() -> None:
    """A trace with a rate of its own tells when each event happened; their number has to agree."""
    sample = stream(count=3, users=2, poison=0, times=[NOW, NOW + 1, NOW + 7200])
    assert [json.loads(event.value)["time"][11:19] for event in sample] == ["08:54:17", "08:54:18", "10:54:17"]
    with pytest.raises(ValueError, match="a time for each event"):
        stream(count=3, users=2, poison=0, times=[NOW])


def test_milestones_are_thinned_out_and_log_ins_fill_the_room() -> None:
    def milestones(share: float) -> int:
        types = Counter(data["type"] for _, data in good(stream(poison=0, milestones=share)))
        return 5000 - types["user.signed_up"] - types["user.logged_in"]

    assert milestones(0.0) == 0
    assert 0 < 5 * milestones(0.1) < milestones(1.0)
