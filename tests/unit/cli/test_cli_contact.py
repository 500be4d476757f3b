"""`meisa-bridge contact forget`: what it erases from a file, what it asks, and what it says remains."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridge.cli import forgetting, main
from bridge.core.registers import merged
from bridge.errors import LogFailed
from bridge.state.sqlite import SqliteStore

CONFIG = """\
kafka: {bootstrap_servers: "localhost:9092"}
topics: {user-events: {}}
meisa: {api_key: {env: KEY}}
rules: [rules/*.yaml]
"""
PEOPLE = "email,external_id,stripe\nAda@Example.com,id-ada,cus-ada\neve@example.com,id-eve,cus-eve\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state of two people; and a Kafka that says what it is asked."""
    (tmp_path / "bridge.yaml").write_text(CONFIG + "state: {url: 'sqlite:///state.db'}\n")
    (tmp_path / "people.csv").write_text(PEOPLE)
    monkeypatch.chdir(tmp_path)
    assert call("identities", "import", "people.csv").exit_code == 0
    monkeypatch.setattr("bridge.kafka.groups.members", lambda *asked: [])
    monkeypatch.setattr("bridge.kafka.admin.retention_seconds", lambda *asked: {"user-events": 604_800.0})
    return tmp_path


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(main, [*arguments, "-c", "bridge.yaml"], env={"KEY": "meisa_live_1"})
    assert "Traceback" not in result.output and "unexpected" not in result.output
    return result


def kept() -> set[str]:
    db = sqlite3.connect("state.db")
    names = {name for (name,) in db.execute("SELECT name FROM register")}
    db.close()
    return names


EVE = {"e:eve@example.com", "x:id-eve", "a:stripe:cus-eve"}
ADA = {"e:ada@example.com", "x:id-ada", "a:stripe:cus-ada"}


def test_a_person_is_erased_from_the_file_itself(folder: Path) -> None:
    """Not merely from the table: free pages and the write-ahead log hold nothing of them either."""
    assert b"id-ada" in (folder / "state.db").read_bytes()
    result = call("contact", "forget", "ADA@example.com", "--yes")
    assert result.exit_code == 0 and result.stderr == "" and "would be" not in result.stdout
    assert "state sqlite:///state.db: erased\n      3 names (email, external_id, aliases)\n" in result.stdout
    assert kept() == EVE
    left = b"".join(file.read_bytes() for file in folder.glob("state.db*"))
    assert b"eve@example.com" in left and b"ada" not in left.lower()
    again = call("contact", "forget", "ada@example.com", "--yes")
    assert again.exit_code == 0 and "nothing is kept of this person" in again.stdout


def test_it_says_what_remains_where_and_how_long(folder: Path) -> None:
    out = call("contact", "forget", "ada@example.com", "--yes").stdout
    assert "topic user-events: the person's events, for at least 7d" in out
    assert "topic meisa-bridge.dead-letters: dead letters hold whole records, for as long as the topic keeps" in out
    assert "meisa-bridge dlq list --all --contact ada@example.com" in out
    assert "Meisa: the contact itself" in out and "backups" in out and "memory: " not in out


def test_a_dry_run_changes_nothing_and_asks_nothing(folder: Path) -> None:
    result = call("contact", "forget", "ada@example.com", "--dry-run")
    assert result.exit_code == 0 and "would be erased\n      3 names" in result.stdout
    assert kept() == ADA | EVE


def test_without_a_terminal_and_without_yes_nothing_is_done(folder: Path) -> None:
    result = call("contact", "forget", "ada@example.com")
    assert result.exit_code == 2 and "--yes" in result.stderr
    assert kept() == ADA | EVE


def test_json_tells_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*asked: object) -> None:
        raise LogFailed("no answer")

    monkeypatch.setattr("bridge.kafka.groups.members", away)
    told = json.loads(call("contact", "forget", "ada@example.com", "--yes", "--json").stdout)
    assert told["erased"] == {"identities": 3, "lazy": 0, "unchanged": 0}
    assert (told["dry_run"], told["lasting"], told["scrubbed"]) == (False, True, True)
    remains = {each["where"]: each for each in told["remains"]}
    assert remains["memory"]["what"].startswith("a bridge that runs")
    assert "Kafka did not answer" in remains["topic user-events"]["what"]
    assert remains["topic user-events"]["seconds"] is None


def test_state_in_memory_keeps_nothing(folder: Path) -> None:
    (folder / "bridge.yaml").write_text(CONFIG)
    result = call("contact", "forget", "ada@example.com")
    assert result.exit_code == 0 and "nothing is kept in a store" in result.stdout


@pytest.mark.parametrize("email", ["", "id-ada", "ada@"])
def test_what_is_no_address_is_a_wrong_command_line(folder: Path, email: str) -> None:
    result = call("contact", "forget", email, "--yes")
    assert result.exit_code == 2 and "no email address" in result.stderr
    assert kept() == ADA | EVE


@pytest.mark.parametrize("times", [1, 100])
def test_what_a_running_service_writes_meanwhile_is_erased_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """It had read the registers before, and writes them afterwards; one that never ends is told of."""
    rounds = []
    flush = SqliteStore.flush

    async def overtaken(self: SqliteStore) -> None:
        await flush(self)
        if len(rounds) < times:
            rounds.append(True)
            other = SqliteStore(folder / "state.db", merge=merged)
            other.put("x:id-ada", b'["ada@example.com",false,false,[["events",0,7]]]')
            await flush(other)
            await other.close()

    monkeypatch.setattr(SqliteStore, "flush", overtaken)
    result = call("contact", "forget", "ada@example.com", "--yes")
    if times == 1:
        assert result.exit_code == 0 and kept() == EVE
    else:
        assert result.exit_code == 1 and "stop it first" in result.stderr and "repeat it" in result.stderr


def test_a_state_url_is_told_without_its_password() -> None:
    assert forgetting._where("redis://user:p4ss@host:6379/0?x=p4ss") == "redis://host:6379/0"


def test_a_file_that_somebody_holds_cannot_be_scrubbed(tmp_path: Path) -> None:
    """It says so, and does not fail: what was deleted is deleted."""
    store = SqliteStore(tmp_path / "state.db", merge=merged, patience_seconds=0.01)
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert store.scrub() is False
    other.execute("ROLLBACK")
    assert store.scrub() is True
    other.close()
    asyncio.run(store.close())
