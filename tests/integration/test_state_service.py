"""The whole service over a state store that lasts: what one run learned, the next one knows."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.app import serve
from bridge.errors import StartFailed
from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, calls, sandbox_options
from tests.support.kafka import Cluster
from tests.support.redis import redis_server

RULES = """\
rules:
  - name: signup
    match: user.signed_up
    do:
      - upsert: {email: "${data.email}", external_id: "${data.id}"}
        aliases: {stripe: "${optional(data.customer)}"}
  - name: paid
    match: invoice.paid
    do:
      - add_tag: {tag_name: paid}
        contact: {stripe: "${data.customer}"}
"""


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxServer]:
    async with SandboxServer(sandbox_options()) as server:
        yield server


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_an_alias_of_an_earlier_run_finds_its_contact(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path, kind: str
) -> None:
    """The second run has never seen the sign-up: it is committed. A re-key in between is known too."""
    with ExitStack() as stack:
        url = "sqlite:///state.db" if kind == "sqlite" else stack.enter_context(redis_server()).url
        place = Place(embedded_kafka, tmp_path, sandbox.base_url, rules=RULES, partitions=1)
        place.sections["state"] = {"url": url}
        place.produce(
            {"type": "user.signed_up", "data": {"email": "old@example.com", "id": "7", "customer": "cus_1"}},
            {"type": "user.signed_up", "data": {"email": "new@example.com", "id": "7"}},
        )
        async with place.running():
            await place.finished(2)
        assert place.committed() == 2
        place.produce({"type": "invoice.paid", "data": {"customer": "cus_1"}})
        async with place.running():
            await place.finished(1)
        assert place.committed() == 3 and place.letters() == []
        assert {entry.contact for entry in calls(sandbox)} >= {"new@example.com"}
        (contact,) = sandbox.sandbox.worlds["test"].contacts.by_id.values()
        assert (contact.email, contact.external_id, list(contact.tags)) == ("new@example.com", "7", ["paid"])


async def test_a_store_that_does_not_answer_is_refused_at_the_start(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    place = Place(embedded_kafka, tmp_path, sandbox.base_url)
    place.sections["state"] = {"url": "redis://127.0.0.1:1"}
    with pytest.raises(StartFailed, match=r"^the state in Redis at 127\.0\.0\.1:1 cannot be read: "):
        async with asyncio.timeout(20):
            await serve(place.settings())


@pytest.mark.slow
async def test_a_person_is_forgotten_while_the_service_runs(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """Nothing of them is in the file afterwards, and who comes later is delivered and learned as always."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url, rules=RULES, partitions=1)
    place.sections["topics"][place.topic]["keyed_by"] = "contact"
    place.sections["state"] = {"url": "sqlite:///state.db"}
    place.produce(
        {"type": "user.signed_up", "data": {"email": "ada@example.com", "id": "7", "customer": "cus_ada"}},
        {"type": "user.signed_up", "data": {"email": "eve@example.com", "id": "8", "customer": "cus_eve"}},
    )
    async with place.running():
        await place.finished(2)
        assert any("ada" in name for name in names(tmp_path / "state.db"))
        command = [sys.executable, "-m", "bridge", "contact", "forget", "ADA@example.com", "--yes", "-c"]
        done = await asyncio.to_thread(
            subprocess.run,
            [*command, str(place.config)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "MEISA_API_KEY": "meisa_test_sandbox"},
        )
        assert (done.returncode, done.stderr) == (0, "") and "What remains elsewhere" in done.stdout
        left = names(tmp_path / "state.db")
        assert "a:stripe:cus_eve" in left and not left & {"x:7", "e:ada@example.com", "a:stripe:cus_ada"}
        place.produce({"type": "invoice.paid", "data": {"customer": "cus_eve"}})
        await place.finished(3)
        place.produce({"type": "user.signed_up", "data": {"email": "ada@example.com", "id": "9"}})
        await place.finished(4)
    assert place.letters() == [] and "x:9" in names(tmp_path / "state.db")


def names(file: Path) -> set[str]:
    db = sqlite3.connect(file)
    found = {str(name) for (name,) in db.execute("SELECT name FROM register")}
    db.close()
    return found
