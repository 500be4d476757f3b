"""What no single value shows: settings that do not go together, or that this version does not carry out yet.

Each check names the sections it needs and is left out where one of them is broken already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Final

from bridge.config import codes
from bridge.config.explain import HINTS, Route
from bridge.config.formats import FORMAT_CHECKS
from bridge.config.kafka_security import security_problems
from bridge.config.secret import Secret
from bridge.config.settings import (
    RESERVED_PROPERTIES,
    Admin,
    DeadLetters,
    Delivery,
    Kafka,
    Meisa,
    State,
    Topic,
    Tracing,
    nearest_place,
    split_address,
)
from bridge.config.urls import http_url, is_loopback
from bridge.errors import Problem, UsageError
from bridge.places import Place

HANDLER_ENTRY_POINTS: Final = "meisa_bridge.handlers"
REDIS_URL: Final = r"(rediss?|unix)://.+"
HEADER_NAME: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
Where = Callable[..., Place]


def run_checks(sections: Mapping[str, Any], places: Mapping[Route, Place], file: str) -> list[Problem]:
    """All checks whose sections are there."""

    def where(*route: str | int) -> Place:
        return nearest_place(places, route, file)

    problems: list[Problem] = []
    for needed, check in CHECKS:
        if all(name in sections for name in needed):
            problems += check(*(sections[name] for name in needed), where)
    return problems


def _kafka(kafka: Kafka, where: Where) -> Iterator[Problem]:
    for name in kafka.properties:
        if name in RESERVED_PROPERTIES:
            yield where("kafka", "properties", name).problem(
                codes.RESERVED_PROPERTY, f"`{name}` is set by the bridge itself", RESERVED_PROPERTIES[name]
            )
    yield from security_problems(kafka, where)
    for server in kafka.bootstrap_servers.split(","):
        try:
            host, _ = split_address(server.strip().rpartition("://")[2])
        except ValueError:
            host = ""
        if not host:
            yield where("kafka", "bootstrap_servers").problem(
                codes.BAD_ADDRESS, "`kafka.bootstrap_servers` should be host:port", "e.g. broker-1:9092,broker-2:9092"
            )
            return


def _rules(rules: list[str], handlers: list[str], where: Where) -> Iterator[Problem]:
    if not rules and not handlers and not entry_points(group=HANDLER_ENTRY_POINTS):
        yield where().problem(codes.NO_RULES, "neither `rules` nor `handlers` is given", f"add {HINTS['rules'][5:]}")


def _meisa_url(meisa: Meisa, where: Where) -> Iterator[Problem]:
    place = where("meisa", "base_url")
    scheme, host = http_url(meisa.base_url)
    if not host:
        yield place.problem(codes.BAD_URL, "`meisa.base_url` is not a URL", "e.g. https://api.meisa.io/api/v1")
        return
    if meisa.allow_http and meisa.environment != "test":
        yield where("meisa", "allow_http").problem(
            codes.PLAIN_HTTP,
            "`meisa.allow_http` is only for environment: test",
            "a live key never goes over plain http",
        )
    elif scheme == "http" and not is_loopback(host) and not meisa.allow_http:
        yield place.problem(
            codes.PLAIN_HTTP,
            "`meisa.base_url` would send the API key unencrypted to another host",
            "write https://…; for a sandbox in a private network set allow_http: true with environment: test",
        )


def _meisa_keys(meisa: Meisa, where: Where) -> Iterator[Problem]:
    """Keys show their environment in their prefix; one that does not is left to Meisa to judge."""
    routes: list[tuple[tuple[str, ...], Secret]] = [(("meisa", "api_key"), meisa.api_key)]
    routes += [(("meisa", "keys", kind), key) for kind, key in meisa.keys.items()]
    for route, secret in routes:
        try:
            value = secret.read()
        except UsageError:
            continue  # reported by the loader
        found = re.match(r"meisa_(live|test)_", value)
        if found and found[1] != meisa.environment:
            yield where(*route).problem(
                codes.WRONG_ENVIRONMENT,
                f"`{'.'.join(route)}` is a key of the {found[1]} environment, but environment is {meisa.environment}",
                f"set environment: {found[1]}, or give a meisa_{meisa.environment}_… key",
            )
        elif re.search(r"\s", value) or not value.isascii():
            yield where(*route).problem(
                codes.WRONG_TYPE,
                f"`{'.'.join(route)}` holds white space or characters that no key has",
                "the variable or file should hold the key alone",
            )


def _meisa_numbers(meisa: Meisa, where: Where) -> Iterator[Problem]:
    if meisa.timeout >= meisa.idempotency_window:
        yield where("meisa", "timeout").problem(
            codes.CONTRADICTION,
            "`meisa.timeout` must be shorter than `meisa.idempotency_window`",
            "else no trigger could ever be repeated safely",
        )
    if not meisa.quota.by_partition and not re.fullmatch(REDIS_URL, meisa.quota.shared):
        yield where("meisa", "quota", "shared").problem(
            codes.NOT_A_CHOICE,
            "`meisa.quota.shared` is neither partitions nor redis://…",
            "write shared: partitions, or redis://host:6379/0",
        )


def _drain(meisa: Meisa, delivery: Delivery, where: Where) -> Iterator[Problem]:
    if delivery.shutdown_timeout < meisa.timeout + 2:
        yield where("delivery", "shutdown_timeout").problem(
            codes.CONTRADICTION,
            "`delivery.shutdown_timeout` leaves no time for calls under way",
            "at least meisa.timeout + 2s; a call without an answer may be made again after a restart",
            "warning",
        )


def _dead_letters(topics: Mapping[str, Topic], dead_letters: DeadLetters, where: Where) -> Iterator[Problem]:
    if dead_letters.topic in topics:
        yield where("dead_letters", "topic").problem(
            codes.CONSUMED_DEAD_LETTERS,
            f"the dead-letter topic `{dead_letters.topic}` is also listed under topics",
            "its letters would be read as events again, for ever; name another topic",
        )


def _state(state: State, where: Where) -> Iterator[Problem]:
    if state.url == "memory" or re.fullmatch(rf"sqlite:///.*[^/]|{REDIS_URL}", state.url):
        return
    wrong = "names no file" if state.url.startswith("sqlite:") else "is neither memory, sqlite:///… nor redis://…"
    yield where("state", "url").problem(
        codes.NOT_A_CHOICE,
        f"`state.url` {wrong}",
        "write memory, sqlite:///state.db (beside this file), sqlite:////absolute/state.db or redis://host:6379/0",
    )


def _admin(admin: Admin, where: Where) -> Iterator[Problem]:
    place = where("admin", "listen")
    try:
        host, _ = admin.address
    except ValueError:
        yield place.problem(codes.BAD_ADDRESS, "`admin.listen` should be host:port", "e.g. 127.0.0.1:8080")
        return
    if admin.token is None and not is_loopback(host):
        yield place.problem(
            codes.OPEN_ADMIN,
            "`admin.listen` is open to the network and there is no `admin.token`",
            "add token: {env: NAME}, or listen on 127.0.0.1",
        )
    for number, name in enumerate(admin.allowed_hosts):
        if not re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?", name):
            yield where("admin", "allowed_hosts", number).problem(
                codes.BAD_ADDRESS,
                f"`admin.allowed_hosts[{number}]` should be a host's name alone",
                "without scheme, port and path, e.g. allowed_hosts: [bridge.example.com]",
            )


def _tracing(tracing: Tracing | None, where: Where) -> Iterator[Problem]:
    if tracing is None:
        return
    if not tracing_installed():
        yield where("tracing").problem(
            codes.NO_TRACING,
            "`tracing` needs packages that are not installed",
            "pip install 'meisa-bridge[tracing]', or remove the section",
        )
    for name, secret in tracing.headers.items():
        if not re.fullmatch(HEADER_NAME, name):
            yield where("tracing", "headers", name).problem(
                codes.WRONG_TYPE, "`tracing.headers` has a name that no HTTP header has", "e.g. authorization"
            )
        elif not _sendable(secret):
            yield where("tracing", "headers", name).problem(
                codes.WRONG_TYPE,
                f"`tracing.headers.{name}` holds characters that no HTTP header has",
                "the variable or file should hold the value alone, in one line",
            )
    if tracing.endpoint is None:
        if tracing.headers:  # else they would go wherever a variable points to
            yield where("tracing", "headers").problem(
                codes.MISSING_KEY,
                "`tracing.headers` need `tracing.endpoint` beside them",
                "e.g. https://collector:4318",
            )
        return
    place = where("tracing", "endpoint")
    scheme, host = http_url(tracing.endpoint)
    if not host:
        yield place.problem(codes.BAD_URL, "`tracing.endpoint` is not a URL", "e.g. http://localhost:4318")
    elif "@" in tracing.endpoint:
        yield place.problem(
            codes.BAD_URL,
            "`tracing.endpoint` holds a user, which would show in logs",
            "write headers: {authorization: {env: NAME}}, whose value is Basic and user:password in base64",
        )
    elif scheme == "http" and tracing.headers and not tracing.allow_http and not is_loopback(host):
        yield place.problem(
            codes.PLAIN_HTTP,
            "`tracing.endpoint` would send `tracing.headers` unencrypted to another host",
            "write https://…; in a private network set allow_http: true",
        )


def _sendable(secret: Secret) -> bool:
    try:
        value = secret.read()
    except UsageError:
        return True  # reported by the loader
    return value.isascii() and value.isprintable()


def tracing_installed() -> bool:
    """Whether the extra `tracing` is there. Looks for its files only: most who check never trace."""
    try:
        return all(map(find_spec, ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")))
    except ModuleNotFoundError:
        return False


CHECKS: Final[tuple[tuple[tuple[str, ...], Callable[..., Iterator[Problem]]], ...]] = (
    (("kafka",), _kafka),
    *((("topics",), check) for check in FORMAT_CHECKS),
    (("rules", "handlers"), _rules),
    (("meisa",), _meisa_url),
    (("meisa",), _meisa_keys),
    (("meisa",), _meisa_numbers),
    (("meisa", "delivery"), _drain),
    (("topics", "dead_letters"), _dead_letters),
    (("state",), _state),
    (("admin",), _admin),
    (("tracing",), _tracing),
)
