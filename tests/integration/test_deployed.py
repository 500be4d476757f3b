"""What deploy/kubernetes puts into a pod, run as a process: probes, mounted ConfigMaps and Secrets, a pod's end."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.sandbox.children import Child, free_port
from bridge.sandbox.options import TEST_KEY
from tests.support.kafka import EmbeddedKafka, unique
from tests.support.manifests import mounted, put_config_map, rendered, the
from tests.support.service import Sandbox, sandbox, wait_for

MANIFESTS = rendered(Path(__file__).parents[2] / "deploy" / "kubernetes")
POD: dict[str, Any] = the(MANIFESTS, "StatefulSet")["spec"]["template"]["spec"]
RULES = the(MANIFESTS, "ConfigMap", "meisa-bridge-rules")["data"]
TOKEN = "a token"

MORE_RULES = """\
rules:
- name: paid
  match: invoice.paid
  do:
  - track: {email: "${data.email}", event_name: paid}
"""


class Pod:
    """The container of the StatefulSet: its arguments, files and variables; overridden is only where the outside is."""

    def __init__(self, kafka: EmbeddedKafka, meisa: Sandbox, root: Path) -> None:
        self.kafka, self.meisa = kafka, meisa
        self.topic, self.group = kafka.create_topic(unique("events"), 1), unique("group")
        self.settings, self.rules = mounted(MANIFESTS, root)
        secrets = root / "run" / "secrets" / "meisa-bridge"
        put_config_map(secrets, {"api-key": f"{TEST_KEY}\n", "admin-token": TOKEN})
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        *arguments, config = POD["containers"][0]["args"]
        environ = {
            "POD_NAME": unique("meisa-bridge-0"),
            "MEISA_BRIDGE__KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "MEISA_BRIDGE__KAFKA__GROUP_ID": self.group,
            "MEISA_BRIDGE__TOPICS": json.dumps({self.topic: {"keyed_by": "contact"}}),
            "MEISA_BRIDGE__DEAD_LETTERS__TOPIC": kafka.create_topic(unique("letters"), 1),
            "MEISA_BRIDGE__MEISA__BASE_URL": f"{meisa.url}/api/v1",
            "MEISA_BRIDGE__MEISA__ENVIRONMENT": "test",
            "MEISA_BRIDGE__MEISA__QUOTA__PER_MINUTE": "100000",
            "MEISA_BRIDGE__MEISA__QUOTA__PER_HOUR": "1000000",
            "MEISA_BRIDGE__MEISA__API_KEY": json.dumps({"file": str(secrets / "api-key")}),
            "MEISA_BRIDGE__ADMIN__TOKEN": json.dumps({"file": str(secrets / "admin-token")}),
            "MEISA_BRIDGE__ADMIN__LISTEN": f"127.0.0.1:{port}",
            "MEISA_BRIDGE__STATE__URL": f"sqlite:///{root / 'state.db'}",
        }
        self.process = Child("the bridge", [*arguments, str(root / config.lstrip("/"))], environ)
        self.process.wait_for(re.compile("started: events are taken in"))

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=10)

    def probe(self, name: str) -> int:
        """What a kubelet would be answered."""
        path: str = POD["containers"][0][f"{name}Probe"]["httpGet"]["path"]
        return self.get(path).status_code

    def produce(self, type: str, email: str, **data: Any) -> None:
        event = {"type": type, "data": {"email": email, "user_id": email, **data}}
        self.kafka.produce(self.topic, {"key": email.encode(), "value": json.dumps(event).encode()})

    def calls(self) -> list[tuple[str, str]]:
        """Endpoint and contact of every call that an event caused and that was carried out."""
        return [
            (entry["endpoint"], entry["contact"])
            for entry in self.meisa.ledger()
            if entry["carried_out"] and entry["endpoint"] in ("upsert", "track", "trigger")
        ]


@pytest.fixture
def pod(embedded_kafka: EmbeddedKafka, tmp_path: Path) -> Iterator[Pod]:
    with sandbox() as meisa:
        made = Pod(embedded_kafka, meisa, tmp_path)
        try:
            yield made
        finally:
            made.process.close()


@pytest.mark.slow
def test_a_pod_is_probed_scraped_reloaded_and_ended(pod: Pod) -> None:
    """Probes and scraping need no token, and all else does. A changed ConfigMap is in force without a restart, with a
    file that is new in it. SIGTERM, with a call under way, ends it with 0 within the grace period, nothing lost."""
    assert {name: pod.probe(name) for name in ("startup", "liveness", "readiness")} == {
        "startup": 200,
        "liveness": 200,
        "readiness": 200,
    }
    assert "meisa_bridge_partition_lag{" in pod.get("/metrics").text
    for path in ("/api/status", "/"):
        assert pod.get(path).status_code == 401
        assert pod.get(path, authorization="Bearer another").status_code == 401
        assert pod.get(path, authorization=f"Bearer {TOKEN}").status_code == 200

    def status() -> Any:
        return pod.get("/api/status", authorization=f"Bearer {TOKEN}").json()

    pod.produce("user.signed_up", "ada@example.com", plan="pro", first_name="Ada")
    wait_for(lambda: ("trigger", "ada@example.com") in pod.calls(), "the welcome")

    before = status()["rules"]["version"]
    put_config_map(pod.rules, {**RULES, "billing.yaml": MORE_RULES})
    wait_for(lambda: status()["rules"]["version"] != before, "the ConfigMap's rules")
    pod.produce("invoice.paid", "ada@example.com")
    wait_for(lambda: ("track", "ada@example.com") in pod.calls(), "what the new rule asks for")

    pod.meisa.post("faults", latency_ms=1500)
    received = pod.meisa.received()
    pod.produce("invoice.paid", "ada@example.com")
    wait_for(lambda: pod.meisa.received() > received, "a call under way")
    told = time.monotonic()
    pod.process.end()
    assert time.monotonic() - told < POD["terminationGracePeriodSeconds"]
    assert pod.calls().count(("track", "ada@example.com")) == 2
    assert pod.kafka.committed(pod.group, pod.topic, 0)[0] == 3
    (stopping,) = [json.loads(line) for line in pod.process.said if '"stopping: ' in line]
    assert stopping["in_flight"] == 1
    said = "\n".join(pod.process.said)
    assert TEST_KEY not in said and TOKEN not in said
