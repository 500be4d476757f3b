"""Why Kafka lets nobody in: what librdkafka's lines mean, in words that say what to change."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import KafkaFault
from bridge.kafka.diagnosis import door, hidden, recognised, refuses

TLS = {"security.protocol": "ssl"}
PLAIN = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.password": "hunter2"}
OWN = {**TLS, "ssl.certificate.location": "client.pem"}
ALERT = (
    "ssl://b:1/bootstrap: Receive failed: ssl/record/rec_layer_s3.c:918:ssl3_read_bytes error:0A000412:SSL "
    "routines::ssl/tls alert bad certificate: SSL alert number 42 (after 2ms in state APIVERSION_QUERY)"
)


@pytest.mark.parametrize(
    ("line", "properties", "fault", "setting", "says"),
    [
        (
            "ssl://b:1/bootstrap: SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a "
            "PLAINTEXT broker listener? (after 3ms in state SSL_HANDSHAKE)",
            *(TLS, KafkaFault.PROTOCOL, "security.protocol", "broker at b:1 does not speak TLS"),
        ),
        (
            "sasl_plaintext://b:1/bootstrap: SASL PLAIN mechanism handshake failed: Broker: Request not valid in "
            "current SASL state: broker's supported mechanisms:  (after 2ms in state AUTH_HANDSHAKE)",
            *(PLAIN, KafkaFault.PROTOCOL, "security.protocol", "takes no user (SASL)"),
        ),
        (
            "sasl_ssl://b:1/bootstrap: SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: "
            "broker's supported mechanisms: SCRAM-SHA-512,OAUTHBEARER (after 2ms in state AUTH_HANDSHAKE)",
            *(PLAIN, KafkaFault.CREDENTIALS, "sasl.mechanism", "it offers OAUTHBEARER, SCRAM-SHA-512"),
        ),
        (
            "sasl_ssl://b:1/bootstrap: SASL authentication error: Authentication failed: Invalid username or password "
            "(after 322ms in state AUTH_REQ)",
            *(PLAIN, KafkaFault.CREDENTIALS, "sasl.password", "Invalid username or password; check sasl.username"),
        ),
        (ALERT, TLS, KafkaFault.CLIENT_CERTIFICATE, "security.protocol", "name none"),
        (ALERT, OWN, KafkaFault.CLIENT_CERTIFICATE, "ssl.certificate.location", "bad certificate"),
        (
            "No matching issuer found in server trusted certificate authorities, not sending any client certificates",
            *(OWN, KafkaFault.CLIENT_CERTIFICATE, "ssl.certificate.location", "does not know"),
        ),
        (
            "Failed to acquire SASL OAUTHBEARER token: HTTP 401",
            *(PLAIN, KafkaFault.CREDENTIALS, "sasl.oauthbearer.token.endpoint.url", "HTTP 401"),
        ),
    ],
)
def test_a_line_is_recognised(
    line: str, properties: dict[str, Any], fault: KafkaFault, setting: str, says: str
) -> None:
    """Which fault, which setting to look at, which broker, and what to do."""
    found = recognised(door("b:1,c:2", properties, line), line)
    assert found is not None
    assert (found.fault, found.setting[-1]) == (fault, setting)
    assert says in str(found) and "after" not in str(found)


@pytest.mark.parametrize(
    "line",
    [
        "plaintext://b:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms)",
        "b:1/bootstrap: Disconnected",
        "",
    ],
)
def test_what_is_about_something_else_is_not_recognised(line: str) -> None:
    """A broker that is away may come back: nobody gives up early for it."""
    assert recognised(door("b:1", TLS, line), line) is None and not refuses(line)


def test_the_broker_is_the_one_that_the_line_names() -> None:
    """Else the first; the default port, and IPv6 in brackets, as librdkafka has them."""
    assert door("b:1,c:2", {}, "sasl_ssl://c:2/bootstrap: …").address == "c:2"
    assert door("b:1,c:2", {}, "no address").address == "b:1"
    assert door("SASL_SSL://b:1", {}).address == "b:1"
    assert door("[::1]:9093", {})[:2] == ("::1", 9093)
    assert door("b", {})[:2] == ("b", 9092)


def test_a_secret_that_a_broker_repeats_is_not_told() -> None:
    """Neither a password nor a line of a key."""
    properties = {"sasl.password": "hunter2", "ssl.key.pem": "first line\nsecond line\n", "sasl.username": "bridge"}
    text = hidden("bridge said hunter2, and: second line", properties)
    assert text == "bridge said ***, and: ***"
    line = "sasl_ssl://b:1/bootstrap: SASL authentication error: no such password as hunter2"
    found = recognised(door("b:1", properties, line), line)
    assert found is not None and "hunter2" not in str(found)
