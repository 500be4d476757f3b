"""`meisa-bridge sandbox` and `meisa-bridge demo`: to try things on this machine alone."""

from __future__ import annotations

from typing import Any

import click

from bridge.cli.options import FlagsCommand


@click.command(cls=FlagsCommand, flags_at="bridge.sandbox.options:SandboxOptions", short_help="Imitate the Meisa API.")
@click.pass_context
def sandbox(ctx: click.Context, options: Any) -> None:
    """Imitate the Meisa API, with a page that shows contacts, events and sent email."""
    from bridge.sandbox.server import run

    ctx.exit(run(options))


@click.command(cls=FlagsCommand, flags_at="bridge.sandbox.demo:DemoOptions", short_help="Show it all on this machine.")
@click.pass_context
def demo(ctx: click.Context, options: Any) -> None:
    """Show everything on this machine with nothing else installed, and end with a summary.

    Embedded broker, sandbox, bridge, dashboard and a stream of sample events. Exits 0 only if the ledger agrees.
    """
    from bridge.sandbox.demo import run

    ctx.exit(run(options))
