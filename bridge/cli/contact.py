"""`meisa-bridge contact`: what the bridge keeps of one person."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

import click

from bridge.cli.boundary import LazyGroup
from bridge.cli.options import agree, config_option, settings_without_keys

COMMANDS = {"forget": "bridge.cli.contact:forget"}
PATIENCE_SECONDS: Final = 30.0
"""How long it waits for a service that writes to the same file."""


@click.group(cls=LazyGroup, commands_at=COMMANDS, short_help="Erase a person from the bridge's own state.")
def contact() -> None:
    """What the bridge keeps of one person."""


@contact.command(short_help="Erase a person from the bridge's own state. Asks first.")
@click.argument("email", metavar="EMAIL")
@config_option
@click.option("--dry-run", is_flag=True, help="Say what would be erased; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def forget(email: str, config: Path, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Erase the person with this EMAIL from the state store (state.url), and say what remains elsewhere.

    With their external_id, all their former emails and aliases, kept values of lazy fields, and what is remembered of
    what Meisa has. What a running bridge holds in memory it forgets with its next start, and what events say of the
    person later is learned again: stop their events first, then the bridge, erase, and start it again.
    """
    from bridge.cli.forgetting import Erasure, erasing, remains
    from bridge.errors import StartFailed, StoreFailed, UsageError

    if not email.strip().partition("@")[2]:
        raise UsageError("EMAIL is no email address")
    settings = settings_without_keys(config)

    def ask(found: Erasure) -> None:
        if not (as_json or yes):
            for line in found.lines(dry_run=True):
                click.echo(line)
        agree("Erase that? It cannot be undone.", yes)

    try:
        erasure = asyncio.run(erasing(settings, email, None if dry_run else ask, patience_seconds=PATIENCE_SECONDS))
    except StoreFailed as error:
        raise StartFailed(f"{error}; nothing more was erased: repeat it") from None
    left = remains(settings, email)
    if as_json:
        told = {"dry_run": dry_run, **erasure.plain(), "remains": [each._asdict() for each in left]}
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    for line in erasure.lines(dry_run=dry_run):
        click.echo(line)
    click.echo("\nWhat remains elsewhere, and how long:")
    for each in left:
        click.echo(f"  {each.where}: {each.what}")
