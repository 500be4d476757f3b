"""Schema registries for tests: franz-go's imitation in a process of its own, and a fake without a network."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bridge.errors import RegistryFailed, UnknownSchema
from bridge.model import SchemaId
from bridge.ports import SchemaText
from tests.support.programs import go_program

SOURCE = Path(__file__).parent / "registry"


class FakeRegistry:
    """A registry in this process. `trouble` is what it raises, one for each question; None lets one pass."""

    def __init__(self) -> None:
        self.where = "the fake registry"
        self.schemas: dict[SchemaId, SchemaText] = {}
        self.asked: list[SchemaId] = []
        self.trouble: list[Exception | None] = []
        self.down = False
        self.delay_seconds = 0.0
        self.closed = False

    def add(self, id: SchemaId, schema: Any, *references: Any, kind: str = "AVRO") -> None:
        self.schemas[id] = SchemaText(kind, json.dumps(schema), tuple(json.dumps(each) for each in references))

    async def schema(self, id: SchemaId) -> SchemaText:
        self.asked.append(id)
        await asyncio.sleep(self.delay_seconds)
        trouble = self.trouble.pop(0) if self.trouble else None
        if trouble is not None:
            raise trouble
        if self.down:
            raise RegistryFailed("the fake registry is down")
        if id not in self.schemas:
            raise UnknownSchema("the fake registry knows no such schema")
        return self.schemas[id]

    async def close(self) -> None:
        self.closed = True


def registry_program() -> Path:
    """franz-go's imitation as a program, built the first time (a minute). Skips where that cannot be."""
    return go_program(SOURCE, "a schema registry")


class RegistryServer:
    """A registry on a free port of this machine."""

    def __init__(self, url: str, authorization: str = "") -> None:
        self.url = url
        self._authorization = authorization

    def register(self, subject: str, schema: Any, references: Sequence[dict[str, Any]] = ()) -> int:
        """The id of a schema; a text is taken as it is."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        body = {"schema": text, "references": list(references)}
        answer = self._ask(f"/subjects/{subject}/versions", body)
        return int(answer["id"])

    def guid(self, subject: str, version: int = 1) -> str:
        return str(self._ask(f"/subjects/{subject}/versions/{version}")["guid"])

    def _ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/vnd.schemaregistry.v1+json"}
        if self._authorization:
            headers["authorization"] = self._authorization
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())


@contextlib.contextmanager
def registry_server(authorization: str = "", listen: str = "127.0.0.1:0") -> Iterator[RegistryServer]:
    """Runs until the block ends, and no longer than this process."""
    command = [str(registry_program()), "-listen", listen]
    if authorization:
        command += ["-authorization", authorization]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield RegistryServer(process.stdout.readline().strip(), authorization)
        finally:
            process.stdin.close()
            process.wait(10)
