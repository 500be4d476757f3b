"""`meisa-bridge test`: the tests in rules files, their differences, and what they leave untested."""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from bridge.cli.options import config_option
from bridge.errors import ProblemsFound, UsageError

if TYPE_CHECKING:
    from bridge.config import Examined, Topic
    from bridge.model import Action, Contact, Event, Record, TopicPartition
    from bridge.rules import RuleBook
    from bridge.rules.cases import Case
    from bridge.rules.testing import People, World

SUFFIXES = (".yaml", ".yml")
_RULES = re.compile(r"^(rules|tests)\s*:", re.MULTILINE)
_SETTINGS = re.compile(r"^(kafka|meisa|topics)\s*:", re.MULTILINE)


class Chosen(NamedTuple):
    """What is to be tested."""

    book: RuleBook
    cases: list[Case]
    topics: dict[str, Topic]


@click.command(short_help="Run the tests in rules files.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATHS]...")
@config_option
@click.option("--select", multiple=True, metavar="RULE", help="Only the tests of this rule or handler; * is any text.")
@click.option("--update", is_flag=True, help="Write what was made into the tests that failed.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write the results as JUnit XML too.")
@click.option("--json", "as_json", is_flag=True, help="The results as JSON.")
@click.pass_context
def test(
    ctx: click.Context,
    paths: tuple[Path, ...],
    config: Path,
    select: tuple[str, ...],
    update: bool,
    junit: Path | None,
    as_json: bool,
) -> None:
    """Run the tests in rules files, and tell what they leave untested.

    A test beside a rule tests that rule alone. Without PATHS those of the configuration run; its secrets are not
    needed. With PATHS, rules files or folders, no configuration is needed: their rules alone are loaded, unless -c
    names the configuration that they belong to.
    """
    from bridge.cli import verdicts
    from bridge.rules.coverage import Coverage
    from bridge.rules.testing import Bench, Ending, pointless

    named = ctx.get_parameter_source("config") is click.core.ParameterSource.COMMANDLINE
    chosen = _selected(_chosen(paths, config, named), select)
    coverage = Coverage(chosen.book)
    bench = Bench(coverage.book, _world(chosen.topics))
    ran = []
    for case in chosen.cases:
        begun = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):  # what a handler prints is no part of the results
            result = bench.run(case)
        ran.append(verdicts.Timed(result, time.perf_counter() - begun))
    failed = [each.result for each in ran if each.result.ending is Ending.FAILED]
    updates = []
    if update and failed:
        from bridge.cli.updating import update_files

        updates = update_files(failed)
    names = None
    if select or paths:
        names = {case.subject for case in chosen.cases} | _rules_in(chosen.book, paths, select)
    session = verdicts.Session(ran, pointless(chosen.book, chosen.cases), coverage.report(names), updates)
    if junit is not None:
        from bridge.cli.junit import document

        _write(junit, document(session))
    click.echo(verdicts.as_json(session) if as_json else verdicts.as_text(session), nl=False)
    ctx.exit(1 if session.failed else 0)


# What to test --------------------------------------------------------------------------------------------------------


def _chosen(paths: Sequence[Path], config: Path, config_named: bool) -> Chosen:
    """Raises UsageError, ProblemsFound."""
    files = _files(paths)
    if paths and not config_named:
        from bridge.rules import load

        book = load([glob.escape(str(file.absolute())) for file in files.values()], Path("/"), watched=True)
        return Chosen(book, book.tests, {})
    chosen = _of_configuration(config)
    if not paths:
        return chosen
    known = {Path(rule.file).resolve() for rule in chosen.book.rules}
    known |= {Path(case.place.file).resolve() for case in chosen.cases}
    strange = [file for file in files if file not in known]
    if strange:
        raise UsageError(f"{files[strange[0]]} is not among the rules of {config}: leave out -c to test it by itself")
    return chosen._replace(cases=[case for case in chosen.cases if Path(case.place.file).resolve() in files])


def _of_configuration(config: Path) -> Chosen:
    from bridge.config import examine, placed
    from bridge.rules import load

    examined = examine(config, os.environ)
    sections = examined.sections
    if not {"rules", "handlers"} <= sections.keys():
        raise ProblemsFound([problem for problem in examined.problems if problem.severity == "error"])
    try:
        book = load(sections["rules"], examined.base_dir, sections["handlers"], watched=True)
    except ProblemsFound as error:
        raise ProblemsFound(placed(error.problems, examined.place)) from None
    return Chosen(book, book.tests, dict(_topics(examined)))


def _topics(examined: Examined) -> dict[str, Topic]:
    found: dict[str, Topic] = examined.sections.get("topics", {})
    return found


def _files(paths: Iterable[Path]) -> dict[Path, Path]:
    """The rules files that the paths name, each once: behind links, and as it was named. Raises UsageError."""
    found: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            rules = sorted(each for each in path.rglob("*") if _is_rules_file(each, path))
            if not rules:
                raise UsageError(f"{path}: no rules files in this folder (*.yaml with rules: or tests:)")
            found = {each.resolve(): each for each in rules} | found
        elif not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        else:
            found.setdefault(path.resolve(), path)
    return found


def _is_rules_file(file: Path, folder: Path) -> bool:
    """Whether a file somewhere in a folder holds rules or tests, and is no bridge.yaml, workflow or chart."""
    if file.suffix not in SUFFIXES or any(part.startswith(".") for part in file.relative_to(folder).parts):
        return False
    try:
        text = file.read_text("utf-8", errors="replace") if file.is_file() else ""
    except OSError:
        return True  # whoever loads it says why
    return bool(_RULES.search(text)) and not _SETTINGS.search(text)


def _selected(chosen: Chosen, select: Sequence[str]) -> Chosen:
    """Only the tests of these rules and handlers. Raises UsageError."""
    from bridge.places import did_you_mean

    if not select:
        return chosen
    for pattern in select:
        if not fnmatch.filter(chosen.book.names, pattern):
            hint = did_you_mean(pattern, chosen.book.names, "check the name under rules")
            raise UsageError(f"--select: no rule or handler is named {pattern} ({hint})")
    cases = [case for case in chosen.cases if any(fnmatch.fnmatchcase(case.subject, each) for each in select)]
    return chosen._replace(cases=cases)


def _rules_in(book: RuleBook, paths: Sequence[Path], select: Sequence[str]) -> set[str]:
    """The rules that the command line is about, tested or not."""
    files = _files(paths)
    names = {rule.name for rule in book.rules if not files or Path(rule.file).resolve() in files}
    if not paths:
        names |= {handler.name for handler in book.handlers}
    return {name for name in names if not select or any(fnmatch.fnmatchcase(name, each) for each in select)}


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: cannot be written ({error.strerror})") from None


# What surrounds the rules --------------------------------------------------------------------------------------------


class Known:
    """The identity table of one test, as the delivery uses it."""

    def __init__(self, contacts: Iterable[Contact]) -> None:
        from bridge.core.identity import Identities

        self._table = Identities()
        for contact in contacts:
            self._table.seed(contact)

    def named(self, action: Action, partition: TopicPartition, offset: int) -> Action | None:
        """The action under its contact's present names; None where Meisa needs one that nobody knows."""
        from bridge.model import Kind

        action = self._table.admit(action, partition, offset)
        contact = action.contact
        told = contact.email is not None or (action.kind is Kind.TRACK and contact.external_id is not None)
        return action if told else None


def _world(topics: dict[str, Topic]) -> World:
    from bridge.decode import JsonDecoder
    from bridge.rules.testing import World

    plain = JsonDecoder().decode

    def people(contacts: Iterable[Contact]) -> People:
        return Known(contacts)

    return World(
        decode=plain, people=people, decoders={name: _decoder(topic) or plain for name, topic in topics.items()}
    )


def _decoder(topic: Topic) -> Callable[[Record], Event | None] | None:
    """The decoder of a topic, for records written as JSON; None where its settings do not make one.

    What Avro holds is plain values once it is decoded, so there a test gives the values.
    """
    from bridge.decode import Envelope, decoder_for
    from bridge.errors import StartFailed
    from bridge.rules import ExpressionError, compile_envelope_field

    plain = topic.format == "avro"
    try:
        parts = {part: compile_envelope_field(text) for part, text in topic.envelope or ()}
        envelope = Envelope(**parts) if parts else None
        encoding = None if plain or topic.encoding is None else "json"
        return decoder_for("json" if plain else topic.format, encoding=encoding, envelope=envelope).decode
    except (ExpressionError, StartFailed):  # check tells that
        return None
