"""The whole service where state comes again: what Meisa has is not sent, in this run and in the next one."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, calls, sandbox_options
from tests.support.kafka import Cluster

RULES = """\
rules:
  - name: plan
    match: plan.changed
    do:
      - upsert: {email: "${data.email}", external_id: "${data.id}", custom_fields: {plan: "${data.plan}"}}
"""


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxServer]:
    async with SandboxServer(sandbox_options()) as server:
        yield server


async def test_what_meisa_has_is_not_sent_again_over_a_restart(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """Records without a key, in two partitions: the one instance owns both, before and after."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url, rules=RULES)
    place.sections["topics"][place.topic]["keyed_by"] = "contact"
    place.sections["state"] = {"url": "sqlite:///state.db"}

    def event(plan: str) -> dict[str, object]:
        return {"type": "plan.changed", "data": {"email": "a@example.com", "id": "7", "plan": plan}}

    async with place.running():
        place.produce(event("free"))
        await place.finished(1)
        place.produce(event("free"))
        await place.finished(2)
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            told = (await client.get(f"{place.url}/metrics")).text
        assert 'meisa_bridge_calls_saved_total{cause="unchanged"} 1' in told
        assert 'outcome="unchanged"' in told
    assert len(calls(sandbox, "upsert")) == 1
    async with place.running():
        place.produce(event("free"))
        await place.finished(3)
        assert len(calls(sandbox, "upsert")) == 1
        place.produce(event("pro"))
        await place.finished(4)
        assert len(calls(sandbox, "upsert")) == 2
    assert place.letters() == []
