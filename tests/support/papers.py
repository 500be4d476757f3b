"""Certificates and keys as files, for tests of TLS to Kafka."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives import serialization

KEY_PASSWORD = "k3y-p4ssw0rd-S3cr3t"
ANOTHER = "other.example.com"


class Papers:
    """An authority's own, those of brokers, and those of clients, which have the name `user`."""

    def __init__(self, folder: Path, user: str = "bridge") -> None:
        self.folder = folder
        self._user = user
        folder.mkdir()
        self._authority = trustme.CA()
        self.authority = self._write("ca.pem", self._authority.cert_pem.bytes())
        self.stranger = self._write("stranger-ca.pem", trustme.CA().cert_pem.bytes())
        self.server = self._keystore("server", "127.0.0.1", "localhost")
        self.other_name = self._keystore("other", ANOTHER)
        self.expired = self._keystore("expired", "127.0.0.1", days=(-30, -1))
        self.client_certificate, self.client_key = self.pair("client")
        self.client_key_encrypted = self._write("client-encrypted.key", _encrypted(self.client_key.read_bytes()))
        self._write("key-password", KEY_PASSWORD.encode())
        self.late_certificate, self.late_key = self.pair("late", days=(-30, -1))
        self.pair("early", days=(5, 30))
        self.unknown_certificate, self.unknown_key = self.pair("unknown", trustme.CA())
        block = "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n"
        self._write("broken.pem", block.encode())
        self._write("broken.key", block.replace("CERTIFICATE", "PRIVATE KEY").encode())

    def _write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def pair(
        self, name: str, authority: trustme.CA | None = None, days: tuple[int, int] = (-1, 365)
    ) -> tuple[Path, Path]:
        """A client's certificate and key, valid from and until so many days from now."""
        made = self._issue("client.example.com", authority=authority, days=days)
        return self._write(f"{name}.pem", _chain(made)), self._write(f"{name}.key", _pkcs8(made))

    def _keystore(self, name: str, *names: str, days: tuple[int, int] = (-1, 365)) -> Path:
        """As Kafka's brokers take it: key and chain in one file."""
        made = self._issue(*names, days=days)
        return self._write(f"{name}.keystore.pem", _pkcs8(made) + _chain(made))

    def _issue(self, *names: str, days: tuple[int, int], authority: trustme.CA | None = None) -> trustme.LeafCert:
        begin, end = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=each) for each in days)
        return (authority or self._authority).issue_cert(
            *names, common_name=self._user, not_before=begin, not_after=end
        )


def _chain(made: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in made.cert_chain_pems)


def _pkcs8(made: trustme.LeafCert) -> bytes:
    return _private(made.private_key_pem.bytes(), serialization.NoEncryption())


def _encrypted(key: bytes) -> bytes:
    return _private(key, serialization.BestAvailableEncryption(KEY_PASSWORD.encode()))


def _private(key: bytes, hidden: Any) -> bytes:
    loaded = serialization.load_pem_private_key(key, None)
    return loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)
