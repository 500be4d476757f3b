"""What a configuration holds once it is read: frozen, durations in seconds, attribute names as in the YAML.

The defaults stand here and nowhere else. A field's description ends up in the JSON Schema that editors show.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from bridge.actions import duration_seconds
from bridge.config import codes
from bridge.config.secret import Secret
from bridge.places import Place

DURATION_PATTERN: Final = r"^\d+(\.\d+)?\s*(ms|s|m|h|d)$"
TOPIC_PATTERN: Final = r"^[a-zA-Z0-9._-]{1,249}$"
MODULE_PATTERN: Final = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"

RESERVED_PROPERTIES: Final[dict[str, str]] = {
    "bootstrap.servers": "set kafka.bootstrap_servers",
    "metadata.broker.list": "set kafka.bootstrap_servers",
    "group.id": "set kafka.group_id",
    "enable.auto.commit": "an offset is committed only after delivery; remove it",
    "enable.auto.offset.store": "an offset is committed only after delivery; remove it",
    "auto.offset.reset": "set start at the topic",
}


FROM_FILE: Final = "from a file"
"""The validation context of the loader."""


def wrong(code: str, message: str, hint: str = "") -> PydanticCustomError:
    """A validator's complaint, with the code and the hint that the problem will carry.

    The message never quotes the value: it may have come from `{env: …}`.
    """
    return PydanticCustomError(code, message, {"hint": hint})


def _seconds(value: Any, info: ValidationInfo) -> Any:
    """Seconds of a duration. Only a program may give a number: in a file it would hide its unit."""
    if isinstance(value, str):
        try:
            return duration_seconds(value)
        except ValueError:
            pass
    elif isinstance(value, float) and math.isfinite(value) and info.context != FROM_FILE:
        return value
    raise wrong(codes.NOT_A_DURATION, "is not a duration", "write a number and a unit, e.g. 30s, 10m, 2h or 1d")


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise wrong(codes.WRONG_TYPE, "should be a number")
    return value


def _property(value: Any) -> Any:
    """librdkafka takes text: `true`, not Python's `True`."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _start(value: str) -> str:
    if value in ("earliest", "latest"):
        return value
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise wrong(
            codes.BAD_START,
            "is neither earliest, latest nor an ISO 8601 time",
            "e.g. earliest, or 2026-01-31T00:00:00Z",
        ) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


def _no_slash(value: str) -> str:
    return value.rstrip("/")


def _topic_name(value: str) -> str:
    if not re.fullmatch(TOPIC_PATTERN, value) or value in (".", ".."):
        raise wrong(
            codes.BAD_TOPIC_NAME,
            "is not a name that Kafka allows for a topic",
            "1 to 249 of a-z A-Z 0-9 . _ -; patterns are not supported: list the topics",
        )
    return value


def _module_name(value: str) -> str:
    if not re.fullmatch(MODULE_PATTERN, value):
        raise wrong(
            codes.BAD_MODULE_NAME, "is not the name of a Python module", "write acme.lifecycle, not acme/lifecycle.py"
        )
    return value


def _schema_files(value: Any) -> Any:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, Mapping) and value and all(isinstance(path, str) and path for path in value.values()):
        return dict(value)
    raise wrong(
        codes.WRONG_TYPE,
        "should be the path of a file, or a map of event types to paths",
        "e.g. schemas/plan.changed.avsc",
    )


_DURATION_SCHEMA: Final = {"type": "string", "pattern": DURATION_PATTERN, "examples": ["30s", "10m", "2h", "1d"]}
Seconds = Annotated[float, BeforeValidator(_seconds), WithJsonSchema(_DURATION_SCHEMA)]
Whole = Annotated[int, BeforeValidator(_number)]
Share = Annotated[float, BeforeValidator(_number)]
Text = Annotated[str, Field(min_length=1)]
TopicName = Annotated[str, AfterValidator(_topic_name), WithJsonSchema({"type": "string", "pattern": TOPIC_PATTERN})]
ModuleName = Annotated[str, AfterValidator(_module_name), WithJsonSchema({"type": "string", "pattern": MODULE_PATTERN})]
SchemaFiles = Annotated[
    str | dict[str, str],
    PlainValidator(_schema_files),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string", "minLength": 1}},
            ]
        }
    ),
]
Property = Annotated[str, BeforeValidator(_property), WithJsonSchema({"type": ["string", "number", "boolean"]})]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_by_name=True)


class Kafka(Section):
    bootstrap_servers: Text = Field(
        description="Brokers to ask first, host:port, separated by commas.", examples=["localhost:9092"]
    )
    group_id: Text = Field("meisa-bridge", description="The consumer group; a new name starts anew.")
    properties: dict[str, Property] = Field(
        default_factory=dict,
        repr=False,  # holds passwords in clear once they are resolved
        exclude=True,  # from dumps, for the same reason
        description="Any librdkafka property, e.g. security.protocol; passwords only as {env: NAME} or {file: PATH}.",
    )
    offset_metadata_max_bytes: Whole = Field(
        4096, ge=512, le=1_048_576, description="The broker's offset.metadata.max.bytes; progress is kept within it."
    )


class Envelope(Section):
    id: Text = Field("${value.id}", description="Expression for the event's id.")
    type: Text = Field("${value.type}", description="Expression for the event's type, which rules match.")
    time: Text = Field("${value.time}", description="Expression for the event's time, ISO 8601.")
    data: Text = Field("${value.data}", description="Expression for the event's data.")


class Registry(Section):
    url: Annotated[Text, AfterValidator(_no_slash)] = Field(
        description="Base URL of the schema registry.", examples=["http://localhost:8081"]
    )
    basic_auth: Secret | None = Field(None, description="user:password, as {env: NAME} or {file: PATH}.")
    bearer: Secret | None = Field(None, description="A token, as {env: NAME} or {file: PATH}; instead of basic_auth.")
    timeout: Seconds = Field(5.0, gt=0, le=60, description="How long one question may take; it is asked again.")
    ca_file: Text | None = Field(
        None, description="A PEM file with the authority that signed its certificate; default: the system's."
    )
    allow_http: bool = Field(
        False, description="Permits http:// to another host although basic_auth or bearer is sent."
    )


class Topic(Section):
    format: Literal["json", "avro", "cloudevents", "debezium"] = Field("json", description="How records are written.")
    start: Annotated[str, AfterValidator(_start)] = Field(
        "earliest",
        description="Where a group without an offset begins: earliest, latest or an ISO 8601 time (else UTC).",
    )
    keyed_by: Literal["contact"] | None = Field(
        None, description="contact: the record key is the person, which lets unchanged state be skipped."
    )
    dedupe: Seconds | None = Field(
        None, gt=0, description="An event whose id was finished within this time is skipped."
    )
    envelope: Envelope | None = Field(None, description="Where the event's parts are; these are json's defaults.")
    schemas: SchemaFiles | None = Field(
        None,
        alias="schema",
        description="The schema of a record's value (cloudevents: of its data), a path relative to this file, or a map "
        "of event types to paths: .avsc for Avro, .json for JSON Schema.",
    )
    registry: Registry | None = Field(
        None, description="The schema registry that knows the schemas of Avro records; see schema for reading by one."
    )
    encoding: Literal["json", "avro"] | None = Field(None, description="For debezium: how its records are encoded.")

    @property
    def is_avro(self) -> bool:
        """Whether the value's bytes are Avro."""
        return self.format == "avro" or (self.format == "debezium" and self.encoding == "avro")

    @property
    def schema_kind(self) -> Literal["avro", "json"]:
        """What kind of schema describes a value."""
        return "avro" if self.is_avro else "json"


class Quota(Section):
    per_minute: Whole = Field(60, ge=1, description="Calls per key in any 60 seconds.")
    per_hour: Whole = Field(1000, ge=1, description="Calls per key in any 3,600 seconds.")
    reserve: Share = Field(
        0.1,
        ge=0,
        lt=1,
        description="The share of each window that only the transactional lane may use; 0 turns it off.",
    )
    shared: Text = Field(
        "partitions",
        repr=False,  # may hold a password once it is resolved
        exclude=True,
        description="How instances of the group share the quota: partitions (each owns an equal part of it, idle ones "
        "too), or redis://host:6379/0 (all use all of it; calls wait while that Redis cannot be asked).",
    )

    @property
    def by_partition(self) -> bool:
        return self.shared == "partitions"


class Retry(Section):
    attempts: Whole = Field(
        10, ge=1, le=1000, description="Attempts before a call counts as exhausted; age counts too."
    )
    max_age: Seconds = Field(900.0, gt=0, description="Time that must also have passed before a call is exhausted.")


class Meisa(Section):
    base_url: Annotated[Text, AfterValidator(_no_slash)] = Field(
        "https://api.meisa.io/api/v1", description="https, except on this machine itself."
    )
    environment: Literal["live", "test"] = Field(
        "live", description="A key of the other environment is refused before anything is sent."
    )
    api_key: Secret = Field(description="The API key, as {env: NAME} or {file: PATH}.")
    keys: dict[Literal["upsert", "track", "trigger", "enroll", "add_tag", "remove_tag"], Secret] = Field(
        default_factory=dict, description="A key of its own, with its own quota, per action kind."
    )
    quota: Quota = Field(default_factory=lambda: Quota.model_validate({}))
    idempotency_window: Seconds = Field(
        3300.0,
        gt=0,
        lt=3600,
        description="How long a trigger may be repeated under its key; Meisa forgets it after 1h.",
    )
    timeout: Seconds = Field(10.0, gt=0, le=300, description="How long one call may take.")
    retry: Retry = Field(default_factory=lambda: Retry.model_validate({}))
    max_in_flight: Whole = Field(64, ge=1, le=4096, description="Calls under way at once.")
    date_header: bool = Field(
        True,
        description="Whether the Date header of Meisa's answers is its clock (assumed), by which instances judge alike "
        "how old a started trigger is; false: each machine's own clock.",
    )
    allow_http: bool = Field(
        False,
        description="Permits http:// to another host, for a sandbox in a private network. Test environment only.",
    )


class StopAt(Section):
    share: Share = Field(0.2, gt=0, le=1, description="Share of the last events that may be dead-lettered.")
    of: Whole = Field(500, ge=1, le=100_000, description="How many last events are looked at.")


class DeadLetters(Section):
    topic: TopicName = Field("meisa-bridge.dead-letters", description="Where records go that cannot be delivered.")
    stop_at: StopAt = Field(
        default_factory=lambda: StopAt.model_validate({}),
        description="From this share on the topic pauses, until rules are reloaded or it is resumed.",
    )
    replays: TopicName | None = Field(
        None,
        description="The bridge's own compacted topic of replays, created by the first; default: <topic>.replays.",
    )

    @property
    def replays_topic(self) -> str:
        """Where replays are asked for and told."""
        return self.replays or f"{self.topic}.replays"


class State(Section):
    url: Text = Field(
        "memory",
        repr=False,  # may hold a password once it is resolved
        exclude=True,
        description="Where the identity table is kept: memory, sqlite:///file-beside-this-one.db, "
        "sqlite:////absolute/file.db or redis://host:6379/0.",
    )
    unchanged_for: Seconds = Field(86_400.0, ge=0, description="How long unchanged state is believed.")


class Delivery(Section):
    bulk_after: Seconds = Field(3600.0, ge=0, description="Events older than this when read count as bulk.")
    unknown_contact_after: Seconds = Field(600.0, ge=0, description="How long an action waits for an unknown contact.")
    scope_wait: Seconds = Field(3600.0, ge=0, description="How long an action waits for a scope that the key lacks.")
    shutdown_timeout: Seconds = Field(25.0, gt=0, le=3600, description="Time to drain before the process ends.")


class Admin(Section):
    listen: Text = Field("127.0.0.1:8080", description="host:port of health, metrics and dashboard.")
    token: Secret | None = Field(None, description="Needed where listen is not this machine only.")
    show_contacts: bool = Field(False, description="Shows email addresses in logs and pages instead of masking them.")
    allowed_hosts: list[Text] = Field(
        default_factory=list,
        description="Names under which pages are reached, beside localhost, addresses and listen's; "
        "with a token and none here, any.",
        examples=[["bridge.example.com"]],
    )

    @property
    def address(self) -> tuple[str, int]:
        """Host (without brackets) and port of `listen`; the host is empty for every interface."""
        return split_address(self.listen)


class Tracing(Section):
    endpoint: Annotated[Text, AfterValidator(_no_slash)] | None = Field(
        None,
        description="The collector's OTLP/HTTP address; /v1/traces is added. "
        "Default: OTEL_EXPORTER_OTLP_ENDPOINT, else http://localhost:4318.",
        examples=["http://collector:4318"],
    )
    headers: dict[str, Secret] = Field(
        default_factory=dict, description="Sent with each export, e.g. authorization: {env: OTLP_TOKEN}."
    )
    sample: Share | None = Field(
        None,
        ge=0,
        le=1,
        description="The share of traces that are kept of those that begin here; a record with a traceparent keeps its "
        "producer's decision. Default: OTEL_TRACES_SAMPLER, else all.",
    )
    service_name: Text | None = Field(None, description="Default: OTEL_SERVICE_NAME, else meisa-bridge.")
    allow_http: bool = Field(False, description="Permits http:// to another host although headers are sent.")


def split_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:8080`, `[::1]:8080` or `:8080` as host and port. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError("not host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets")
    return host, int(port)


class Settings(Section):
    """The whole configuration."""

    kafka: Kafka
    topics: dict[TopicName, Topic] = Field(description="The topics to read, by name.", min_length=1)
    meisa: Meisa
    rules: list[Text] = Field(
        default_factory=list, description="Rule files, relative to this file, * allowed.", examples=[["rules/*.yaml"]]
    )
    handlers: list[ModuleName] = Field(
        default_factory=list,
        description="Python modules with @handles functions, looked up from this file's folder too.",
    )
    dead_letters: DeadLetters = Field(default_factory=lambda: DeadLetters.model_validate({}))
    state: State = Field(default_factory=lambda: State.model_validate({}))
    delivery: Delivery = Field(default_factory=lambda: Delivery.model_validate({}))
    admin: Admin = Field(default_factory=lambda: Admin.model_validate({}))
    tracing: Tracing | None = Field(
        None, description="OpenTelemetry traces, by OTLP over HTTP; off where this section is absent."
    )

    _path: Path = PrivateAttr(default=Path("bridge.yaml"))
    _places: dict[tuple[str | int, ...], Place] = PrivateAttr(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file as it was named."""
        return self._path

    @property
    def base_dir(self) -> Path:
        """The file's folder, absolute: what relative paths in the configuration start from."""
        return self._path.parent.resolve()

    def place(self, *path: str | int) -> Place:
        """Where a setting is written, else the nearest thing around it: `place("topics", "user-events")`."""
        return nearest_place(self._places, path, str(self._path))

    def located(self, path: Path, places: dict[tuple[str | int, ...], Place]) -> Settings:
        """These settings with what is known of where they were written."""
        made = self.model_copy()
        made._path = path
        made._places = places
        return made


def nearest_place(places: Mapping[tuple[str | int, ...], Place], path: tuple[str | int, ...], file: str) -> Place:
    while path:
        if path in places:
            return places[path]
        path = path[:-1]
    return places.get((), Place(file))
