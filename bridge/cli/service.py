"""`meisa-bridge run`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from bridge.cli.options import config_option
from bridge.errors import ProblemsFound


@click.command(short_help="Run the service.")
@config_option
@click.pass_context
def run(ctx: click.Context, config: Path) -> None:
    """Run the service until SIGTERM or SIGINT, then drain, commit and exit 0.

    SIGHUP, and a change of the rules files, have the rules read again.
    Logs go to standard error: for people on a terminal, JSON otherwise.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a reload that comes early or late must not end the process
    from bridge.config import examine, placed

    examined = examine(config, os.environ)
    settings = examined.settings_or_raise()
    for problem in examined.problems:
        click.echo(str(problem), err=True)  # warnings only: the others would have ended it

    from bridge.app import run as run_service
    from bridge.observe import logs

    logs.configure(stream=sys.stderr, show_contacts=settings.admin.show_contacts)
    try:
        status = run_service(settings)
    except ProblemsFound as error:
        raise ProblemsFound(placed(error.problems, settings.place)) from None
    ctx.exit(status)
