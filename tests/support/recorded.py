"""What older code left in Kafka, at Meisa and in its state, as files (tests/data/upgrade), and how it is put back.

A recording is what a bridge of an earlier commit left when it was killed in the middle of its work: the records of its
topic, what it had committed with the text beside it, its dead letters and replays, its registers, and the calls that
the sandbox had received from it.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from bridge.sandbox.stream import SampleEvent
from tests.support.chaos.fleet import Place
from tests.support.kafka import Cluster

FOLDER = Path(__file__).resolve().parents[1] / "data" / "upgrade"
PARTITIONS = 3

Message = dict[str, Any]
"""key, value and headers of a record, as JSON says them."""


class Recording(NamedTuple):
    """See the module's text. All of it is JSON."""

    commit: str
    """Of this repository, whose code ran."""
    made: str
    group: str
    topic: str
    letters_topic: str
    records: list[Message]
    """Of the topic, with partition, offset, timestamp_ms, and user, sequence and poison of SampleEvent."""
    commits: list[tuple[int, int, str]]
    """Partition, offset, and the text beside it."""
    letters: list[Message]
    replays: list[Message]
    """Of the topic of replays; empty where there is none."""
    ledger: list[dict[str, Any]]
    """Of the sandbox."""
    in_doubt: int
    """Triggers that were carried out, and whose answer never came."""
    sqlite: dict[str, Any] | None = None
    """user_version, application_id, schema, and the registers: name and value."""
    redis: dict[str, str] | None = None
    """Key and value."""

    @property
    def produced(self) -> list[SampleEvent]:
        found = []
        for record in self.records:
            plain = message(record)
            headers = tuple((name, value) for name, value in plain["headers"])
            who = record["user"], record["sequence"]
            found.append(SampleEvent(plain["key"], plain["value"], headers, record["poison"], *who))
        return found

    @property
    def places(self) -> dict[tuple[str, int], Place]:
        return {
            (record["user"], record["sequence"]): Place(record["partition"], record["offset"], record["timestamp_ms"])
            for record in self.records
        }


def recordings() -> list[str]:
    """Their names."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load(name: str) -> Recording:
    said = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return Recording(**{**said, "commits": [tuple(each) for each in said["commits"]]})


def save(name: str, recording: Recording) -> None:
    parts = []
    for field, value in recording._asdict().items():
        if isinstance(value, list) and value:
            lines = ",\n  ".join(json.dumps(each, ensure_ascii=False) for each in value)
            parts.append(f"{json.dumps(field)}: [\n  {lines}\n ]")
        else:
            parts.append(f"{json.dumps(field)}: {json.dumps(value, ensure_ascii=False)}")
    (FOLDER / f"{name}.json").write_text("{\n " + ",\n ".join(parts) + "\n}\n", encoding="utf-8")


def ageless(rules: str) -> str:
    """The rules without the age at which a trigger, a track or an enrollment is history."""
    made = []
    for line in rules.splitlines():
        made.append(line)
        if line.startswith(("      - trigger:", "      - track:", "      - enroll:")):
            made[-1:] = [line.replace("- ", "- max_age: none\n        ", 1)]
    return "\n".join(made) + "\n"


# Messages


def told(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()) -> Message:
    """As JSON; what is no text is in base64."""
    made: Message = {**_told("key", key), **_told("value", value)}
    if headers:
        made["headers"] = [[name, _told("value", content)] for name, content in headers]
    return made


def _told(name: str, content: bytes | None) -> dict[str, str | None]:
    try:
        return {name: None if content is None else content.decode()}
    except UnicodeDecodeError:
        assert content is not None
        return {f"{name}_base64": base64.b64encode(content).decode()}


def _plain(name: str, said: Mapping[str, Any]) -> bytes | None:
    if f"{name}_base64" in said:
        return base64.b64decode(said[f"{name}_base64"])
    text = said[name]
    return None if text is None else text.encode()


def message(said: Message) -> dict[str, Any]:
    """Arguments of a producer."""
    headers = [(name, _plain("value", content)) for name, content in said.get("headers", ())]
    return {"key": _plain("key", said), "value": _plain("value", said), "headers": headers}


# Putting it back


def put_back(recording: Recording, cluster: Cluster, sandbox_url: str, key: str) -> None:
    """Topics, commits, and at the sandbox everything that had been carried out there."""
    cluster.create_topic(recording.topic, PARTITIONS)
    cluster.create_topic(recording.letters_topic, 1)
    for record in recording.records:
        place = {"partition": record["partition"], "timestamp": record["timestamp_ms"]}
        cluster.produce(recording.topic, {**message(record), **place})
    cluster.produce(recording.letters_topic, *(message(each) for each in recording.letters))
    if recording.replays:
        replays = cluster.create_topic(f"{recording.letters_topic}.replays", 1)
        cluster.produce(replays, *(message(each) for each in recording.replays))
    for partition, offset, text in recording.commits:
        if offset >= 0:
            cluster.commit(recording.group, recording.topic, partition, offset, text)
    with httpx.Client(base_url=sandbox_url, timeout=10, headers={"X-API-Key": key}) as client:
        for entry in recording.ledger:
            if entry["carried_out"] and entry["method"] == "POST":
                path = entry["path"]
                if "_tag/" in path:
                    path = _of_contact(client, path, entry["contact"])
                assert client.post(path, json=entry["body"]).is_success, entry


def _of_contact(client: httpx.Client, path: str, email: str) -> str:
    """The path with the id that the contact has now."""
    answer = client.get("/_sandbox/contacts", params={"environment": "test", "email": email}).json()
    head, _, tail = path.partition("/contacts/")
    return f"{head}/contacts/{answer['contacts'][0]['id']}/{tail.partition('/')[2]}"


def sqlite_of(path: Path) -> dict[str, Any]:
    """What a state file holds."""
    with sqlite3.connect(path) as db:
        (schema,) = (row[0] for row in db.execute("SELECT sql FROM sqlite_master WHERE type = 'table'"))
        rows = db.execute("SELECT name, value FROM register ORDER BY name").fetchall()
        (version,), (application,) = (
            db.execute(f"PRAGMA {name}").fetchone() for name in ("user_version", "application_id")
        )
    registers = {name: base64.b64encode(value).decode() for name, value in rows}
    return {"user_version": version, "application_id": application, "schema": schema, "registers": registers}


def write_sqlite(path: Path, said: Mapping[str, Any]) -> None:
    """The file as it was."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(said["schema"])
    rows = [(name, base64.b64decode(value)) for name, value in said["registers"].items()]
    db.executemany("INSERT INTO register (name, value) VALUES (?, ?)", rows)
    for name in ("user_version", "application_id"):
        db.execute(f"PRAGMA {name} = {said[name]}")
    db.close()
