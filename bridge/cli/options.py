"""Options that several commands share, and commands whose flags are the fields of a dataclass."""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args, get_origin, get_type_hints

import click

from bridge.errors import UsageError, UserError

if TYPE_CHECKING:
    from bridge.config import Settings

Command = TypeVar("Command", bound=Callable[..., Any])
CONFIG_PATH: Final = Path("config/bridge.yaml")


def config_option(command: Command) -> Command:
    """`-c PATH`. Whether the file can be read is for the loader to say, in the same words everywhere."""
    return click.option(
        "-c",
        "--config",
        "config",
        type=click.Path(path_type=Path),
        default=CONFIG_PATH,
        show_default=True,
        metavar="PATH",
        help="The configuration.",
    )(command)


UNUSED: Final = "unused"


def settings_without_keys(config: Path) -> Settings:
    """The configuration, for commands that neither call Meisa nor serve pages: they go without those secrets.

    So whoever looks after dead letters needs no key that can send email. Raises like config.load.
    """
    from bridge.config import codes, examine

    examined = examine(config, os.environ)
    missing = [problem for problem in examined.problems if problem.code == codes.UNREADABLE_REFERENCE]
    named = [problem.message.split("`")[1] for problem in missing]
    spare = [name for name in named if name in ("meisa.api_key", "admin.token") or name.startswith("meisa.keys.")]
    if spare:
        stand_ins = {f"MEISA_BRIDGE__{name.upper().replace('.', '__')}": UNUSED for name in spare}
        examined = examine(config, {**os.environ, **stand_ins})
    return examined.settings_or_raise()


def agree(question: str, yes: bool) -> None:
    """Raises UsageError where nobody can be asked, UserError where the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can be asked without a terminal: repeat it with --yes")
    if not click.confirm(question, err=True):
        raise UserError("nothing was done")


def wall_of(text: str, option: str) -> float:
    """A time (ISO 8601, UTC unless it says otherwise) or an age such as 2h, as Unix seconds. Raises UsageError."""
    from bridge.actions import duration_seconds

    try:
        return datetime.now(UTC).timestamp() - duration_seconds(text)
    except ValueError:
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            raise UsageError(
                f"{option} {text!r} is no time: write 2026-01-31T08:00:00Z, or an age such as 2h"
            ) from None
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


class FlagsCommand(click.Command):
    """A command with a flag for each field of a dataclass that carries `metadata={"help": …}`.

    The dataclass, given as `module:Class`, is imported only when the command itself is called or explained; the
    callback gets an instance of it.
    """

    def __init__(self, *args: Any, flags_at: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.flags_at = flags_at
        self._made = False

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        if not self._made:
            self.params = [*self.params, *(_flag(spec, kind) for spec, kind in _flag_fields(self._flags()))]
            self._made = True
        return super().get_params(ctx)

    def _flags(self) -> type:
        module, _, name = self.flags_at.partition(":")
        found = getattr(importlib.import_module(module), name)
        assert isinstance(found, type)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        kinds = self._flags()
        chosen = {spec.name: ctx.params.pop(spec.name) for spec, _ in _flag_fields(kinds)}
        ctx.params["options"] = kinds(**chosen)
        return super().invoke(ctx)


def _flag_fields(flags: type) -> list[tuple[Field[Any], Any]]:
    hints = get_type_hints(flags)
    return [(spec, hints[spec.name]) for spec in fields(flags) if "help" in spec.metadata]


def _flag(spec: Field[Any], kind: Any) -> click.Option:
    name = "--" + spec.name.replace("_", "-")
    default = None if spec.default is MISSING else spec.default
    text: str = spec.metadata["help"]
    if isinstance(kind, types.UnionType):
        (kind,) = [arm for arm in get_args(kind) if arm is not types.NoneType]
    if kind is bool:
        return click.Option([name], is_flag=True, default=default, help=text)
    if get_origin(kind) is tuple:
        # A field in the plural is a flag in the singular that may be repeated: keys is --key.
        return click.Option([name, name.removesuffix("s"), spec.name], multiple=True, default=default, help=text)
    return click.Option([name], type=kind, default=default, show_default=default is not None, help=text)
