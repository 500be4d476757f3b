"""`meisa-bridge identities`: what the bridge knows of who is who, beside what events tell."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

import click

from bridge.cli.options import config_option, settings_without_keys

PATIENCE_SECONDS: Final = 30.0
"""How long the import waits for a service that writes to the same file."""


@click.group(short_help="Seed the identity table.")
def identities() -> None:
    """The identity table: which email belongs to an external_id, or to another id of a person.

    It needs a state store that lasts (state.url: sqlite:/// or redis://).
    """


@identities.command("import", short_help="Read people's ids from a CSV file.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), metavar="FILE.csv")
@config_option
@click.option("--json", "as_json", is_flag=True, help="What was done, as JSON.")
def import_(file: Path, config: Path, as_json: bool) -> None:
    """Seed the identity table from a CSV file; - is standard input.

    The first line names the columns: email, external_id, and any others, which are the names of aliases (the stripe of
    `contact: {stripe: …}`). A cell may be empty. What events have taught already stays. With one bad row nothing is
    imported at all. It may run while the bridge does.
    """
    from bridge.app import store_of
    from bridge.cli.people import imported, read
    from bridge.errors import StartFailed, StoreFailed, UserError

    settings = settings_without_keys(config)
    if settings.state.url == "memory":
        raise UserError(
            "state.url is memory, which forgets everything when the bridge ends: "
            "set it to sqlite:///state.db or redis://… first"
        )
    people = read(file)

    async def work() -> int:
        store = store_of(settings, patience_seconds=PATIENCE_SECONDS)
        try:
            return await imported(store, people)
        except StoreFailed as error:
            raise StartFailed(f"{error}; nothing was imported") from None
        finally:
            await store.close()

    added = asyncio.run(work())
    if as_json:
        click.echo(json.dumps({"rows": len(people), "imported": added, "known_already": len(people) - added}))
    else:
        known = f"; {len(people) - added} known already" if added < len(people) else ""
        click.echo(f"imported {added} of {len(people)} rows{known}")
