"""Repeated events through a whole service with a file for its state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, calls, sandbox_options
from tests.support.kafka import Cluster

RULES = """\
rules:
- name: opened
  match: page.opened
  do:
  - track: {email: "${data.email}", event_name: opened, properties: {page: "${data.page}"}}
"""


def opened(id: str, page: int, **more: Any) -> dict[str, Any]:
    return {"id": id, "type": "page.opened", "data": {"email": "a@example.com", "page": page}, **more}


async def test_a_repeated_event_is_carried_out_once_over_a_restart_too(embedded_kafka: Cluster, tmp_path: Path) -> None:
    """The same id from another source is another event."""
    async with SandboxServer(sandbox_options()) as meisa:
        place = Place(embedded_kafka, tmp_path, meisa.base_url, rules=RULES)
        place.sections["topics"][place.topic]["dedupe"] = "10m"
        place.sections["state"] = {"url": "sqlite:///state.db"}
        place.produce(opened("a", 1), opened("a", 2), opened("b", 3), opened("a", 4, source="elsewhere"))
        async with place.running():
            await place.finished(4)
        place.produce(opened("b", 5), opened("c", 6))
        async with place.running():
            await place.finished(6)
            status = await place.status()
        pages = sorted(
            json.loads(call.body)["properties"]["page"] for call in calls(meisa, "track") if call.status < 300
        )
        assert pages[-3:] == [3, 4, 6] and len(pages) == 4 and pages[0] in (1, 2)
        assert status["totals"] == {"delivered": 1, "duplicate": 1}
