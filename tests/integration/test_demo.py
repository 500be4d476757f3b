"""The demo itself: it proves what it says, and it must be able to say the opposite."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import orjson
import pytest

from bridge.errors import StartFailed, UsageError
from bridge.sandbox import demo as demo_module
from bridge.sandbox.audit import EXPECTED_CALLS, EXPECTED_TAGS
from bridge.sandbox.demo import DemoOptions, run
from bridge.sandbox.stream import events
from tests.support.service import wait_for


def upserts(options: DemoOptions) -> int:
    """How many upserts the demo's events ask for."""
    stream = events(options.seed, options.events, options.users, poison=options.bad, now_wall_seconds=0.0)
    types = [orjson.loads(event.value)["type"] for event in stream if event.poison is None]
    return sum("upsert" in EXPECTED_CALLS[type] for type in types)


def added_tags(options: DemoOptions) -> int:
    """How many events of the demo's stream add a tag."""
    stream = events(options.seed, options.events, options.users, poison=options.bad, now_wall_seconds=0.0)
    types = [orjson.loads(event.value)["type"] for event in stream if event.poison is None]
    return sum(EXPECTED_TAGS.get(type) == "add_tag" for type in types)


SMALL = DemoOptions(events=150, users=30, bad=5, latency_ms=0.0)


@pytest.fixture(autouse=True)
def handlers_of_signals() -> Iterator[None]:
    """The demo sets its own, as a command may; this process goes on."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_it_delivers_everything_and_agrees(capsys: pytest.CaptureFixture[str]) -> None:
    """What a newcomer sees: figures that add up, every kind of bad event with its reason, and exit status 0."""
    assert run(SMALL) == 0
    said = capsys.readouterr().out
    assert "events            150 of 30 users" in said
    assert "dead letters      5 of 5 bad events" in said
    for line in ("decode      1  broken json", "rule        1  missing email", "rejected    1  refused address"):
        assert line in said
    for name in ("order violations", "lost", "calls repeated", "emails twice"):
        assert f"  {name:<17} 0\n" in said
    calls = re.search(r"^  calls +([\d,]+): (.+)$", said, re.MULTILINE)
    merged = re.search(r"^  merged +([\d,]+) upserts that the same user's next one carried$", said, re.MULTILINE)
    assert calls is not None and merged is not None
    by_endpoint = {name: int(count) for name, count in (part.split() for part in calls.group(2).split(", "))}
    assert sum(by_endpoint.values()) == int(calls.group(1))
    tags = by_endpoint["upsert"] + int(merged.group(1)) - upserts(SMALL)
    assert 0 <= tags <= added_tags(SMALL), "each upsert was a call, or within one; so was each tag that was added"
    assert "add_tag" not in by_endpoint, "tags by their name are upserts"
    unchanged = re.search(r"^  unchanged +([\d,]+) tags that their user had already$", said, re.MULTILINE)
    assert unchanged is not None and int(unchanged.group(1)) <= added_tags(SMALL)
    assert said.endswith("The ledger agrees.\n")


@pytest.mark.slow
def test_a_bridge_that_drops_a_rule_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same events through rules that forget log-ins: everything seems well to the bridge, and
    the exit status is 1, with what was lost."""
    rules = files("bridge.sandbox").joinpath("demo_files", "rules.yaml").read_text()
    assert "match: user.logged_in" in rules
    (tmp_path / "demo_files").mkdir()
    (tmp_path / "demo_files" / "rules.yaml").write_text(
        rules.replace("match: user.logged_in", "match: user.logged_out")
    )
    monkeypatch.setattr(demo_module, "files", lambda package: tmp_path)
    assert run(SMALL) == 1
    said = capsys.readouterr().out
    assert "upsert of event" in said
    assert "never came" in said
    assert said.endswith("THE LEDGER DISAGREES.\n")


@pytest.mark.parametrize(
    "wrong",
    [
        {"events": 0},
        {"users": 0},
        {"events": 5, "bad": 5},
        {"bad": -1},
        {"latency_ms": -1.0},
        {"latency_ms": float("nan")},
        {"latency_ms": 1e9},
    ],
)
def test_numbers_that_make_no_demo_are_refused_before_anything_starts(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"^demo: "):
        run(DemoOptions(**wrong))


def test_without_a_temporary_folder_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**named: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    with pytest.raises(StartFailed, match=r"no temporary folder can be made \(No space left on device\); set TMPDIR"):
        run(SMALL)


def processes_of(folder: Path) -> list[int]:
    """Processes whose environment names this folder as the one for temporary files."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                alive = (entry / "stat").read_text().rpartition(") ")[2][0] != "Z"
                if alive and f"TMPDIR={folder}\0".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended, or is not ours
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks processes up in Linux' /proc")
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_no_process_outlives_it(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C, a closed terminal (SIGTERM takes the same way) and kill -9 in the middle: broker, sandbox and bridge end
    too, and unless it was killed nothing of its folder is left. No trace of Python is shown."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge", "demo", "--events", "20000", "--users", "50"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: len(processes_of(tmp_path)) == 4, "the demo and its three parts", 30)
        time.sleep(0.3 if number == signal.SIGKILL else 0)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        wait_for(lambda: processes_of(tmp_path) == [], "the end of all its processes", 40)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert err == ""
    if number != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []
