"""What the sandbox can be told when it starts. `FLAGS` of the command are these fields with dashes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import orjson

from bridge.errors import UsageError
from bridge.sandbox.faults import Rates
from bridge.sandbox.quota import ALGORITHMS, Quota
from bridge.sandbox.world import TriggerConfig

SCOPES = (
    "contacts:read",
    "contacts:write",
    "events:track",
    "sequences:read",
    "sequences:enroll",
    "emails:trigger",
    "tags:write",
)
TEST_KEY = "meisa_test_sandbox"
LIVE_KEY = "meisa_live_sandbox"
RETRY_AFTER = ("seconds", "date", "none")
ERROR_SHAPES = ("error", "detail")


def environment_of(key: str) -> str:
    """`test` or `live` by the key's prefix. Raises ValueError for any other."""
    for environment in ("test", "live"):
        if key.startswith(f"meisa_{environment}_"):
            return environment
    raise ValueError("an API key begins with meisa_test_ or meisa_live_")


@dataclass(slots=True)
class ApiKey:
    key: str
    scopes: frozenset[str]
    quota: Quota
    name: str = ""
    revoked: bool = False

    @property
    def environment(self) -> str:
        return environment_of(self.key)


def check_scopes(names: Any) -> frozenset[str]:
    """Raises ValueError for a scope that Meisa does not have."""
    if not isinstance(names, list | tuple | set | frozenset) or not all(isinstance(name, str) for name in names):
        raise ValueError("scopes must be a list of strings")
    for name in names:
        if name not in SCOPES:
            raise ValueError(f"{name!r} is no scope; known are {', '.join(SCOPES)}")
    return frozenset(names)


def option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(slots=True)
class SandboxOptions:
    """Each field with a `help` is a flag of `meisa-bridge sandbox`: per_minute is --per-minute."""

    host: str = option("127.0.0.1", "address to listen on")
    port: int = option(8900, "port to listen on; 0 takes a free one")
    per_minute: int = option(60, "calls per minute and key; 0 for no limit")
    per_hour: int = option(1000, "calls per hour and key; 0 for no limit")
    algorithm: str = option("sliding", f"how the quota counts: {', '.join(ALGORITHMS)}")
    burst: int = option(0, "calls that the minute's token_bucket holds; 0 for as many as its limit")
    count_refused: bool = option(False, "calls answered 429 use the quota up too")
    retry_after: str = option("seconds", f"the Retry-After header on 429: {', '.join(RETRY_AFTER)}")
    latency_ms: float = option(0.0, "how long an answer takes")
    jitter_ms: float = option(0.0, "the latency varies by up to this much either way")
    error_rate: float = option(0.0, "share of calls answered 5xx and not carried out")
    error_after_rate: float = option(0.0, "share of calls answered 5xx although carried out")
    throttle_rate: float = option(0.0, "share of calls answered 429 although the quota has room")
    guardrail_rate: float = option(0.0, "share of triggers answered 429 by the sending guardrail")
    cut_rate: float = option(0.0, "share of calls carried out, then cut without an answer")
    cut_before_rate: float = option(0.0, "share of calls cut before they are carried out")
    hang_rate: float = option(0.0, "share of calls that are not carried out and get no answer for --hang-seconds")
    hang_seconds: float = option(30.0, "how long a hanging call is held before its connection closes")
    seed: int | None = option(None, "seed of ids, faults and jitter: the same calls in the same order end the same")
    keys: tuple[str, ...] = option((), "another API key, KEY[=SCOPE,SCOPE][@PER_MINUTE/PER_HOUR]; repeatable")
    strict: bool = option(False, "refuse trigger keys and sequence slugs that the catalogue does not name")
    catalogue: str | None = option(None, "JSON file with triggers and sequences; others are then refused")
    guardrail_per_hour: int = option(0, "emails one contact may get in an hour before triggers are answered 429")
    already_enrolled_status: int = option(409, "status for a contact that is already in the sequence: 400 or 409")
    error_shape: str = option("error", 'error bodies: error = {"error": {"code", "message"}}, detail = {"detail"}')
    keep_alive_seconds: float = option(75.0, "how long an idle connection stays open")
    body_bytes_max: int = option(1_048_576, "a longer request body is answered 413")
    kafka: bool = option(False, "start an embedded Kafka too, to try things out; GET /_sandbox/kafka is its address")
    log_limit: int = option(100_000, "calls, emails and automations kept, each; the counters count all")
    triggers: dict[str, TriggerConfig] | None = None
    sequences: dict[str, str] | None = None

    def rates(self) -> Rates:
        return Rates(**{spec.name: getattr(self, spec.name) for spec in fields(Rates)})

    def new_quota(
        self, per_minute: int | None = None, per_hour: int | None = None, algorithm: str | None = None
    ) -> Quota:
        """A quota as configured, but for what is given."""
        return Quota(
            self.per_minute if per_minute is None else per_minute,
            self.per_hour if per_hour is None else per_hour,
            algorithm or self.algorithm,
            count_refused=self.count_refused,
            burst=self.burst if algorithm in (None, self.algorithm) else 0,
        )

    def parse_key(self, text: str) -> ApiKey:
        """`KEY[=SCOPE,SCOPE][@PER_MINUTE/PER_HOUR]`. Raises ValueError, without the key in its message."""
        rest, _, limits = text.partition("@")
        key, _, scopes = rest.partition("=")
        environment_of(key)
        quota = self.new_quota()
        if limits:
            minute, slash, hour = limits.partition("/")
            if not (slash and minute.isdecimal() and hour.isdecimal()):
                raise ValueError(f"@{limits} is no quota; write @PER_MINUTE/PER_HOUR, e.g. @60/1000")
            quota = self.new_quota(int(minute), int(hour))
        return ApiKey(key, check_scopes(scopes.split(",")) if scopes else frozenset(SCOPES), quota, key)

    def all_keys(self) -> list[ApiKey]:
        """The two default keys, with all scopes, and those that were added."""
        default = [ApiKey(key, frozenset(SCOPES), self.new_quota(), key) for key in (TEST_KEY, LIVE_KEY)]
        return default + [self.parse_key(text) for text in self.keys]

    def check(self) -> None:
        """Raises UsageError with what to write instead."""
        try:
            self.rates().check()
            self.all_keys()
        except ValueError as error:
            raise UsageError(f"sandbox: {error}") from None
        for name, allowed in (("retry_after", RETRY_AFTER), ("error_shape", ERROR_SHAPES)):
            if getattr(self, name) not in allowed:
                raise UsageError(f"sandbox: --{name.replace('_', '-')} must be one of {', '.join(allowed)}")
        if self.already_enrolled_status not in (400, 409):
            raise UsageError("sandbox: --already-enrolled-status must be 400 or 409")
        if not 0 <= self.port <= 65_535:
            raise UsageError("sandbox: --port must be between 0 and 65535")
        for name in ("log_limit", "body_bytes_max", "keep_alive_seconds"):
            if not getattr(self, name) > 0:
                raise UsageError(f"sandbox: --{name.replace('_', '-')} must be above 0")
        if self.guardrail_per_hour < 0:
            raise UsageError("sandbox: --guardrail-per-hour must be 0 or more")


def parse_trigger(body: Any) -> TriggerConfig:
    """Raises ValueError. `{"active": true, "sender": true, "delay_seconds": 0, "conditions": {}}`, all optional."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "active": bool,
        "sender": bool,
        "delay_seconds": (int, float),
        "conditions": dict,
    }
    if not isinstance(body, dict):
        raise ValueError("a trigger must be an object")
    for name, value in body.items():
        if name not in kinds:
            raise ValueError(f"a trigger has no {name}; known are {', '.join(kinds)}")
        if not isinstance(value, kinds[name]) or (isinstance(value, bool) and kinds[name] is not bool):
            raise ValueError(f"{name} of a trigger is of the wrong kind")
    if body.get("delay_seconds", 0) < 0:
        raise ValueError("delay_seconds of a trigger must be 0 or more")
    return TriggerConfig(**body)


def parse_sequences(body: Any) -> dict[str, str]:
    """`{slug: active | inactive}`. Raises ValueError."""
    if not isinstance(body, dict) or not all(value in ("active", "inactive") for value in body.values()):
        raise ValueError('sequences must be an object like {"onboarding": "active", "old": "inactive"}')
    return body


def with_catalogue(options: SandboxOptions) -> SandboxOptions:
    """Fills in triggers and sequences from the catalogue file and `strict`. Raises UsageError."""
    if options.catalogue is not None:
        try:
            content = orjson.loads(Path(options.catalogue).read_bytes())
        except OSError as error:
            raise UsageError(f"sandbox: cannot read {options.catalogue}: {error.strerror}") from None
        except orjson.JSONDecodeError as error:
            raise UsageError(f"sandbox: {options.catalogue} is not JSON: {error}") from None
        try:
            if not isinstance(content, dict) or not content.keys() <= {"triggers", "sequences"}:
                raise ValueError('write {"triggers": {…}, "sequences": {…}}')
            if "triggers" in content:
                if not isinstance(content["triggers"], dict):
                    raise ValueError("triggers must be an object")
                options.triggers = {key: parse_trigger(body) for key, body in content["triggers"].items()}
            if "sequences" in content:
                options.sequences = parse_sequences(content["sequences"])
        except ValueError as error:
            raise UsageError(f"sandbox: {options.catalogue}: {error}") from None
    if options.strict:
        options.triggers = options.triggers or {}
        options.sequences = options.sequences or {}
    return options
