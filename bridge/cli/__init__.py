"""The command line. Commands are loaded when they are needed, so that `--help` answers at once."""

from __future__ import annotations

import click

import bridge
from bridge.cli.boundary import LazyGroup

COMMANDS: dict[str, str] = {
    "run": "bridge.cli.service:run",
    "check": "bridge.cli.check:check",
    "test": "bridge.cli.test:test",
    "eval": "bridge.cli.evaluate:evaluate",
    "preview": "bridge.cli.preview:preview",
    "dlq": "bridge.cli.dlq:dlq",
    "status": "bridge.cli.status:status",
    "offsets": "bridge.cli.offsets:offsets",
    "identities": "bridge.cli.identities:identities",
    "contact": "bridge.cli.contact:contact",
    "schema": "bridge.cli.schema:schema",
    "init": "bridge.cli.init:init",
    "sandbox": "bridge.cli.play:sandbox",
    "demo": "bridge.cli.play:demo",
}


@click.group(cls=LazyGroup, commands_at=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(bridge.__version__, "-V", "--version", prog_name="meisa-bridge", message="%(prog)s %(version)s")
def main() -> None:
    """Delivers domain events from Kafka to Meisa: in order per contact, within the quota, nothing lost.

    Exit status: 0 done; 1 a problem was found or the work failed; 2 the command line is wrong, a file cannot be read,
    or a secret is missing.
    """


__all__ = ["main"]
