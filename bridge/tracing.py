"""Traces by settings: what is traced (runtime/traces.py), and where it goes (observe/tracing.py)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog

from bridge.errors import StartFailed, UsageError
from bridge.meisa.endpoints import ENDPOINTS
from bridge.observe import logs
from bridge.ports import Attribute, Clock
from bridge.runtime.traces import Traces

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.observe.tracing import OtlpTracer

log = structlog.get_logger(__name__)


class Tracing:
    """One instance's traces, from its start to its end."""

    def __init__(self, settings: Settings, tracer: OtlpTracer, clock: Clock) -> None:
        self._tracer = tracer
        self.traces = Traces(
            tracer,
            clock=clock,
            group=settings.kafka.group_id,
            letters_topic=settings.dead_letters.topic,
            endpoint=lambda name: (ENDPOINTS[name].method, ENDPOINTS[name].path),
            server=server_of(settings.meisa.base_url),
        )
        self._find = self.traces.of_line
        logs.name_traces(self._find)

    def spans(self) -> Mapping[str, int]:
        """For the metrics."""
        tracer = self._tracer
        return {"exported": tracer.exported, "failed": tracer.failed, "dropped": tracer.lost}

    async def close(self) -> None:
        logs.forget_traces(self._find)
        await self._tracer.close()


def tracing_of(settings: Settings, clock: Clock) -> Tracing | None:
    """None where nothing is traced: then no package for it is imported either. Raises StartFailed."""
    wanted = settings.tracing
    if wanted is None:
        return None
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        log.info("OTEL_SDK_DISABLED turns traces off")
        return None
    try:
        from bridge.observe.tracing import open_tracer
    except ModuleNotFoundError as error:
        raise StartFailed(
            f"tracing needs a package that is not installed ({error.name}): pip install 'meisa-bridge[tracing]'"
        ) from None
    try:
        headers = {name: secret.read() for name, secret in wanted.headers.items()}
    except UsageError as error:
        raise StartFailed(f"tracing.headers: {error}") from None
    tracer = open_tracer(
        endpoint=wanted.endpoint, headers=headers, sample=wanted.sample, service_name=wanted.service_name
    )
    return Tracing(settings, tracer, clock)


def server_of(base_url: str) -> dict[str, Attribute]:
    """Where calls go; no user and no query of the URL."""
    parts = urlsplit(base_url)
    found: dict[str, Any] = {"server.address": parts.hostname or ""}
    return {**found, "server.port": parts.port or (443 if parts.scheme == "https" else 80)}
