"""What a URL or an address says of itself."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine alone; an unknown name does not."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def http_url(url: str) -> tuple[str, str]:
    """Scheme and host of an http(s) URL; empty where it is none."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  (raises where the port is no number)
    except ValueError:
        return "", ""
    if re.search(r"\s", url) or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        return "", ""
    return parts.scheme, parts.hostname or ""
