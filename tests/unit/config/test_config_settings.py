"""What a right configuration becomes."""

from __future__ import annotations

import copy
import pickle
import typing
from pathlib import Path

import pytest
from pydantic import ValidationError

from bridge.config import Secret, Settings, examine, load
from bridge.config.explain import _DURATIONS
from bridge.errors import UsageError

MINIMAL = """\
kafka: {bootstrap_servers: "localhost:9092"}
topics: {user-events: {}}
meisa: {api_key: {env: KEY}}
rules: [rules/*.yaml]
"""
KEY = "meisa_live_5up3r53cr3t"

INTERFACE = """\
kafka:
  bootstrap_servers: localhost:9092
  group_id: meisa-bridge
  properties:
    group.instance.id: {env: POD_NAME}
    session.timeout.ms: 45000
    enable.idempotence: true
    sasl.password: {file: password}
  offset_metadata_max_bytes: 4096
topics:
  user-events:
    format: json
    start: earliest
    keyed_by: contact
    envelope:
      id: ${value.id}
      type: ${value.type}
      time: ${value.time}
      data: ${value.data}
meisa:
  base_url: https://api.meisa.io/api/v1
  environment: live
  api_key: {env: KEY}
  keys: {trigger: {file: trigger}}
  quota: {per_minute: 60, per_hour: 1000, reserve: 0.1, shared: partitions}
  idempotency_window: 55m
  timeout: 10s
  retry: {attempts: 10, max_age: 15m}
  max_in_flight: 64
rules: [rules/*.yaml]
handlers: [acme.lifecycle]
dead_letters: {topic: meisa-bridge.dead-letters, stop_at: {share: 0.2, of: 500}}
state: {url: memory, unchanged_for: 1d}
delivery: {bulk_after: 1h, unknown_contact_after: 10m, scope_wait: 1h, shutdown_timeout: 25s}
admin: {listen: 127.0.0.1:8080}
"""


def loaded(folder: Path, text: str, **environ: str) -> Settings:
    file = folder / "bridge.yaml"
    file.write_text(text)
    return load(file, {"KEY": KEY, **environ})


def test_the_defaults_are_those_of_the_documented_file(tmp_path: Path) -> None:
    """A minimal file means what the interface's file says in full."""
    (tmp_path / "password").write_text("pw\n")
    (tmp_path / "trigger").write_text("meisa_live_t\n")
    whole, least = loaded(tmp_path, INTERFACE, POD_NAME="pod-1"), loaded(tmp_path, MINIMAL)
    full, minimal = whole.model_dump(), least.model_dump()
    assert (whole.state.url, whole.meisa.quota.shared) == (least.state.url, least.meisa.quota.shared)
    assert whole.kafka.properties == {
        "group.instance.id": "pod-1",
        "session.timeout.ms": "45000",
        "enable.idempotence": "true",
        "sasl.password": "pw",
    }
    assert full["meisa"].pop("keys") == {"trigger": Secret.from_file(tmp_path / "trigger")}
    assert full.pop("handlers") == ["acme.lifecycle"]
    topic = full.pop("topics")["user-events"]
    assert (topic["keyed_by"], topic["envelope"]["id"]) == ("contact", "${value.id}")
    del minimal["meisa"]["keys"], minimal["handlers"], minimal["topics"]
    assert full == minimal
    assert minimal["meisa"]["idempotency_window"] == 3300.0
    assert minimal["delivery"] == {
        "bulk_after": 3600.0,
        "unknown_contact_after": 600.0,
        "scope_wait": 3600.0,
        "shutdown_timeout": 25.0,
    }


def test_a_partial_envelope_keeps_the_other_defaults(tmp_path: Path) -> None:
    settings = loaded(tmp_path, MINIMAL.replace("user-events: {}", "user-events: {envelope: {type: '${value.kind}'}}"))
    envelope = settings.topics["user-events"].envelope
    assert envelope is not None
    assert (envelope.id, envelope.type) == ("${value.id}", "${value.kind}")


def test_the_whole_value_or_key_of_a_record_is_no_variable_of_a_shell(tmp_path: Path) -> None:
    text = MINIMAL.replace("user-events: {}", "user-events: {envelope: {id: '${key}', data: '${value}'}}")
    envelope = loaded(tmp_path, text).topics["user-events"].envelope
    assert envelope is not None and (envelope.id, envelope.data) == ("${key}", "${value}")


@pytest.mark.parametrize(
    ("start", "means"),
    [
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("2026-01-31", "2026-01-31T00:00:00+00:00"),
        ("2026-01-31T10:00:00Z", "2026-01-31T10:00:00+00:00"),
        ("2026-01-31T10:00:00+02:00", "2026-01-31T10:00:00+02:00"),
    ],
)
def test_start_is_a_word_or_a_time_with_its_zone(tmp_path: Path, start: str, means: str) -> None:
    """Dates stay text in YAML, and a time without a zone is UTC."""
    settings = loaded(tmp_path, MINIMAL.replace("user-events: {}", f"user-events: {{start: {start}}}"))
    assert settings.topics["user-events"].start == means


def test_sections_may_be_empty_and_anchors_stand_under_x(tmp_path: Path) -> None:
    """`admin:` with everything below commented out means the defaults; top-level x-* is free; merge keys work."""
    text = MINIMAL.replace("topics: {user-events: {}}\n", "")
    settings = loaded(
        tmp_path,
        "x-topic: &topic {keyed_by: contact, start: latest}\n"
        + text
        + "topics:\n  a:\n  b: {<<: *topic, start: earliest}\n  c: *topic\nadmin:\nhandlers:\n",
    )
    assert [topic.start for topic in settings.topics.values()] == ["earliest", "earliest", "latest"]
    assert settings.topics["b"].keyed_by == "contact"
    assert settings.admin.listen == "127.0.0.1:8080"


def test_settings_know_where_they_were_written(tmp_path: Path) -> None:
    """So that later checks can point there; what is not written is placed at the nearest thing around it."""
    settings = loaded(tmp_path, MINIMAL)
    assert settings.base_dir == tmp_path.resolve()
    assert settings.path == tmp_path / "bridge.yaml"
    assert settings.place("topics", "user-events")[1:] == (2, 10)
    assert settings.place("meisa", "api_key")[1:] == (3, 18)
    assert settings.place("meisa", "timeout")[1:] == (3, 1)
    assert settings.place("admin", "listen")[1:] == (1, 1)


def test_settings_are_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        loaded(tmp_path, MINIMAL).meisa.timeout = 1.0  # type: ignore[misc]


def test_address_splits_host_and_port(tmp_path: Path) -> None:
    for written, address in (("'[::1]:80'", ("::1", 80)), ("localhost:0", ("localhost", 0))):
        assert loaded(tmp_path, MINIMAL + f"admin: {{listen: {written}}}\n").admin.address == address


def test_a_token_permits_an_open_dashboard_and_http_needs_leave(tmp_path: Path) -> None:
    """What the compose file relies on."""
    settings = loaded(
        tmp_path,
        MINIMAL.replace("KEY}", "T}, environment: test, allow_http: true, base_url: 'http://sandbox:8900/api/v1/'")
        + "admin: {listen: '0.0.0.0:8080', token: {env: TOKEN}}\n",
        T="meisa_test_a",
        TOKEN="x",
    )
    assert settings.meisa.base_url == "http://sandbox:8900/api/v1"
    assert settings.admin.token is not None and settings.admin.token.read() == "x"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_plain_http_to_this_machine_needs_no_leave(tmp_path: Path, host: str) -> None:
    assert loaded(tmp_path, MINIMAL.replace("KEY}", f"KEY}}, base_url: 'http://{host}:8900'")).meisa.base_url


def test_a_drain_that_is_too_short_is_only_a_warning(tmp_path: Path) -> None:
    """It loads, and `check` shows it."""
    file = tmp_path / "bridge.yaml"
    file.write_text(MINIMAL + "delivery: {shutdown_timeout: 5s}\n")
    examined = examine(file, {"KEY": KEY})
    assert examined.settings is not None
    assert [(problem.code, problem.severity, problem.line) for problem in examined.problems] == [
        ("MB032", "warning", 5)
    ]


def test_every_duration_is_known_to_the_messages() -> None:
    """A bound of a duration is told as one (`1h`), never as bare seconds."""

    def names(model: typing.Any) -> set[str]:
        found = set()
        for name, info in model.model_fields.items():
            below = [
                arm for arm in (info.annotation, *typing.get_args(info.annotation)) if hasattr(arm, "model_fields")
            ]
            for arm in below:
                found |= names(arm)
            if "_seconds" in repr(info.metadata) or "_seconds" in repr(info.annotation):
                found.add(name)
        return found

    assert names(Settings) == _DURATIONS


# Secrets


def test_a_secret_is_read_anew_each_time(tmp_path: Path) -> None:
    """A rotated key file is noticed, and so is one that went away."""
    file = tmp_path / "key"
    file.write_text("one\n")
    secret = Secret.from_file(file)
    assert secret.read() == "one"
    file.write_text("two")
    assert secret.read() == "two"
    file.unlink()
    with pytest.raises(UsageError, match="does not exist"):
        secret.read()


def test_a_secret_shows_itself_nowhere(tmp_path: Path) -> None:
    """Not by printing, dumping or copying settings; a pickle is refused."""
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "password").write_text("hunter2")
    settings = loaded(
        tmp_path,
        MINIMAL.replace('9092"', '9092", properties: {sasl.password: {file: password}}').replace(
            "{env: KEY}", "{file: key}"
        ),
    )
    assert settings.meisa.api_key.read() == KEY
    for text in (repr(settings), str(settings), repr(copy.copy(settings)), f"{settings.meisa.api_key}"):
        assert KEY not in text and "hunter2" not in text
    assert KEY not in repr(settings.model_dump()) and "hunter2" not in repr(settings.model_dump())
    with pytest.raises(TypeError):
        pickle.dumps(settings.meisa.api_key)


def test_secrets_are_equal_by_source() -> None:
    here = {"A": "same", "B": "same"}
    assert Secret.from_env("A", here) == Secret.from_env("A", {})
    assert Secret.from_env("A", here) != Secret.from_env("B", here)
    assert Secret.from_env("A", here) != Secret.from_file(Path("A"))
    assert Secret.literal("x").read() == "x" and "x" not in repr(Secret.literal("x")).replace("literal", "")


# Overrides


def test_overrides_reach_every_kind_of_setting(tmp_path: Path) -> None:
    """Scalars of each type, names in maps, whole maps and lists; case does not matter; longer names come later."""
    settings = loaded(
        tmp_path,
        MINIMAL.replace("user-events: {}", "user-events: {start: latest}, b.c: {}"),
        MEISA_BRIDGE__KAFKA__BOOTSTRAP_SERVERS="kafka:19092",
        MEISA_BRIDGE__KAFKA__GROUP_ID="123",
        MEISA_BRIDGE__kafka__properties__GROUP_INSTANCE_ID="pod-1",
        MEISA_BRIDGE__KAFKA__PROPERTIES__SASL_PASSWORD="a #b: {c",
        MEISA_BRIDGE__TOPICS__USER_EVENTS__START="2026-01-31",
        MEISA_BRIDGE__TOPICS__B_C='{"start": "latest", "keyed_by": "contact"}',
        MEISA_BRIDGE__TOPICS__B_C__START="earliest",
        MEISA_BRIDGE__MEISA__API_KEY=KEY + "2",
        MEISA_BRIDGE__MEISA__KEYS__ADD_TAG='{"env": "KEY"}',
        MEISA_BRIDGE__MEISA__QUOTA__PER_MINUTE="600",
        MEISA_BRIDGE__MEISA__QUOTA__RESERVE="0.25",
        MEISA_BRIDGE__MEISA__TIMEOUT='"5s"',
        MEISA_BRIDGE__RULES='["a.yaml", "b.yaml"]',
        MEISA_BRIDGE__HANDLERS="[]",
        MEISA_BRIDGE__ADMIN__LISTEN="[::1]:8080",
        MEISA_BRIDGE__ADMIN__SHOW_CONTACTS="true",
    )
    assert settings.kafka.bootstrap_servers == "kafka:19092"
    assert settings.kafka.group_id == "123"
    assert settings.kafka.properties == {"group.instance.id": "pod-1", "sasl.password": "a #b: {c"}
    assert settings.topics["user-events"].start.startswith("2026-01-31")
    assert settings.topics["b.c"].model_dump(include={"start", "keyed_by"}) == {
        "start": "earliest",
        "keyed_by": "contact",
    }
    assert settings.meisa.api_key.read() == KEY + "2"
    assert settings.meisa.keys["add_tag"].read() == KEY
    assert (settings.meisa.quota.per_minute, settings.meisa.quota.reserve, settings.meisa.timeout) == (600, 0.25, 5.0)
    assert settings.rules == ["a.yaml", "b.yaml"]
    assert settings.admin.address == ("::1", 8080)
    assert settings.admin.show_contacts is True


def test_an_existing_property_is_overridden_under_its_own_name(tmp_path: Path) -> None:
    """`_` of the variable finds whatever character the file has there."""
    settings = loaded(
        tmp_path,
        MINIMAL.replace('9092"', '9092", properties: {some_odd-name: a}'),
        MEISA_BRIDGE__KAFKA__PROPERTIES__SOME_ODD_NAME="b",
    )
    assert settings.kafka.properties == {"some_odd-name": "b"}


def test_the_longer_of_two_topic_names_is_meant(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        MINIMAL.replace("user-events: {}", "a: {}, a__b: {}"),
        MEISA_BRIDGE__TOPICS__A__B__START="latest",
    )
    assert [topic.start for topic in settings.topics.values()] == ["earliest", "latest"]


def test_everything_may_come_from_the_environment(tmp_path: Path) -> None:
    """An empty file is enough where variables say the rest; other variables are left alone."""
    settings = loaded(
        tmp_path,
        "# nothing\n",
        MEISA_BRIDGE__KAFKA='{"bootstrap_servers": "kafka:9092"}',
        MEISA_BRIDGE__TOPICS='{"user-events": {}}',
        MEISA_BRIDGE__MEISA__API_KEY=KEY,
        MEISA_BRIDGE__RULES='["r.yaml"]',
        MEISA_BRIDGE_DEBUG="1",
    )
    assert settings.kafka.group_id == "meisa-bridge"
    assert settings.meisa.api_key.read() == KEY


def test_a_reference_stands_for_any_scalar(tmp_path: Path) -> None:
    """Numbers, durations, switches; in lists as well."""
    (tmp_path / "limit").write_text(" 600\n")
    settings = loaded(
        tmp_path,
        MINIMAL.replace("KEY}", "KEY}, timeout: {env: T}, quota: {per_minute: {file: limit}}").replace(
            "rules/*.yaml", "{env: R}"
        )
        + "admin: {show_contacts: {env: S}}\n",
        T="7s",
        R="r/*.yaml",
        S="true",
    )
    assert (settings.meisa.timeout, settings.meisa.quota.per_minute) == (7.0, 600)
    assert settings.rules == ["r/*.yaml"]
    assert settings.admin.show_contacts is True


def test_a_secret_of_other_bytes_than_utf_8_is_told_as_such() -> None:
    """Python keeps such bytes of the environment as halves of surrogate pairs, which nothing can send."""
    secret = Secret.from_env("KEY", {"KEY": "5up3r\udcff53cr3t"})
    with pytest.raises(UsageError, match="the environment variable KEY is not UTF-8 text"):
        secret.read()
