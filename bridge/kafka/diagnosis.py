"""Why Kafka lets nobody in, in words that say what to change.

librdkafka tells it in its log only, in OpenSSL's words, and not always: a certificate for another name reads like one
of an unknown authority, and a client that speaks no TLS to a broker that does is just cut off. So first its lines are
read (`recognised`), and where they do not tell enough, the broker's door is looked at (`look`): a few connections of
our own that send no secret.

Everything here blocks, for some seconds at most.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from bridge.errors import KafkaFault, KafkaRefused
from bridge.secret_names import SECRET_PROPERTY

LOOK_SECONDS = 2.0
"""For each connection of ours. A broker that is up answers within milliseconds, one across an ocean within one."""
LOOKED_AT_MAX = 3
"""Of the brokers that are named: one that is up tells why it refuses us."""
ANSWER_BYTES_MAX = 4_096
"""Of an answer that lists mechanisms; there are six."""
TEXT_MAX = 300
"""Characters of a foreign text in a message."""

_ADDRESS = re.compile(r"(?:ssl|plaintext)://([^/\s]+:\d+)/")
_ALERT = re.compile(r"alert (bad certificate|certificate \w+|unknown ca|handshake failure|access denied)", re.I)
_SUPPORTED = re.compile(r"supported mechanisms: ?([\w\-, ]*)")
_REFUSED = re.compile(r"SASL authentication error: (.*)")
_TOKEN = re.compile(r"OAUTHBEARER token|OIDC", re.I)
_NO_TLS = re.compile(r"PLAINTEXT broker listener|wrong version number", re.I)
_UNTRUSTED = "certificate verify failed"
_KEPT_BACK = "not sending any client certificates"
_AFTER = re.compile(r" \(after \d+ms in state \w+\)")
_CREDENTIALS = "properties", "sasl.password"
_PROTOCOL = "properties", "security.protocol"
_BROKERS = ("bootstrap_servers",)
NOT_YET, EXPIRED = 9, 10
WRONG_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_*: certificate has another name, or another address."""
_SASL_HANDSHAKE = 17
_UNSUPPORTED_MECHANISM = 33


class Door(NamedTuple):
    """How a broker is called upon."""

    host: str
    port: int
    properties: Mapping[str, Any]

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def protocol(self) -> str:
        return str(self.properties.get("security.protocol", "plaintext")).upper()

    @property
    def tls(self) -> bool:
        return self.protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        return self.protocol.startswith("SASL")


def door(bootstrap_servers: str, properties: Mapping[str, Any], text: str = "") -> Door:
    """The broker that a line of librdkafka's names, else the first one."""
    found = _ADDRESS.search(text)
    first = bootstrap_servers.split(",")[0].strip().rpartition("://")[2]
    host, _, port = (found[1] if found else first).rpartition(":")
    return Door(host.strip("[]") or first, int(port) if port.isdecimal() else 9092, properties)


def diagnosed(bootstrap_servers: str, properties: Mapping[str, Any], lines: Iterable[str]) -> KafkaRefused | None:
    """Why there is no connection, by what librdkafka logged and a look at the broker; None where neither tells."""
    for line in lines:
        at = door(bootstrap_servers, properties, line)
        found = recognised(at, line)
        if found is not None:
            return found
    away: KafkaRefused | None = None
    for server in bootstrap_servers.split(",")[:LOOKED_AT_MAX]:
        found = look(door(server, properties))
        if found is None or found.fault is not KafkaFault.UNREACHABLE:
            return found
        away = away or found
    return away


def recognised(at: Door, line: str) -> KafkaRefused | None:
    """What one of librdkafka's lines says of TLS or SASL; None where it is about something else. No connection is
    made, but to look at a certificate that was not accepted."""
    line = hidden(line, at.properties)
    if _UNTRUSTED in line:
        return _certificate(at)
    if _NO_TLS.search(line):
        return _speaks_no_tls(at)
    if found := _ALERT.search(line):
        return _client_certificate(at, found[1].lower())
    if _KEPT_BACK in line:
        return _client_certificate(at, "it was issued by an authority that the broker does not know")
    if found := _SUPPORTED.search(line):
        return _mechanism(at, [name for name in re.split(r"[, ]+", found[1]) if name])
    if found := _REFUSED.search(_AFTER.sub("", line)):
        return _credentials(at, found[1])
    if _TOKEN.search(line):
        return _token(at, line)
    return None


def refuses(line: str) -> bool:
    """Whether the line is of a broker that is there, and refuses us or is refused."""
    patterns = (_NO_TLS, _ALERT, _SUPPORTED, _REFUSED)
    return _UNTRUSTED in line or any(pattern.search(line) for pattern in patterns)


def hidden(text: str, properties: Mapping[str, Any]) -> str:
    """The text without any secret of `properties`: brokers and token endpoints may repeat what they were sent."""
    for name, value in properties.items():
        if SECRET_PROPERTY.search(name) and len(str(value)) > 3:
            for part in str(value).splitlines():
                if len(part) > 3:
                    text = text.replace(part, "***")
    return text


# What each cause means


def _speaks_no_tls(at: Door) -> KafkaRefused:
    plain = "SASL_PLAINTEXT" if at.sasl else "PLAINTEXT"
    return KafkaRefused(
        KafkaFault.PROTOCOL,
        f"the broker at {at.address} does not speak TLS at that port, and security.protocol is {at.protocol}",
        f"name the port of its TLS listener, or write security.protocol: {plain}",
        _PROTOCOL,
    )


def _speaks_tls(at: Door) -> KafkaRefused:
    return KafkaRefused(
        KafkaFault.PROTOCOL,
        f"the broker at {at.address} speaks TLS at that port, and security.protocol is {at.protocol}",
        f"write security.protocol: {'SASL_SSL' if at.sasl else 'SSL, or SASL_SSL if it wants a user too'}",
        _PROTOCOL,
    )


def _wants_sasl(at: Door, mechanisms: Iterable[str]) -> KafkaRefused:
    return KafkaRefused(
        KafkaFault.PROTOCOL,
        f"the broker at {at.address} wants a user (SASL) at that port, and security.protocol is {at.protocol}",
        f"write security.protocol: SASL_{'SSL' if at.tls else 'PLAINTEXT'}, sasl.username, sasl.password and "
        f"sasl.mechanism, one of {', '.join(mechanisms)}",
        _PROTOCOL,
    )


def _mechanism(at: Door, offered: list[str]) -> KafkaRefused:
    if not offered:
        without = "SSL" if at.tls else "PLAINTEXT"
        return KafkaRefused(
            KafkaFault.PROTOCOL,
            f"the broker at {at.address} takes no user (SASL) at that port, and security.protocol is {at.protocol}",
            f"name the port of its SASL listener, or write security.protocol: {without}",
            _PROTOCOL,
        )
    own = at.properties.get("sasl.mechanism") or at.properties.get("sasl.mechanisms")
    return KafkaRefused(
        KafkaFault.CREDENTIALS,
        f"the broker at {at.address} does not offer sasl.mechanism {own}",
        f"it offers {', '.join(sorted(offered))}",
        ("properties", "sasl.mechanism"),
    )


def _credentials(at: Door, text: str) -> KafkaRefused:
    return KafkaRefused(
        KafkaFault.CREDENTIALS,
        f"the broker at {at.address} refuses the user of kafka.properties: {text.strip()[:TEXT_MAX]}",
        "check sasl.username and its password, and that the user exists for this sasl.mechanism",
        _CREDENTIALS,
    )


def _token(at: Door, line: str) -> KafkaRefused:
    text = line.split("]: ", 1)[-1].strip()
    return KafkaRefused(
        KafkaFault.CREDENTIALS,
        f"there is no token to show to the broker at {at.address}: {text[:TEXT_MAX]}",
        "check the properties sasl.oauthbearer.… and that the token endpoint can be reached from here",
        ("properties", "sasl.oauthbearer.token.endpoint.url"),
    )


def _client_certificate(at: Door, why: str) -> KafkaRefused:
    names = ("ssl.certificate.location", "ssl.certificate.pem", "ssl.keystore.location")
    own = next((name for name in names if at.properties.get(name)), "")
    if not own:
        return KafkaRefused(
            KafkaFault.CLIENT_CERTIFICATE,
            f"the broker at {at.address} wants a certificate of its clients, and kafka.properties name none",
            "write ssl.certificate.location and ssl.key.location",
            _PROTOCOL,
        )
    return KafkaRefused(
        KafkaFault.CLIENT_CERTIFICATE,
        f"the broker at {at.address} refuses the certificate of {own}: {why}",
        "it must be valid today, and issued by an authority that the broker trusts",
        ("properties", own),
    )


def _certificate(at: Door) -> KafkaRefused:
    """A second look: librdkafka does not say what is wrong with the broker's certificate."""
    own = next((name for name in ("ssl.ca.location", "ssl.ca.pem") if at.properties.get(name)), "")
    where: tuple[str, ...] = ("properties", own) if own else _PROTOCOL
    failed = _refusal(at)
    if failed is not None and failed.verify_code == EXPIRED:
        what, cure = "has expired", "have it renewed at the broker"
    elif failed is not None and failed.verify_code == NOT_YET:
        what, cure = "is not valid yet", "check this machine's clock, and the broker's certificate"
    elif failed is not None and failed.verify_code in WRONG_NAME:
        names = ", ".join(_names(at)) or "another name"
        what, cure = f"is for {names}", "name the broker as its certificate does, also in its advertised.listeners"
        where = _BROKERS
    else:
        said = f" ({failed.verify_message})" if failed is not None else ""
        what = f"is not of an authority that is trusted here{said}"
        cure = "set ssl.ca.location to the file of the authority that issued it"
        if own:
            cure = f"{own} must hold the authority that issued it"
    message = f"the certificate of the broker at {at.address} {what}"
    return KafkaRefused(KafkaFault.CERTIFICATE, message, cure, where)


# A look at the door


def look(at: Door) -> KafkaRefused | None:
    """What a broker that answers nothing to librdkafka answers us; None where that does not explain it."""
    try:
        plain = _connected(at)
    except (OSError, ValueError) as error:  # UnicodeError, a ValueError: no name of a host
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return KafkaRefused(
            KafkaFault.UNREACHABLE,
            f"no Kafka broker answers at {at.address} ({why})",
            "check kafka.bootstrap_servers, and that the broker is up",
            _BROKERS,
        )
    with plain:
        if not at.tls:
            mechanisms = None if at.sasl else _mechanisms(plain)
            if mechanisms:
                return _wants_sasl(at, mechanisms)
    speaks = _speaks(at)
    if speaks and not at.tls:
        return _speaks_tls(at)
    if at.tls and speaks and not at.sasl:
        mechanisms = _mechanisms_behind_tls(at)
        if mechanisms:
            return _wants_sasl(at, mechanisms)
    return None


def _connected(at: Door) -> socket.socket:
    return socket.create_connection((at.host, at.port), LOOK_SECONDS)


def _unchecked() -> ssl.SSLContext:
    """To see what is there; nothing is sent through it but a question without a secret."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _speaks(at: Door) -> bool:
    """Whether the broker speaks TLS."""
    try:
        with _connected(at) as plain, _unchecked().wrap_socket(plain, server_hostname=at.host):
            return True
    except (OSError, ValueError) as error:
        # An alert is TLS too, e.g. for want of a client's certificate.
        return isinstance(error, ssl.SSLError) and "ALERT" in str(error.reason or "")


def _trusting(properties: Mapping[str, Any]) -> ssl.SSLContext:
    """What librdkafka trusts by the same properties."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    location, text = properties.get("ssl.ca.location"), properties.get("ssl.ca.pem")
    if text:
        context.load_verify_locations(cadata=str(text))
    elif location and location != "probe":
        try:
            context.load_verify_locations(cafile=str(location))
        except IsADirectoryError:
            context.load_verify_locations(capath=str(location))
    else:
        context.load_default_certs()
    return context


def _refusal(at: Door) -> ssl.SSLCertVerificationError | None:
    try:
        with _connected(at) as plain, _trusting(at.properties).wrap_socket(plain, server_hostname=at.host):
            return None
    except ssl.SSLCertVerificationError as error:
        return error
    except (OSError, ValueError):
        return None


def _names(at: Door) -> Iterator[str]:
    """The names in the certificate of a broker that is trusted but for its name."""
    try:
        context = _trusting(at.properties)
        context.check_hostname = False
        with _connected(at) as plain, context.wrap_socket(plain) as spoken:
            found = spoken.getpeercert() or {}
    except (OSError, ValueError):
        return
    for kind, name in list(found.get("subjectAltName", ()))[:5]:
        if kind in ("DNS", "IP Address"):
            yield str(name)


def _mechanisms_behind_tls(at: Door) -> list[str]:
    try:
        with _connected(at) as plain, _unchecked().wrap_socket(plain, server_hostname=at.host) as spoken:
            return _mechanisms(spoken)
    except (OSError, ValueError):
        return []


def _mechanisms(connection: socket.socket) -> list[str]:
    """Asks for a SASL mechanism that nobody has: a listener with SASL answers with those that it has."""
    client, wanted = b"meisa-bridge", b"?"
    body = struct.pack(f">hhih{len(client)}sh{len(wanted)}s", _SASL_HANDSHAKE, 1, 1, len(client), client, 1, wanted)
    try:
        connection.sendall(struct.pack(">i", len(body)) + body)
        answer = b""
        while len(answer) < 4 or len(answer) < 4 + struct.unpack_from(">i", answer)[0]:
            more = connection.recv(ANSWER_BYTES_MAX)
            if not more or len(answer) > ANSWER_BYTES_MAX:
                return []
            answer += more
        error, count = struct.unpack_from(">hi", answer, 8)
        if error != _UNSUPPORTED_MECHANISM or count > 50:
            return []
        names, at = [], 14
        for _ in range(count):
            (length,) = struct.unpack_from(">h", answer, at)
            if not 0 < length <= len(answer) - at - 2:
                return []
            names.append(answer[at + 2 : at + 2 + length].decode("ascii", "replace"))
            at += 2 + length
        return sorted(names)
    except (OSError, struct.error):
        return []
