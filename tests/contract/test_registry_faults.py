"""What the registry's client makes of servers that answer with anything: one error each, and never a wrong schema."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from bridge.errors import RegistryFailed, StartFailed, UnknownSchema
from bridge.registry.client import ANSWER_BYTES_MAX, RegistryClient

Answer = bytes | None
"""Raw HTTP; None never answers."""


def http(status: int, body: Any, **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} x", f"content-length: {len(content)}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


@asynccontextmanager
async def serving(answer: Callable[[str], Answer], tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers each path with raw bytes, then closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).decode().split()[1]
            raw = answer(path)
            if raw is None:
                await asyncio.Event().wait()
            else:
                writer.write(raw)
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if tls else 'http'}://localhost:{port}"
    finally:
        server.close()


@asynccontextmanager
async def asking(url: str, **options: Any) -> AsyncIterator[RegistryClient]:
    client = RegistryClient(url, **options)
    try:
        yield client
    finally:
        await client.close()


AVRO = {"schema": '"string"'}


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (http(500, {"error_code": 50001, "message": "5up3r53cr3t"}), "answers with an error (500)"),
        (http(404, b"<html>not found</html>"), "is no schema registry, or has another path (404)"),
        (http(404, {"error_code": 404, "message": "HTTP 404 Not Found"}), "is no schema registry"),
        (http(404, {"error_code": 50401}), "is no schema registry"),
        (http(302, b"", location="http://elsewhere.example/"), "answers with an error (302)"),
        (http(200, b"<html>welcome</html>"), "something else than a schema"),
        (http(200, b"[" * 100_000), "something else than a schema"),
        (http(200, ["schema"]), "something else than a schema"),
        (http(200, {"schema": 5}), "something else than a schema"),
        (http(403, {"error_code": 40301}), "wants a secret"),
        (http(200, {**AVRO, "references": [{"subject": "a"}]}), "without subject and version"),
        (http(200, {**AVRO, "references": 7}), "without subject and version"),
        (http(200, {**AVRO, "references": [{"subject": "a", "version": float("inf")}]}), "without subject and version"),
        (http(200, {**AVRO, "references": [{"subject": "\ud800", "version": 1}]}), "without subject and version"),
        (b"garbage\r\n\r\n", "cannot be reached"),
        (b"", "cannot be reached"),
        (http(200, AVRO)[:-3], "cannot be reached"),
        (None, "does not answer within 0.2 s"),
    ],
)
async def test_an_odd_answer_is_an_outage(raw: Answer, says: str) -> None:
    """Nothing is given up for it: only the registry's own word that there is no such schema counts."""
    patience = 0.2 if raw is None else 10.0  # on a busy machine an answer takes its time
    async with serving(lambda path: raw) as url, asking(url, timeout_seconds=patience) as client:
        with pytest.raises(RegistryFailed) as caught:
            await client.schema(7)
        assert says in str(caught.value) and url in str(caught.value)
        assert "5up3r53cr3t" not in str(caught.value) and "\n" not in str(caught.value)


async def test_nobody_listens() -> None:
    async with serving(lambda path: b"") as url:
        pass
    async with asking(url) as client:
        with pytest.raises(RegistryFailed, match="cannot be reached"):
            await client.schema(7)


async def test_an_endless_answer_is_cut() -> None:
    raw = http(200, b" " * (ANSWER_BYTES_MAX + 1))
    async with serving(lambda path: raw) as url, asking(url) as client:
        with pytest.raises(RegistryFailed, match="more than"):
            await client.schema(7)


async def test_no_such_schema_is_the_registrys_own_word() -> None:
    raw = http(404, {"error_code": 40403, "message": "Schema 7 not found"})
    async with serving(lambda path: raw) as url, asking(url) as client:
        with pytest.raises(UnknownSchema):
            await client.schema(7)
        await client.probe()


async def test_references_without_end_are_refused() -> None:
    """A circle, and a chain longer than anybody's."""

    def circle(path: str) -> bytes:
        return http(200, {**AVRO, "references": [{"name": "a", "subject": "a/b", "version": 1}]})

    def chain(path: str) -> bytes:
        number = int(path.rpartition("/")[2])
        return http(200, {**AVRO, "references": [{"name": "a", "subject": "a", "version": number + 1}]})

    for answer in (circle, chain):
        async with serving(answer) as url, asking(url) as client:
            with pytest.raises(RegistryFailed, match="without end"):
                await client.schema(7)


async def test_a_missing_reference_is_an_outage() -> None:
    """It may come with the next answer of a follower that lags."""

    def answer(path: str) -> bytes:
        if path.startswith("/subjects/"):
            assert path == "/subjects/a%2Fb/versions/3"
            return http(404, {"error_code": 40401})
        return http(200, {**AVRO, "references": [{"name": "a", "subject": "a/b", "version": 3}]})

    async with serving(answer) as url, asking(url) as client:
        with pytest.raises(RegistryFailed, match="lacks a schema that another refers to: a/b"):
            await client.schema(7)


async def test_a_path_before_the_api_is_kept_and_other_kinds_are_told() -> None:
    paths: list[str] = []

    def answer(path: str) -> bytes:
        paths.append(path)
        return http(200, {"schema": "syntax", "schemaType": "PROTOBUF"})

    async with serving(answer) as url, asking(f"{url}/apis/ccompat/v7/") as client:
        assert (await client.schema(7)).kind == "PROTOBUF"
    assert paths == ["/apis/ccompat/v7/schemas/ids/7"]


async def test_tls_by_an_authority_of_ones_own(tmp_path: Path) -> None:
    """Trusted with `ca_file`, refused without; a file that is no certificate is told at start."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(pem))
    async with serving(lambda path: http(200, AVRO), context) as url:
        async with asking(url, ca_file=pem) as client:
            assert (await client.schema(7)).text == '"string"'
        async with asking(url) as client:
            with pytest.raises(RegistryFailed, match="certificate"):
                await client.schema(7)
    (tmp_path / "bad.pem").write_text("none")
    for bad in (tmp_path / "missing.pem", tmp_path / "bad.pem"):
        with pytest.raises(StartFailed, match="ca_file"):
            RegistryClient("https://localhost", ca_file=bad)


@pytest.mark.parametrize("token", ["5up3r53cr3t\nX: y", "5up3r53cr3t\x00", "5up3r53crét"])
async def test_a_token_that_no_header_can_hold_is_an_outage_and_is_not_told(token: str) -> None:
    """The HTTP client would refuse it with the token in its words, or with an error of another kind."""
    async with serving(lambda path: http(200, AVRO)) as url, asking(url, bearer=lambda: token) as registry:
        with pytest.raises(RegistryFailed, match="the bearer token holds characters") as caught:
            await registry.schema(1)
    assert "5up3r" not in str(caught.value)
