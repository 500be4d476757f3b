"""A few of the cases of `make fuzz`, every day; CI runs the hundred thousands (docs/fuzzing.md).

What holds for each case is written in tests/support/fuzz: these tests fail with the case's seed and number.
"""

from __future__ import annotations

import json

import pytest

from bridge.model import Letter, LetterKind, Record
from bridge.web.headers import HEADERS
from tests.support.fuzz.answers import run_answers
from tests.support.fuzz.case import ADMIN_TOKEN, API_KEY, Broken, no_secret
from tests.support.fuzz.corpus import TOPICS, Corpus
from tests.support.fuzz.files import run_files
from tests.support.fuzz.records import look_at_letter, look_at_log, run_records
from tests.support.fuzz.requests import KNOWN, PROTECTED, Case, look, run_requests

SEED = 20_261_122
STRICT = "\r\n".join(f"{name}: {value}" for name, value in HEADERS.items()).encode()


def test_bad_records_finish_as_they_are_defined_to() -> None:
    """Every format; some get as far as Meisa, and nothing stops, shows a secret, or steers a terminal."""
    outcomes = run_records(SEED, 150).outcomes
    assert sum(outcomes[name] for name in ("delivered", "merged", "duplicate", "filtered", "dead_lettered")) == 150
    assert min(outcomes["delivered"], outcomes["letters: decode"], outcomes["letters: rejected"]) > 5


def test_bad_requests_are_answered_or_ended() -> None:
    """Nobody unknown is told anything, nothing changes, and the server answers good requests afterwards."""
    outcomes = run_requests(SEED, 300).outcomes
    assert min(outcomes[status] for status in ("200", "400", "401", "403", "404", "405")) > 5


def test_bad_answers_are_judged() -> None:
    outcomes = run_answers(SEED, 500).outcomes
    assert (
        outcomes["meisa: delivered"] > 20 and outcomes["meisa: refused"] > 50 and outcomes["registry: RegistryFailed"]
    )


def test_damaged_files_are_problems_with_places() -> None:
    outcomes = run_files(SEED, 12).outcomes
    assert outcomes["problems with places"] > 5


def test_a_case_is_made_of_its_seed_and_number_alone() -> None:
    """So that one that fails can be made again by itself, on another machine."""
    again = [Corpus().bad(5, number) for number in (3, 100)]
    corpus = Corpus()
    assert [corpus.bad(5, number) for number in range(101)][3::97] == again
    assert corpus.bad(6, 3) != again[0]


def test_all_formats_are_damaged_and_many_records_stay_good_json() -> None:
    """Noise alone would prove little: most of it ends at the first byte."""
    corpus = Corpus()
    records = [corpus.bad(SEED, number) for number in range(400)]
    assert {record.topic for record in records} == set(TOPICS)
    plain = [record.value for record in records if record.topic.endswith(("-json", "-checked")) and record.value]
    assert sum(_is_json(value) for value in plain) > len(plain) / 3


def _is_json(value: bytes) -> bool:
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


# The invariants can fail


@pytest.mark.parametrize(
    ("line", "as_json"),
    [
        ('{"event": "x", "exception": "Traceback (most recent call last): …"}', True),
        ('{"event": "x", "level": "error"}', True),
        ("no JSON", True),
        (f'{{"event": "the key {API_KEY}"}}', True),
        ("\x1b[31m red", False),
        ("two\rlines", False),
    ],
)
def test_a_bad_line_of_the_log_is_noticed(line: str, as_json: bool) -> None:
    look_at_log('{"event": "good"}\n' if as_json else "good\n", as_json=as_json)
    with pytest.raises(Broken):
        look_at_log(f"{line}\n", as_json=as_json)


def test_a_letter_with_other_bytes_or_a_secret_is_noticed() -> None:
    record = Record("t", 0, 0, 0, b"k", b"v")
    fed = {("t", 0): record}
    look_at_letter(Letter(record, LetterKind.DECODE, "not JSON"), fed)
    with pytest.raises(Broken, match="other bytes"):
        look_at_letter(Letter(record._replace(value=b"w"), LetterKind.DECODE, "not JSON"), fed)
    with pytest.raises(Broken, match="secret"):
        look_at_letter(Letter(record, LetterKind.DECODE, f"not {ADMIN_TOKEN}"), fed)
    with pytest.raises(Broken, match="secret"):
        no_secret("here", f"x{API_KEY}".encode())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "not there once"),
        (b"HTTP/1.1 500 Internal Server Error\r\nSTRICT\r\n\r\n", "500"),
        (b"HTTP/1.1 200 OK\r\nSTRICT\r\n\r\n" + PROTECTED.encode(), "somebody unknown"),
        (b"HTTP/1.1 200 OK\r\nSTRICT\r\nx-forged: 1\r\n\r\n", "forged"),
        (b"HTTP/1.1 200 OK\r\nSTRICT\r\ncontent-type: text/html\r\n\r\n<script>alert(1)</script>", "markup"),
        (b"half an answ", "no answer of HTTP"),
    ],
)
def test_a_bad_answer_of_the_admin_server_is_noticed(answer: bytes, says: str) -> None:
    unknown = Case(b"", KNOWN, may_see=False, may_act=False)
    assert look(unknown, b"HTTP/1.1 401 Unauthorized\r\nSTRICT\r\n\r\n".replace(b"STRICT", STRICT)) == "401"
    with pytest.raises(Broken, match=says):
        look(unknown, answer.replace(b"STRICT", STRICT))
