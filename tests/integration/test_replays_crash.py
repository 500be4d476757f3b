"""A bridge that is killed in the middle of replays: real processes, real brokers, the sandbox's ledger as judge."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from bridge.cli import main
from tests.support.kafka import Cluster
from tests.support.service import Service, sandbox, service, wait_for

PEOPLE = 40
"""Below the number of dead letters that stops a topic (100 of 500)."""
RULES = """\
rules:
  - name: signup
    match: user.signed_up
    do:
      - upsert: {email: "${data.email}", custom_fields: {plan: "${data.plan}", country: DE}}
      - trigger: {trigger_key: welcome, to_email: "${data.email}"}
      - track: {event_name: signed_up, email: "${data.email}"}
  - name: changed
    match: plan.changed
    do:
      - upsert: {email: "${data.email}", custom_fields: {plan: "${data.plan}"}}
"""


def dlq(made: Service, command: str, *rest: str) -> Any:
    config = str(made.folder / "bridge-0.yaml")
    words = ["dlq", command, "-c", config, "--json", *rest]
    result = CliRunner().invoke(main, words, env={"MEISA_API_KEY": "meisa_test_sandbox"})
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def produce(made: Service, type: str, plan: str) -> None:
    made.cluster.produce(
        made.topic,
        *(
            {
                "key": str(number).encode(),
                "value": json.dumps({"type": type, "data": {"email": f"u{number}@example.com", "plan": plan}}).encode(),
            }
            for number in range(PEOPLE)
        ),
    )


def done(made: Service, endpoint: str) -> Counter[str]:
    """Who was served how often by calls that were carried out."""
    return Counter(
        entry["contact"] for entry in made.sandbox.ledger() if entry["endpoint"] == endpoint and entry["carried_out"]
    )


@pytest.mark.kafka
def test_kill_9_in_the_middle_of_replays_sends_no_email_twice_and_loses_nothing(
    real_kafka: Cluster, tmp_path: Path
) -> None:
    """Everything was refused, then Meisa was healed, and all is replayed by a bridge that is killed twice: each person
    has the newest plan and the country of the letter, and one email; only what was on its way is repeated."""
    with sandbox() as meisa, service(real_kafka, tmp_path, meisa, latency_ms=0) as made:
        (tmp_path / "rules.yaml").write_text(RULES)
        # Otherwise a running bridge looks for it every 30 s only.
        made.cluster.create_topic(f"{made.letters_topic}.replays", cleanup_policy="compact")
        refusal = {"status": 400, "message": "not yet"}
        made.sandbox.post("faults", rules=[{"endpoint": endpoint, **refusal} for endpoint in ("upsert", "trigger")])
        produce(made, "user.signed_up", "free")
        made.start()
        wait_for(lambda: made.committed() == PEOPLE, "the refusals")
        httpx.delete(f"{made.sandbox.url}/_sandbox/faults", timeout=10)
        made.sandbox.post("faults", latency_ms=30)
        produce(made, "plan.changed", "pro")
        wait_for(lambda: made.committed() == 2 * PEOPLE, "the later events")
        letters = dlq(made, "list", "--limit", "1000")
        assert Counter(letter["action"] for letter in letters) == {"upsert": PEOPLE, "trigger": PEOPLE}
        before = made.sandbox.received()
        assert len(dlq(made, "replay", "--all")["requested"]) == 2 * PEOPLE
        for calls in (30,):
            wait_for(lambda calls=calls: made.sandbox.received() >= before + calls, "replays on their way")
            made.bridges[-1].crash()
            made.start()
        wait_for(lambda: dlq(made, "list") == [], "the end of all replays")
        made.bridges[-1].check()

        assert set(done(made, "trigger").values()) == {1}, "an email went out twice"
        assert len(done(made, "trigger")) == PEOPLE
        assert len(done(made, "track")) == PEOPLE
        view = httpx.get(f"{made.sandbox.url}/_sandbox/contacts?limit=1000", timeout=10).json()["contacts"]
        assert len(view) == PEOPLE
        assert {json.dumps(each["custom_fields"], sort_keys=True) for each in view} == {
            '{"country": "DE", "plan": "pro"}'
        }
        states = Counter(letter["state"] for letter in dlq(made, "list", "--all", "--limit", "1000"))
        assert states == {"replayed": 2 * PEOPLE}
