"""What all tests share."""

import pytest

from tests.support.amount import use_profile
from tests.support.kafka import any_kafka, embedded_kafka, real_kafka

__all__ = ["any_kafka", "embedded_kafka", "real_kafka"]

use_profile()


@pytest.hookimpl(tryfirst=True)  # before the workers' own, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several workers two have a real Kafka, not all: it takes a second of their time to start, and 0.5 GB."""
    for item in items:
        if item.get_closest_marker("kafka") is not None:
            item.add_marker(pytest.mark.xdist_group(f"kafka-{item.path.parent.name}"))
