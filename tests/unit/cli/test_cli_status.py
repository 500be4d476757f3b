"""`meisa-bridge status`: what it shows of an answer, and what it says where there is none. No socket is opened."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from bridge.cli import main
from bridge.cli.panel import MEANINGS, Drain, calls_in, drain_of, duration, lines
from bridge.cli.status import TOKEN_VARIABLE
from bridge.observe.snapshot import (
    BreakerState,
    LaneState,
    PartitionState,
    QuotaState,
    RulesState,
    Snapshot,
    WaitState,
)
from bridge.web import page

NOW = 1_795_341_317.0
SNAPSHOT = Snapshot(
    version="0.1.0",
    started_at_wall_seconds=NOW - 3660,
    taken_at_wall_seconds=NOW,
    in_group=True,
    group_state="member",
    partitions=(
        PartitionState("users", 0, 2, 41_000, lag=9, window=5, oldest_wait_seconds=75.0, retention_seconds=8000.0),
        PartitionState("users", 1, 2, 7, lag=2991),
    ),
    quota=(QuotaState("default", "minute", 12, 60), QuotaState("default", "hour", 200, 1000)),
    pending=(LaneState("sync", contacts=3, events=8), LaneState("bulk")),
    in_flight=4,
    waiting_for=(
        WaitState("quota", 120, "default", until_wall_seconds=NOW + 43),
        WaitState("retry", 8, "anna@example.com: 503"),
    ),
    totals={"delivered": 1000},
    dead_letters={"rejected": 2},
    rules=RulesState("a1b2c3d4", 12, 0, NOW - 3660),
)


def facts(snapshot: Snapshot = SNAPSHOT) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(page.as_json(page.facts(snapshot)))
    return told


def shown(snapshot: Snapshot, width: int = 80, drain: Drain | None = None) -> str:
    made = [line.text for line in lines(facts(snapshot), drain, width)]
    assert all(len(each) <= width for each in made)
    return "\n".join(made)


def ask(
    monkeypatch: pytest.MonkeyPatch, handler: Callable[[httpx.Request], httpx.Response], *options: str, **env: str
) -> Result:
    transport = httpx.MockTransport(handler)
    monkeypatch.setattr(httpx, "Client", functools.partial(httpx.Client, transport=transport))
    result = CliRunner().invoke(main, ["status", *options], env={TOKEN_VARIABLE: "", **env})
    assert "Traceback" not in result.output and "unexpected" not in result.output
    return result


def bridge(snapshot: Snapshot = SNAPSHOT, token: str | None = None) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/metrics":
            text = (
                "# TYPE meisa_bridge_calls_total counter\n"
                'meisa_bridge_calls_total{endpoint="upsert",status="200"} 1100.0\n'
                'meisa_bridge_calls_total{endpoint="upsert",status="429"} 50.0\n'
                'meisa_bridge_calls_total{endpoint="track",status="202"} 50.0\n'
                'meisa_bridge_calls_total{endpoint="ping",status="200"} 9.0\n'
            )
            return httpx.Response(200, text=text)
        if token is not None and request.headers.get("authorization") != f"Bearer {token}":
            return httpx.Response(401, json={"error": "no"})
        return httpx.Response(200, content=page.as_json(page.facts(snapshot)))

    return answer


def test_the_first_lines_say_whether_it_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    result = ask(monkeypatch, bridge())
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout.startswith("READY\nmember, up 1h 1m, version 0.1.0, as of 2026-11-22T09:55:17Z\n")
    joining = ask(monkeypatch, bridge(replace(SNAPSHOT, in_group=False, group_state="joining")))
    assert joining.stdout.startswith("NOT READY: not in the consumer group yet (joining)\n")
    assert joining.exit_code == 0, "it was asked for the status, and that is it"


def test_all_that_it_waits_for_has_its_count_and_its_end() -> None:
    text = shown(SNAPSHOT)
    assert "    120  quota: the quota is used up for now, until 09:56:00Z (in 43s)" in text
    assert "      8  retry: failed calls, to be tried again\n         a***@example.com: 503" in text
    assert "anna@" not in text
    assert "Dead letters since the start\n  rejected 2\n  see: meisa-bridge dlq list" in text
    assert "Dead letters since the start\n  none\n" in shown(replace(SNAPSHOT, dead_letters={}))
    assert "Waiting for nothing" in shown(replace(SNAPSHOT, waiting_for=()))


def test_what_needs_somebody_stands_above_the_figures() -> None:
    snapshot = replace(
        SNAPSHOT,
        stopped_topics=("users",),
        breakers=(BreakerState("track", open=True, detail="outage: 5 of 5 failed"),),
        rules=RulesState("a1b2c3d4", 12, 2, NOW - 60, "rules/a.yaml:3:5: error MB103: wehn", NOW - 4),
        partitions=(
            replace(SNAPSHOT.partitions[0], stalled_seconds=75.0, stalled_because=("quota", "retry")),
            SNAPSHOT.partitions[1],
        ),
    )
    drain = Drain(9000.0, 3000, 1.0, True, "default", 1000.0)
    text = shown(snapshot, 400, drain)
    alarms = [line for line in text.splitlines() if line.startswith("! ")]
    assert [line.partition(":")[0] for line in alarms] == [
        "! topic users is stopped",
        "! rules were not reloaded, those of before stay in force",
        "! track is held",
        "! users/0 stands still at offset 41000 for 1m 15s, waiting for",
        "! users/0",
    ]
    assert "waiting for: quota, retry" in alarms[3]
    assert "retention deletes offset 41000 in 2h 13m" in alarms[4]
    assert "a reload was refused 2026-11-22 09:55:13Z" in text
    assert "! " not in shown(SNAPSHOT, 400, drain._replace(seconds=100.0)), "retention is further away than the drain"


@pytest.mark.parametrize("width", [40, 80])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    topic = "a-very-long-topic-name." * 8
    shown(
        replace(
            SNAPSHOT,
            stopped_topics=(topic,),
            partitions=tuple(PartitionState(topic, n, 1, 10**12, lag=10**9, window=20_000) for n in range(30)),
            waiting_for=(WaitState("kafka", 0, "x" * 300),),
        ),
        width,
    )


def test_only_the_partitions_that_matter_most_are_listed() -> None:
    partitions = tuple(PartitionState("users", n, 1, 5, lag=n) for n in range(50))
    text = shown(replace(SNAPSHOT, partitions=(*partitions, PartitionState("z", 0, 1, 5, lag=0, stalled_seconds=61.0))))
    rows = text.partition("retention\n")[2].splitlines()
    assert rows[0].split()[:2] == ["z/0", "0"]
    assert rows[1].split()[:2] == ["users/49", "49"]
    assert rows[-1] == "and 31 more (--json tells all)"


def test_text_of_others_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in shown(replace(SNAPSHOT, waiting_for=(WaitState("retry", 1, "\x1b]0;x\x07 503\r\n"),)))


def test_time_to_drain_is_the_backlog_by_what_the_quota_allows() -> None:
    """3,000 events x 1.2 calls at 1,000 calls an hour: the hour allows less than the minute does."""
    drain = drain_of(facts(), {"upsert": 1150.0, "track": 50.0})
    assert drain == Drain(pytest.approx(3 * 1.2 * 3600), 3000, pytest.approx(1.2), True, "default", pytest.approx(1000))
    text = shown(SNAPSHOT, 200, drain)
    assert "to drain: 3h 36m at best" in text
    assert "3,000 events x 1.2 calls each (measured since the start), at 1,000 calls an hour (key default)" in text


def test_the_key_that_takes_longest_decides() -> None:
    quota = (*SNAPSHOT.quota, QuotaState("enroll", "hour", 0, 10), QuotaState("trigger", "hour", 0, 100_000))
    drain = drain_of(facts(replace(SNAPSHOT, quota=quota)), {"upsert": 1000.0, "bulk_enroll": 100.0, "trigger": 500.0})
    assert drain is not None and (drain.key, drain.seconds) == ("enroll", pytest.approx(3000 * 0.1 * 360))


def test_time_to_drain_is_assumed_before_anything_is_measured_and_unknown_without_lag_or_quota() -> None:
    fresh = drain_of(facts(replace(SNAPSHOT, totals={})), {})
    assert fresh is not None and (fresh.measured, fresh.seconds) == (False, pytest.approx(3 * 3600))
    assert "assumed" in shown(SNAPSHOT, 200, fresh)
    unknown = (replace(SNAPSHOT.partitions[0], lag=None),)
    assert drain_of(facts(replace(SNAPSHOT, partitions=unknown)), {}) is None
    assert drain_of(facts(replace(SNAPSHOT, quota=())), {}) is None
    assert "to drain: not known" in shown(SNAPSHOT, 80, None)
    assert "to drain: nothing" in shown(replace(SNAPSHOT, partitions=()), 80, fresh._replace(events=0))


def test_json_is_the_status_and_the_time_to_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    told = json.loads(ask(monkeypatch, bridge(), "--json").stdout)
    drain = told.pop("drain")
    assert told == facts()
    assert drain == {
        "seconds_at_best": 12960.0,
        "events": 3000,
        "calls_per_event": 1.2,
        "measured": True,
        "key": "default",
        "calls_per_hour": 1000.0,
    }


def test_a_token_comes_from_the_environment_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken\n")
    assert ask(monkeypatch, bridge(token="t0ken"), **{TOKEN_VARIABLE: "t0ken"}).exit_code == 0
    assert ask(monkeypatch, bridge(token="t0ken"), "--token-file", str(tmp_path / "token")).exit_code == 0
    missing = ask(monkeypatch, bridge(token="t0ken"))
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert missing.stderr == (
        "meisa-bridge: http://127.0.0.1:8080 needs the token of admin.token: "
        "set MEISA_BRIDGE_ADMIN_TOKEN, or give --token-file PATH\n"
    )
    wrong = ask(monkeypatch, bridge(token="t0ken"), **{TOKEN_VARIABLE: "0ther"})
    assert wrong.exit_code == 1 and "refuses the token" in wrong.stderr and "0ther" not in wrong.output
    absent = ask(monkeypatch, bridge(), "--token-file", str(tmp_path / "none"))
    assert absent.exit_code == 2 and "does not exist" in absent.stderr


def test_nobody_there_is_one_line_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[Errno 111] Connection refused")

    result = ask(monkeypatch, refuse, "--url", "http://127.0.0.1:9")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "meisa-bridge: no bridge at http://127.0.0.1:9: nothing listens there; is it running, and is --url the "
        "address of its admin.listen?\n"
    )


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404, text="not found"),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"ready": True}),
        httpx.Response(200, json={**facts(), "quota": [1]}),
        httpx.Response(302, headers={"location": "http://elsewhere/"}),
    ],
)
def test_somebody_else_there_is_said_so(monkeypatch: pytest.MonkeyPatch, answer: httpx.Response) -> None:
    result = ask(monkeypatch, lambda request: answer)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("meisa-bridge: what answers at http://127.0.0.1:8080 is no bridge (")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "http://", "http://u:p4ss@x:1", "http://x:y"])
def test_a_wrong_url_is_a_wrong_command_line(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    result = ask(monkeypatch, bridge(), "--url", url)
    assert result.exit_code == 2 and "p4ss" not in result.output and "write http://host:port" in result.stderr


def test_every_reason_that_the_bridge_gives_has_a_meaning() -> None:
    """`Waiting("…"` in the code; the breaker's reasons are an enumeration."""
    import re

    from bridge.core.breaker import Reason

    root = Path(__file__).parents[3] / "bridge"
    said = {found for file in root.rglob("*.py") for found in re.findall(r'Waiting\("(\w+)"', file.read_text())}
    assert len(said) > 10
    assert said | {reason.value for reason in Reason} | {"retry", "linger"} <= MEANINGS.keys()


def test_durations_and_metrics_are_read_right() -> None:
    assert [duration(seconds) for seconds in (0, 59.6, 61, 3600, 11_520, 200_000)] == [
        "0s", "1m", "1m 1s", "1h", "3h 12m", "2d 7h",
    ]  # fmt: skip
    assert calls_in('meisa_bridge_calls_total{status="200",endpoint="track"} 1e+03\nother{endpoint="x"} 1\n') == {
        "track": 1000.0
    }
