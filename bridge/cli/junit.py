"""Results of `meisa-bridge test` as JUnit XML, in the form that CI systems agree on: suites of cases, one per file.

There is no official schema; attributes are those of the one that Jenkins, GitLab and GitHub's actions read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree

from bridge.cli.verdicts import Session, Timed, explanation
from bridge.rules.testing import Ending

_NOT_XML: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to hold, escaped or not."""


def document(session: Session) -> str:
    """The whole file."""
    root = ElementTree.Element("testsuites", {"name": "meisa-bridge test"})
    _counted(root, session.ran)
    files = list(dict.fromkeys(each.result.case.place.file for each in session.ran))
    for file in files:
        ran = [each for each in session.ran if each.result.case.place.file == file]
        suite = ElementTree.SubElement(root, "testsuite", {"name": _clean(file)})
        _counted(suite, ran)
        for each in ran:
            _case(suite, each)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _counted(element: ElementTree.Element, results: Sequence[Timed]) -> None:
    element.set("tests", str(len(results)))
    element.set("failures", str(sum(each.result.ending is Ending.FAILED for each in results)))
    element.set("errors", "0")
    element.set("skipped", str(sum(each.result.ending is Ending.SKIPPED for each in results)))
    element.set("time", f"{sum(each.seconds for each in results):.6f}")


def _case(suite: ElementTree.Element, each: Timed) -> None:
    result, case = each.result, each.result.case
    element = ElementTree.SubElement(
        suite,
        "testcase",
        {
            "name": _clean(case.name),
            "classname": _clean(case.subject or "all rules"),
            "file": _clean(case.place.file),
            "line": str(case.place.line),
            "time": f"{each.seconds:.6f}",
        },
    )
    if result.ending is Ending.FAILED:
        told = explanation(result)
        first = next((line for line in told if line[:1] in "-+"), told[0])
        failure = ElementTree.SubElement(element, "failure", {"message": _clean(first), "type": "expectation"})
        failure.text = _clean("\n".join([f"{case.place.file}:{case.place.line}", *told]))
    elif result.ending is Ending.SKIPPED:
        ElementTree.SubElement(element, "skipped", {"message": _clean("; ".join(result.notes))})


def _clean(text: str) -> str:
    return _NOT_XML.sub("�", text)
