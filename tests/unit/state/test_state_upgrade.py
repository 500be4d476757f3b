"""What older code kept: every register is read, and formats of a later version are refused or passed over."""

from __future__ import annotations

import base64
import json

import pytest

from bridge.core import known, registers
from bridge.core.progress import decode
from bridge.model import Record
from bridge.replay import ledger
from bridge.replay.letters import parse
from bridge.runtime import duplicates
from tests.support.recorded import Recording, load, message, recordings

ALL = [load(name) for name in recordings()]
IDS = [each.topic for each in ALL]


def registers_of(recording: Recording) -> dict[str, bytes]:
    if recording.sqlite is not None:
        return {name: base64.b64decode(value) for name, value in recording.sqlite["registers"].items()}
    found = {name.partition(":register:")[2]: value for name, value in (recording.redis or {}).items()}
    return {name: base64.b64decode(value) for name, value in found.items() if name}


@pytest.mark.parametrize("recording", ALL, ids=IDS)
def test_every_register_is_read(recording: Recording) -> None:
    """None counts as never written."""
    for name, value in registers_of(recording).items():
        match name[:2]:
            case "x:" | "e:" | "a:" | "p:":
                assert registers.decoded(name, value) is not None, name
            case "k:":
                assert known._decoded(value) is not None, name
            case "d:":
                assert duplicates._decoded(value) is not None, name
            case kind:
                assert kind == "o:", f"no test reads {name}"


@pytest.mark.parametrize("recording", ALL, ids=IDS)
def test_every_commit_letter_and_replay_is_read(recording: Recording) -> None:
    """The text beside each offset is progress; each letter is one; each record of the replays says something."""
    assert all(decode(offset, text) is not None for _, offset, text in recording.commits)
    assert recording.letters
    for number, said in enumerate(recording.letters):
        plain = message(said)
        letter = Record("letters", 0, number, 0, plain["key"], plain["value"], tuple(plain["headers"]))
        found = parse(letter)
        assert found.source.topic == recording.topic and found.whole
    for said in recording.replays:
        plain = message(said)
        assert ledger.read((plain["key"], plain["value"])) is not None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (["later", "users", 0, 7, "x"], {"v": 1, "at": 1}),
        (["request", "users", 0, 7, "x"], {"v": 2, "at": 1, "wish": "replay", "letter": ["letters", 0, 0]}),
        (["request", "users", 0, 7, "x"], {"v": 1, "at": 1, "wish": "postpone", "letter": ["letters", 0, 0]}),
        (["result", "users", 0, 7, "x"], {"v": 1, "at": 1, "state": "halfway", "wall": 1.0}),
        (["request", "users", 0, 7, "x", "more"], {"v": 1, "at": 1, "wish": "replay", "letter": ["letters", 0, 0]}),
    ],
)
def test_a_later_versions_replay_is_passed_over(key: list[object], value: dict[str, object]) -> None:
    """Another kind, version, wish or state: not ours to understand, and no error."""
    assert ledger.read((json.dumps(key).encode(), json.dumps(value).encode())) is None


def test_what_a_later_version_adds_to_a_replay_does_no_harm() -> None:
    """A further field of a known record is not looked at."""
    value = {"v": 1, "at": 1, "wish": "replay", "letter": ["letters", 0, 0], "later": True}
    key = json.dumps(["request", "users", 0, 7, "x"]).encode()
    assert ledger.read((key, json.dumps(value).encode())) == ledger.read(
        (key, json.dumps({name: each for name, each in value.items() if name != "later"}).encode())
    )
