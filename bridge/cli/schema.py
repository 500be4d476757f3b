"""`meisa-bridge schema`."""

from __future__ import annotations

import json

import click


@click.command(short_help="Print the JSON Schema of bridge.yaml or of rules files, for editors.")
@click.argument("what", type=click.Choice(["config", "rules"]), default="config")
def schema(what: str) -> None:
    """Print the JSON Schema of bridge.yaml (config) or of rules files (rules), so that editors complete and check them.

    Name it in a file's first line: # yaml-language-server: $schema=bridge.schema.json
    """
    if what == "rules":
        from bridge.rules.schema import json_schema
    else:
        from bridge.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
