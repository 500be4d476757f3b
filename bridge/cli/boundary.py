"""Where errors end: every way out of a command is an exit status and, if it failed, clear lines on standard error."""

from __future__ import annotations

import errno
import importlib
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any, Final

import click

from bridge.errors import UserError
from bridge.places import did_you_mean

INTERRUPTED: Final = 130
"""What shells expect after SIGINT: 128 + 2."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
"""What a disk says that takes nothing more: no bug of ours."""

_PROBLEM: Final = re.compile(r"(error|warning) MB\d{3}: ")


class LazyGroup(click.Group):
    """A group whose commands are imported when they are named, and whose errors are told, never traced."""

    def __init__(self, *args: Any, commands_at: dict[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self.commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        at = self.commands_at.get(cmd_name)
        if at is None:
            return None
        module, _, attribute = at.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = did_you_mean(args[0], self.commands_at, f"known are {', '.join(self.commands_at)}")
            raise click.UsageError(f"{error.message.rstrip('.')} ({hint})", ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click itself would make it status 1
            ctx.exit(INTERRUPTED)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Click tells its own errors (a wrong command line is status 2); the rest is told here."""
        try:
            return super().main(*args, **extra)
        except UserError as error:
            _tell(error)
            sys.exit(error.exit_status)
        except Exception as error:
            _confess(error)
            sys.exit(1)


def _tell(error: UserError) -> None:
    first, *others = str(error).splitlines()
    # A problem begins with its place, as compilers write it, so that editors find it.
    click.echo(first if _PROBLEM.search(first) else f"meisa-bridge: {first}", err=True)
    for line in others:
        click.echo(line, err=True)


def _confess(error: Exception) -> None:
    """A bug of ours: one line that says where, never what the values were (they may be secrets or people's data)."""
    if isinstance(error, OSError) and error.errno in _FULL:
        click.echo(f"meisa-bridge: the output cannot be written: {error.strerror}", err=True)
        return
    if os.environ.get("MEISA_BRIDGE_DEBUG") == "1":
        traceback.print_exception(error)
        return
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "bridge" in Path(frame.filename).parts] or frames
    where = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    click.echo(
        f"meisa-bridge: unexpected {type(error).__name__}{where}: this is a bug. "
        "Run it again with MEISA_BRIDGE_DEBUG=1 for the details, and report them",
        err=True,
    )
