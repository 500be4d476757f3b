"""`meisa-bridge check`: every problem that can be known before running, sorted by place."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bridge.cli.options import config_option
from bridge.errors import Problem, ProblemsFound, UsageError

if TYPE_CHECKING:
    from bridge.config import Examined
    from bridge.config.settings import Topic
    from bridge.rules import RuleBook

COLOURS = {"error": "red", "warning": "yellow", "notice": "cyan"}
LINE_SHOWN_MAX = 100
"""Characters of a line at fault."""
FIELDS_TOLD = 5
"""Of those that several topics write: enough to find the rules."""


def _codes(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> frozenset[str]:
    for code in given:
        if not re.fullmatch(r"MB\d{3}", code):
            raise click.BadParameter(f"{code!r} is no code; e.g. --ignore MB180")
    return frozenset(given)


@click.command(short_help="Tell every problem that can be known before running.")
@config_option
@click.option("--offline", is_flag=True, help="Ask neither Kafka nor Meisa.")
@click.option("--strict", is_flag=True, help="Warnings fail as well.")
@click.option(
    "--output-format",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="For people, for programs, or as annotations of a GitHub workflow.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --output-format json.")
@click.option(
    "--ignore",
    multiple=True,
    metavar="CODE",
    callback=_codes,
    help="Leave out warnings and notices with this code; may be repeated.",
)
@click.option("--create-topics", is_flag=True, help="Create the topics that do not exist.")
@click.pass_context
def check(
    ctx: click.Context,
    config: Path,
    offline: bool,
    strict: bool,
    output_format: str,
    as_json: bool,
    ignore: frozenset[str],
    create_topics: bool,
) -> None:
    """Tell every problem that can be known before running: configuration, rules, expressions.

    Unless --offline, also whether Kafka and Meisa are there and agree. Secrets must be readable in either case; a
    made-up MEISA_API_KEY=meisa_test_x will do offline.
    """
    from bridge.config import codes, examine

    if offline and create_topics:
        raise click.UsageError("--create-topics needs Kafka: leave out --offline")
    examined = examine(config, os.environ)
    problems = [
        *examined.problems,
        *_property_problems(examined),
        *_envelope_problems(examined),
        *_schema_problems(examined),
    ]
    unreadable: UsageError | None = None
    book: RuleBook | None = None
    try:
        found, book = _rule_problems(examined)
        problems += found
    except UsageError as error:
        unreadable = error  # told after what is known already
    if not offline and examined.settings is not None and not unreadable and not _errors(problems):
        from bridge.preflight import check_online

        problems += check_online(examined.settings, book, create=create_topics)
    problems = [problem for problem in problems if problem.severity == "error" or problem.code not in ignore]
    problems = sorted(set(problems), key=lambda problem: (problem.file, problem.line, problem.column, problem.code))
    click.echo(FORMATS["json" if as_json else output_format](problems, config), nl=False)
    if unreadable is not None:
        raise unreadable
    if any(problem.code in codes.UNREADABLE for problem in problems):
        ctx.exit(2)
    ctx.exit(1 if _errors(problems) or (strict and any(problem.severity == "warning" for problem in problems)) else 0)


def _property_problems(examined: Examined) -> list[Problem]:
    """What librdkafka itself says of its properties; it needs no broker for that."""
    if "kafka" not in examined.sections or not examined.sections["kafka"].properties:
        return []  # most have none, and the library takes its time to load
    from bridge.kafka.properties import validate

    kafka = examined.sections["kafka"]
    try:
        validate(kafka.bootstrap_servers, kafka.properties)
    except UsageError as error:
        named = [name for name in kafka.properties if name in str(error)]
        problem = examined.place("kafka", "properties", *named[:1]).problem("MB204", str(error))
        told = {(each.file, each.line, each.column) for each in _errors(examined.problems)}
        # What is wrong there is told already, such as a file that is not there.
        return [] if (problem.file, problem.line, problem.column) in told else [problem]
    return []


def _rule_problems(examined: Examined) -> tuple[list[Problem], RuleBook | None]:
    """What is wrong with rules and handlers, and they themselves; also where other sections are broken.

    Raises UsageError.
    """
    from bridge import rules
    from bridge.config import placed
    from bridge.rules.testing import pointless

    sections = examined.sections
    if not {"rules", "handlers"} <= sections.keys():
        return [], None
    try:
        book = rules.load(sections["rules"], examined.base_dir, sections["handlers"])
    except ProblemsFound as error:
        return placed(error.problems, examined.place), None
    problems: list[Problem] = []
    if "state" in sections and sections["state"].url == "memory":
        problems = [*book.needs_identities(), *book.forgets_lazy_values()]
    if "topics" in sections:
        topics = sections["topics"]
        keyed = [name for name, topic in topics.items() if topic.keyed_by == "contact"]
        problems += placed(rules.advise(book, _formats(topics), keyed), examined.place)
    problems += [
        *_always_sent(examined, book),
        *_forgotten_repeats(examined),
        *_field_problems(examined, book),
        *pointless(book, book.tests),
    ]
    return problems, book


def _formats(topics: Mapping[str, Topic]) -> dict[str, str]:
    """Each topic's format; empty where more is known of its events than that, by a schema or an envelope."""
    return {
        name: "" if topic.schemas is not None or topic.envelope is not None else topic.format
        for name, topic in topics.items()
    }


def _field_problems(examined: Examined, book: RuleBook) -> list[Problem]:
    """What rules name that the schemas of topics do not have. Problems of the schema files are told elsewhere."""
    topics = examined.sections.get("topics", {})
    from bridge.schema_files import load_schemas
    from bridge.schema_fit import field_problems

    return field_problems(topics, load_schemas(topics, examined.base_dir, examined.place)[0], book, examined.place)


def _always_sent(examined: Examined, book: RuleBook) -> Iterator[Problem]:
    """What is sent although it may be unchanged, because another topic may have written it since."""
    topics = examined.sections.get("topics", {})
    writers = book.writers(topics)
    for name, topic in topics.items():
        shared = writers.shared(name) if topic.keyed_by == "contact" else []
        if shared:
            told = ", ".join("any field" if path == "*" else path for path in shared[:FIELDS_TOLD])
            more = f" and {len(shared) - FIELDS_TOLD} more" if len(shared) > FIELDS_TOLD else ""
            yield examined.place("topics", name, "keyed_by").problem(
                "MB151",
                f"other topics may write these fields too, so upserts of {name} that set them are sent even if they "
                f"change nothing: {told}{more}",
                "name the `topic` in rules that apply to one, and write a field from one topic only",
                severity="warning",
            )


def _forgotten_repeats(examined: Examined) -> Iterator[Problem]:
    """Topics whose finished ids go with the process (runtime/duplicates.py)."""
    state = examined.sections.get("state")
    if state is None or state.url.startswith("sqlite:"):
        return
    for name, topic in examined.sections.get("topics", {}).items():
        if topic.dedupe is not None:
            yield examined.place("topics", name, "dedupe").problem(
                "MB196",
                "each process remembers for itself which events have finished: what is repeated over a restart, or at "
                "another instance, is carried out again",
                "set state.url to sqlite:/// to keep it over restarts",
                severity="notice",
            )


def _envelope_problems(examined: Examined) -> list[Problem]:
    """Expressions of envelopes that cannot be compiled."""
    from bridge import rules

    problems = []
    for name, topic in examined.sections.get("topics", {}).items():
        for part, text in topic.envelope or ():
            try:
                rules.compile_envelope_field(text)
            except rules.ExpressionError as error:
                place = examined.place("topics", name, "envelope", part)
                problems.append(place.problem(error.code, error.message, error.hint))
    return problems


def _schema_problems(examined: Examined) -> list[Problem]:
    """What is wrong with the schema files that topics name."""
    topics = examined.sections.get("topics", {})
    if not any(topic.schemas for topic in topics.values()):
        return []
    from bridge.schema_files import load_schemas

    return load_schemas(topics, examined.base_dir, examined.place)[1]


def _errors(problems: Iterable[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.severity == "error"]


def _text(problems: list[Problem], config: Path) -> str:
    errors = len(_errors(problems))
    notices = sum(problem.severity == "notice" for problem in problems)
    counts = [
        _count(errors, "error"),
        _count(len(problems) - errors - notices, "warning"),
        _count(notices, "notice"),
    ]
    found = " and ".join(count for count in counts if count)
    told = [line for problem in problems for line in (_shown(problem), *_marked(problem, config))]
    return "".join(f"{line}\n" for line in (*told, f"{config}: {found or 'no problems'}"))


def _shown(problem: Problem) -> str:
    """One line; on a terminal its severity is coloured."""
    word = f"{problem.severity} {problem.code}:"
    return str(problem).replace(word, click.style(word, fg=COLOURS.get(problem.severity), bold=True), 1)


def _marked(problem: Problem, config: Path) -> list[str]:
    """On a terminal the line at fault, with a caret under its column.

    Never of the configuration, whose lines may hold a secret.
    """
    if (
        not (sys.stdout.isatty() and problem.line and problem.column)
        or Path(problem.file).resolve() == config.resolve()
    ):
        return []
    try:
        line = Path(problem.file).read_text(encoding="utf-8-sig").split("\n")[problem.line - 1]
    except (OSError, UnicodeDecodeError, IndexError):
        return []
    start = max(0, problem.column - 1 - LINE_SHOWN_MAX // 2)
    shown = line[start : start + LINE_SHOWN_MAX].expandtabs(1)
    return [f"  {shown}", f"  {' ' * (problem.column - 1 - start)}^"]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}" if number else ""


def _json(problems: list[Problem], config: Path) -> str:
    return json.dumps([asdict(problem) for problem in problems], indent=2, ensure_ascii=False) + "\n"


def _github(problems: list[Problem], config: Path) -> str:
    """Workflow commands of GitHub Actions; `%`, line ends and, in properties, `:` and `,` are escaped."""
    lines = []
    for problem in problems:
        places = {"file": problem.file, "line": problem.line, "col": problem.column, "title": problem.code}
        listed = ",".join(f"{key}={_escape(str(value), ':,')}" for key, value in places.items() if value)
        message = f"{problem.message} ({problem.hint})" if problem.hint else problem.message
        lines.append(f"::{problem.severity} {listed}::{_escape(message)}\n")
    return "".join(lines)


def _escape(text: str, also: str = "") -> str:
    for character in "%\r\n" + also:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


FORMATS: Final[dict[str, Callable[[list[Problem], Path], str]]] = {"text": _text, "json": _json, "github": _github}
