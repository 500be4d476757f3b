"""Who may ask: the token, the Host header, and for what changes something the page that a request comes from.

Host      without a token, a page under a foreign name that was made to point to this machine could read all
          (DNS rebinding). Names that nobody else can have made so are ours: localhost, addresses, the name of
          `admin.listen`, and `admin.allowed_hosts`. With a token any name will do (a proxy has names of its own,
          and no browser sends the password to another name), unless `admin.allowed_hosts` names some
Origin    a browser sends other sites' forms with the password that it keeps for this one
csrf      the same for forms of the pages, by a word that only these hold
token     `Authorization: Bearer …`, or the password of basic authentication, which is what a browser can ask for
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Collection, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from bridge.errors import UsageError

FOREIGN_HOST = (
    "this name of the host is not known here: use the address of admin.listen, add the name to admin.allowed_hosts, "
    "or set admin.token"
)
FOREIGN_PAGE = "a page of another site may not ask for this"
STALE_FORM = "this form is not from this bridge as it runs now: load the page again, and repeat it"
UNKNOWN_READER = "this page needs the token of admin.token: Authorization: Bearer …"


class Refusal(NamedTuple):
    status: int
    why: str


class Access:
    """`host` is that of `admin.listen`, without brackets."""

    def __init__(self, host: str, token: str | None, allowed_hosts: Collection[str] = ()) -> None:
        self.has_token = bool(token)
        self._token_digest = _digest((token or "").encode())
        self._own = {host.lower(), "localhost"} - {""}
        self._allowed = frozenset(name.lower().rstrip(".") for name in allowed_hosts)
        # From the token where there is one: a form may be answered by another instance behind the same name.
        known = hmac.new(token.encode(), b"meisa-bridge forms", hashlib.sha256).hexdigest() if token else None
        self.csrf = known or secrets.token_urlsafe(32)
        """What a form of the pages brings along."""

    def look(self, headers: Mapping[str, str]) -> Refusal | None:
        """Why the request may not see what only some may see; None where it may."""
        if not self._knows(headers.get("host", "")):
            return Refusal(403, FOREIGN_HOST)
        return None if self._admits(headers) else Refusal(401, UNKNOWN_READER)

    def act(self, headers: Mapping[str, str]) -> Refusal | None:
        """Why the request may not change anything; None where it may."""
        host = headers.get("host", "")
        if not self._knows(host):
            return Refusal(403, FOREIGN_HOST)
        origin = headers.get("origin")
        if origin is not None and _place_of(origin) != host.lower():
            return Refusal(403, FOREIGN_PAGE)
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return Refusal(403, FOREIGN_PAGE)
        return None if self._admits(headers) else Refusal(401, UNKNOWN_READER)

    def submit(self, headers: Mapping[str, str], csrf: str) -> Refusal | None:
        """The same for a form of the pages, with the word that it brought."""
        refusal = self.act(headers)
        if refusal is None and not hmac.compare_digest(_digest(csrf.encode()), _digest(self.csrf.encode())):
            return Refusal(403, STALE_FORM)
        return refusal

    def _knows(self, host: str) -> bool:
        """Whether a Host header names this server in a way that no other site's name can be made to."""
        if self.has_token and not self._allowed:
            return True
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self._own or name in self._allowed:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _admits(self, headers: Mapping[str, str]) -> bool:
        if not self.has_token:
            return True
        offered = _offered_token(headers.get("authorization", ""))
        return hmac.compare_digest(_digest(offered), self._token_digest)


def parse_listen(listen: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:8080`, `[::1]:8080` or `:8080` (all addresses). Raises UsageError."""
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise UsageError(f"admin.listen: {listen!r} is not an address; write host:port, e.g. 127.0.0.1:8080")
    return host, int(port)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _digest(token: bytes) -> bytes:
    """What is compared in constant time in a token's place: of equal length, which would show in the time too."""
    return hashlib.sha256(token).digest()


def _place_of(origin: str) -> str | None:
    """Host and port; None for `null` and for what is no origin. The scheme is a proxy's matter."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _offered_token(header: str) -> bytes:
    scheme, _, credentials = header.partition(" ")
    credentials = credentials.strip()
    if scheme.lower() == "bearer":
        return credentials.encode("latin-1")  # header bytes, as starlette decoded them
    if scheme.lower() == "basic":
        with contextlib.suppress(binascii.Error, ValueError):
            return base64.b64decode(credentials, validate=True).partition(b":")[2]
    return b""
