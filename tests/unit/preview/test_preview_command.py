"""`meisa-bridge preview` as it is called: what goes where, and with which exit status."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from bridge.cli import main
from bridge.cli.preview import _Bar
from bridge.errors import LogFailed
from tests.support.previews import CONFIG, as_lines, event, iso

RULES = """\
rules:
  - name: plan
    match: plan.changed
    do:
      - upsert: {email: "${data.email}", custom_fields: {plan: "${data.plan}"}}
"""
EVENTS = [event("plan.changed", 3600 * n, email="ann@example.com", plan=f"p{n}") for n in range(3)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, rules and a file of events, entered."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "bridge.yaml").write_text(CONFIG)
    (tmp_path / "config" / "rules.yaml").write_text(RULES)
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(as_lines(EVENTS)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KEY", raising=False)
    return tmp_path


def call(*arguments: str, status: int = 0, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(main, ["preview", *arguments], input=stdin)
    assert "Traceback" not in result.output
    assert result.exit_code == status, result.output
    return result


def as_json(*arguments: str, stdin: str | None = None) -> dict[str, Any]:
    found = json.loads(call(*arguments, "--json", stdin=stdin).stdout)
    assert isinstance(found, dict)
    return found


def test_a_file_without_any_key_or_broker(folder: Path) -> None:
    """Nothing is called, so nothing needs to be there; standard error stays empty where nobody looks on."""
    result = call("--file", "events.jsonl")
    assert "3 events of events.jsonl as users" in result.stdout
    assert result.stderr == ""
    assert "\x1b" not in result.stdout


def test_standard_input_and_json(folder: Path) -> None:
    """`-`; the JSON alone is printed."""
    found = as_json("--file", "-", stdin=(folder / "events.jsonl").read_text())
    assert (found["source"]["name"], found["events"]["read"]) == ("standard input", 3)
    assert found["calls"]["by_endpoint"]["upsert"] == 3


def test_readings_and_bounds(folder: Path) -> None:
    """All at once they merge; the last, and those since a time, are fewer."""
    assert as_json("--file", "events.jsonl", "--at-once")["calls"]["by_endpoint"]["upsert"] < 3
    assert as_json("--file", "events.jsonl", "--last", "2")["events"]["read"] == 2
    assert as_json("--file", "events.jsonl", "--since", iso(3600))["events"]["read"] == 2
    found = as_json("--file", "events.jsonl", "--at-once", "--now", iso(1_000_000))
    assert found["start"] == iso(1_000_000)


def test_a_page(folder: Path) -> None:
    """Written beside what is printed; a place that cannot be written is told."""
    assert "wrote out.html" in call("--file", "events.jsonl", "--html", "out.html").stdout
    assert (folder / "out.html").read_text().startswith("<!doctype html>")
    assert "wrote" not in call("--file", "events.jsonl", "--html", "out.html", "--json").stdout
    assert "cannot be written" in call("--file", "events.jsonl", "--html", "no/out.html", status=2).stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--file events.jsonl, or --topic T"),
        (["--file", "absent.jsonl"], "absent.jsonl: cannot be read (No such file or directory)"),
        (["--file", "events.jsonl", "--topic", "user"], "did you mean users?"),
        (["--last", "5", "--since", "1h"], "exclude each other"),
        (["--file", "events.jsonl", "--since", "yesterday"], "2026-01-31T12:00:00Z, or how long ago: 2h"),
        (["--file", "events.jsonl", "--last", "0"], "--last"),
    ],
)
def test_a_wrong_command_line_is_told_in_a_line(folder: Path, arguments: list[str], told: str) -> None:
    """Exit status 2, and what to write instead."""
    assert told in call(*arguments, status=2).stderr


def test_of_several_topics_one_is_named(folder: Path) -> None:
    """Lines do not tell theirs."""
    config = folder / "config" / "bridge.yaml"
    config.write_text(CONFIG.replace("topics: {", "topics: {bills: {}, "))
    assert "--topic" in call("--file", "events.jsonl", status=2).stderr
    assert as_json("--file", "events.jsonl", "--topic", "bills")["source"]["topics"] == ["bills"]


def test_problems_of_the_configuration_end_it(folder: Path) -> None:
    """With their places, as everywhere; only the API keys and the admin token need not be there."""
    (folder / "config" / "rules.yaml").write_text("rules: [{name: a, match: b, when: 'data.', do: []}]")
    assert "rules.yaml:1:" in call("--file", "events.jsonl", status=1).stderr
    password = ", properties: {sasl.password: {env: ABSENT}}}"
    (folder / "config" / "bridge.yaml").write_text(CONFIG.replace('"localhost:1"}', '"localhost:1"' + password))
    assert "ABSENT" in call("--file", "events.jsonl", status=2).stderr


def test_a_broker_that_is_not_there_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line with its address, exit status 1."""

    def silent(*asked: Any, **more: Any) -> None:
        raise LogFailed("nobody answers")

    monkeypatch.setattr("bridge.kafka.sample.sample", silent)
    assert "Kafka at localhost:1: nobody answers" in call("--topic", "users", status=1).stderr


def test_the_log_is_as_it_was(folder: Path) -> None:
    """The engine is silent while it rehearses, and only then."""
    before = structlog.get_config()
    call("--file", "events.jsonl")
    assert structlog.get_config() == before


def test_an_interrupt_ends_it_at_once(folder: Path) -> None:
    """Ctrl-C: 130, and not a word of a traceback."""
    many = [event("plan.changed", n, email=f"u{n}@example.com", plan="p") for n in range(5_000)]
    (folder / "many.jsonl").write_bytes(b"\n".join(as_lines(many)))
    code = (
        "import os, signal, sys, threading, bridge.preview.rehearsal as r\n"
        "from bridge.cli import main\n"
        "real = r._House._feed\n"
        "async def feed(self, *rest):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    await real(self, *rest)\n"
        "r._House._feed = feed\n"
        "main(['preview', '--file', 'many.jsonl'])\n"
    )
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ended = subprocess.run([sys.executable, "-c", code], cwd=folder, env=where, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (130, b"")
    assert b"Traceback" not in ended.stderr


class Screen(io.StringIO):
    """A terminal, or none."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def test_progress_is_one_line_on_a_terminal_and_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told a few times a second at most, never wider than 80 columns, and wiped away in the end."""
    moments = iter([1.0, 1.1, 1.3, 2.0, 3.0])
    monkeypatch.setattr("bridge.cli.preview.time", SimpleNamespace(monotonic=lambda: next(moments)))
    screen = Screen(True)
    with _Bar(screen) as bar:
        for seconds in (1e9, 2e9, 3e9):
            bar.told(10**9, 10**9, 10**9, seconds)
    (first, second, wiped) = screen.getvalue().split("\r\033[K")[1:]
    assert "34722d" in second, "the one between came too soon"
    assert max(len(first), len(second)) < 80
    assert wiped == ""
    with _Bar(nowhere := Screen(False)) as bar:
        bar.told(1, 1, 1, 1.0)
        bar.read(1, 1)
    assert nowhere.getvalue() == ""
