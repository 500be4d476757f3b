"""The command line: what goes where, and with which exit status. No command here reaches out of this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import bridge
from bridge.cli import COMMANDS, main
from bridge.cli.boundary import LazyGroup
from bridge.errors import Problem, ProblemsFound, StartFailed, UsageError

CONFIG = """\
kafka: {bootstrap_servers: "localhost:9092"}
topics: {user-events: {}}
meisa: {api_key: {env: KEY}}
rules: [rules/*.yaml]
"""
RULES = """\
rules:
  - name: signup
    match: user.signed_up
    do:
      - upsert: {email: "${data.email}"}
"""
ENVIRON = {"KEY": "meisa_live_5up3r53cr3t", "MEISA_API_KEY": ""}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a right configuration and rules, entered."""
    (tmp_path / "config" / "rules").mkdir(parents=True)
    (tmp_path / "config" / "bridge.yaml").write_text(CONFIG)
    (tmp_path / "config" / "rules" / "a.yaml").write_text(RULES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str, env: dict[str, str] | None = None, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(main, list(arguments), env=ENVIRON if env is None else env, input=stdin)
    assert "Traceback" not in result.output
    assert "5up3r53cr3t" not in result.output
    return result


# The ways in


def test_version_and_help() -> None:
    assert call("--version").stdout == f"meisa-bridge {bridge.__version__}\n"
    overview = call("-h").stdout
    for name in COMMANDS:
        assert f"\n  {name} " in overview


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = call(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: main {name}")


def test_a_wrong_command_line_is_exit_status_2_on_standard_error() -> None:
    for arguments in (
        ["frobnicate"],
        ["check", "--frob"],
        ["schema", "nothing"],
        ["eval"],
        ["check", "--output-format", "x"],
    ):
        result = call(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "Error: " in result.stderr


# The way out


@click.group(cls=LazyGroup, commands_at={"fail": f"{__name__}:fail"})
def group() -> None: ...


RAISED: list[BaseException] = []


@click.command()
def fail() -> None:
    raise RAISED[-1]


class _Located(LazyGroup):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return fail


@pytest.mark.parametrize(
    ("error", "status", "stderr"),
    [
        (UsageError("no such file; do this"), 2, "meisa-bridge: no such file; do this\n"),
        (StartFailed("no broker at a:1"), 1, "meisa-bridge: no broker at a:1\n"),
        (
            ProblemsFound([Problem("MB001", "m", "f", 1, 2, "h"), Problem("MB002", "n", "f")]),
            1,
            "f:1:2: error MB001: m (h)\nf: error MB002: n\n",
        ),
        (KeyboardInterrupt(), 130, ""),
        (click.UsageError("wrong"), 2, None),
        (click.Abort(), 1, "Aborted!\n"),
    ],
    ids=["usage", "start", "problems", "interrupt", "click", "abort"],
)
def test_errors_become_lines_and_statuses(error: BaseException, status: int, stderr: str | None) -> None:
    """A user's mistake is told as it is; a problem begins with its place; Ctrl-C is 130."""
    RAISED.append(error)
    result = CliRunner().invoke(_Located("main", commands_at={}), ["fail"])
    assert result.exit_code == status
    assert result.stdout == ""
    if stderr is not None:
        assert result.stderr == stderr


def test_a_bug_is_one_line_without_values_and_a_trace_on_demand() -> None:
    """What failed may hold a key or a person's data: the line names only the kind of error and the place."""
    RAISED.append(KeyError("ada@example.com"))
    runner = CliRunner()
    told = runner.invoke(_Located("main", commands_at={}), ["fail"])
    assert told.exit_code == 1
    assert told.stderr.count("\n") == 1
    assert "KeyError" in told.stderr and "this is a bug" in told.stderr and "MEISA_BRIDGE_DEBUG=1" in told.stderr
    assert "ada@example.com" not in told.stderr
    traced = runner.invoke(_Located("main", commands_at={}), ["fail"], env={"MEISA_BRIDGE_DEBUG": "1"})
    assert traced.exit_code == 1


# run


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_missing_configuration_is_named_and_no_other_command_advised(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(command)
    assert result.exit_code == 2
    assert result.stderr == "meisa-bridge: config/bridge.yaml: no such file; name the configuration with -c PATH\n"


def test_run_tells_all_problems_with_their_places(folder: Path) -> None:
    (folder / "bad.yaml").write_text("kafka: {grup_id: a}\ntopics: {a: {start: x}}\nmeisa: {api_key: {env: KEY}}\n")
    result = call("run", "-c", "bad.yaml")
    assert result.exit_code == 1
    assert [line.split(": ")[0] + line.split(": ")[1][-6:] for line in result.stderr.splitlines()] == [
        "bad.yaml:1:1 MB005",
        "bad.yaml:1:1 MB021",
        "bad.yaml:1:9 MB004",
        "bad.yaml:2:21 MB030",
    ]


def test_run_without_its_secret_is_exit_status_2(folder: Path) -> None:
    result = call("run", env={"KEY": ""})
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "config/bridge.yaml:3:18: error MB013: `meisa.api_key`: the environment variable KEY"
    )


def test_run_hands_the_settings_over_and_returns_the_status(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `app.run` returns is the exit status; warnings are told before it starts."""
    from bridge import app

    given: list[Any] = []

    def run(settings: Any) -> int:
        given.append(settings)
        return 3

    monkeypatch.setattr(app, "run", run)
    monkeypatch.setattr("bridge.observe.logs.configure", lambda stream, **options: None)
    (folder / "config" / "bridge.yaml").write_text(CONFIG + "delivery: {shutdown_timeout: 1s}\n")
    result = call("run")
    assert result.exit_code == 3
    assert given[0].topics.keys() == {"user-events"}
    assert "config/bridge.yaml:5:30: warning MB032" in result.stderr


# check


def test_check_finds_nothing_wrong(folder: Path) -> None:
    result = call("check", "--offline")
    assert (result.exit_code, result.stdout) == (0, "config/bridge.yaml: no problems\n")
    assert call("check", "--offline", "--json").stdout == "[]\n"
    assert call("check", "--offline", "--output-format", "github").stdout == ""


def test_check_tells_problems_of_configuration_envelope_and_rules_together(folder: Path) -> None:
    """One mistake hides no other, and they come in the order of their places."""
    (folder / "config" / "bridge.yaml").write_text(
        CONFIG.replace("{}", "{envelope: {type: '${value.}'}}") + "admin: {listen: nowhere}\n"
    )
    (folder / "config" / "rules" / "a.yaml").write_text(
        RULES.replace("match", "mach").replace("data.email", "dta.email")
    )
    result = call("check", "--offline")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines[:2]] == ["config/bridge.yaml:2:41", "config/bridge.yaml:5:17"]
    assert any(line.startswith("config/rules/a.yaml:3:5: ") and "match" in line for line in lines)
    assert any(line.startswith("config/rules/a.yaml:5:") and "dta" in line for line in lines)
    assert lines[-1] == f"config/bridge.yaml: {len(lines) - 1} errors"


def test_check_gives_json_for_programs(folder: Path) -> None:
    (folder / "config" / "bridge.yaml").write_text(CONFIG + "admin: {listen: nowhere}\n")
    for flags in (["--json"], ["--output-format", "json"]):
        result = call("check", "--offline", *flags)
        assert result.exit_code == 1
        assert json.loads(result.stdout) == [
            {
                "code": "MB025",
                "message": "`admin.listen` should be host:port",
                "file": "config/bridge.yaml",
                "line": 5,
                "column": 17,
                "hint": "e.g. 127.0.0.1:8080",
                "severity": "error",
            }
        ]


def test_check_annotates_for_github(folder: Path) -> None:
    """Properties and messages are escaped, so that a comma or line end in them breaks nothing."""
    (folder / "config" / "bridge.yaml").write_text(CONFIG.replace("{}", "{start: '100%,\\n'}"))
    result = call("check", "--offline", "--output-format", "github", env={**ENVIRON, "MEISA_BRIDGE__X": "1"})
    assert result.stdout.splitlines() == [
        "::error file=config/bridge.yaml,line=2,col=31,title=MB030::`topics.user-events.start`: `100%25,\\n` is "
        "neither earliest, latest nor an ISO 8601 time (e.g. earliest, or 2026-01-31T00:00:00Z)",
        "::error file=environment MEISA_BRIDGE__X,title=MB010::names no setting (two underscores go one level down: "
        "MEISA_BRIDGE__MEISA__TIMEOUT)",
    ]


def test_warnings_fail_only_when_check_is_strict(folder: Path) -> None:
    (folder / "config" / "bridge.yaml").write_text(CONFIG + "delivery: {shutdown_timeout: 1s}\n")
    result = call("check", "--offline")
    assert result.exit_code == 0
    assert result.stdout.endswith("config/bridge.yaml: 1 warning\n")
    assert call("check", "--offline", "--strict").exit_code == 1


def test_what_rules_hardly_mean_is_a_warning_that_can_be_left_out(folder: Path) -> None:
    """With the topics of the configuration; an error cannot be left out, and a code is looked at."""
    rules = folder / "config" / "rules" / "a.yaml"
    rules.write_text(RULES.replace("    do:", "    topic: user-event\n    do:"))
    result = call("check", "--offline")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "config/rules/a.yaml:4:12: warning MB170: rule signup: topic user-event is not read "
        "(did you mean user-events?)",
        "config/bridge.yaml: 1 warning",
    ]
    assert call("check", "--offline", "--strict").exit_code == 1
    left_out = call("check", "--offline", "--strict", "--ignore", "MB170")
    assert (left_out.exit_code, left_out.stdout) == (0, "config/bridge.yaml: no problems\n")
    assert call("check", "--offline", "--ignore", "topics").exit_code == 2
    rules.write_text(RULES.replace("upsert", "upsrt"))
    assert call("check", "--offline", "--ignore", "MB120").exit_code == 1


def test_check_without_the_file_or_its_secret_is_exit_status_2(folder: Path) -> None:
    missing = call("check", "--offline", "-c", "nowhere.yaml")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert missing.stderr.startswith("meisa-bridge: nowhere.yaml: no such file")
    assert call("check", "--offline", env={"KEY": ""}).exit_code == 2


def test_check_tells_what_it_knows_before_a_rules_file_that_cannot_be_read(folder: Path) -> None:
    """Exit status 2, but the problems found until then are not lost."""
    (folder / "config" / "rules" / "b.yaml").symlink_to("/dev/null/nowhere")
    (folder / "config" / "bridge.yaml").write_text(CONFIG.replace("rules/*", "rules/b") + "admin: {listen: nowhere}\n")
    result = call("check", "--offline")
    assert result.exit_code == 2
    assert "config/bridge.yaml:5:17: error MB025" in result.stdout
    assert result.stderr.startswith("meisa-bridge: cannot read the rules in config/rules/b.yaml")


@pytest.mark.parametrize("command", [["check", "--offline"], ["run"]])
def test_a_pattern_without_files_is_placed_where_it_is_written(folder: Path, command: list[str]) -> None:
    """Whichever command finds it."""
    (folder / "config" / "bridge.yaml").write_text(
        CONFIG.replace("rules/*", "rulez/*") + "handlers: [no.such_module]\n"
    )
    result = call(*command)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0].startswith("config/bridge.yaml:4:1: error MB101: ") and "rulez/*.yaml" in lines[0]
    assert lines[1].startswith("config/bridge.yaml:5:1: error MB140: ") and "no.such_module" in lines[1]


def test_check_refuses_rules_that_need_identities_which_memory_does_not_keep(folder: Path) -> None:
    """A trigger that knows only an id could never find the address."""
    rules = "rules:\n  - name: a\n    match: b\n    do:\n      - trigger: {trigger_key: k, external_id: '7'}\n"
    (folder / "config" / "rules" / "a.yaml").write_text(rules)
    result = call("check", "--offline")
    assert result.exit_code == 1
    assert result.stdout.startswith("config/rules/a.yaml:5:")


def test_check_says_nothing_of_rules_when_their_list_is_broken(folder: Path) -> None:
    (folder / "config" / "bridge.yaml").write_text(CONFIG.replace("[rules/*.yaml]", "rules/*.yaml"))
    result = call("check", "--offline")
    assert [line.split(": ")[1] for line in result.stdout.splitlines()] == ["error MB006", "1 error"]


def test_check_tells_where_repeated_events_are_forgotten(folder: Path) -> None:
    """A notice at the setting; with a file there is nothing to say."""
    config = folder / "config" / "bridge.yaml"
    config.write_text(CONFIG.replace("user-events: {}", "user-events: {dedupe: 10m}"))
    result = call("check", "--offline", "--strict")
    assert result.exit_code == 0 and "notice MB196: " in result.stdout
    config.write_text(config.read_text() + "state: {url: sqlite:///state.db}\n")
    assert "no problems" in call("check", "--offline").stdout


def test_check_tells_that_memory_forgets_kept_values_of_lazy_fields(folder: Path) -> None:
    """A notice fails nothing, not even strictly: it is a choice, and nothing is wrong."""
    rules = folder / "config" / "rules" / "a.yaml"
    rules.write_text(rules.read_text().replace("    match:", "    lazy: [custom_fields.seen]\n    match:"))
    result = call("check", "--offline", "--strict")
    assert result.exit_code == 0
    assert "notice MB152: rule" in result.stdout
    assert result.stdout.endswith("config/bridge.yaml: 1 notice\n")
    (folder / "config" / "bridge.yaml").write_text(CONFIG + "state: {url: sqlite:///state.db}\n")
    assert "no problems" in call("check", "--offline").stdout


def test_check_warns_of_fields_that_are_always_sent(folder: Path) -> None:
    """Where topics share fields; one that is not keyed by contact has nothing to lose."""
    rules = folder / "config" / "rules" / "a.yaml"
    rules.write_text(RULES.replace('"}', '", first_name: "${data.name}"}'))
    config = folder / "config" / "bridge.yaml"
    two = CONFIG.replace("{user-events: {}}", "{users: {keyed_by: contact}, billing: {}}")
    config.write_text(two)
    result = call("check", "--offline")
    assert result.exit_code == 0
    assert "config/bridge.yaml:2:28: warning MB151: " in result.stdout and "nothing: first_name (" in result.stdout
    assert call("check", "--offline", "--strict").exit_code == 1
    config.write_text(two.replace("keyed_by: contact", ""))
    assert "no problems" in call("check", "--offline").stdout
    config.write_text(two)
    rules.write_text(rules.read_text().replace("match:", "topic: users\n    match:"))
    assert "no problems" in call("check", "--offline").stdout


def test_check_tells_five_of_many_shared_fields(folder: Path) -> None:
    fields = ", ".join(f"f{number}: 1" for number in range(7))
    rules = RULES.replace('"}', f'", custom_fields: {{{fields}}}}}')
    (folder / "config" / "rules" / "a.yaml").write_text(rules)
    config = CONFIG.replace("{user-events: {}}", "{users: {keyed_by: contact}, billing: {}}")
    (folder / "config" / "bridge.yaml").write_text(config)
    assert "custom_fields.f4 and 2 more (" in call("check", "--offline").stdout


def test_check_offline_cannot_create_topics(folder: Path) -> None:
    assert call("check", "--offline", "--create-topics").exit_code == 2


def test_check_asks_outside_only_when_all_is_well_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Kafka and Meisa say is told like any problem; with a broken file they are left in peace."""
    from bridge import preflight

    asked: list[bool] = []

    def check_online(settings: Any, book: Any, *, create: bool) -> list[Problem]:
        assert [rule.name for rule in book.rules] == ["signup"]
        asked.append(create)
        return [Problem("MB201", "no broker", "config/bridge.yaml", 1, 28)]

    monkeypatch.setattr(preflight, "check_online", check_online)
    result = call("check", "--create-topics")
    assert (result.exit_code, asked) == (1, [True])
    assert "config/bridge.yaml:1:28: error MB201: no broker" in result.stdout
    (folder / "config" / "bridge.yaml").write_text(CONFIG + "admin: {listen: nowhere}\n")
    assert call("check").exit_code == 1
    assert asked == [True]


# schema, eval


def test_schema_prints_the_committed_schema() -> None:
    schemas = Path(bridge.__file__).parents[1] / "schemas"
    for arguments in (["schema"], ["schema", "config"]):
        assert call(*arguments).stdout == (schemas / "bridge.schema.json").read_text()
    assert call("schema", "rules").stdout == (schemas / "rules.schema.json").read_text()


@pytest.mark.parametrize(
    ("expression", "printed"),
    [
        ('data.plan != "free"', "true"),
        ("data.n * 2", "4"),
        ("event.type", '"user.a"'),
        ("{'a': data.n}", '{"a":2}'),
        ("default(data.nothing, 'x')", '"x"'),
    ],
)
def test_eval_prints_the_value_as_json(tmp_path: Path, expression: str, printed: str) -> None:
    event = '{"type": "user.a", "data": {"plan": "pro", "n": 2}}'
    file = tmp_path / "event.json"
    file.write_text(event)
    assert call("eval", expression, "--file", str(file), "--json").stdout == printed + "\n"
    assert call("eval", expression, "--file", "-", "--json", stdin=event).stdout == printed + "\n"


def test_eval_marks_the_place_of_a_mistake(tmp_path: Path) -> None:
    result = call("eval", "data.n + foo", "--file", "-", stdin="{}")
    assert result.exit_code == 1
    first, line, caret = result.stderr.splitlines()
    assert first.startswith("meisa-bridge: column 10: ") and "foo" in first
    assert line.index("foo") == caret.index("^")


@pytest.mark.parametrize(
    ("stdin", "says"),
    [
        ("{", "-: not JSON: "),
        ("[]", "-: not an event; write an object with type and data"),
        ('{"plan": "pro"}', "-: not an event; "),
        ("", "-: not JSON: "),
        ('{"data": {}}\n{"data"}', "-:2: not JSON: "),
        ('{"data": {}, "time": "soon"}', "value.time is not an ISO 8601 time"),
        ('{"data": {}, "timestamp": "soon"}', "its timestamp is no time"),
    ],
)
def test_eval_tells_what_is_wrong_with_the_event(stdin: str, says: str) -> None:
    result = call("eval", "data.plan", "--file", "-", stdin=stdin)
    assert result.exit_code == 1
    assert says in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("expression", ["data.n > 0 and data.x", "data.n > 0 and\n  'a' + data.n"])
def test_eval_marks_the_field_at_fault(expression: str) -> None:
    """A missing one, with what it means in a `when`, and one of the wrong kind."""
    result = call("eval", expression, "--file", "-", stdin='{"data": {"n": 1}}')
    assert result.exit_code == 1
    first, line, caret = result.stderr.splitlines()
    missing = "data.x is missing (a `when` would be false; optional(x), default(x, y) and has(x) allow for that)"
    told = missing if "data.x" in expression else "cannot add a text and a number in 'a' + data.n"
    assert first == f"meisa-bridge: {told}"
    assert line[caret.index("^") :].startswith("data.")


def test_eval_takes_the_defaults_of_the_service() -> None:
    """An event without data has an empty object, one without id the place of its record; the record can be given."""
    whole = "{'d': data, 'i': event.id, 'k': key, 'h': headers.a, 't': topic, 's': timestamp}"
    given = '{"type": "a", "key": "k", "headers": {"a": "b"}, "topic": "t", "offset": 3, "timestamp": 1767225600000}'
    assert json.loads(call("eval", whole, "--file", "-", stdin=given).stdout) == {
        "d": {}, "i": "t/0/3", "k": "k", "h": "b", "t": "t", "s": 1767225600000,
    }  # fmt: skip
    assert call("eval", "data.n", "--file", "-", stdin='{"data": {"n": 1}}').stdout == "1\n"
    assert "event.type is missing" in call("eval", "event.type", "--file", "-", stdin='{"data": {}}').stderr


@pytest.mark.parametrize("name", ["events.jsonl", "events.json", "events.yaml"])
def test_eval_gives_each_event_of_a_file_its_line(tmp_path: Path, name: str) -> None:
    """As JSON lines, a list, or YAML; one that fails is told by its place, and the others have their values."""
    events = [{"data": {"n": {"a": 1}}}, {"data": {}}, {"data": {"n": 2}}]
    lines = [json.dumps(event) for event in events]
    text = "\n\n".join(lines) if name.endswith("l") and "json" in name else f"[{', '.join(lines)}]"
    (tmp_path / name).write_text(text)
    result = call("eval", "data.n", "--file", str(tmp_path / name))
    assert (result.exit_code, result.stdout) == (1, '{"a":1}\n2\n')
    place = f"{tmp_path / name}:3" if name == "events.jsonl" else f"{tmp_path / name}: event 2"
    assert result.stderr == f"{place}: data.n is missing\n"


def test_eval_reads_an_event_as_tests_in_rules_files_have_it(tmp_path: Path) -> None:
    file = tmp_path / "event.yaml"
    file.write_text("type: user.signed_up   # as in a test\ndata: {plan: pro}\n")
    assert call("eval", "data.plan", "--file", str(file)).stdout == '"pro"\n'
    file.write_text("type: [\n")
    assert "event.yaml:2:1: error MB100" in call("eval", "data.plan", "--file", str(file)).stderr


def test_eval_without_its_file_is_exit_status_2(tmp_path: Path) -> None:
    for file in (tmp_path / "nowhere.json", tmp_path):
        result = call("eval", "1", "--file", str(file))
        assert result.exit_code == 2
        assert str(file) in result.stderr


# sandbox, demo


def test_flags_of_the_sandbox_are_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each option is a flag of its type with its own default; one in the plural may be repeated."""
    from bridge.sandbox import server
    from bridge.sandbox.options import SandboxOptions

    given: list[SandboxOptions] = []

    def run(options: SandboxOptions) -> int:
        given.append(options)
        return 0

    monkeypatch.setattr(server, "run", run)
    assert call("sandbox").exit_code == 0
    flags = ["--port", "0", "--latency-ms", "2.5", "--strict", "--key", "meisa_test_a", "--keys", "meisa_test_b"]
    assert call("sandbox", *flags).exit_code == 0
    assert given[0] == SandboxOptions()
    assert given[1] == SandboxOptions(port=0, latency_ms=2.5, strict=True, keys=("meisa_test_a", "meisa_test_b"))
    wrong = call("sandbox", "--port", "many")
    assert wrong.exit_code == 2 and "many" in wrong.stderr


def test_the_demo_returns_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    from bridge.sandbox import demo

    monkeypatch.setattr(demo, "run", lambda options: options.events)
    assert call("demo", "--events", "5").exit_code == 5
