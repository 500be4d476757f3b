"""Chaos takes minutes: everyday runs leave it out. `make chaos SHORT=1` (pytest -m chaos) runs its short form."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.chaos.cluster import ProxiedKafka
from tests.support.kafka import kafka_libs


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects what is marked `chaos` unless -m names it."""
    if "chaos" in (config.option.markexpr or ""):
        return
    chosen = [item for item in items if item.get_closest_marker("chaos") is None]
    if len(chosen) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("chaos") is not None])
        items[:] = chosen


@pytest.fixture(scope="session")
def proxied_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedKafka]:
    kafka = ProxiedKafka(kafka_libs(), tmp_path_factory.mktemp("proxied-kafka"))
    yield kafka
    kafka.close()
