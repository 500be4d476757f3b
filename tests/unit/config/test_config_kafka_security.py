"""`kafka.properties` for TLS and SASL: what is told of them before anybody connects."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from bridge.config import SecretMissing, examine, load
from bridge.config.pem import BadPem, certificates, validity
from bridge.errors import Problem
from bridge.secret_names import SECRET_PROPERTY
from tests.support.papers import Papers

USER = "sasl.username: bridge\nsasl.password: {env: PASSWORD}\n"
SCRAM = f"security.protocol: SASL_SSL\nsasl.mechanism: SCRAM-SHA-512\n{USER}"
CERTIFICATE = "security.protocol: SSL\nssl.certificate.location: client.pem\n"
PASSWORD = "hunter2-S3cr3t"

Examine = Callable[..., list[Problem]]


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers") / "kafka")


@pytest.fixture
def found(papers: Papers) -> Examine:
    """The problems of these properties, in a file beside which there are the papers."""

    def examined(properties: str, servers: str = "kafka.example.com:9093") -> list[Problem]:
        config = papers.folder / "bridge.yaml"
        lines = "".join(f"    {line}\n" for line in properties.splitlines())
        config.write_text(
            f'kafka:\n  bootstrap_servers: "{servers}"\n  properties:\n{lines}'
            "topics: {user-events: {}}\nmeisa: {api_key: {env: KEY}}\nrules: [r.yaml]\n"
        )
        problems = examine(config, {"KEY": "meisa_live_x", "PASSWORD": PASSWORD}).problems
        assert not any(PASSWORD in str(problem) for problem in problems)
        return problems

    return examined


@pytest.mark.parametrize(
    "properties",
    [
        "security.protocol: SSL\n",
        "security.protocol: ssl\nssl.ca.location: ca.pem\n",
        "security.protocol: SSL\nssl.ca.location: probe\n",
        "security.protocol: SSL\nssl.ca.location: .\n",
        "security.protocol: SSL\nssl.ca.pem: {file: ca.pem}\n",
        f"{CERTIFICATE}ssl.key.location: client.key\n",
        f"{CERTIFICATE}ssl.key.location: client-encrypted.key\nssl.key.password: {{file: key-password}}\n",
        f"{CERTIFICATE}ssl.key.pem: {{file: client.key}}\n",
        SCRAM,
        SCRAM.replace("sasl.mechanism", "sasl.mechanisms"),
        "security.protocol: SASL_SSL\nsasl.mechanism: OAUTHBEARER\nsasl.oauthbearer.method: oidc\n",
        SCRAM.replace("SASL_SSL", "SASL_PLAINTEXT"),
    ],
)
def test_what_is_right_is_not_told(found: Examine, properties: str) -> None:
    assert found(properties) == []


@pytest.mark.parametrize(
    ("properties", "code", "line", "says"),
    [
        # Files
        ("security.protocol: SSL\nssl.ca.location: no.pem\n", "MB055", 5, "does not exist"),
        (f"{CERTIFICATE}ssl.key.location: no.key\n", "MB055", 6, "does not exist"),
        (f"{CERTIFICATE}ssl.key.location: .\n", "MB055", 6, "cannot be read"),
        ("security.protocol: SSL\nssl.ca.location: client.key\n", "MB056", 5, "no certificate"),
        ("security.protocol: SSL\nssl.ca.location: broken.pem\n", "MB056", 5, "cannot be read"),
        (f"{CERTIFICATE}ssl.key.location: ca.pem\n", "MB056", 6, "no private key"),
        (f"{CERTIFICATE}ssl.key.location: late.key\n", "MB056", 6, "another certificate"),
        (f"{CERTIFICATE}ssl.key.location: client-encrypted.key\n", "MB056", 6, "there is no `ssl.key.password`"),
        (
            f"{CERTIFICATE}ssl.key.location: client-encrypted.key\nssl.key.password: {{env: PASSWORD}}\n",
            *("MB056", 7, "does not open"),
        ),
        (f"{CERTIFICATE}ssl.key.location: broken.key\n", "MB056", 6, "cannot be used"),
        (CERTIFICATE.replace("client", "late") + "ssl.key.location: late.key\n", "MB057", 5, "has expired on"),
        (CERTIFICATE.replace("client", "early") + "ssl.key.location: early.key\n", "MB057", 5, "valid from"),
        # What does not go together
        ("security.protocol: TLS\n", "MB058", 4, "one of PLAINTEXT, SSL"),
        ("security.protocol: SASL_SSL\n", "MB058", 4, "one of PLAIN, SCRAM-SHA-256"),
        (SCRAM.replace("SCRAM-SHA-512", "GSSAPI"), "MB058", 5, "Kerberos"),
        (SCRAM.replace("SCRAM-SHA-512", "scram"), "MB058", 5, "one of PLAIN"),
        (SCRAM.replace("sasl.username: bridge\n", ""), "MB058", 5, "needs `sasl.username`"),
        (SCRAM.replace("sasl.password: {env: PASSWORD}\n", ""), "MB058", 5, "needs `sasl.password`"),
        (CERTIFICATE, "MB058", 5, "without `ssl.key.location`"),
        ("security.protocol: SSL\nssl.key.pem: {file: client.key}\n", "MB058", 5, "without `ssl.certificate.pem`"),
        ("ssl.truststore.location: a.jks\n", "MB058", 4, "ssl.ca.location"),
        ("sasl.jaas.config: {env: PASSWORD}\n", "MB058", 4, "sasl.username and sasl.password"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_to_write(
    found: Examine, properties: str, code: str, line: int, says: str
) -> None:
    problems = found(properties)
    assert [(each.code, each.line, each.severity) for each in problems] == [(code, line, "error")], problems
    assert says in str(problems[0])


@pytest.mark.parametrize(
    ("properties", "line", "says"),
    [
        ("ssl.ca.location: ca.pem\n", 4, "is not used with security.protocol PLAINTEXT"),
        ("security.protocol: SSL\nsasl.username: bridge\n", 5, "SASL_SSL?"),
        (f"enable.ssl.certificate.verification: false\n{SCRAM}", 4, "pose as the broker"),
        (f"ssl.endpoint.identification.algorithm: none\n{SCRAM}", 4, "pose as the broker"),
        (SCRAM.replace("SASL_SSL", "SASL_PLAINTEXT").replace("SCRAM-SHA-512", "PLAIN"), 4, "in clear"),
    ],
)
def test_what_protects_less_than_it_seems_is_a_warning(found: Examine, properties: str, line: int, says: str) -> None:
    """It may be meant, so the bridge runs."""
    problems = found(properties)
    assert [(each.code, each.line, each.severity) for each in problems] == [("MB059", line, "warning")]
    assert says in str(problems[0])


def test_a_password_in_clear_within_this_machine_is_nobodys_business(found: Examine) -> None:
    properties = SCRAM.replace("SASL_SSL", "SASL_PLAINTEXT").replace("SCRAM-SHA-512", "PLAIN")
    assert found(properties, "127.0.0.1:9092,localhost:9093") == []
    assert found(properties, "127.0.0.1:9092,b:9093") != []


def test_a_certificate_that_soon_ends_is_a_warning(found: Examine, papers: Papers) -> None:
    """Two weeks before; the bridge runs."""
    papers.pair("soon", days=(-300, 10))
    (problem,) = found(CERTIFICATE.replace("client", "soon") + "ssl.key.location: soon.key\n")
    assert (problem.code, problem.severity) == ("MB057", "warning") and "expires on" in problem.message
    papers.pair("later", days=(-300, 20))
    assert found(CERTIFICATE.replace("client", "later") + "ssl.key.location: later.key\n") == []


def test_of_a_bundle_of_authorities_one_must_be_valid(found: Examine, papers: Papers) -> None:
    """Bundles keep expired ones."""
    bundle = papers.late_certificate.read_bytes() + papers.authority.read_bytes()
    (papers.folder / "bundle.pem").write_bytes(bundle)
    assert found("security.protocol: SSL\nssl.ca.location: bundle.pem\n") == []


def test_paths_are_relative_to_the_file_and_an_unreadable_one_ends_with_2(papers: Papers, tmp_path: Path) -> None:
    """As all other paths of the configuration; from the environment too."""
    config = tmp_path / "bridge.yaml"
    config.write_text(
        "kafka: {bootstrap_servers: 'a:1', properties: {security.protocol: SSL, ssl.ca.location: certs/ca.pem}}\n"
        "topics: {t: {}}\nmeisa: {api_key: {env: KEY}}\nrules: [r.yaml]\n"
    )
    environ = {"KEY": "meisa_live_x"}
    with pytest.raises(SecretMissing, match=r"MB055.*certs/ca\.pem does not exist") as raised:
        load(config, environ)
    assert raised.value.exit_status == 2
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "ca.pem").write_bytes(papers.authority.read_bytes())
    assert load(config, environ).kafka.properties["ssl.ca.location"] == str(tmp_path / "certs" / "ca.pem")


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
        "ssl.truststore.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.assertion.private.key.pem",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.config",
        "sasl.jaas.config",
    ],
)
def test_a_literal_secret_is_refused(found: Examine, name: str) -> None:
    """Under every name under which librdkafka, or somebody who comes from Java, has one; it is not repeated."""
    problems = found(f"{name}: {PASSWORD}\n")
    assert "MB012" in {each.code for each in problems}


@pytest.mark.parametrize(
    "name", ["ssl.key.location", "sasl.username", "ssl.certificate.pem", "ssl.ca.pem", "client.id"]
)
def test_what_is_no_secret_may_stand_in_the_file(name: str) -> None:
    assert not SECRET_PROPERTY.search(name)


# Certificates


def test_the_dates_of_certificates_are_read(papers: Papers) -> None:
    """Of both encodings: years from 2050 on are written with four digits."""
    far, _ = papers.pair("far", days=(0, 40 * 365))
    _, end = validity(certificates(far)[0])
    assert abs(end - time.time() - 40 * 365 * 86_400) < 100
    text = AUTHORITY
    (certificate,) = certificates(text)
    begin, end = validity(certificate)
    assert begin < time.time() < end
    assert len(certificates(text + "\n" + text)) == 2


@given(data=st.data())
def test_a_broken_certificate_is_told_and_breaks_nothing(data: st.DataObject) -> None:
    """Cut anywhere, or with any byte changed."""
    (certificate,) = certificates(AUTHORITY)
    at = data.draw(st.integers(0, len(certificate) - 1))
    broken = certificate[:at] + data.draw(st.sampled_from([b"", b"\xff", b"\x80", b"\x30\x82"])) + certificate[at + 1 :]
    try:
        begin, end = validity(broken)
    except BadPem:
        return
    assert isinstance(begin, float) and isinstance(end, float)


AUTHORITY = trustme.CA().cert_pem.bytes().decode()
