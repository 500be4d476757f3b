"""`meisa-bridge init`: a commented starter that passes check and test as it is."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final

import click

from bridge.errors import UsageError, UserError

FILES: Final = ("bridge.yaml", "rules/accounts.yaml", "rules/billing.yaml", "events.jsonl", "README.md", "gitignore")
"""Of bridge/starter; they go into the folder `config`."""

NEXT: Final = (
    ("meisa-bridge test", "the tests beside the rules"),
    ("meisa-bridge preview --file config/events.jsonl", "what they would send, without sending"),
    ("export MEISA_API_KEY=meisa_test_sandbox", ""),
    ("meisa-bridge check --offline", "every mistake, with its place"),
    ("meisa-bridge sandbox &", "imitates Meisa, with a page at http://127.0.0.1:8900/"),
    ("meisa-bridge check --create-topics", "with a Kafka at localhost:9092"),
    ("meisa-bridge run", "the service; Ctrl-C drains and ends it"),
)


@click.command(short_help="Write a commented starter: configuration and rules with tests.")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".", metavar="[DIR]")
def init(folder: Path) -> None:
    """Write a commented starter into DIR/config: bridge.yaml, and rules with tests. DIR is this folder unless given.

    Nothing is ever overwritten.
    """
    files = dict(_contents(folder / "config"))
    there = [file for file in files if os.path.lexists(file)]
    if there:
        listed = ", ".join(str(file) for file in there)
        verb = "exists" if len(there) == 1 else "exist"
        raise UserError(f"{listed} {verb} already: nothing was written; name another folder")
    for file, text in files.items():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as opened:
                opened.write(text)
        except OSError as error:
            raise UsageError(f"{file}: cannot be written ({error.strerror})") from None
        click.echo(f"wrote {file}")
    click.echo("\nNext:")
    steps = [(f"cd {shlex.quote(str(folder))}", ""), *NEXT] if folder != Path() else list(NEXT)
    width = max(len(command) for command, _ in steps)
    for command, what in steps:
        click.echo(f"  {command:{width}}   # {what}" if what else f"  {command}")


def _contents(config: Path) -> Iterator[tuple[Path, str]]:
    """Every file, and what it holds."""
    from bridge.config import json_schema
    from bridge.rules.schema import json_schema as rules_schema

    starter = resources.files("bridge") / "starter"
    for name in FILES:
        target = config / (".gitignore" if name == "gitignore" else name)
        yield target, starter.joinpath(*name.split("/")).read_text("utf-8")
    for name, schema in (("bridge", json_schema()), ("rules", rules_schema())):
        text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        yield config / "schemas" / f"{name}.schema.json", text
