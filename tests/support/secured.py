"""One real Kafka with every kind of protection that `kafka.properties` can ask for, and what clients need for each.

Its broker has a listener for each way in, and Kafka's own authorizer. Whoever comes by a listener without users is
`User:ANONYMOUS`, who may do everything: so the tests' own helpers see to topics and ACLs. Whoever has a name may do
what an ACL grants.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from bridge.sandbox.children import free_port
from tests.support.kafka import RealKafka, kafka_libs

if TYPE_CHECKING:
    from tests.support.inprocess import Place

USER = "bridge"
PASSWORD = "k4fk4-p4ssw0rd-S3cr3t"
CLIENT_ID, CLIENT_SECRET = "bridge", "0auth-cl13nt-S3cr3t"

LISTENERS = {
    "PLAINTEXT": "PLAINTEXT",
    "TLS": "SSL",
    "MUTUAL": "SSL",
    "SASLTLS": "SASL_SSL",
    "SASL": "SASL_PLAINTEXT",
    "OTHERNAME": "SSL",
    "EXPIRED": "SSL",
}
_SASL = "org.apache.kafka.common.security"
_PLAIN = f'{_SASL}.plain.PlainLoginModule required user_{USER}="{PASSWORD}" user_stranger="{PASSWORD}";'
_SCRAM = f"{_SASL}.scram.ScramLoginModule required;"
_OAUTH = f"{_SASL}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=broker;"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class SecuredKafka(RealKafka):
    """`address` gives the bootstrap server of a listener, `properties` what a client of it sets."""

    def __init__(self, libs: Path, folder: Path) -> None:
        from tests.support.papers import Papers  # conftest.py reads this file for every test

        self.papers = Papers(folder / "papers", USER)
        self.ports = {name: free_port() for name in LISTENERS}
        controller = free_port()
        listeners = ",".join(f"{name}://127.0.0.1:{port}" for name, port in self.ports.items())
        kinds = ",".join(f"{name}:{kind}" for name, kind in LISTENERS.items())
        settings = {
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listeners,
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": f"CONTROLLER:PLAINTEXT,{kinds}",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.papers.server),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.papers.authority),
            "listener.name.othername.ssl.keystore.location": str(self.papers.other_name),
            "listener.name.expired.ssl.keystore.location": str(self.papers.expired),
            "listener.name.mutual.ssl.client.auth": "required",
            "listener.name.mutual.ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/",
        }
        for name in ("sasltls", "sasl"):
            prefix = f"listener.name.{name}"
            settings |= {
                f"{prefix}.sasl.enabled.mechanisms": ",".join([*MECHANISMS, "OAUTHBEARER"]),
                f"{prefix}.plain.sasl.jaas.config": _PLAIN,
                f"{prefix}.scram-sha-256.sasl.jaas.config": _SCRAM,
                f"{prefix}.scram-sha-512.sasl.jaas.config": _SCRAM,
                # It takes unsigned tokens: what is tested is the client's side.
                f"{prefix}.oauthbearer.sasl.jaas.config": _OAUTH,
            }
        users = [
            f"{mechanism}=[name={name},password={PASSWORD}]"
            for mechanism in MECHANISMS[1:]
            for name in (USER, "stranger")
        ]
        super().__init__(libs, folder, users=users, **settings)

    def address(self, listener: str) -> str:
        return f"127.0.0.1:{self.ports[listener]}"

    def use(self, place: Place, way: str, listener: str = "") -> None:
        """Lets the bridge of `place` come by another way, at its own listener or at a wrong one."""
        own, properties = self.ways()[way]
        place.sections["kafka"] |= {"bootstrap_servers": self.address(listener or own), "properties": properties}

    def ways(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Listener and `kafka.properties` of right ways to connect."""
        papers = self.papers
        tls = {"security.protocol": "SSL", "ssl.ca.location": str(papers.authority)}
        own = {
            "ssl.certificate.location": str(papers.client_certificate),
            "ssl.key.location": str(papers.client_key),
        }
        user = {"sasl.username": USER, "sasl.password": {"env": "KAFKA_PASSWORD"}}
        sasl_tls = {**tls, "security.protocol": "SASL_SSL"}
        return {
            "PLAINTEXT": ("PLAINTEXT", {}),
            "TLS": ("TLS", tls),
            "MUTUAL": ("MUTUAL", {**tls, **own}),
            **{name: ("SASLTLS", {**sasl_tls, "sasl.mechanism": name, **user}) for name in MECHANISMS},
            "SASL": ("SASL", {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", **user}),
        }

    def add_user(self, name: str, password: str) -> str:
        """A SCRAM user; one that exists gets another password."""
        credential = UserScramCredentialUpsertion(
            name, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), password.encode()
        )
        client = self._admin()
        for future in client.alter_user_scram_credentials([credential]).values():
            future.result(15)
        return name

    def grant(self, *rights: tuple[str, str, str], user: str = USER) -> None:
        """Rights as docs/kafka-security.md lists them: resource, its name (`*` at its end: a prefix), operation."""
        bindings = [_binding(f"User:{user}", *right) for right in rights]
        client = self._admin()  # its end would end the question
        for future in client.create_acls(bindings).values():
            future.result(15)

    def revoke(self, user: str = USER, operation: str = "any") -> None:
        """All that was granted to the user, or all of one operation."""
        everything = AclBindingFilter(
            *(ResourceType.ANY, None, ResourcePatternType.ANY),
            *(f"User:{user}", None, AclOperation[operation.upper()], AclPermissionType.ANY),
        )
        client = self._admin()
        for future in client.delete_acls([everything]).values():
            future.result(15)


def _binding(principal: str, resource: str, name: str, operation: str) -> AclBinding:
    prefixed = name.endswith("*") and name != "*"
    return AclBinding(
        ResourceType[resource.upper()],
        name.removesuffix("*") if prefixed else name,
        ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL,
        principal,
        "*",
        AclOperation[operation.upper()],
        AclPermissionType.ALLOW,
    )


def make_secured(folder: Path) -> SecuredKafka:
    return SecuredKafka(kafka_libs(), folder)


@pytest.fixture(scope="session")
def secured_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    kafka = make_secured(tmp_path_factory.mktemp("secured-kafka"))
    yield kafka
    kafka.stop(kill=True)
