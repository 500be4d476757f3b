"""`check --offline` asks librdkafka about the properties: names and values are known without a broker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge.cli import main

RULES = """\
rules:
  - name: signup
    match: user.signed_up
    do: [{upsert: {email: "${data.email}"}}]
"""


def checked(tmp_path: Path, properties: str) -> list[str]:
    """What is told, by place, code and message."""
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "bridge.yaml").write_text(
        f"""\
kafka:
  bootstrap_servers: localhost:9092
  properties:
    client.id: here
    {properties}
topics: {{users: {{}}}}
meisa: {{environment: test, api_key: {{env: KEY}}}}
rules: [rules.yaml]
"""
    )
    answer = CliRunner().invoke(
        main, ["check", "--offline", "-c", str(tmp_path / "bridge.yaml")], env={"KEY": "meisa_test_x"}
    )
    assert answer.exit_code in (1, 2)
    return re.findall(r"bridge\.yaml:(\d+:\d+: error MB\d+: [^\n(]*)", answer.output)


@pytest.mark.parametrize(
    ("properties", "says"),
    [
        ("foo.bar: 1", '5:14: error MB204: kafka.properties: No such configuration property: "foo.bar"'),
        ("session.timeout.ms: soon", "5:25: error MB204: kafka.properties: Invalid value for configuration property"),
        ("enable.auto.commit: true", "5:25: error MB028: `enable.auto.commit` is set by the bridge itself"),
    ],
)
def test_a_property_that_librdkafka_does_not_take_is_told_at_its_place(
    tmp_path: Path, properties: str, says: str
) -> None:
    """`run` would end with the same words."""
    (told,) = checked(tmp_path, properties)
    assert told.startswith(says)


def test_what_is_told_already_is_not_told_in_other_words(tmp_path: Path) -> None:
    """A file that does not exist: librdkafka's own complaint about it would stand beside."""
    (told,) = checked(tmp_path, "ssl.ca.location: nowhere.pem")
    assert "MB055" in told
