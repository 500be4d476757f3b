"""What `meisa-bridge test` says: for people and as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import click

from bridge.errors import Problem
from bridge.rules.coverage import Gap, Report
from bridge.rules.testing import Ending, Result

GAPS_SHOWN: Final = 30
"""Of what is not covered; --json lists all."""

_COLOURS: Final = {"-": "red", "+": "green"}


class Timed(NamedTuple):
    """A test that ran, and how long it took."""

    result: Result
    seconds: float


class Update(NamedTuple):
    """What became of one failed test under --update."""

    result: Result
    refused: str = ""
    """Why its expectation was not written; empty where it was."""


class Session(NamedTuple):
    """One run of the command."""

    ran: Sequence[Timed]
    warnings: Sequence[Problem]
    coverage: Report
    updates: Sequence[Update]

    def count(self, ending: Ending) -> int:
        return sum(each.result.ending is ending for each in self.ran)

    @property
    def failed(self) -> list[Result]:
        """Tests that failed and still do."""
        updated = {id(each.result) for each in self.updates if not each.refused}
        results = [each.result for each in self.ran if each.result.ending is Ending.FAILED]
        return [result for result in results if id(result) not in updated]


def place(result: Result) -> str:
    return f"{result.case.place.file}:{result.case.place.line}"


def explanation(result: Result) -> list[str]:
    """The difference and what to know beside it, one line each."""
    return [*(str(line) for line in result.difference), *(f"({note})" for note in result.notes)]


def as_text(session: Session) -> str:
    return "".join(f"{line}\n" for line in _lines(session))


def _lines(session: Session) -> Iterator[str]:
    for problem in session.warnings:
        yield str(problem)
    refused = {id(each.result): each.refused for each in session.updates}
    for each in session.ran:
        result = each.result
        if result.ending is not Ending.FAILED:
            continue
        reason = refused.get(id(result))
        if reason == "":
            yield f"{place(result)}: {click.style('updated', fg='yellow')} {result.case.title}"
            continue
        yield f"{place(result)}: {click.style('FAILED', fg='red', bold=True)} {result.case.title}"
        for line in result.difference:
            colour = _COLOURS.get(line.sign)
            text = f"    {line}"
            yield click.style(text, fg=colour) if colour else text
        for note in result.notes:
            yield f"    ({note})"
        if reason:
            yield f"    not updated: {reason}"
        yield ""
    if any(line.sign != " " for result in session.failed for line in result.difference):
        yield "- is expected, + is what the rules made"
    yield _summary(session)
    yield from _coverage(session)


def _summary(session: Session) -> str:
    if not session.ran:
        return "no tests: write them under tests: beside a rule (docs/rule-tests.md)"
    counts = [(session.count(Ending.PASSED), "passed"), (len(session.failed), "failed")]
    counts += [
        (sum(not each.refused for each in session.updates), "updated"),
        (session.count(Ending.SKIPPED), "skipped"),
    ]
    told = ", ".join(f"{number} {what}" for number, what in counts if number or what == "passed")
    return f"{len(session.ran)} test{'s' if len(session.ran) > 1 else ''}: {told}"


def _coverage(session: Session) -> Iterator[str]:
    report = session.coverage
    yield f"tested: rules {report.rules}, branches {report.branches}, actions {report.actions}"
    if report.gaps:
        yield "not tested:"
    for gap in report.gaps[:GAPS_SHOWN]:
        yield f"  {_gap_place(gap)}: {gap.rule}: {gap.what}"
    if len(report.gaps) > GAPS_SHOWN:
        yield f"  and {len(report.gaps) - GAPS_SHOWN} more (--json lists all)"


def _file(gap: Gap) -> str:
    """A handler's file is known by its whole path."""
    relative = os.path.relpath(gap.place.file) if gap.place.file else ""
    return gap.place.file if relative.startswith("..") else relative


def _gap_place(gap: Gap) -> str:
    return f"{_file(gap)}:{gap.place.line}" + (f":{gap.place.column}" if gap.place.column else "")


def as_json(session: Session) -> str:
    refused = {id(each.result): each.refused for each in session.updates}
    tests = []
    for each in session.ran:
        result, case = each.result, each.result.case
        entry: dict[str, Any] = {
            "name": case.name,
            "file": case.place.file,
            "line": case.place.line,
            "rule": case.subject if case.of == "rule" else None,
            "handler": case.subject if case.of == "handler" else None,
            "ending": result.ending.value,
            "difference": [str(line) for line in result.difference],
            "notes": list(result.notes),
            "actions": [made.item() for made in result.made],
            "errors": [asdict(failure) for failure in result.failures],
            "seconds": round(each.seconds, 6),
        }
        if id(result) in refused:
            entry["updated"] = not refused[id(result)]
            entry["not_updated"] = refused[id(result)] or None
        tests.append(entry)
    report = session.coverage
    made = {
        "tests": tests,
        "passed": session.count(Ending.PASSED),
        "failed": len(session.failed),
        "updated": sum(not each.refused for each in session.updates),
        "skipped": session.count(Ending.SKIPPED),
        "coverage": {
            "rules": report.rules._asdict(),
            "branches": report.branches._asdict(),
            "actions": report.actions._asdict(),
            "not_tested": [
                {
                    "rule": gap.rule,
                    "what": gap.what,
                    "file": _file(gap),
                    "line": gap.place.line,
                    "column": gap.place.column,
                }
                for gap in report.gaps
            ],
        },
        "problems": [asdict(problem) for problem in session.warnings],
    }
    return json.dumps(made, indent=2, ensure_ascii=False, default=str) + "\n"
