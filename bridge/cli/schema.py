"""`meisa-bridge schema`."""

from __future__ import annotations

import json

import click


@click.command(short_help="Print the JSON Schema of bridge.yaml for editors.")
@click.argument("what", type=click.Choice(["config"]), default="config")
def schema(what: str) -> None:
    """Print the JSON Schema of bridge.yaml, so that editors complete and check it.

    Name it in the file's first line: # yaml-language-server: $schema=bridge.schema.json
    """
    from bridge.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
