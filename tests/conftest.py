"""What all tests share."""

from tests.support.kafka import any_kafka, embedded_kafka, real_kafka

__all__ = ["any_kafka", "embedded_kafka", "real_kafka"]
