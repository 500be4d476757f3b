"""What YAML makes of a rule that is written carelessly: told as what people meant to write."""

from __future__ import annotations

import re
from typing import Final

from bridge.errors import Problem
from bridge.places import Place
from bridge.yamldoc import Complaint, Dialect, Source, json_scalar


class _RulesDialect(Dialect):
    """Tells the traps that people fall into from other mistakes."""

    def syntax_problem(self, complaint: Complaint, source: Source) -> Problem:
        what, index, place, text = complaint.what, complaint.at, complaint.place, source.text
        line = source.line(index) if place.line else ""
        value = line.partition(": ")[2].strip() or line.lstrip("- ").strip()
        if text[index : index + 1] == "*" or "alias" in what + complaint.while_doing:
            glob = re.search(r"\*[^\s,\]}]*", line)
            hint = f'put it in quotes: "{glob[0]}"' if glob else "put it in quotes"
            return place.problem("MB110", "a leading * begins an alias in YAML", hint)
        if "${" in line and text[index : index + 1] == "{" and text[index - 1 : index] == "$":
            shown = re.search(r"\$\{[^}]*\}", line)
            hint = f'put it in quotes: "{shown[0] if shown else "${…}"}"'
            place = place._replace(column=place.column - 1)
            return place.problem("MB111", "${…} inside { } or [ ] needs quotes", hint)
        if value[:1] in ("'", '"') and "scalar" in what:
            quote = "'" if value[0] == '"' else '"'
            hint = f"put the whole in quotes: {quote}{value}{quote}" if quote not in value else "write it after >-"
            return place.problem("MB113", "in YAML a text that begins with a quote ends with it", hint)
        return super().syntax_problem(complaint, source)

    def tag_problem(self, tag: str, place: Place) -> Problem:
        hint = f"write not {tag[1:]}" if tag.startswith("!") and len(tag) > 1 else "put it in quotes"
        return place.problem(self.tag, f"{tag} is a tag in YAML, no text", hint)


YAML: Final = _RulesDialect(
    syntax="MB100",
    duplicate_key="MB102",
    tag="MB112",
    structure="MB104",
    too_large="MB108",
    values_max=100_000,  # a thousand rules have about 30,000
    scalar=json_scalar,
)
