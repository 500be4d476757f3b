"""Whether `kafka.properties` for TLS and SASL go together, and whether files that they name are what they should be.

librdkafka judges all this too, but only when it connects, one mistake at a time, and in OpenSSL's words. A keystore
(PKCS#12) and keys given as text are left to it.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from bridge.config import codes
from bridge.config.pem import BadPem, certificates, validity
from bridge.config.settings import Kafka, split_address
from bridge.config.urls import is_loopback
from bridge.errors import Problem
from bridge.places import Place

Where = Callable[..., Place]
Properties = Mapping[str, str]

FILES: Final = (
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "ssl.crl.location",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
)
"""Properties that name a file; a relative one is looked for beside bridge.yaml, as every other path there."""
PROBE: Final = "probe"
"""Of ssl.ca.location: librdkafka looks in the usual places."""
JAVA: Final = {
    "sasl.jaas.config": "write sasl.username and sasl.password: {env: NAME} or {file: PATH}",
    "ssl.truststore.location": "write ssl.ca.location: the authority's certificate as PEM",
    "ssl.truststore.password": "write ssl.ca.location: the authority's certificate as PEM",
    "ssl.truststore.type": "write ssl.ca.location: the authority's certificate as PEM",
    "ssl.truststore.certificates": "write ssl.ca.location, or ssl.ca.pem: {file: PATH}",
    "ssl.keystore.type": "ssl.keystore.location takes PKCS#12; for PEM write ssl.certificate.location and "
    "ssl.key.location",
    "sasl.login.callback.handler.class": "write sasl.oauthbearer.method: oidc and what belongs to it",
}
"""Properties of Kafka's Java clients that are copied from one configuration to another, and what to write."""
PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
SOON_SECONDS: Final = 14 * 86_400.0
"""A certificate that ends within two weeks is told: who renews it by hand needs some days."""


def located(base_dir: Path, name: str, value: object) -> object:
    """A property's value, with a path made absolute."""
    if name in FILES and isinstance(value, str) and value and value != PROBE:
        return str(base_dir / value)
    return value


def security_problems(kafka: Kafka, where: Where) -> Iterator[Problem]:
    properties: dict[str, str] = dict(kafka.properties)

    def at(name: str) -> Place:
        return where("kafka", "properties", name)

    foreign = [name for name in properties if name in JAVA]
    for name in foreign:
        yield at(name).problem(codes.KAFKA_SECURITY, f"`{name}` is for Kafka's Java clients", JAVA[name])
    if not foreign:
        yield from _together(properties, at)
    yield from _unprotected(kafka, properties, at)
    unreadable = list(_unreadable(properties, at))
    yield from unreadable
    if not unreadable:
        yield from _papers(properties, at)


def _protocol(properties: Properties) -> str:
    return properties.get("security.protocol", "plaintext").upper()


def _together(properties: Properties, at: Where) -> Iterator[Problem]:
    protocol = _protocol(properties)
    if protocol not in PROTOCOLS:
        message = f"`security.protocol` should be one of {', '.join(PROTOCOLS)}"
        yield at("security.protocol").problem(codes.KAFKA_SECURITY, message)
        return
    if protocol.startswith("SASL"):
        yield from _user(properties, at)
    for one, other in (
        ("ssl.certificate.location", "ssl.key.location"),
        ("ssl.key.location", "ssl.certificate.location"),
        ("ssl.certificate.pem", "ssl.key.pem"),
        ("ssl.key.pem", "ssl.certificate.pem"),
    ):
        others = [name for name in properties if name.startswith(other.rpartition(".")[0] + ".") and name != one]
        if one in properties and not any(name.endswith((".location", ".pem")) for name in others):
            yield at(one).problem(codes.KAFKA_SECURITY, f"`{one}` is of no use without `{other}`", f"add {other}")


def _user(properties: Properties, at: Where) -> Iterator[Problem]:
    name = "sasl.mechanisms" if "sasl.mechanisms" in properties else "sasl.mechanism"
    mechanism = properties.get(name, "")
    if mechanism not in MECHANISMS:
        message = f"`{name}` should be one of {', '.join(MECHANISMS)}"
        if mechanism == "GSSAPI":
            message += "; Kerberos (GSSAPI) is not part of the confluent-kafka package"
        yield at(name if mechanism else "security.protocol").problem(codes.KAFKA_SECURITY, message)
    elif mechanism != "OAUTHBEARER":
        for needed, example in (("sasl.username", "bridge"), ("sasl.password", "{file: /run/secrets/kafka-password}")):
            if not properties.get(needed):
                yield at(name).problem(
                    codes.KAFKA_SECURITY, f"`{name}: {mechanism}` needs `{needed}`", f"add {needed}: {example}"
                )


def _unprotected(kafka: Kafka, properties: Properties, at: Where) -> Iterator[Problem]:
    """What is less protected than it looks: warnings, since somebody may have meant it."""
    protocol = _protocol(properties)

    def warn(name: str, message: str, hint: str) -> Problem:
        return at(name).problem(codes.KAFKA_UNPROTECTED, message, hint, "warning")

    for prefix, part in (("sasl.", "SASL"), ("ssl.", "SSL")):
        idle = sorted(name for name in properties if name.startswith(prefix) and name not in JAVA)
        if idle and part not in protocol.split("_") and protocol in PROTOCOLS:
            better = "SASL_SSL" if any(name.startswith("sasl.") for name in properties) else "SSL"
            yield warn(
                idle[0], f"`{idle[0]}` is not used with security.protocol {protocol}", f"security.protocol: {better}?"
            )
    if properties.get("enable.ssl.certificate.verification", "").lower() == "false":
        yield warn(
            "enable.ssl.certificate.verification",
            "with `enable.ssl.certificate.verification: false` anybody on the way can pose as the broker",
            "remove it, and set ssl.ca.location to the authority of the broker's certificate",
        )
    elif properties.get("ssl.endpoint.identification.algorithm", "").lower() == "none":
        yield warn(
            "ssl.endpoint.identification.algorithm",
            "with `ssl.endpoint.identification.algorithm: none` anybody with a certificate can pose as the broker",
            "remove it, and name the brokers as their certificates do",
        )
    legible = protocol == "SASL_PLAINTEXT" and properties.get("sasl.mechanism") in ("PLAIN", "OAUTHBEARER")
    if legible and not all(_is_here(server) for server in kafka.bootstrap_servers.split(",")):
        yield warn("security.protocol", "the password or token goes over the network in clear", "SASL_SSL protects it")


def _is_here(server: str) -> bool:
    try:
        return is_loopback(split_address(server.strip().rpartition("://")[2])[0])
    except ValueError:
        return False


# Files


def _unreadable(properties: Properties, at: Where) -> Iterator[Problem]:
    for name in FILES:
        path = Path(properties.get(name, ""))
        if not properties.get(name) or properties[name] == PROBE:
            continue
        try:
            if not (name in ("ssl.ca.location", "ssl.crl.location") and path.is_dir()):
                with path.open("rb") as file:
                    file.read(1)
        except FileNotFoundError:
            why = "does not exist"
        except OSError as error:
            why = f"cannot be read: {error.strerror}"
        else:
            continue
        yield at(name).problem(codes.UNREADABLE_KAFKA_FILE, f"`{name}`: the file {path} {why}", "name another")


def _papers(properties: Properties, at: Where) -> Iterator[Problem]:
    """Certificates and the client's key."""
    for name, what in (
        ("ssl.ca.location", "the authority"),
        ("ssl.ca.pem", "the authority"),
        ("ssl.certificate.location", "the client"),
        ("ssl.certificate.pem", "the client"),
    ):
        value = properties.get(name)
        if not value or value == PROBE or (name.endswith("location") and Path(value).is_dir()):
            continue
        try:
            found = certificates(value) if name.endswith("pem") else certificates(Path(value))
            spans = [validity(each) for each in found]
        except BadPem as error:
            yield at(name).problem(
                codes.BAD_KAFKA_FILE, f"`{name}` {error}", "it should begin with -----BEGIN CERTIFICATE"
            )
            continue
        # The client's own certificate comes first; of a bundle of authorities one is enough.
        spans = spans if what == "the authority" else spans[:1]
        yield from _dates(name, what, min(begin for begin, _ in spans), max(end for _, end in spans), at)
    yield from _key(properties, at)


def _dates(name: str, what: str, begin: float, end: float, at: Where) -> Iterator[Problem]:
    now = time.time()
    if now < begin:
        message = f"`{name}`: the certificate of {what} is valid from {_day(begin)} on only"
        yield at(name).problem(codes.KAFKA_CERTIFICATE_DATE, message, "check this machine's clock, or name another")
    elif now > end:
        message = f"`{name}`: the certificate of {what} has expired on {_day(end)}"
        yield at(name).problem(codes.KAFKA_CERTIFICATE_DATE, message, "renew it; it is read at the next start")
    elif end - now < SOON_SECONDS:
        message = f"`{name}`: the certificate of {what} expires on {_day(end)}"
        hint = "renew it before, and restart: it is read at a start"
        yield at(name).problem(codes.KAFKA_CERTIFICATE_DATE, message, hint, "warning")


def _day(wall: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(wall))


def _key(properties: Properties, at: Where) -> Iterator[Problem]:
    certificate, key = properties.get("ssl.certificate.location"), properties.get("ssl.key.location")
    if not certificate or not key:
        return
    password = properties.get("ssl.key.password", "")
    try:
        text = Path(key).read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, lambda: password)
        return
    except ssl.SSLError as error:
        mismatch = "KEY_VALUES_MISMATCH" in str(error.reason)
    except (OSError, ValueError):
        mismatch = False
    name, hint = "ssl.key.location", ""
    if b"PRIVATE KEY-----" not in text:
        what, hint = "holds no private key in PEM form", "it should begin with -----BEGIN PRIVATE KEY"
    elif mismatch:
        what, hint = "is the key of another certificate", "name the two that belong together"
    elif b"ENCRYPTED" in text and not password:
        what, hint = "is encrypted, and there is no `ssl.key.password`", "add ssl.key.password: {file: PATH}"
    elif b"ENCRYPTED" in text:
        name, what = "ssl.key.password", f"does not open the key {key}"
    else:
        what = f"cannot be used with the certificate {certificate}"
    yield at(name).problem(codes.BAD_KAFKA_FILE, f"`{name}` {what}", hint)
