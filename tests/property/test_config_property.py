"""Whatever stands in the file and in the environment, loading ends in settings or in a user's error."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.config import CODES, examine
from bridge.errors import UserError
from tests.support.amount import examples

SAMPLE = (Path(__file__).parents[2] / "config" / "bridge.yaml").read_text().partition("\nkafka:")[2]
SAMPLE = "kafka:" + "\n".join(line.partition(" #")[0] for line in SAMPLE.splitlines() if line.strip()[:1] != "#")
PIECES = st.sampled_from(
    ["{", "}", "[", "]", ": ", "\n", "- ", "&a ", "*a", "!t ", "<<: ", "'", '"', "|", "%", "\t", "#", "1e999", ".nan",
     "null", "0x1F", "{env: A}", "{file: .}", "${A}", "10s", "-1", "\x00", "é", "kafka", "topics", "9" * 500]
)  # fmt: skip
SHORT = "kafka: {bootstrap_servers: a:1}\ntopics: {user-events: , a.b: }\nmeisa: {api_key: {env: A}}\nrules: [a]\n"
ENVIRON = {"A": "1", "MEISA_API_KEY": "meisa_test_5up3r53cr3t"}


def ends_well(text: str, environ: dict[str, str]) -> None:
    """Settings or problems, each with a known code and without the key; nothing else may be raised."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bridge.yaml"
        file.write_text(text, encoding="utf-8", newline="")
        with contextlib.suppress(UserError):
            found = examine(file, environ)
            assert (found.settings is None) == any(problem.severity == "error" for problem in found.problems)
            for problem in found.problems:
                assert problem.code in CODES
                assert "5up3r" not in str(problem)
                assert "\n" not in str(problem)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SAMPLE)), st.integers(0, 20), PIECES), max_size=4))
@example([])
def test_a_damaged_sample_is_told_never_raised(changes: list[tuple[int, int, str]]) -> None:
    """Pieces of YAML put anywhere into the sample, parts cut out."""
    text = SAMPLE
    for start, length, piece in changes:
        text = text[:start] + piece + text[start + length :]
    ends_well(text, ENVIRON)


@settings(max_examples=examples(100), deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_told_never_raised(text: str) -> None:
    ends_well(text, ENVIRON)


PARTS = (
    *("KAFKA", "PROPERTIES", "TOPICS", "USER_EVENTS", "MEISA", "KEYS", "TRIGGER", "API_KEY", "RULES", "TIMEOUT"),
    *("START", "ADMIN", "LISTEN", "X", "_", "a.b", "É", ""),
)
NAMES = st.lists(st.sampled_from(PARTS), max_size=4)
VALUES = st.one_of(st.lists(PIECES, max_size=4).map("".join), st.text(max_size=10))


@settings(max_examples=examples(150, everyday=6), deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=3))
def test_any_override_is_told_never_raised(overrides: list[tuple[list[str], str]]) -> None:
    """Names that exist, do not, or go nowhere, with values of every kind."""
    ends_well(SHORT, {**ENVIRON, **{"MEISA_BRIDGE__" + "__".join(names): value for names, value in overrides}})
