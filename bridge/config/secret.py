"""A secret by where it is kept, never by what it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic_core import core_schema

from bridge.errors import UsageError

SECRET_BYTES_MAX: Final = 65_536
"""A key, a token or a PEM file is far smaller; a larger file is surely the wrong one."""

SECRET_TYPE: Final = "secret"  # noqa: S105  (a marker, not a secret)
"""Marks secrets in pydantic's schema; bridge/config/schema.py puts the reference in its place."""


class Secret:
    """An API key, token or password that is read anew each time it is needed, so that a rotated file is noticed.

    Two secrets are equal when they are kept in the same place. Neither `repr` nor `str` shows the value.
    """

    __slots__ = ("_environ", "_kind", "_source")

    def __init__(self, kind: str, source: str, environ: Mapping[str, str] | None = None) -> None:
        self._kind = kind
        self._source = source
        self._environ = environ

    @classmethod
    def from_env(cls, name: str, environ: Mapping[str, str]) -> Secret:
        return cls("env", name, environ)

    @classmethod
    def from_file(cls, path: Path) -> Secret:
        return cls("file", str(path))

    @classmethod
    def literal(cls, value: str) -> Secret:
        """For programs that make their own key, such as the demo; a configuration file can't write one."""
        return cls("literal", value)

    @property
    def source(self) -> str:
        """Where the secret is kept, for messages."""
        return {"env": f"environment variable {self._source}", "file": f"file {self._source}"}.get(
            self._kind, "a literal"
        )

    def read(self) -> str:
        """The secret as it is now, without white space around it. Raises UsageError where it is missing or empty."""
        if self._kind == "literal":
            return self._source
        if self._kind == "env":
            value = (self._environ or {}).get(self._source, "").strip()
            if not value:
                state = "empty" if self._source in (self._environ or {}) else "not set"
                raise UsageError(f"the environment variable {self._source} is {state}")
            if not _is_text(value):
                raise UsageError(f"the environment variable {self._source} is not UTF-8 text")
            return value
        return read_reference_file(Path(self._source))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return (self._kind, self._source) == (other._kind, other._source)

    def __hash__(self) -> int:
        return hash((self._kind, self._source))

    def __repr__(self) -> str:
        return f"Secret({self.source})"

    __str__ = __repr__

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is not pickled: it would carry its value out of this process")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.is_instance_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: core_schema.CoreSchema, handler: Any) -> dict[str, Any]:
        return {"type": SECRET_TYPE}


def _is_text(value: str) -> bool:
    """Whether it can be written anywhere: Python keeps an environment's other bytes as halves of surrogate pairs."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_reference_file(path: Path) -> str:
    """The text of a `{file: PATH}`, without white space around it. Raises UsageError with the reason."""
    try:
        with path.open("rb") as file:
            content = file.read(SECRET_BYTES_MAX + 1)
        text = content.decode("utf-8").strip()
    except FileNotFoundError:
        raise UsageError(f"the file {path} does not exist") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a directory, not a file") from None
    except OSError as error:
        raise UsageError(f"the file {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"the file {path} is not UTF-8 text") from None
    if len(content) > SECRET_BYTES_MAX:
        raise UsageError(f"the file {path} is larger than {SECRET_BYTES_MAX:,} bytes: surely not the right one")
    if not text:
        raise UsageError(f"the file {path} is empty")
    return text
