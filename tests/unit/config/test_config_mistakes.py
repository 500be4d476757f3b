"""Every mistake a configuration can hold: its code, its place, words that say what to do, and no secret in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from bridge.config import CODES, SecretMissing, examine, load
from bridge.errors import ProblemsFound, UsageError

MINIMAL = """\
kafka: {bootstrap_servers: "localhost:9092"}
topics: {user-events: {}}
meisa: {api_key: {env: KEY}}
rules: [rules/*.yaml]
"""
KEY = "meisa_live_5up3r53cr3t"
ENVIRON = {"KEY": KEY}


class Mistake(NamedTuple):
    text: str
    code: str
    place: str
    says: str
    environ: Mapping[str, str] = MappingProxyType({})


def with_(section: str, replacement: str) -> str:
    """The minimal configuration with one line replaced by its beginning, or with more lines at the end."""
    lines = [replacement if line.startswith(section + ":") else line for line in MINIMAL.splitlines()]
    return "\n".join(lines if replacement in lines else [*lines, replacement]) + "\n"


def meisa(more: str) -> str:
    return with_("meisa", "meisa: {api_key: {env: KEY}, " + more + "}")


TEST_KEY = {"KEY": "meisa_test_x"}

MISTAKES = {
    # YAML
    "unclosed list": Mistake("a: [1\nb: 2\n", "MB001", "2:2", "not YAML"),
    "tab": Mistake("kafka:\n\tgroup_id: a\n", "MB001", "2:1", "indent with spaces"),
    "colon in text": Mistake("kafka: {}\na: b: c\n", "MB001", "2:5", "quotes"),
    "two documents": Mistake("a: 1\n--- \nb: 2\n", "MB001", "2:1", "one configuration"),
    "unknown anchor": Mistake("a: *b\n", "MB001", "1:4", "anchor"),
    "password with a star": Mistake("meisa: {api_key: *hunter2}", "MB001", "1:18", "in quotes"),
    "password with an exclamation mark": Mistake(
        with_("meisa", "meisa: {api_key: !hunter2 }"), "MB003", "3:18", "in quotes"
    ),
    "a secret that refers to nothing": Mistake(with_("meisa", "meisa: {api_key: {}}"), "MB014", "3:18", "{env: NAME}"),
    "NUL": Mistake("a: \x00\n", "MB001", "", "not YAML"),
    "key twice": Mistake(MINIMAL + "rules: []\n", "MB002", "5:1", "line 4"),
    "tag": Mistake(with_("rules", "rules: !include a.yaml"), "MB003", "4:8", "leading !"),
    "map as a key": Mistake(with_("rules", "{a: b}: c"), "MB003", "4:1", "key must be text"),
    "alias to itself": Mistake(MINIMAL + "x-a: &a [*a]\n", "MB003", "5:", "contains itself"),
    "list at the top": Mistake("- kafka\n", "MB006", "1:1", "map of settings"),
    "text at the top": Mistake("kafka\n", "MB006", "1:1", "map of settings"),
    # keys
    "unknown at the top": Mistake(MINIMAL + "topic: {}\n", "MB004", "5:1", "did you mean `topics`?"),
    "unknown below": Mistake(meisa("timeuot: 10s"), "MB004", "3:30", "did you mean `timeout`?"),
    "key of another section": Mistake(MINIMAL + "per_minute: 60\n", "MB004", "5:1", "belongs to `meisa.quota`"),
    "kafka property at kafka": Mistake(
        with_("kafka", "kafka: {bootstrap_servers: 'a:1', security.protocol: SSL}"), "MB004", "1:35", "kafka.properties"
    ),
    "key for no action": Mistake(meisa("keys: {send: {env: KEY}}"), "MB004", "3:37", "trigger"),
    "typo hides no other mistake": Mistake(
        "kafka: {bootstrap_server: 'a:1'}\n", "MB004", "1:9", "did you mean `bootstrap_servers`?"
    ),
    # what is missing
    "no kafka": Mistake("topics: {a: {}}\n", "MB005", "1:1", "`kafka` is missing"),
    "no brokers": Mistake(
        with_("kafka", "kafka: {group_id: a}"), "MB005", "1:1", "`kafka.bootstrap_servers` is missing"
    ),
    "no api key": Mistake(with_("meisa", "meisa: {}"), "MB005", "3:1", "add api_key: {env: MEISA_API_KEY}"),
    "empty file": Mistake("", "MB005", "1:1", "`meisa` is missing"),
    "no topics": Mistake("kafka: {bootstrap_servers: 'a:1'}\n", "MB020", "1:1", "add topics"),
    "empty topics": Mistake(with_("topics", "topics: {}"), "MB020", "2:1", "must not be empty"),
    "neither rules nor handlers": Mistake(with_("rules", "rules: []"), "MB021", "1:1", "add rules: [rules/*.yaml]"),
    # types
    "text for a number": Mistake(meisa("max_in_flight: many"), "MB006", "3:45", "`many` should be a whole number"),
    "true for a number": Mistake(meisa("max_in_flight: true"), "MB006", "3:45", "should be a number"),
    "fraction for a whole": Mistake(meisa("max_in_flight: 1.5"), "MB006", "3:45", "whole number"),
    "number for text": Mistake(with_("kafka", "kafka: {bootstrap_servers: 9092}"), "MB006", "1:28", "quotes"),
    "text for a list": Mistake(with_("rules", "rules: rules/*.yaml"), "MB006", "4:8", "e.g. rules: [rules/*.yaml]"),
    "map for a list": Mistake(with_("rules", "rules: {a: b}"), "MB006", "4:8", "should be a list"),
    "text for a map": Mistake(with_("topics", "topics: user-events"), "MB006", "2:9", "add topics"),
    "text for a topic": Mistake(with_("topics", "topics: {a: json}"), "MB006", "2:13", "should be a map"),
    "list for text": Mistake(with_("kafka", "kafka: {bootstrap_servers: [a, b]}"), "MB006", "1:28", "single value"),
    "no is a text": Mistake(with_("topics", "topics: {a: {format: no}}"), "MB009", "2:22", "`no` is not one of"),
    "key with a line end": Mistake(MINIMAL, "MB006", "3:18", "the key alone", {"KEY": "meisa_live_a\nb"}),
    # durations and ranges
    "duration without unit": Mistake(meisa("timeout: 10"), "MB007", "3:39", "e.g. 30s"),
    "duration as a fraction": Mistake(meisa("timeout: 1.5"), "MB007", "3:39", "e.g. 30s"),
    "duration in words": Mistake(meisa("timeout: ten seconds"), "MB007", "3:39", "`ten seconds` is not a duration"),
    "negative duration": Mistake(meisa("timeout: -10s"), "MB007", "3:39", "is not a duration"),
    "no time at all": Mistake(meisa("timeout: 0s"), "MB008", "3:39", "must be more than 0s"),
    "window of an hour": Mistake(meisa("idempotency_window: 1h"), "MB008", "3:50", "must be less than 1h"),
    "reserve of all": Mistake(meisa("quota: {reserve: 1}"), "MB008", "3:47", "must be less than 1"),
    "quota of nothing": Mistake(meisa("quota: {per_minute: 0}"), "MB008", "3:50", "must be at least 1"),
    "not a number at all": Mistake(meisa("quota: {reserve: .nan}"), "MB008", "3:47", "must be"),
    "empty name": Mistake(with_("kafka", "kafka: {bootstrap_servers: 'a:1', group_id: ''}"), "MB008", "1:45", "empty"),
    "unknown format": Mistake(with_("topics", "topics: {a: {format: xml}}"), "MB009", "2:22", "'json'"),
    "unknown environment": Mistake(meisa("environment: prod"), "MB009", "3:43", "'live' or 'test'"),
    # the environment
    "unknown override": Mistake(
        MINIMAL,
        "MB010",
        "environment MEISA_BRIDGE__MEISA__TIMEUOT",
        "MEISA_BRIDGE__MEISA__TIMEOUT?",
        {"MEISA_BRIDGE__MEISA__TIMEUOT": "3s"},
    ),
    "override of a part of a text": Mistake(
        MINIMAL,
        "MB010",
        "environment MEISA_BRIDGE__KAFKA__GROUP_ID__X",
        "names no setting",
        {"MEISA_BRIDGE__KAFKA__GROUP_ID__X": "a"},
    ),
    "override of a topic that is not there": Mistake(
        MINIMAL,
        "MB010",
        "environment MEISA_BRIDGE__TOPICS__OTHER__START",
        "MEISA_BRIDGE__TOPICS={",
        {"MEISA_BRIDGE__TOPICS__OTHER__START": "latest"},
    ),
    "override of nothing": Mistake(
        MINIMAL, "MB010", "environment MEISA_BRIDGE__", "names no setting", {"MEISA_BRIDGE__": ""}
    ),
    "override of two topics": Mistake(
        with_("topics", "topics: {a-b: {}, a.b: {}}"),
        "MB011",
        "environment MEISA_BRIDGE__TOPICS__A_B__START",
        "`a-b` and `a.b`",
        {"MEISA_BRIDGE__TOPICS__A_B__START": "latest"},
    ),
    "override twice": Mistake(
        MINIMAL,
        "MB011",
        "environment MEISA_BRIDGE__meisa__timeout",
        "MEISA_BRIDGE__MEISA__TIMEOUT sets the same",
        {"MEISA_BRIDGE__MEISA__TIMEOUT": "3s", "MEISA_BRIDGE__meisa__timeout": "4s"},
    ),
    "override of a list by text": Mistake(
        MINIMAL, "MB011", "environment MEISA_BRIDGE__RULES", '["rules/*.yaml"]', {"MEISA_BRIDGE__RULES": "a.yaml"}
    ),
    "override of a map by text": Mistake(
        MINIMAL, "MB011", "environment MEISA_BRIDGE__TOPICS", "a map as JSON", {"MEISA_BRIDGE__TOPICS": "a"}
    ),
    "override with a wrong value": Mistake(
        MINIMAL, "MB007", "environment MEISA_BRIDGE__MEISA__TIMEOUT", "30s", {"MEISA_BRIDGE__MEISA__TIMEOUT": "10"}
    ),
    "override with no value": Mistake(
        MINIMAL, "MB008", "environment MEISA_BRIDGE__KAFKA__GROUP_ID", "empty", {"MEISA_BRIDGE__KAFKA__GROUP_ID": ""}
    ),
    # secrets
    "literal api key": Mistake(with_("meisa", f"meisa: {{api_key: {KEY}}}"), "MB012", "3:18", "{env: NAME}"),
    "key as the name of a variable": Mistake(
        with_("meisa", f"meisa: {{api_key: {{env: {KEY}}}}}"), "MB012", "3:18", "replace the secret"
    ),
    "literal key of a kind": Mistake(meisa(f"keys: {{trigger: {KEY}}}"), "MB012", "3:46", "{env: NAME}"),
    "literal admin token": Mistake(MINIMAL + "admin: {token: hunter2}\n", "MB012", "5:16", "{env: NAME}"),
    "literal kafka password": Mistake(
        with_("kafka", "kafka: {bootstrap_servers: 'a:1', properties: {sasl.password: hunter2}}"),
        "MB012",
        "1:63",
        "`kafka.properties.sasl.password` is a secret",
    ),
    "literal key password": Mistake(
        with_("kafka", "kafka: {bootstrap_servers: 'a:1', properties: {ssl.key.password: hunter2}}"),
        "MB012",
        "1:66",
        "{file: PATH}",
    ),
    "password within a url": Mistake(
        MINIMAL + "state: {url: 'redis://me:hunter2@host'}\n", "MB012", "5:14", "{env: NAME}"
    ),
    "key in the wrong place": Mistake(meisa(f"base_url: {KEY}"), "MB012", "3:40", "replace the secret"),
    "list for a secret": Mistake(with_("meisa", "meisa: {api_key: [a]}"), "MB006", "3:18", "{env: NAME}"),
    "two references in one": Mistake(
        with_("meisa", "meisa: {api_key: {env: A, file: B}}"), "MB014", "3:18", "either {env: NAME} or {file: PATH}"
    ),
    "reference to nothing": Mistake(with_("meisa", "meisa: {api_key: {env: }}"), "MB014", "3:18", "{env: NAME}"),
    "reference with a strange name": Mistake(
        with_("meisa", "meisa: {api_key: {env: MY-KEY}}"), "MB014", "3:18", "name of an environment variable"
    ),
    "shell variable": Mistake(
        with_("kafka", "kafka: {bootstrap_servers: '${BROKERS}'}"),
        "MB014",
        "1:28",
        "(write bootstrap_servers: {env: BROKERS}; or set MEISA_BRIDGE__KAFKA__BOOTSTRAP_SERVERS)",
    ),
    "shell variable in a text": Mistake(
        with_("kafka", "kafka: {bootstrap_servers: '${HOST}:9092'}"), "MB014", "1:28", "stands for the whole value"
    ),
    "shell variable with a default": Mistake(
        with_("kafka", "kafka: {bootstrap_servers: '${BROKERS:-a:1}'}"), "MB014", "1:28", "{env: BROKERS}; a default"
    ),
    "shell variable for a secret": Mistake(
        with_("meisa", "meisa: {api_key: '${MEISA_KEY}'}"), "MB014", "3:18", "write api_key: {env: MEISA_KEY}"
    ),
    "shell variable in a list": Mistake(
        with_("rules", "rules: [$RULES]"), "MB014", "4:9", "not filled into text (write {env: RULES})"
    ),
    "bare braces": Mistake(
        with_("topics", "topics: {a: {envelope: {id: ${value.key}}}}"), "MB001", "2:30", "needs quotes"
    ),
    # what does not go together
    "no url": Mistake(meisa("base_url: api.meisa.io"), "MB022", "3:40", "e.g. https://"),
    "url with a strange port": Mistake(meisa("base_url: 'https://a:b/'"), "MB022", "3:40", "e.g. https://"),
    "url with a space": Mistake(meisa("base_url: 'https://a b/'"), "MB022", "3:40", "e.g. https://"),
    "plain http": Mistake(meisa("base_url: 'http://api.meisa.io/api/v1'"), "MB023", "3:40", "https"),
    "plain http with a live key": Mistake(meisa("allow_http: true"), "MB023", "3:42", "only for environment: test"),
    "key of the other environment": Mistake(MINIMAL, "MB024", "3:18", "set environment: test", TEST_KEY),
    "own key of the other environment": Mistake(
        meisa("environment: test, keys: {trigger: {env: LIVE}}"),
        "MB024",
        "3:65",
        "meisa_test_…",
        TEST_KEY | {"LIVE": KEY},
    ),
    "allowed host with its port": Mistake(
        MINIMAL + "admin: {allowed_hosts: [a.example, 'b.example:8080']}\n", "MB025", "5:36", "bridge.example.com"
    ),
    "address without port": Mistake(MINIMAL + "admin: {listen: localhost}\n", "MB025", "5:17", "127.0.0.1:8080"),
    "address with a large port": Mistake(
        MINIMAL + "admin: {listen: 'localhost:99999'}\n", "MB025", "5:17", "host:port"
    ),
    "bare IPv6 address": Mistake(MINIMAL + "admin: {listen: '::1:8080'}\n", "MB025", "5:17", "host:port"),
    "broker without port": Mistake(
        with_("kafka", "kafka: {bootstrap_servers: kafka}"), "MB025", "1:28", "broker-1:9092"
    ),
    "open dashboard": Mistake(MINIMAL + "admin: {listen: '0.0.0.0:8080'}\n", "MB026", "5:17", "add token"),
    "dashboard on all interfaces": Mistake(MINIMAL + "admin: {listen: ':8080'}\n", "MB026", "5:17", "add token"),
    "dead letters read again": Mistake(
        MINIMAL + "dead_letters: {topic: user-events}\n", "MB027", "5:23", "name another topic"
    ),
    "commits by librdkafka": Mistake(
        with_("kafka", "kafka: {bootstrap_servers: 'a:1', properties: {enable.auto.commit: true}}"),
        "MB028",
        "1:68",
        "only after delivery",
    ),
    "topic pattern": Mistake(with_("topics", "topics: {'^user.*': {}}"), "MB029", "2:10", "list the topics"),
    "dead letters without a proper name": Mistake(MINIMAL + "dead_letters: {topic: a b}\n", "MB029", "5:23", "Kafka"),
    "start at no time": Mistake(with_("topics", "topics: {a: {start: yesterday}}"), "MB030", "2:21", "2026-01-31T"),
    "a schema that is a list": Mistake(
        with_("topics", "topics: {a: {schema: [a.json]}}"), "MB006", "2:22", "not a list"
    ),
    "no schema file": Mistake(with_("topics", "topics: {a: {schema: {}}}"), "MB006", "2:14", "event types to paths"),
    "a type without a file": Mistake(
        with_("topics", "topics: {a: {schema: {b: ''}}}"), "MB006", "2:14", "event types to paths"
    ),
    "avro without a schema": Mistake(
        with_("topics", "topics: {a: {format: avro}}"), "MB040", "2:22", "or schema: schemas/plan.changed.avsc"
    ),
    "debezium in avro without a registry": Mistake(
        with_("topics", "topics: {a: {format: debezium, encoding: avro, schema: a.avsc}}"), "MB040", "2:22", "registry"
    ),
    "several schemas without a registry": Mistake(
        with_("topics", "topics: {a: {format: avro, schema: {b: b.avsc}}}"), "MB040", "2:28", "add a registry"
    ),
    "JSON Schema for avro": Mistake(
        with_("topics", "topics: {a: {format: avro, schema: a.json}}"), "MB043", "2:36", "ends in .avsc"
    ),
    "Avro schema for json": Mistake(
        with_("topics", "topics: {a: {schema: {b: b.avsc}}}"), "MB043", "2:26", "ends in .json"
    ),
    "registry for json": Mistake(
        with_("topics", "topics: {a: {registry: {url: 'http://localhost:8081'}}}"), "MB044", "2:14", "format: avro"
    ),
    "envelope of cloudevents": Mistake(
        with_("topics", "topics: {a: {format: cloudevents, envelope: {id: '${value.key}'}}}"),
        "MB044",
        "2:35",
        "write format: json",
    ),
    "encoding of json": Mistake(
        with_("topics", "topics: {a: {encoding: json}}"), "MB044", "2:24", "it is for debezium"
    ),
    "registry at no URL": Mistake(
        with_("topics", "topics: {a: {format: avro, registry: {url: 'localhost:8081'}}}"), "MB022", "2:44", "e.g. http"
    ),
    "registry with a secret in clear": Mistake(
        with_("topics", "topics: {a: {format: avro, registry: {url: 'http://a:8081', bearer: {env: KEY}}}}"),
        "MB023",
        "2:44",
        "allow_http: true",
    ),
    "registry with a user in its URL": Mistake(
        with_("topics", "topics: {a: {format: avro, registry: {url: {env: URL}}}}"),
        "MB022",
        "2:44",
        "write basic_auth",
        {"URL": "https://u:5up3r53cr3t@a"},
    ),
    "registry with two secrets": Mistake(
        with_(
            "topics",
            "topics: {a: {format: avro, registry: {url: 'https://a', bearer: {env: KEY}, basic_auth: {env: KEY}}}}",
        ),
        "MB032",
        "2:65",
        "keep the one",
    ),
    "registry with a password in its URL": Mistake(
        with_("topics", "topics: {a: {format: avro, registry: {url: 'http://u:5up3r53cr3t@a'}}}"),
        "MB012",
        "2:44",
        "{env: NAME}",
    ),
    "state in no file": Mistake(MINIMAL + "state: {url: 'sqlite://'}\n", "MB009", "5:14", "sqlite:///state.db"),
    "state in a folder": Mistake(MINIMAL + "state: {url: 'sqlite:///a/'}\n", "MB009", "5:14", "names no file"),
    "state somewhere": Mistake(MINIMAL + "state: {url: 'mysql://a'}\n", "MB009", "5:14", "write memory"),
    "state behind a password": Mistake(
        MINIMAL + "state: {url: 'redis://:5up3r53cr3t@a:6379'}\n", "MB012", "5:14", "{env: NAME}"
    ),
    "quota shared somehow": Mistake(meisa("quota: {shared: group}"), "MB009", "3:46", "shared: partitions"),
    "timeout longer than the window": Mistake(
        meisa("idempotency_window: 5s"), "MB032", "3:1", "shorter than `meisa.idempotency_window`"
    ),
    "handler by its file": Mistake(MINIMAL + "handlers: [acme/lifecycle.py]\n", "MB033", "5:12", "acme.lifecycle"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_code_place_and_remedy(tmp_path: Path, name: str) -> None:
    """Among the problems stands the one expected, at its very place; no message holds a secret; the status is 1."""
    mistake = MISTAKES[name]
    file = tmp_path / "bridge.yaml"
    file.write_text(mistake.text)
    with pytest.raises(ProblemsFound) as caught:
        load(file, {**ENVIRON, **mistake.environ})
    found = [
        problem for problem in caught.value.problems if problem.code == mistake.code and mistake.says in str(problem)
    ]
    assert found, str(caught.value)
    where = mistake.place if mistake.place.startswith("environment") else f"{file}:{mistake.place}".rstrip(":")
    assert str(found[0]).startswith(where), str(found[0])
    assert caught.value.exit_status == 1
    for secret in (KEY, "hunter2", "5up3r"):
        assert secret not in str(caught.value)
    assert all(problem.code in CODES for problem in caught.value.problems)


def test_a_mistake_brings_no_others_with_it(tmp_path: Path) -> None:
    """One typo is one problem: the key it was meant to be does not count as missing as well."""
    file = tmp_path / "bridge.yaml"
    file.write_text(MINIMAL.replace("bootstrap_servers", "bootstrap_server").replace("api_key", "api_kye"))
    assert [problem.code for problem in examine(file, ENVIRON).problems] == ["MB004", "MB004"]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ("admin: {listen: '0.0.0.0:8080', token: hunter2}\n", "MB012"),
        ("admin: {listen: '0.0.0.0:8080', tokn: {env: KEY}}\n", "MB004"),
        ("dead_letters: {topic: [user-events]}\n", "MB006"),
    ],
)
def test_what_a_mistake_left_out_is_not_taken_for_a_default(tmp_path: Path, more: str, code: str) -> None:
    """A refused token is not a missing one: the dashboard is not called open as well."""
    file = tmp_path / "bridge.yaml"
    file.write_text(MINIMAL + more)
    assert [problem.code for problem in examine(file, ENVIRON).problems] == [code]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Mistakes of different kinds and sections do not hide one another."""
    file = tmp_path / "bridge.yaml"
    file.write_text(
        "kafka: {bootstrap_servers: 9092, grup_id: a}\n"
        "topics: {a: {format: avro, start: never}, b: {dedupe: 10}}\n"
        "meisa: {api_key: secret, timeout: soon, quota: {per_minute: -1}}\n"
        "dead_letters: {topic: b c}\n"
        "admin: {listen: 0.0.0.0:80}\n"
    )
    problems = examine(file, {}).problems
    assert [(problem.code, problem.line) for problem in problems] == [
        ("MB021", 1),
        ("MB006", 1),
        ("MB004", 1),
        ("MB030", 2),
        ("MB007", 2),
        ("MB012", 3),
        ("MB007", 3),
        ("MB008", 3),
        ("MB029", 4),
        ("MB026", 5),
    ]


MISSING_SECRETS = {
    "variable not set": ("{env: NOWHERE}", "environment variable NOWHERE is not set"),
    "variable empty": ("{env: EMPTY}", "environment variable EMPTY is empty"),
    "no such file": ("{file: nowhere}", "does not exist"),
    "directory": ("{file: .}", "is a directory"),
    "empty file": ("{file: empty}", "is empty"),
    "huge file": ("{file: huge}", "larger than"),
    "binary file": ("{file: binary}", "not UTF-8"),
}


@pytest.mark.parametrize("name", MISSING_SECRETS)
@pytest.mark.parametrize("template", ["meisa: {api_key: %s}", "meisa: {api_key: {env: KEY}, base_url: %s}"])
def test_a_missing_secret_is_exit_status_2_with_its_place(tmp_path: Path, name: str, template: str) -> None:
    """The same for secrets and for other values that stand elsewhere."""
    reference, says = MISSING_SECRETS[name]
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "huge").write_bytes(b"a" * 70_000)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    file = tmp_path / "bridge.yaml"
    file.write_text(with_("meisa", template % reference))
    with pytest.raises(SecretMissing) as caught:
        load(file, ENVIRON | {"EMPTY": " "})
    (problem,) = caught.value.problems
    assert problem.code == "MB013" and says in problem.message
    assert (problem.line, problem.column) == (3, template.index("%s") + 1)
    assert caught.value.exit_status == 2
    assert isinstance(caught.value, UsageError) and isinstance(caught.value, ProblemsFound)


def test_a_missing_secret_does_not_hide_other_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "bridge.yaml"
    file.write_text(MINIMAL + "admin: {listen: nowhere}\n")
    with pytest.raises(SecretMissing) as caught:
        load(file, {})
    assert [problem.code for problem in caught.value.problems] == ["MB013", "MB025"]


def test_a_file_that_cannot_be_read_is_exit_status_2_and_says_how_to_name_one(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("x-a: é".encode("latin-1"))
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * 1_100_000)
    cases = {
        tmp_path / "nowhere.yaml": "no such file",
        tmp_path: "is a directory",
        latin / "below.yaml": "cannot be read",
        Path("a\0b"): "cannot be read",
        latin: "not UTF-8",
        large: "larger than",
    }
    for path, says in cases.items():
        with pytest.raises(UsageError, match=says) as caught:
            load(path, {})
        assert caught.value.exit_status == 2
        assert "\n" not in str(caught.value)
        assert "with -c PATH" in str(caught.value) or says == "not UTF-8"


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "\n".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefg", "bcdefgh", strict=True)
        ),
        "[" * 1500,
        "x-a: " + "{a: " * 200 + "1" + "}" * 200,
    ],
    ids=["billion laughs", "open brackets", "deep maps"],
)
def test_hostile_yaml_ends_in_a_problem(tmp_path: Path, text: str) -> None:
    """Neither time nor memory nor the stack runs out."""
    file = tmp_path / "bridge.yaml"
    file.write_text(text)
    with pytest.raises(ProblemsFound):
        load(file, {})


def test_every_code_is_used_and_described() -> None:
    """The table of codes has no entry that nothing reports, and each says what it means."""
    shown = {mistake.code for mistake in MISTAKES.values()} | {"MB013"}
    shown |= {"MB041", "MB042"}  # of other files: tests/unit/decode/test_decode_schema_files.py
    shown |= {"MB050"}  # of other packages: test_config_tracing.py
    shown |= {"MB055", "MB056", "MB057", "MB058", "MB059"}  # test_config_kafka_security.py
    assert set(CODES) == shown
    assert all(len(meaning) > 10 for meaning in CODES.values())
