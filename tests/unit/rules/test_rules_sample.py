"""config/rules/*.yaml: the sample rules that ship with the project, for every event of the catalogue in schemas/."""

from __future__ import annotations

import io
import random
import re
import shutil
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import fastavro
import orjson
import pytest
from click.testing import CliRunner

from bridge.cli import main
from bridge.decode import decoder_for, values_in_avro
from bridge.decode.schema import TopicSchemas
from bridge.model import Action, Kind, Lane, Plan, Record
from bridge.rules import RuleBook, load
from bridge.sandbox.world import World, WorldOptions
from bridge.schema_files import load_schema
from schemas.generate.catalogue import Event, example
from tests.support.catalogue import catalogue

ROOT = Path(__file__).parents[3]
CATALOGUE = catalogue()


@cache
def book() -> RuleBook:
    """The sample rules."""
    return load(["rules/*.yaml"], ROOT / "config")


def plan(value: dict[str, Any]) -> Plan:
    record = Record("user-events", 0, 1, 1_767_323_045_000, b"u1", orjson.dumps(value))
    event = decoder_for("json").decode(record)
    assert event is not None
    return book().plan(event)


@pytest.mark.parametrize("event", CATALOGUE.events, ids=lambda event: event.type)
def test_every_event_of_the_catalogue_is_planned_without_failure(event: Event) -> None:
    """With all its fields, with null for what is optional, and with nothing but what is required."""
    full = example(CATALOGUE, event)
    assert plan(full).actions
    small = example(CATALOGUE, event, only_required=True)
    nulls = {**full, "data": {**{each.name: None for each in event.data if each.optional}, **small["data"]}}
    for value in (full, small, nulls):
        assert plan(value).failures == ()


@pytest.mark.parametrize("event", CATALOGUE.events, ids=lambda event: event.type)
def test_an_event_means_the_same_as_avro_and_as_json(event: Event) -> None:
    """By the schemas of the catalogue, through the bridge's own decoders: the same event, and the same actions."""
    schema = load_schema(ROOT / "schemas" / f"{event.type}.avsc")
    decoder = decoder_for("avro", values=values_in_avro(TopicSchemas(schema), registry=False))
    for only_required in (False, True):
        value = example(CATALOGUE, event, only_required=only_required)
        stream = io.BytesIO()
        times = {each.name for each in event.data if each.type.name == "time"}
        data = {name: datetime.fromisoformat(item) if name in times else item for name, item in value["data"].items()}
        fastavro.schemaless_writer(
            stream, schema.document, {**value, "time": datetime.fromisoformat(value["time"]), "data": data}
        )
        found = decoder.decode(Record("user-events", 0, 1, 0, b"u1", stream.getvalue()))
        assert found is not None
        assert (found.id, found.type, found.time) == (value["id"], value["type"], value["time"])
        absent = {each.name: None for each in event.data if each.optional}
        assert found.data == {**(absent if only_required else {}), **value["data"]}
        assert book().plan(found).failures == ()
        if not only_required:
            assert [(action.kind, action.body) for action in book().plan(found).actions] == [
                (action.kind, action.body) for action in plan(value).actions
            ]


def test_every_event_of_the_catalogue_has_a_rule_of_its_own() -> None:
    """The types that rules name are those of the catalogue, no more and no fewer; each rule has tests beside it."""
    named = {pattern for rule in book().rules for pattern in rule.match}
    assert named == {event.type for event in CATALOGUE.events}
    assert [rule.name for rule in book().rules if not rule.tests] == []


def test_the_samples_use_every_kind_of_action_and_need_no_identity_table() -> None:
    assert book().kinds() == set(Kind)
    assert book().needs_identities() == []


def test_the_samples_show_what_the_language_can_do() -> None:
    """Every email says for how long it is worth sending; the notices among them leave the reserve to what is urgent."""
    templates = {
        f"{rule.name}.{template.kind}": template.handling for rule in book().rules for template in rule.actions
    }
    triggers = {name.partition(".")[0]: each for name, each in templates.items() if name.endswith(".trigger")}
    assert all(each.max_age_seconds for each in triggers.values())
    assert (triggers["reset-password"].max_age_seconds, triggers["signup"].max_age_seconds) == (1800, 86_400)
    notices = {name for name, each in triggers.items() if each.lane is not Lane.TRANSACTIONAL}
    assert notices == {"renewal-notice", "card-expiring", "usage-limit"}
    assert {name for name, each in triggers.items() if not each.ordered} == {"reset-password", "security-notice"}
    shared = templates["signup.upsert"]
    assert shared.preserve == ("custom_fields.plan", "custom_fields.subscription_status")
    assert shared.lazy == ("custom_fields.last_active", "custom_fields.signin_count")
    assert [name for name, each in templates.items() if each.linger_seconds] == ["onboarding-step.upsert"]
    upsert = plan(example(CATALOGUE, CATALOGUE.events[0])).actions[0]
    assert upsert.contact.aliases == (("stripe", "cus_1815"),) and "aliases" not in upsert.body


def test_the_tests_beside_the_sample_rules_hold_and_leave_nothing_untested() -> None:
    """By the command that users run; without the configuration's secrets."""
    arguments = ["test", "-c", str(ROOT / "config" / "bridge.yaml")]
    result = CliRunner().invoke(main, arguments, env={"MEISA_API_KEY": ""})
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    passed, tested = result.stdout.splitlines()
    assert re.fullmatch(r"(\d+) tests: \1 passed", passed)
    assert tested.count("(100 %)") == 3  # rules, branches, actions


def test_meisa_takes_all_that_the_rules_make_of_the_examples() -> None:
    """In the order in which they happened, call by call: nothing is refused, and the user's story shows at the end."""
    world = World(WorldOptions(), random.Random(1))
    lines = (ROOT / "schemas" / "examples" / "all.jsonl").read_text(encoding="utf-8").splitlines()
    for now, line in enumerate(lines):
        made = plan(orjson.loads(line))
        assert made.failures == ()
        for action in made.actions:
            carry_out(world, action, float(now))
    ada = world.contacts.find(external_id="u_1815")
    assert ada is not None and world.contacts.find(email="ada@example.com") is None
    assert (ada.email, ada.source, ada.names["last_name"]) == ("ada@example.org", "signup", "King")
    assert ada.custom_fields["subscription_status"] == "canceled" and ada.custom_fields["nps_score"] == 9
    assert set(ada.tags) == {"signed-up", "uses-reports", "promoter"}, "trial and past-due were taken away again"
    sent = [(email.trigger_key, email.to_email) for email in world.emails]
    assert sent[0] == ("welcome", "ada@example.com") and ("team_invitation", "charles@example.com") in sent
    assert sent.index(("email_changed", "ada@example.com")) == len(sent) - 1


def carry_out(world: World, action: Action, now: float) -> None:
    """As the delivery would, without waiting for anything. Raises Refused."""
    body = dict(action.body)
    match action.kind:
        case Kind.UPSERT:
            world.contacts.upsert(body, now)
        case Kind.TRACK:
            world.contacts.track(body, now)
        case Kind.TRIGGER:
            world.trigger(body, now)
        case Kind.ENROLL:
            world.enroll(body, now)
        case _:
            contact = world.contacts.find(email=action.contact.email)
            assert contact is not None
            change = world.contacts.add_tag if action.kind is Kind.ADD_TAG else world.contacts.remove_tag
            change(contact.id, body, now)


@pytest.mark.parametrize("schema", ["events.schema.json", "events.avsc", "each"])
def test_check_compares_the_sample_rules_with_the_schemas_and_has_nothing_to_say(schema: str, tmp_path: Path) -> None:
    """By the schema of the topic, and by one for each type; what is misspelt is noticed."""
    each = {event.type: f"../schemas/{event.type}.schema.json" for event in CATALOGUE.events}
    named = orjson.dumps(each).decode() if schema == "each" else f"../schemas/{schema}"
    environ = {"MEISA_API_KEY": "meisa_test_x", "MEISA_BRIDGE__TOPICS__USER_EVENTS__SCHEMA": named}
    environ["MEISA_BRIDGE__TOPICS__USER_EVENTS__FORMAT"] = "avro" if schema.endswith(".avsc") else "json"
    (tmp_path / "schemas").symlink_to(ROOT / "schemas")
    shutil.copytree(ROOT / "config", tmp_path / "config")

    def told() -> list[str]:
        arguments = ["check", "--offline", "--strict", "--json", "-c", str(tmp_path / "config" / "bridge.yaml")]
        result = CliRunner().invoke(main, arguments, env=environ)
        assert result.stderr == ""
        return [each["code"] for each in orjson.loads(result.stdout) if each["severity"] != "notice"]

    assert told() == []
    if schema != "events.schema.json":
        return
    rules = tmp_path / "config" / "rules" / "billing.yaml"
    rules.write_text(rules.read_text().replace("previous_mrr_minor", "previous_mrr"))
    assert set(told()) == {"MB161"}
