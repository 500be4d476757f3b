"""`meisa-bridge test`: what it says, with which exit status, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from bridge.cli import main

CONFIG = """\
kafka: {bootstrap_servers: "localhost:9092"}
topics: {user-events: {}}
meisa: {api_key: {env: NOWHERE}}
rules: [rules/*.yaml]
handlers: [MODULE]
"""
RULES = """\
rules:
  - name: signup
    match: user.signed_up
    do:
      - upsert: {email: "${data.email}", first_name: "${'A' if data.a else 'B'}"}
    tests:
      - name: right
        event: {type: user.signed_up, data: {email: a@x.io, a: 1}}
        expect: [{upsert: {first_name: A}}]
      - name: wrong <&>
        event: {type: user.signed_up, data: {email: a@x.io, a: 1}}
        expect: [{upsert: {first_name: "C\\u0001"}}]
  - name: off
    match: b
    enabled: false
    do: [{upsert: {email: a@x.io}}]
    tests: [{name: later, event: {type: b}, expect: []}]
"""
MORE = """\
rules:
  - name: profile
    match: user.updated
    do: [{upsert: {email: "${data.email}"}}]
    tests: [{event: {type: user.updated, data: {email: a@x.io}}, expect: [{upsert: {email: a@x.io}}]}]
tests:
  - name: together
    event: {type: user.updated, data: {email: b@x.io}}
    expect: [{upsert: {email: b@x.io}}]
"""
HANDLER_TESTS = """\
tests:
  - name: paid
    handler: invoice
    event: {type: invoice.paid, data: {email: a@x.io}}
    expect: [{upsert: {email: a@x.io}}]
"""
HANDLERS = """\
from bridge import Event, Upsert, handles


@handles("invoice.*")
def invoice(event: Event) -> Upsert:
    return Upsert(email=event.data["email"])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration whose secret is missing, with two rules files, tests of a handler, and one failing test."""
    rules = tmp_path / "config" / "rules"
    rules.mkdir(parents=True)
    module = f"invoices_{abs(hash(tmp_path))}"  # a module is imported once in a process
    monkeypatch.setitem(globals(), "CONFIG", CONFIG.replace("MODULE", module))
    (tmp_path / "config" / "bridge.yaml").write_text(CONFIG)
    (tmp_path / "config" / f"{module}.py").write_text(HANDLERS)
    (rules / "a.yaml").write_text(RULES)
    (rules / "b.yaml").write_text(MORE)
    (rules / "c.yaml").write_text(HANDLER_TESTS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str, **options: Any) -> Result:
    result = CliRunner().invoke(main, ["test", *arguments], **options)
    assert "Traceback" not in result.output
    assert "this is a bug" not in result.output
    return result


def test_a_failing_test_is_told_with_its_place_and_difference(folder: Path) -> None:
    """Secrets are not needed; the rules are those of the configuration, in one run."""
    result = call()
    assert result.exit_code == 1
    assert result.stderr == ""
    assert result.stdout == (
        "config/rules/a.yaml:10: FAILED signup: wrong <&>\n"
        "      - upsert:\n"
        '    -     first_name: "C\\u0001"\n'
        "    +     first_name: A\n"
        "\n"
        "- is expected, + is what the rules made\n"
        "6 tests: 4 passed, 1 failed, 1 skipped\n"
        "tested: rules 3 of 3 (100 %), branches 1 of 2 (50 %), actions 2 of 2 (100 %)\n"
        "not tested:\n"
        "  config/rules/a.yaml:5:64: signup: upsert.first_name: if data.a: never false\n"
    )


def test_colours_are_for_terminals(folder: Path) -> None:
    assert "\x1b" not in call().output
    assert "\x1b[31m    -     first_name" in call(color=True).output


def test_files_and_folders_need_no_configuration(folder: Path) -> None:
    """Only their own rules are loaded; what else is YAML in the folder is left alone, and so is what is hidden."""
    (folder / "config" / "bridge.yaml").write_text("kafka: {\nrules: [x]\n")
    (folder / "config" / "workflow.yml").write_text("on: push\njobs: {}\n")
    (folder / "config" / ".venv").mkdir()
    (folder / "config" / ".venv" / "other.yaml").write_text("rules: 7\n")
    result = call("config/rules/b.yaml")
    assert result.exit_code == 0
    assert result.stdout.startswith("2 tests: 2 passed\ntested: rules 1 of 1 (100 %), branches none, actions 1 of 1")
    (folder / "config" / "rules" / "c.yaml").unlink()
    assert "5 tests: 3 passed, 1 failed, 1 skipped" in call("config").stdout
    assert "5 tests: 3 passed, 1 failed, 1 skipped" in call("config/rules", "config/rules/a.yaml").stdout


def test_a_handlers_test_needs_the_configuration_that_knows_the_handler(folder: Path) -> None:
    alone = call("config/rules/c.yaml")
    assert alone.exit_code == 1
    assert alone.stderr == (
        "config/rules/c.yaml:2:11: error MB191: no handler is named invoice "
        "(handlers are known with the configuration: -c PATH)\n"
    )
    result = call("config/rules/c.yaml", "-c", "config/bridge.yaml")
    assert result.exit_code == 0
    assert result.stdout.startswith("1 test: 1 passed\ntested: rules 1 of 1 (100 %)")


def test_paths_beside_the_configuration_choose_among_its_files(folder: Path) -> None:
    assert "2 tests: 2 passed" in call("config/rules/b.yaml", "-c", "config/bridge.yaml").stdout
    (folder / "other.yaml").write_text(MORE)
    strange = call("other.yaml", "-c", "config/bridge.yaml")
    assert (strange.exit_code, strange.stdout) == (2, "")
    assert "other.yaml is not among the rules of config/bridge.yaml" in strange.stderr


def test_select_picks_rules_and_handlers_by_name(folder: Path) -> None:
    chosen = call("--select", "profile", "--select", "inv*")
    assert (chosen.exit_code, chosen.stdout.split("\n")[0]) == (0, "2 tests: 2 passed")
    assert "rules 2 of 2" in chosen.stdout
    wrong = call("--select", "profil")
    assert wrong.exit_code == 2
    assert wrong.stderr == "meisa-bridge: --select: no rule or handler is named profil (did you mean profile?)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "nowhere.yaml: no such file or folder"),
        (["-c", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["empty"], "empty: no rules files in this folder (*.yaml with rules: or tests:)"),
        (["--junit", "config"], "config: cannot be written (Is a directory)"),
    ],
)
def test_what_cannot_be_read_or_written_is_exit_status_2(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "empty").mkdir()
    result = call(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"meisa-bridge: {message}")


def test_problems_of_rules_and_configuration_are_told_with_their_places(folder: Path) -> None:
    (folder / "config" / "rules" / "a.yaml").write_text("rules:\n  - {name: a, match: b, do: [{trak: {}}]}\n")
    result = call()
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("config/rules/a.yaml:2:31: error MB120: unknown action trak")
    (folder / "config" / "bridge.yaml").write_text("rules: 7\n")
    assert "config/bridge.yaml:1:8: error MB006" in call().stderr


def test_rules_without_tests_are_told_how_to_write_some(folder: Path) -> None:
    for name in ("b.yaml", "c.yaml"):
        (folder / "config" / "rules" / name).unlink()
    (folder / "config" / "rules" / "a.yaml").write_text(RULES.split("    tests:")[0])
    result = call()
    assert result.exit_code == 0
    assert result.stdout.startswith("no tests: write them under tests:")
    assert "rules 0 of 2 (0 %)" in result.stdout


def test_a_test_that_proves_nothing_is_warned_of(folder: Path) -> None:
    (folder / "config" / "rules" / "b.yaml").write_text(
        MORE.replace("type: user.updated, data: {email: a", "type: x, data: {email: a")
    )
    (folder / "config" / "rules" / "a.yaml").unlink()
    result = call()
    assert "config/rules/b.yaml:5:13: warning MB193: the rule profile matches no event of type x" in result.stdout
    assert "(the rule profile matches no event of type x on topic user-events)" in result.stdout


def test_json_holds_all_of_it(folder: Path) -> None:
    result = call("--json")
    assert result.exit_code == 1
    made = json.loads(result.stdout)
    assert {name: made[name] for name in ("passed", "failed", "skipped", "updated")} == {
        "passed": 4, "failed": 1, "skipped": 1, "updated": 0,
    }  # fmt: skip
    failed = next(test for test in made["tests"] if test["ending"] == "failed")
    assert failed["seconds"] >= 0
    assert {name: failed[name] for name in ("name", "file", "line", "rule", "handler", "difference", "actions")} == {
        "name": "wrong <&>",
        "file": "config/rules/a.yaml",
        "line": 10,
        "rule": "signup",
        "handler": None,
        "difference": ["  - upsert:", '-     first_name: "C\\u0001"', "+     first_name: A"],
        "actions": [{"upsert": {"email": "a@x.io", "first_name": "A"}}],
    }
    assert made["coverage"]["branches"] == {"covered": 1, "total": 2}
    assert made["coverage"]["not_tested"] == [
        {
            "rule": "signup",
            "what": "upsert.first_name: if data.a: never false",
            "file": "config/rules/a.yaml",
            "line": 5,
            "column": 64,
        }
    ]


def test_what_a_handler_prints_is_no_part_of_the_results(folder: Path) -> None:
    (module,) = (folder / "config").glob("invoices_*.py")
    module.write_text(HANDLERS.replace("    return", "    print('its own words')\n    return"))
    result = call("--json", "--select", "invoice")
    assert (result.exit_code, result.stderr) == (0, "its own words\n")
    assert json.loads(result.stdout)["passed"] == 1


def test_junit_is_xml_that_ci_systems_read(folder: Path) -> None:
    """Suites per file, counts that add up, the difference as text, and no character that XML forbids."""
    result = call("--junit", "out/junit.xml", "--json")
    assert result.exit_code == 1
    text = (folder / "out" / "junit.xml").read_text("utf-8")
    root = ElementTree.fromstring(text)
    assert root.tag == "testsuites"
    suites = list(root)
    assert [suite.get("name") for suite in suites] == [f"config/rules/{name}.yaml" for name in "abc"]
    for element in (root, *suites):
        cases = element.findall(".//testcase")
        assert element.get("tests") == str(len(cases))
        assert element.get("failures") == str(len(element.findall(".//failure")))
        assert element.get("skipped") == str(len(element.findall(".//skipped")))
        assert element.get("errors") == "0"
        assert float(element.get("time", "x")) >= 0
    for case in root.findall(".//testcase"):
        assert case.get("name") and case.get("classname") and case.get("file") and int(case.get("line", "x"))
        assert {child.tag for child in case} <= {"failure", "skipped"} and len(case) <= 1
    failed = root.find(".//failure/..")
    assert failed is not None and failed.get("name") == "wrong <&>"
    failure = failed[0]
    assert failure.get("type") == "expectation" and failure.get("message", "").startswith("-     first_name")
    assert failure.text is not None and failure.text.startswith("config/rules/a.yaml:10\n")
    assert failure.text.endswith("+     first_name: A")
    assert [case.get("classname") for case in root.findall(".//testcase")] == [
        "signup", "signup", "off", "profile", "all rules", "invoice",
    ]  # fmt: skip


def test_a_record_given_as_a_value_is_decoded_by_its_topics_envelope(folder: Path) -> None:
    envelope = "topics: {wrapped: {envelope: {type: '${value.kind}', data: '${value.body}'}}}\n"
    (folder / "config" / "bridge.yaml").write_text(CONFIG.replace("topics: {user-events: {}}\n", envelope))
    (folder / "config" / "rules" / "a.yaml").write_text(
        "tests:\n"
        "  - event: {value: {kind: user.updated, body: {email: c@x.io}}}\n"
        "    expect: [{upsert: {email: c@x.io}}]\n"
    )
    assert "4 tests: 4 passed" in call().stdout


def test_a_record_is_decoded_by_its_topics_format(folder: Path) -> None:
    """A change of a row, and a CloudEvent in either content mode, as they stand in the topic."""
    topics = (
        "topics: {rows: {format: debezium, encoding: json}, clouds: {format: cloudevents},"
        " avro: {format: avro, registry: {url: 'http://localhost:8081'}, envelope: {type: '${value.kind}'}}}\n"
    )
    (folder / "config" / "bridge.yaml").write_text(CONFIG.replace("topics: {user-events: {}}\n", topics))
    (folder / "config" / "rules" / "a.yaml").write_text(
        """\
rules:
  - {name: gone, match: users.deleted, do: [{track: {event_name: gone, external_id: "${data.before.id}"}}]}
  - {name: come, match: user.come, do: [{track: {event_name: come, external_id: "${data.id}"}}]}
tests:
  - event: {topic: rows, value: {op: d, before: {id: 7}, after: null, source: {table: users, ts_ms: 1767225600000}}}
    expect: [{track: {event_name: gone, external_id: "7"}}]
  - event: {topic: rows, value: null}
    expect: []
  - event:
      topic: clouds
      headers: {ce_specversion: "1.0", ce_id: a, ce_source: app, ce_type: user.come, content-type: application/json}
      value: {id: 8}
    expect: [{track: {event_name: come, external_id: "8"}}]
  - event:
      topic: clouds
      headers: {content-type: application/cloudevents+json}
      value: {specversion: "1.0", id: a, source: app, type: user.come, data: {id: 9}}
    expect: [{track: {event_name: come, external_id: "9"}}]
  - event: {topic: clouds, value: {id: 8}}
    expect_error: {kind: decode}
  - event: {topic: avro, value: {kind: user.come, data: {id: 10}}}
    expect: [{track: {event_name: come, external_id: "10"}}]
"""
    )
    assert "9 tests: 9 passed" in call().stdout, call().stdout


def test_check_finds_bad_tests_too(folder: Path) -> None:
    """Malformed ones are errors, those that prove nothing warnings."""
    rules = folder / "config" / "rules" / "b.yaml"
    rules.write_text(MORE.replace("{type: user.updated, data: {email: a", "{type: user.update, data: {email: a"))
    check = CliRunner().invoke(main, ["check", "--offline"])
    assert "config/rules/b.yaml:5:13: warning MB193" in check.stdout and "(did you mean user.updated?)" in check.stdout
    rules.write_text(MORE.replace("expect:", "expct:"))
    check = CliRunner().invoke(main, ["check", "--offline"])
    assert "error MB190: a test has no key expct (did you mean expect?)" in check.stdout


def test_update_writes_what_was_made_and_nothing_else(folder: Path) -> None:
    """The file's line ends, its byte order mark and its mode stay; what is not updated still fails."""
    file = folder / "config" / "rules" / "a.yaml"
    before = b"\xef\xbb\xbf" + RULES.replace("\n", "\r\n").encode()
    file.write_bytes(before)
    file.chmod(0o640)
    (folder / "link.yaml").symlink_to(file)
    result = call("--update", "link.yaml")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(
        "link.yaml:10: updated signup: wrong <&>\n3 tests: 1 passed, 1 updated, 1 skipped\n"
    )
    assert file.read_bytes() == before.replace(b'"C\\u0001"', b'"A"')
    assert file.stat().st_mode & 0o777 == 0o640
    assert (folder / "link.yaml").is_symlink()
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []
    again = call("--update", "link.yaml")
    assert (again.exit_code, again.stdout.split("\n")[0]) == (0, "3 tests: 2 passed, 1 skipped")


def test_what_cannot_be_updated_still_fails_and_says_why(folder: Path) -> None:
    file = folder / "config" / "rules" / "a.yaml"
    text = RULES.replace("expect: [{upsert: {first_name: A}}]", "expect_error: {kind: rule}")
    file.write_text(text)
    result = call("--update", "--json")
    assert result.exit_code == 1
    made = json.loads(result.stdout)
    assert (made["failed"], made["updated"]) == (1, 1)
    assert [(test.get("updated"), test.get("not_updated")) for test in made["tests"][:2]] == [
        (False, "it expects an error"),
        (True, None),
    ]
    told = call("--update")
    assert "    not updated: it expects an error\n" in told.stdout
    assert file.read_text() == text.replace('"C\\u0001"', '"A"')


def test_a_file_that_cannot_be_written_is_left_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    result = call("--update")
    assert result.exit_code == 2
    assert result.stderr == "meisa-bridge: config/rules/a.yaml: cannot be updated (No space left on device)\n"
    assert (folder / "config" / "rules" / "a.yaml").read_text() == RULES
