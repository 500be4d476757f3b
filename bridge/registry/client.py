"""Asks a schema registry for writers' schemas, with all that they refer to. It only reads, and keeps nothing.

| answer | means |
|---|---|
| 200 with a schema | it |
| 404 with an error code of the registry (40401 to 40403) | there is none: UnknownSchema |
| 404 of another kind | no registry answers there, perhaps a proxy: RegistryFailed, so that nothing is given up for it |
| 401, 403 | RegistryFailed: the secret is wrong, or rotated too late |
| anything else, no answer in time | RegistryFailed |

Secrets are read anew for each question, so a rotated one is noticed; none is in any message.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from bridge import __version__
from bridge.errors import RegistryFailed, StartFailed, UnknownSchema, UsageError
from bridge.model import SchemaId
from bridge.ports import SchemaText

ANSWER_BYTES_MAX = 8 * 1_048_576
"""The largest schemas that people publish are a few hundred KB."""
REFERENCES_MAX = 200
"""Schemas that one may draw in: real ones draw in a handful."""
NO_SUCH = frozenset({40401, 40402, 40403})
"""The registry's own codes for no such subject, version, schema."""


class RegistryClient:
    """`basic` and `bearer` read the secret that is sent: `user:password`, or a token.

    Raises StartFailed for a `ca_file` that cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        basic: Callable[[], str] | None = None,
        bearer: Callable[[], str] | None = None,
        timeout_seconds: float = 5.0,
        ca_file: Path | None = None,
    ) -> None:
        self.where = f"the schema registry at {url}"
        self._url = url.rstrip("/")
        self._basic = basic
        self._bearer = bearer
        self._timeout_seconds = timeout_seconds
        # Neither proxies nor a .netrc of whoever starts it: what is asked where is what the configuration says.
        self._client = httpx.AsyncClient(verify=_trusted(ca_file), timeout=timeout_seconds, trust_env=False)

    async def schema(self, id: SchemaId) -> SchemaText:
        """A schema by its id, or by its GUID. Raises UnknownSchema and RegistryFailed."""
        path = f"/schemas/ids/{id}" if isinstance(id, int) else f"/schemas/guids/{quote(id, safe='')}"
        answer = await self._ask(path)
        references: dict[tuple[str, Any], str] = {}
        await self._draw_in(answer, references, [])
        return SchemaText(str(answer.get("schemaType") or "AVRO"), answer["schema"], tuple(references.values()))

    async def probe(self) -> None:
        """Asks what `schema` asks. Raises RegistryFailed where a registry does not answer that; needs no schema."""
        with contextlib.suppress(UnknownSchema):  # there is none, and the registry says so
            await self._ask("/schemas/ids/1")

    async def close(self) -> None:
        await self._client.aclose()

    async def _draw_in(
        self, answer: dict[str, Any], references: dict[tuple[str, Any], str], above: list[tuple[str, Any]]
    ) -> None:
        """Adds the texts of what a schema refers to, the innermost first."""
        for name, path in self._referred_to(answer):
            if name in references:
                continue
            if name in above or len(references) + len(above) >= REFERENCES_MAX:
                raise RegistryFailed(f"{self.where} gives schemas that refer to one another without end")
            try:
                found = await self._ask(path)
            except UnknownSchema:
                raise RegistryFailed(f"{self.where} lacks a schema that another refers to: {name[0]}") from None
            await self._draw_in(found, references, [*above, name])
            references[name] = found["schema"]

    def _referred_to(self, answer: dict[str, Any]) -> list[tuple[tuple[str, Any], str]]:
        """What a schema refers to, each with its path. Raises RegistryFailed, and nothing else."""
        try:
            given = [(str(each["subject"]), int(each["version"])) for each in answer.get("references") or ()]
            return [(name, f"/subjects/{quote(name[0], safe='')}/versions/{name[1]}") for name in given]
        except (KeyError, TypeError, ValueError, OverflowError):  # half a surrogate pair in a subject, too
            raise RegistryFailed(f"{self.where} gives a reference without subject and version") from None

    async def _ask(self, path: str) -> dict[str, Any]:
        """One question, answered with a schema. Raises UnknownSchema and RegistryFailed."""
        headers = self._headers()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                status, content = await self._get(path, headers)
        except TimeoutError:
            raise RegistryFailed(f"{self.where} does not answer within {self._timeout_seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise RegistryFailed(f"{self.where} cannot be reached: {_reason(error)}") from None
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        code = answer.get("error_code") if isinstance(answer, dict) else None
        if status == 404 and code in NO_SUCH:
            raise UnknownSchema(f"{self.where} knows no such schema")
        if status in (401, 403):
            refused = "refuses the secret" if self._basic or self._bearer else "wants a secret (basic_auth or bearer)"
            raise RegistryFailed(f"{self.where} {refused} ({status})", status)
        if status != 200:
            what = "is no schema registry, or has another path" if status == 404 else "answers with an error"
            raise RegistryFailed(f"{self.where} {what} ({status})", status)
        if not isinstance(answer, dict) or not isinstance(answer.get("schema"), str):
            raise RegistryFailed(f"{self.where} answers with something else than a schema", status)
        return answer

    async def _get(self, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        async with self._client.stream("GET", self._url + path, headers=headers) as response:
            content = bytearray()
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > ANSWER_BYTES_MAX:
                    raise RegistryFailed(f"{self.where} answers with more than {ANSWER_BYTES_MAX:,} bytes")
            return response.status_code, bytes(content)

    def _headers(self) -> dict[str, str]:
        """Raises RegistryFailed where the secret is missing by now."""
        headers = {
            "accept": "application/vnd.schemaregistry.v1+json, application/json",
            "user-agent": f"meisa-bridge/{__version__}",
        }
        try:
            if self._basic is not None:
                headers["authorization"] = "Basic " + base64.b64encode(self._basic().encode()).decode()
            elif self._bearer is not None:
                token = self._bearer()
                if not token.isascii() or not token.isprintable():  # httpx would tell of it with the token itself
                    raise UsageError("the bearer token holds characters that no token has")
                headers["authorization"] = f"Bearer {token}"
        except UsageError as error:
            raise RegistryFailed(f"{self.where} cannot be asked: {error}") from None
        return headers


def _trusted(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it holds no certificate"
        raise StartFailed(f"registry.ca_file: {ca_file} cannot be used: {reason}") from None


def _reason(error: Exception) -> str:
    """Why a connection failed, in one line."""
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
