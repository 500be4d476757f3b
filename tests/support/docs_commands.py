"""Commands as pages show them, compared with the command line that there is."""

from __future__ import annotations

import re
import shlex

import click

from bridge.cli import COMMANDS, main


def unknown_flags(line: str) -> list[str]:
    """What of the `meisa-bridge …` in a shell's line does not exist: a command, or flags of it."""
    _, _, rest = line.partition("meisa-bridge ")
    command = re.split(r" (?:\d?>|\||&|;)", f" {rest.partition(' #')[0]}")[0]
    words = shlex.split(command.rstrip(" &"))
    if not words or words[0].startswith("-"):
        return []
    if words[0] not in COMMANDS:
        return [words[0]]
    found = main.get_command(click.Context(main), words.pop(0))
    assert found is not None
    while isinstance(found, click.Group) and words and words[0] in found.commands:
        found = found.commands[words.pop(0)]
    with click.Context(found) as context:
        flags = {flag for param in found.get_params(context) for flag in (*param.opts, *param.secondary_opts)}
    flags |= {"-h", "--help"}
    return [word for word in words if word.startswith("-") and word != "-" and word.partition("=")[0] not in flags]
