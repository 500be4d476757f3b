"""docs/check.md: what it says that `check` says is what `check` says."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge import preflight
from bridge.cli import main
from bridge.config import codes as config_codes
from bridge.rules import codes as rule_codes

PAGE = (Path(__file__).parents[3] / "docs" / "check.md").read_text(encoding="utf-8")
SAMPLES = re.findall(r"^```yaml\n(.*?)^```\n```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
CONFIG = """\
kafka: {bootstrap_servers: "localhost:9092"}
topics: {user-events: {}, users-cdc: {format: debezium}}
meisa: {api_key: {env: MEISA_API_KEY}}
rules: [rules.yaml]
"""
RULES = "rules: [{name: a, match: a, do: [{upsert: {email: '${data.email}'}}]}]\n"


@pytest.mark.parametrize(("written", "says"), SAMPLES, ids=[str(number) for number in range(len(SAMPLES))])
def test_check_says_what_the_page_says(
    written: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every sample, in files that are right else: rules as items of the list, or a whole bridge.yaml."""
    monkeypatch.chdir(tmp_path)
    is_config = written.startswith("kafka:")
    (tmp_path / "bridge.yaml").write_text(written if is_config else CONFIG)
    (tmp_path / "rules.yaml").write_text(RULES if is_config else "rules:\n" + textwrap.indent(written, "  "))
    result = CliRunner().invoke(
        main, ["check", "--offline", "-c", "bridge.yaml"], env={"MEISA_API_KEY": "meisa_live_a"}
    )
    assert result.stdout.splitlines()[:-1] == says.splitlines()


def test_the_page_has_a_sample_of_each_theme_and_names_only_codes_that_there_are() -> None:
    known = {*config_codes.CODES, *rule_codes.CODES, *preflight.CODES}
    assert len(SAMPLES) >= 9
    assert set(re.findall(r"MB\d{3}", PAGE)) <= known
