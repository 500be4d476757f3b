"""`meisa-bridge dlq` without a broker: what it refuses, and what it makes of letters."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridge.cli import dead_letters, main
from bridge.cli.dead_letters import line, page
from bridge.errors import UsageError
from bridge.kafka.letters import headers_of
from bridge.model import Letter, LetterKind, Record
from bridge.replay import wishes as wishes_
from bridge.replay.ledger import Place, Request, State, Wish
from bridge.replay.letters import parse
from bridge.replay.shelf import Found, about, is_named
from bridge.replay.telling import plain
from bridge.replay.wishes import Wishes

SOURCE = Record("users", 3, 42, 1_700_000_000_000, b"7", b'{"email":"anna@example.com"}', (("a", b"1"),))


def letter_record(kind: LetterKind = LetterKind.REJECTED, **more: object) -> Record:
    letter = Letter(
        SOURCE,
        kind,
        "anna@example.com is refused, key meisa_live_5up3r53cr3t",
        rule="signup",
        action="upsert",
        status=400,
        request={"email": "anna@example.com"},
        attempts=1,
        failed_at_wall_seconds=1_780_000_000.0,
        undelivered=(0,),
        undelivered_ids=("id0",),
    )
    return SOURCE._replace(topic="letters", partition=0, offset=5, headers=(*SOURCE.headers, *headers_of(letter)))


def found(state: State = State.OPEN, kind: LetterKind = LetterKind.REJECTED, **more: object) -> Found:
    return Found(parse(letter_record(kind)), state, **more)  # type: ignore[arg-type]


TOPICS = {"users"}


def chosen(each: Found, *, named: bool = False, overwrite: bool = False, send_again: bool = False) -> bool:
    wishes = Wishes.replays(TOPICS, [each], named=named, overwrite=overwrite, send_again=send_again)
    assert bool(wishes.chosen) != bool(wishes.skipped)
    return bool(wishes.chosen)


# The command line


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "bridge.yaml"
    file.write_text(
        'kafka: {bootstrap_servers: "127.0.0.1:1"}\ntopics: {users: {}}\n'
        "meisa: {api_key: {env: KEY}, environment: test}\nrules: [rules.yaml]\n"
    )
    return file


def call(config: Path, *arguments: str) -> Result:
    command, *rest = arguments
    words = ["dlq", command, "-c", str(config), *rest]
    result = CliRunner().invoke(main, words, env={"KEY": "meisa_test_x"})
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize("command", ["replay", "discard"])
def test_which_letters_are_meant_is_never_a_guess(config: Path, command: str) -> None:
    """Without names, filters or --all nothing is done; nor with names and filters at once."""
    for arguments in ([], ["5", "--all"], ["5", "--kind", "rule"]):
        result = call(config, command, *arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith("meisa-bridge: ") and result.stdout == ""


def test_a_kind_that_there_is_not_is_a_wrong_command_line(config: Path) -> None:
    assert call(config, "list", "--kind", "nonsense").exit_code == 2


def test_without_a_broker_it_says_so_in_one_line(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 1: the work failed."""
    monkeypatch.setattr(dead_letters, "PROBE_SECONDS", 0.3)
    result = call(config, "list")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1 and "no Kafka broker answers" in result.stderr


# What may be asked for


@pytest.mark.parametrize("state", [State.OPEN, State.FAILED])
def test_what_is_open_or_failed_is_replayed(state: State) -> None:
    assert chosen(found(state))


@pytest.mark.parametrize("state", [State.REPLAYED, State.REFUSED, State.DISCARDED])
def test_what_needs_nothing_any_more_is_left_alone(state: State) -> None:
    assert not chosen(found(state))


def test_a_discarded_letter_is_replayed_only_by_its_name() -> None:
    assert chosen(found(State.DISCARDED), named=True)


def test_what_was_replayed_is_sent_once_more_only_by_name_and_with_send_again() -> None:
    assert not chosen(found(State.REPLAYED), named=True)
    assert not chosen(found(State.REPLAYED), send_again=True)
    assert chosen(found(State.REPLAYED), named=True, send_again=True)


def test_an_unknown_outcome_needs_send_again() -> None:
    assert not chosen(found(kind=LetterKind.UNKNOWN_OUTCOME), named=True, overwrite=True)
    assert chosen(found(kind=LetterKind.UNKNOWN_OUTCOME), send_again=True)


def test_a_letter_on_its_way_is_asked_for_again_only_with_other_options() -> None:
    each = found(State.REQUESTED)
    each.request = Request(each.letter.source, each.letter.name, 1, Wish.REPLAY, each.letter.place)
    assert not chosen(each)
    assert chosen(each, overwrite=True)


def test_a_letter_of_a_topic_that_nobody_reads_is_left_out() -> None:
    """Its request would wait for ever."""
    each = found()
    each.letter = each.letter._replace(source=Place("elsewhere", 0, 1))
    assert not chosen(each)


def test_a_later_request_has_a_later_name_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks and results belong to a request by its time: two of one letter must differ."""
    monkeypatch.setattr(wishes_.time, "time", lambda: 1.0)
    each = found(State.FAILED)
    each.request = Request(each.letter.source, each.letter.name, 5_000_000, Wish.REPLAY, each.letter.place)
    wishes = Wishes.replays(TOPICS, [each], named=True, overwrite=False, send_again=False)
    assert wishes.requests[0].at == 5_000_001


@pytest.mark.parametrize(
    ("state", "discarded"),
    [
        (State.OPEN, True),
        (State.FAILED, True),
        (State.REQUESTED, True),
        (State.REPLAYED, False),
        (State.REFUSED, False),
    ],
)
def test_what_still_needs_somebody_can_be_discarded(state: State, discarded: bool) -> None:
    wishes = Wishes.discards([found(state)])
    assert bool(wishes.chosen) == discarded
    assert all(request.wish is Wish.DISCARD for request in wishes.requests)


# Names and filters


@pytest.mark.parametrize("name", ["5", "0/5", "letters/0/5", "users/3/42"])
def test_a_letter_is_named_by_its_place_or_its_records(name: str) -> None:
    assert is_named(found(), name, "letters")


@pytest.mark.parametrize("name", ["6", "1/5", "letters/0/6", "users/3/43", "users/0/5"])
def test_other_names_are_others(name: str) -> None:
    assert not is_named(found(), name, "letters")


@pytest.mark.parametrize("name", ["", "x", "a/b/c", "users/3", "1/2/3/4", "-1"])
def test_what_is_no_name_is_said_so(name: str) -> None:
    with pytest.raises(UsageError, match="names no letter"):
        is_named(found(), name, "letters")


def test_a_person_is_found_by_what_the_record_or_the_request_says() -> None:
    """Whatever the case; and nobody else is."""
    record = letter_record()
    assert about(record, parse(record), " ANNA@example.com ")
    assert about(record._replace(value=None), parse(record), "anna@example.com")
    assert not about(record, parse(record), "ben@example.com")


def test_times_are_iso_or_ages() -> None:
    assert dead_letters._moment("2026-01-31T08:00:00+01:00", "--since") == "2026-01-31T07:00:00.000Z"
    assert dead_letters._moment("2026-01-31", "--since") == "2026-01-31T00:00:00.000Z"
    assert dead_letters._moment("1h", "--since") > dead_letters._moment("2h", "--since")
    with pytest.raises(UsageError, match="--until"):
        dead_letters._moment("yesterday", "--until")


# What is shown


def test_addresses_are_masked_unless_asked_for_and_keys_always() -> None:
    """In the list, on the page, and in JSON."""
    record = letter_record()
    for shown in (False, True):
        texts = [
            line(found(), show_contacts=shown),
            page(found(), record, show_contacts=shown),
            str(plain(found(), record, show_contacts=shown)),
        ]
        for text in texts:
            assert ("anna@example.com" in text) == shown
            assert "5up3r53cr3t" not in text


def test_everything_of_a_letter_is_on_its_page() -> None:
    told = plain(found(copies=2), letter_record(), show_contacts=True)
    assert told["source"] == "users/3/42" and told["letter"] == "letters/0/5"
    assert (told["kind"], told["rule"], told["action"], told["status"]) == ("rejected", "signup", "upsert", 400)
    assert told["value"] == '{"email":"anna@example.com"}' and told["key"] == "7"
    assert told["headers"] == [["a", "1"]]
    assert (told["undelivered"], told["undelivered_ids"]) == ([0], ["id0"])
    assert told["copies"] == 2 and told["failed_at"].startswith("2026-")
