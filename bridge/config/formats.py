"""Whether what is said of each topic's records fits together: format, encoding, schema, registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from bridge.config import codes
from bridge.config.explain import Route
from bridge.config.settings import Registry, Topic
from bridge.config.urls import http_url, is_loopback
from bridge.errors import Problem
from bridge.places import Place

Where = Callable[..., Place]

OWN_ENVELOPES: Final = frozenset({"cloudevents", "debezium"})
"""Formats that say themselves where an event's parts stand."""


def _formats(topics: Mapping[str, Topic], where: Where) -> Iterator[Problem]:
    """Whether what is said of each topic's schemas fits its format."""
    for name, topic in topics.items():
        at = ("topics", name)
        what = f"format {topic.format}" + (f" with encoding {topic.encoding}" if topic.encoding else "")
        if topic.encoding is not None and topic.format != "debezium":
            yield where(*at, "encoding").problem(
                codes.UNUSED_BY_FORMAT, f"`encoding` says nothing about format {topic.format}", "it is for debezium"
            )
        if topic.envelope is not None and topic.format in OWN_ENVELOPES:
            yield where(*at, "envelope").problem(
                codes.UNUSED_BY_FORMAT,
                f"format {topic.format} says itself where the parts of an event stand",
                "remove it, or write format: json",
            )
        if topic.registry is not None and not topic.is_avro:
            yield where(*at, "registry").problem(
                codes.UNUSED_BY_FORMAT,
                f"`registry` is not used by {what}",
                "it is for format: avro, and for debezium with encoding: avro",
            )
        if topic.is_avro and topic.registry is None and (topic.schemas is None or topic.format == "debezium"):
            hint = "add registry: {url: http://localhost:8081}"
            yield where(*at, "format").problem(
                codes.NO_SCHEMA,
                f"{what} needs a registry" + (", or a schema" if topic.format == "avro" else ""),
                hint + (", or schema: schemas/plan.changed.avsc" if topic.format == "avro" else ""),
            )
        yield from _schema_kinds(name, topic, what, where)


def _schema_kinds(name: str, topic: Topic, what: str, where: Where) -> Iterator[Problem]:
    suffix = {"avro": ".avsc", "json": ".json"}[topic.schema_kind]
    by_type = isinstance(topic.schemas, dict)
    if by_type and topic.is_avro and topic.registry is None:
        yield where("topics", name, "schema").problem(
            codes.NO_SCHEMA,
            f"{what} needs one schema: a record without a registry does not tell which it was written with",
            "name one file, or add a registry",
        )
    for route, path in schema_paths(name, topic):
        if not path.lower().endswith(suffix):
            yield where(*route).problem(
                codes.OTHER_SCHEMA,
                f"records of {what} are described by {'Avro schemas' if suffix == '.avsc' else 'JSON Schema'}",
                f"name a file that ends in {suffix}",
            )


def schema_paths(name: str, topic: Topic) -> list[tuple[Route, str]]:
    """Every schema file of a topic as it is written, with the setting that names it."""
    if topic.schemas is None:
        return []
    at: Route = ("topics", name, "schema")
    if isinstance(topic.schemas, str):
        return [(at, topic.schemas)]
    return [((*at, event_type), path) for event_type, path in topic.schemas.items()]


def _registries(topics: Mapping[str, Topic], where: Where) -> Iterator[Problem]:
    for name, topic in topics.items():
        registry = topic.registry
        if registry is None:
            continue
        at = ("topics", name, "registry")
        scheme, host = http_url(registry.url)
        if not host:
            yield where(*at, "url").problem(
                codes.BAD_URL, f"`topics.{name}.registry.url` is not a URL", "e.g. http://localhost:8081"
            )
        elif "@" in registry.url:
            yield where(*at, "url").problem(
                codes.BAD_URL,
                f"`topics.{name}.registry.url` holds a user, which would show in logs",
                "write basic_auth: {env: NAME}, whose value is user:password",
            )
        elif registry.basic_auth is not None and registry.bearer is not None:
            yield where(*at, "bearer").problem(
                codes.CONTRADICTION, "`basic_auth` and `bearer` exclude each other", "keep the one that is used"
            )
        elif scheme == "http" and _sends_secret(registry) and not is_loopback(host):
            yield where(*at, "url").problem(
                codes.PLAIN_HTTP,
                f"`topics.{name}.registry.url` would send a secret unencrypted to another host",
                "write https://…; in a private network set allow_http: true",
            )


def _sends_secret(registry: Registry) -> bool:
    """Whether a secret goes there that must not be sent in clear."""
    return not registry.allow_http and (registry.basic_auth is not None or registry.bearer is not None)


FORMAT_CHECKS: Final = (_formats, _registries)
